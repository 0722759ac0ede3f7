// The fused layers as operations of torch on the stored pixels of maps, [P, C] in raster order; weights are packed.
// Pixels are start int32 [N * H + 1] and runs int32 [R, 3], see kernels.h; `size` is (N, H, W). The pixels of the
// output are those that are computed.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include "bands.h"
#include "check.h"
#include "layers.h"
#include "weights.h"

namespace sbnet {
namespace {

using Size = std::vector<int64_t>;

Tensor new_rows(const Tensor& like, const Pixels& pixels, int64_t channels) {
  return torch::stable::new_empty(like, {pixels.count, channels});
}

Output output_of(const char* op, const Tensor& y, const Pixels& pixels) {
  return {map_of(op, "y", y, pixels), pixels.extent, pixels.rows};
}

// start, runs: the pixels of the tiles at `indices` int32 [B, 3] of a map.
std::tuple<Tensor, Tensor> tile_pixels(const Tensor& indices, Size tile, Size size) {
  constexpr const char* op = "tile_pixels";
  const RowList& active = active_pixels(op, indices, tile, checked_extent(op, size));
  Tensor start = torch::stable::new_empty(indices, {static_cast<int64_t>(active.start.size())});
  Tensor runs = torch::stable::new_empty(indices, {static_cast<int64_t>(active.runs.size()), 3});
  std::copy(active.start.begin(), active.start.end(), start.mutable_data_ptr<int32_t>());
  int32_t *to = runs.mutable_data_ptr<int32_t>(), number = 0;
  for (const Run& run : active.runs) {
    *to++ = run.begin;
    *to++ = run.end;
    *to++ = number;
    number += run.size();
  }
  return {start, runs};
}

// Residual units: from the pixels of x to those of the output, which are the same if the shape is.
Tensor residual_units(const Tensor& x, const Tensor& x_start, const Tensor& x_runs, Size x_size, const Tensor& start,
                      const Tensor& runs, int64_t stride, int64_t channels, std::vector<Tensor> weights) {
  constexpr const char* op = "residual_units_stored";
  const Pixels stored = pixels_of(op, "x", x_start, x_runs, x_size);
  const Map in = map_of(op, "x", x, stored);
  check_units(op, in.channels, stride, channels, weights);
  const Extent input = stored.extent;
  const Pixels pixels =
      pixels_of(op, "y", start, runs, {input.images, divide_up(input.height, stride), divide_up(input.width, stride)});
  Tensor y = new_rows(x, pixels, channels);
  if (pixels.count > 0) run_units(op, x, in, input, output_of(op, y, pixels), stride, weights);
  return y;
}

Tensor conv_unit(const Tensor& x, const Tensor& x_start, const Tensor& x_runs, Size size, const Tensor& start,
                 const Tensor& runs, int64_t kernel, bool relu, const Tensor& weights, const Tensor& norm) {
  constexpr const char* op = "conv_unit_stored";
  const Map in = map_of(op, "x", x, pixels_of(op, "x", x_start, x_runs, size));
  const Pixels pixels = pixels_of(op, "y", start, runs, size);
  Tensor y = new_rows(x, pixels, channels_of(op, "norm", norm));
  run_conv(op, x, in, output_of(op, y, pixels), kernel, relu, weights, norm);
  return y;
}

Tensor upsample_unit(const Tensor& x, const Tensor& x_start, const Tensor& x_runs, const Tensor& skip,
                     const Tensor& skip_start, const Tensor& skip_runs, Size size, const Tensor& start,
                     const Tensor& runs, const Tensor& up, const Tensor& lateral, const Tensor& norm) {
  constexpr const char* op = "upsample_unit_stored";
  const Pixels pixels = pixels_of(op, "y", start, runs, size);
  const Map beside = map_of(op, "skip", skip, pixels_of(op, "skip", skip_start, skip_runs, size));
  check(skip.scalar_type() == x.scalar_type(), op, ": skip must have the dtype of x");
  const Size half{size[0], divide_up(size[1], 2), divide_up(size[2], 2)};
  const Map in = map_of(op, "x", x, pixels_of(op, "x", x_start, x_runs, half));
  Tensor y = new_rows(x, pixels, channels_of(op, "norm", norm));
  run_upsample(op, x, in, beside, output_of(op, y, pixels), up, lateral, norm);
  return y;
}

// 3x3 convolution of voxels: bits int64 [K] and last float32 [K] of the occupied pixels of maps of `channels` channels.
// weights [9, channels, voxel_stride] are sums; `like` has the dtype of the result.
Tensor voxel_conv(const Tensor& bits, const Tensor& last, const Tensor& x_start, const Tensor& x_runs, Size size,
                  const Tensor& start, const Tensor& runs, int64_t channels, const Tensor& weights, const Tensor& norm,
                  const Tensor& like) {
  constexpr const char* op = "voxel_conv_stored";
  const Pixels occupied = pixels_of(op, "x", x_start, x_runs, size), pixels = pixels_of(op, "y", start, runs, size);
  check(bits.dim() == 1 && bits.size(0) == occupied.count && bits.scalar_type() == ScalarType::Long &&
            bits.is_contiguous(),
        op, ": bits must be contiguous int64 [", occupied.count, "], got ", describe(bits));
  check(last.dim() == 1 && last.size(0) == occupied.count && last.scalar_type() == ScalarType::Float &&
            last.is_contiguous(),
        op, ": last must be contiguous float32 [", occupied.count, "], got ", describe(last));
  check(channels >= 2 && channels <= 64, op, ": channels must be 2 to 64, got ", channels);
  const int64_t* const data = bits.const_data_ptr<int64_t>();
  for (int64_t k = 0; k < occupied.count; ++k)
    check(static_cast<uint64_t>(data[k]) >> (channels - 1) == 0, op, ": bits of pixel ", k, " are beyond channel ",
          channels - 2);
  VoxelConv conv{.type = type_of(like),
                 .occupied = occupied.rows,
                 .bits = data,
                 .last = last.const_data_ptr<float>(),
                 .channels = static_cast<int>(channels)};
  const int64_t outputs = channels_of(op, "norm", norm);
  check(weights.dim() == 3 && weights.is_contiguous() && weights.scalar_type() == norm.scalar_type() &&
            weights.size(0) == 9 && weights.size(1) == channels && weights.size(2) == voxel_stride(static_cast<int>(outputs)),
        op, ": weights must be contiguous [9, ", channels, ", ", voxel_stride(static_cast<int>(outputs)), "], got ",
        describe(weights));
  set_norm(op, "norm", norm, conv.type, outputs, conv.weights);
  conv.weights.packed = weights.const_data_ptr();
  Tensor y = new_rows(like, pixels, outputs);
  conv.y = map_of(op, "y", y, pixels);
  conv.active = pixels.rows;
  // an output pixel sees few of its 9 * channels inputs
  run(conv, kernels().voxels, bands_of(pixels.rows, pixels.extent.images * pixels.extent.height, 9 * outputs));
  return y;
}

}  // namespace
}  // namespace sbnet

