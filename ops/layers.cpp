// The layers as operations of torch on the stored pixels of maps, [P, C] in raster order.
//
// Pixels are lists as pixels.h has them, `size` is (N, H, W); the pixels of the output are those that are computed.
// Weights are packed, or plain and then packed for the call.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include "bands.h"
#include "layer_arguments.h"
#include "pixels.h"
#include "weights.h"

namespace sbnet {
namespace {

using Lists = std::vector<Tensor>;
using Size = std::vector<int64_t>;

// A layer's output: its values, and its map.
struct Output {
  Tensor values;
  Map map;
  Pixels pixels;

  Output(const char* op, const Tensor& like, const Pixels& where, int64_t channels)
      : values(allocate(op, "y", {where.count, channels, static_cast<int64_t>(like.element_size())},
                        [&] { return torch::stable::new_empty(like, {where.count, channels}); })),
        map(map_of(op, "y", values, where)),
        pixels(where) {}

  int64_t rows() const { return pixels.extent.images * pixels.extent.height; }
};

// The pixels of maps of `input` beneath the 3x3 windows of `pixels`. They belong to this thread.
Rows beneath(const Pixels& pixels, Extent input, int64_t stride, RowList& list) {
  if (stride == 1 && pixels.windows.start) return pixels.windows;
  pixels_beneath(pixels.rows, pixels.extent, input, stride, list);
  return list.rows();
}

Unit make_unit(const char* op, LayerWeights& weights, Type type, const Map& x, const Map& y, int64_t stride,
               const Tensor* w) {
  Unit unit{.type = type, .x = x, .y = y, .stride = static_cast<int>(stride)};
  unit.middle = channels_of(op, "reduce_norm", w[2]);
  weights.norm("activation", w[0], x.channels, unit.activation);
  unit.reduce.packed = weights.matrix("reduce", w[1], unit.middle, x.channels, 1);
  weights.norm("reduce_norm", w[2], unit.middle, unit.reduce);
  unit.conv.packed = weights.matrix("conv", w[3], unit.middle, unit.middle, 3);
  weights.norm("conv_norm", w[4], unit.middle, unit.conv);
  unit.expand.packed = weights.matrix("expand", w[5], y.channels, unit.middle, 1);
  if (has_projection(w)) unit.project.packed = weights.matrix("project", w[6], y.channels, x.channels, 1);
  return unit;
}

// Residual units one after the other; `stride` is that of the first, the others work in place.
Tensor residual_units(const Tensor& x, Lists x_pixels, Size x_size, Lists y_pixels, int64_t stride, int64_t channels,
                      Lists weights) {
  constexpr const char* op = "residual_units";
  const Type type = type_of(op, x);
  const Pixels stored = pixels_of(op, "x", x_pixels, x_size);
  const Map in = map_of(op, "x", x, stored);
  check_units(op, in.channels, stride, channels, weights);
  const Extent input = stored.extent;
  const Size size{input.images, divide_up(input.height, stride), divide_up(input.width, stride)};
  const Output y(op, x, pixels_of(op, "y", y_pixels, size), channels);
  if (y.pixels.count == 0) return y.values;
  std::vector<Band> bands = bands_of(y.pixels.rows, y.rows(), channels * channels);
  thread_local RowList list;
  thread_local std::vector<char> borders;
  LayerWeights taken(op, type);

  // The first unit: from x to y.
  Unit unit = make_unit(op, taken, type, in, y.map, stride, weights.data());
  unit.needed = beneath(y.pixels, input, stride, list);
  unit.active = y.pixels.rows;
  run(unit, kernels().unit, bands);

  // The others work in place.
  const Rows needed = beneath(y.pixels, y.pixels.extent, 1, list);
  for (size_t next = kUnitWeights; next < weights.size(); next += kUnitWeights) {
    unit = make_unit(op, taken, type, y.map, y.map, 1, &weights[next]);
    unit.needed = needed;
    unit.active = y.pixels.rows;
    keep_border_rows(y.map, needed, x.element_size(), bands, borders);
    run(unit, kernels().unit, bands);
  }
  return y.values;
}

// Convolution of size 1 or 3 (stride 1, padding that keeps the size), scale and shift, ReLU if `relu`.
Tensor conv(const Tensor& x, Lists x_pixels, Size size, Lists y_pixels, int64_t kernel, bool relu, const Tensor& weight,
            const Tensor& norm) {
  constexpr const char* op = "conv";
  check_kernel_size(op, kernel);
  const Map in = map_of(op, "x", x, pixels_of(op, "x", x_pixels, size));
  const Output y(op, x, pixels_of(op, "y", y_pixels, size), channels_of(op, "norm", norm));
  Conv layer{.type = type_of(op, x), .x = in, .y = y.map, .kernel = static_cast<int>(kernel), .relu = relu};
  LayerWeights taken(op, layer.type);
  layer.weights.packed = taken.matrix("weight", weight, y.map.channels, in.channels, kernel);
  taken.norm("norm", norm, y.map.channels, layer.weights);
  thread_local RowList list;
  if (kernel == 3) layer.needed = beneath(y.pixels, y.pixels.extent, 1, list);
  layer.active = y.pixels.rows;
  run(layer, kernels().conv, bands_of(y.pixels.rows, y.rows(), kernel * kernel * in.channels * y.map.channels));
  return y.values;
}

// Transposed 2x2 convolution of x, of half the size, plus 1x1 convolution of `skip`, scale and shift, ReLU.
Tensor upsample(const Tensor& x, Lists x_pixels, const Tensor& skip, Lists skip_pixels, Size size, Lists y_pixels,
                const Tensor& up, const Tensor& lateral, const Tensor& norm) {
  constexpr const char* op = "upsample";
  const Pixels pixels = pixels_of(op, "y", y_pixels, size);
  const Size half{size[0], divide_up(size[1], 2), divide_up(size[2], 2)};
  const Map in = map_of(op, "x", x, pixels_of(op, "x", x_pixels, half));
  const Map beside = map_of(op, "skip", skip, pixels_of(op, "skip", skip_pixels, size));
  check(skip.scalar_type() == x.scalar_type(), op, ": skip must have the dtype of x");
  const Output y(op, x, pixels, channels_of(op, "norm", norm));
  Upsample layer{.type = type_of(op, x), .x = in, .skip = beside, .y = y.map};
  LayerWeights taken(op, layer.type);
  layer.up.packed = taken.matrix("up", up, y.map.channels, in.channels, 2);
  layer.lateral.packed = taken.matrix("lateral", lateral, y.map.channels, beside.channels, 1);
  taken.norm("norm", norm, y.map.channels, layer.lateral);
  layer.active = pixels.rows;
  run(layer, kernels().upsample, bands_of(pixels.rows, y.rows(), (in.channels + beside.channels) * y.map.channels));
  return y.values;
}

// 3x3 convolution of voxels, scale and shift, ReLU: bits int64 [K] and last float32 [K] of the occupied pixels of maps of
// `channels` channels. weight [9, channels, voxel_pitch] are sums; `like` has the dtype of the result.
Tensor voxel_conv(const Tensor& bits, const Tensor& last, Lists x_pixels, Size size, Lists y_pixels, int64_t channels,
                  const Tensor& weight, const Tensor& norm, const Tensor& like) {
  constexpr const char* op = "voxel_conv";
  const Pixels occupied = pixels_of(op, "x", x_pixels, size);
  check_voxels(op, bits, last, occupied.count, channels, weight, norm);
  const int64_t* const data = bits.const_data_ptr<int64_t>();
  uint64_t any = 0;
  for (int64_t k = 0; k < occupied.count; ++k) any |= static_cast<uint64_t>(data[k]);
  check(any >> (channels - 1) == 0, op, ": bits are beyond channel ", channels - 2);

  const int outputs = channels_of(op, "norm", norm);
  const Output y(op, like, pixels_of(op, "y", y_pixels, size), outputs);
  VoxelConv layer{.type = type_of(op, like),
                  .occupied = occupied.rows,
                  .bits = data,
                  .last = last.const_data_ptr<float>(),
                  .channels = static_cast<int>(channels),
                  .y = y.map,
                  .active = y.pixels.rows};
  LayerWeights(op, layer.type).norm("norm", norm, outputs, layer.weights);
  layer.weights.packed = weight.const_data_ptr();
  layer.pitch = static_cast<int>(weight.size(2));
  // an output pixel sees few of its 9 * channels inputs
  run(layer, kernels().voxels, bands_of(y.pixels.rows, y.rows(), 9 * outputs));
  return y.values;
}

}  // namespace
}  // namespace sbnet

STABLE_TORCH_LIBRARY_IMPL(sbnet, CPU, m) {
  m.impl("residual_units", TORCH_BOX(&sbnet::residual_units));
  m.impl("conv", TORCH_BOX(&sbnet::conv));
  m.impl("upsample", TORCH_BOX(&sbnet::upsample));
  m.impl("voxel_conv", TORCH_BOX(&sbnet::voxel_conv));
}
