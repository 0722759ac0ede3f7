// The fused layers as operations of torch on whole maps [N, H, W, C], contiguous; weights are packed.
#include <torch/csrc/stable/library.h>

#include "check.h"
#include "layers.h"
#include "weights.h"

namespace sbnet {
namespace {

// x [N, H, W, C] through residual units, on the active tiles of the output. Inactive tiles keep x, or are 0 where the
// shape changes.
Tensor residual_units(const Tensor& x, const Tensor& indices, std::vector<int64_t> tile, int64_t stride,
                      int64_t channels, std::vector<Tensor> weights) {
  constexpr const char* op = "residual_units";
  thread_local RowList all, all_of_y;
  const Map in = map_of(op, "x", x, all);
  const bool changes = check_units(op, in.channels, stride, channels, weights);
  const Extent input = extent_of(x);
  const Extent output{input.images, divide_up(input.height, stride), divide_up(input.width, stride)};
  const RowList& active = active_pixels(op, indices, tile, output);
  Tensor y = new_map(x, output, channels, active, changes ? nullptr : &x);
  if (!active.runs.empty())
    run_units(op, x, in, input, {map_of(op, "y", y, all_of_y), output, active.rows()}, stride, weights);
  return y;
}

// Convolution with what follows it; 0 elsewhere.
Tensor conv_unit(const Tensor& x, const Tensor& indices, std::vector<int64_t> tile, int64_t kernel, bool relu,
                 const Tensor& weights, const Tensor& norm) {
  constexpr const char* op = "conv_unit";
  thread_local RowList all, all_of_y;
  const Map in = map_of(op, "x", x, all);
  const RowList& active = active_pixels(op, indices, tile, extent_of(x));
  Tensor y = new_map(x, extent_of(x), channels_of(op, "norm", norm), active, nullptr);
  run_conv(op, x, in, {map_of(op, "y", y, all_of_y), extent_of(x), active.rows()}, kernel, relu, weights, norm);
  return y;
}

// Upsampling of x to the size of `skip`; 0 elsewhere.
Tensor upsample_unit(const Tensor& x, const Tensor& skip, const Tensor& indices, std::vector<int64_t> tile,
                     const Tensor& up, const Tensor& lateral, const Tensor& norm) {
  constexpr const char* op = "upsample_unit";
  thread_local RowList all, all_of_skip, all_of_y;
  const Map in = map_of(op, "x", x, all), beside = map_of(op, "skip", skip, all_of_skip);
  check(skip.scalar_type() == x.scalar_type() && skip.size(0) == x.size(0), op,
        ": skip must have the dtype of x and as many images");
  const Extent extent = extent_of(skip);
  const RowList& active = active_pixels(op, indices, tile, extent);
  Tensor y = new_map(skip, extent, channels_of(op, "norm", norm), active, nullptr);
  run_upsample(op, x, in, beside, {map_of(op, "y", y, all_of_y), extent, active.rows()}, up, lateral, norm);
  return y;
}

}  // namespace
}  // namespace sbnet

STABLE_TORCH_LIBRARY_FRAGMENT(sbnet, m) {
  m.def(
      "residual_units_packed(Tensor x, Tensor indices, int[2] tile, int stride, int channels, Tensor[] weights) -> Tensor");
  m.def(
      "conv_unit_packed(Tensor x, Tensor indices, int[2] tile, int kernel, bool relu, Tensor weights, Tensor norm) -> "
      "Tensor");
  m.def(
      "upsample_unit_packed(Tensor x, Tensor skip, Tensor indices, int[2] tile, Tensor up, Tensor lateral, Tensor norm) "
      "-> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(sbnet, CPU, m) {
  m.impl("residual_units_packed", TORCH_BOX(&sbnet::residual_units));
  m.impl("conv_unit_packed", TORCH_BOX(&sbnet::conv_unit));
  m.impl("upsample_unit_packed", TORCH_BOX(&sbnet::upsample_unit));
}
