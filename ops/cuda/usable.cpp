// cuda_problem: whether the kernels run on a device. A library without kernels for a GPU has no such operation.
#include "usable.h"

#include <torch/csrc/stable/library.h>

#include <future>
#include <string>

namespace sbnet::cuda {
namespace {

// What CUDA says against it, and what the kernels are compiled for; empty where they run.
std::string cuda_problem(int64_t device) {
  // In a thread of its own, since each has a current device.
  const Answer answer = std::async(std::launch::async, ask, static_cast<int>(device)).get();
  if (!answer.error) return "";
  std::string said = std::string(answer.reason) + " (" + answer.error + "; compiled for";
  for (const int* architecture = answer.first; architecture != answer.end; ++architecture)
    said += " sm_" + std::to_string(*architecture);
  return said + ")";
}

}  // namespace
}  // namespace sbnet::cuda

STABLE_TORCH_LIBRARY_FRAGMENT(sbnet, m) { m.def("cuda_problem(int device) -> str"); }

STABLE_TORCH_LIBRARY_IMPL(sbnet, CompositeExplicitAutograd, m) {
  m.impl("cuda_problem", TORCH_BOX(&sbnet::cuda::cuda_problem));
}