STABLE_TORCH_LIBRARY_FRAGMENT(sbnet, m) {
  m.def("tile_pixels(Tensor indices, int[2] tile, int[3] size) -> (Tensor, Tensor)");
  m.def(
      "residual_units_stored(Tensor x, Tensor x_start, Tensor x_runs, int[3] x_size, Tensor start, Tensor runs, "
      "int stride, int channels, Tensor[] weights) -> Tensor");
  m.def(
      "conv_unit_stored(Tensor x, Tensor x_start, Tensor x_runs, int[3] size, Tensor start, Tensor runs, int kernel, "
      "bool relu, Tensor weights, Tensor norm) -> Tensor");
  m.def(
      "voxel_conv_stored(Tensor bits, Tensor last, Tensor x_start, Tensor x_runs, int[3] size, Tensor start, "
      "Tensor runs, int channels, Tensor weights, Tensor norm, Tensor like) -> Tensor");
  m.def(
      "upsample_unit_stored(Tensor x, Tensor x_start, Tensor x_runs, Tensor skip, Tensor skip_start, Tensor skip_runs, "
      "int[3] size, Tensor start, Tensor runs, Tensor up, Tensor lateral, Tensor norm) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(sbnet, CPU, m) {
  m.impl("tile_pixels", TORCH_BOX(&sbnet::tile_pixels));
  m.impl("residual_units_stored", TORCH_BOX(&sbnet::residual_units));
  m.impl("conv_unit_stored", TORCH_BOX(&sbnet::conv_unit));
  m.impl("voxel_conv_stored", TORCH_BOX(&sbnet::voxel_conv));
  m.impl("upsample_unit_stored", TORCH_BOX(&sbnet::upsample_unit));
}
