// The kernels of torch.ops.sbnet register themselves beside their code; the schemas stand in Python, beside the plain
// form of each operation.
#include <torch/csrc/stable/library.h>

#include <string>

#include "kernels.h"

namespace sbnet {
namespace {

// The instruction set of the layers' kernels.
std::string isa() { return kernels().isa; }

}  // namespace
}  // namespace sbnet

STABLE_TORCH_LIBRARY_FRAGMENT(sbnet, m) { m.def("isa() -> str"); }

STABLE_TORCH_LIBRARY_IMPL(sbnet, CompositeExplicitAutograd, m) { m.impl("isa", TORCH_BOX(&sbnet::isa)); }
