// dilate: a mask grown by a stack of horizontal runs.
#include "dilate.h"

#include <torch/csrc/stable/library.h>

#include "../mask_arguments.h"
#include "host.h"

namespace sbnet::cuda {
namespace {

// mask bool [H, W] -> bool [H, W]: every True pixel (y, x) makes True the columns x - half_widths[i] ..
// x + half_widths[i] of the rows y - i and y + i. half_widths never grow.
Tensor dilate(const Tensor& argument, std::vector<int64_t> half_widths) {
  constexpr const char* op = "dilate";
  half_widths = check_dilation(op, argument, half_widths);
  const OnDevice device(argument);
  const Tensor mask = torch::stable::contiguous(argument);
  const Raster size{mask.size(0), mask.size(1)};
  const Tensor result = torch::stable::empty_like(mask);
  if (mask.numel() == 0) return result;

  Scratch scratch(op, "mask", mask);
  auto* const bits = scratch.take<uint32_t>(size.rows * size.words());
  auto* const distances = scratch.take<uint32_t>(mask.numel());
  find_distances(static_cast<const uint8_t*>(mask.const_data_ptr()), size, half_widths[0], bits, distances,
                 device.stream);
  lay_runs(distances, size, half_widths, static_cast<uint8_t*>(result.mutable_data_ptr()), device.stream);
  return result;
}

}  // namespace
}  // namespace sbnet::cuda

STABLE_TORCH_LIBRARY_IMPL(SBNET_LIBRARY, SBNET_DEVICE, m) { m.impl("dilate", TORCH_BOX(&sbnet::cuda::dilate)); }
