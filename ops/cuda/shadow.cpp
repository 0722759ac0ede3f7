// shadow: a mask grown by lines that lead away from a place.
#include "shadow.h"

#include <torch/csrc/stable/library.h>

#include "../mask_arguments.h"
#include "host.h"

namespace sbnet::cuda {
namespace {

// mask bool [H, W] -> bool [H, W]: every True cell makes True the cells that hold its centre moved by 1, 2 .. steps sides
// of a cell away from origin (y, x), which is in half cells.
Tensor shadow(const Tensor& argument, std::vector<int64_t> origin, int64_t steps) {
  const Viewpoint place = check_shadow("shadow", argument, origin, steps);
  const OnDevice device(argument);
  const Tensor mask = torch::stable::contiguous(argument);
  const Tensor result = torch::stable::empty_like(mask);
  if (mask.numel() == 0) return result;
  cast_lines({place, steps, mask.size(0), mask.size(1)}, static_cast<const uint8_t*>(mask.const_data_ptr()),
             static_cast<uint8_t*>(result.mutable_data_ptr()), device.stream);
  return result;
}

}  // namespace
}  // namespace sbnet::cuda

STABLE_TORCH_LIBRARY_IMPL(SBNET_LIBRARY, SBNET_DEVICE, m) { m.impl("shadow", TORCH_BOX(&sbnet::cuda::shadow)); }
