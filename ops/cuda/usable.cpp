// cuda_problem: whether the kernels run on a device. A library without kernels for a GPU has no such operation.
#include "usable.h"

#include <torch/csrc/stable/library.h>

namespace sbnet::cuda {
namespace {

std::string cuda_problem(int64_t device) { return problem(static_cast<int>(device)); }

}  // namespace
}  // namespace sbnet::cuda

STABLE_TORCH_LIBRARY_FRAGMENT(sbnet, m) { m.def("cuda_problem(int device) -> str"); }

STABLE_TORCH_LIBRARY_IMPL(sbnet, CompositeExplicitAutograd, m) {
  m.impl("cuda_problem", TORCH_BOX(&sbnet::cuda::cuda_problem));
}
