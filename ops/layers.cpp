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
  if (type == Type::kLevels) weights.scale("scale", w[kUnitWeights], y.channels, unit.expand);
  return unit;
}

// Residual units one after the other, `per_unit` weights for each; `stride` is that of the first, the others work in
// place. `like` has the dtype of y.
Tensor units_of(const char* op, Type type, const Tensor& x, const Lists& x_pixels, const Size& x_size,
                const Lists& y_pixels, int64_t stride, int64_t channels, const Lists& weights, size_t per_unit,
                const Tensor& like) {
  const Pixels stored = pixels_of(op, "x", x_pixels, x_size);
  const Map in = map_of(op, "x", x, stored);
  check_units(op, in.channels, stride, channels, weights, per_unit);
  const Extent input = stored.extent;
  const Size size{input.images, divide_up(input.height, stride), divide_up(input.width, stride)};
  const Output y(op, like, pixels_of(op, "y", y_pixels, size), channels);
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
  for (size_t next = per_unit; next < weights.size(); next += per_unit) {
    unit = make_unit(op, taken, type, y.map, y.map, 1, &weights[next]);
    unit.needed = needed;
    unit.active = y.pixels.rows;
    keep_border_rows(y.map, needed, y.values.element_size(), bands, borders);
    run(unit, kernels().unit, bands);
  }
  return y.values;
}

Tensor residual_units(const Tensor& x, Lists x_pixels, Size x_size, Lists y_pixels, int64_t stride, int64_t channels,
                      Lists weights) {
  constexpr const char* op = "residual_units";
  return units_of(op, type_of(op, x), x, x_pixels, x_size, y_pixels, stride, channels, weights, kUnitWeights, x);
}

// The same where levels are multiplied, of x and between units: uint8 or float32 to float32. Each unit has one tensor
// more: the scale [channels] of its last sums.
Tensor quantized_units(const Tensor& x, Lists x_pixels, Size x_size, Lists y_pixels, int64_t stride, int64_t channels,
                       Lists weights) {
  constexpr const char* op = "quantized_units";
  check_levels_or_floats(op, "x", x);
  check(!weights.empty() && weights.size() % (kUnitWeights + 1) == 0, op, ": weights must be ", kUnitWeights + 1,
        " tensors per unit");
  check(x.scalar_type() == ScalarType::Float || has_projection(weights.data()), op,
        ": x must be float32 for a unit without projection, got ", describe(x));
  return units_of(op, Type::kLevels, x, x_pixels, x_size, y_pixels, stride, channels, weights, kUnitWeights + 1,
                  weights.back());
}

// Convolution of size 1 or 3 (stride 1, padding that keeps the size), scale and shift, ReLU if `relu`. `like` has the
// dtype of y; `activation` makes levels of an x of floats.
Tensor conv_of(const char* op, Type type, const Tensor& x, const Tensor* activation, const Lists& x_pixels,
               const Size& size, const Lists& y_pixels, int64_t kernel, bool relu, const Tensor& weight,
               const Tensor& norm, const Tensor& like) {
  check_kernel_size(op, kernel);
  const Map in = map_of(op, "x", x, pixels_of(op, "x", x_pixels, size));
  const Output y(op, like, pixels_of(op, "y", y_pixels, size), channels_of(op, "norm", norm));
  Conv layer{.type = type, .x = in, .y = y.map, .kernel = static_cast<int>(kernel), .relu = relu};
  LayerWeights taken(op, layer.type);
  if (activation) taken.norm("activation", *activation, in.channels, layer.activation);
  layer.weights.packed = taken.matrix("weight", weight, y.map.channels, in.channels, kernel);
  taken.norm("norm", norm, y.map.channels, layer.weights);
  thread_local RowList list;
  if (kernel == 3) layer.needed = beneath(y.pixels, y.pixels.extent, 1, list);
  layer.active = y.pixels.rows;
  run(layer, kernels().conv, bands_of(y.pixels.rows, y.rows(), kernel * kernel * in.channels * y.map.channels));
  return y.values;
}

Tensor conv(const Tensor& x, Lists x_pixels, Size size, Lists y_pixels, int64_t kernel, bool relu, const Tensor& weight,
            const Tensor& norm) {
  constexpr const char* op = "conv";
  return conv_of(op, type_of(op, x), x, nullptr, x_pixels, size, y_pixels, kernel, relu, weight, norm, x);
}

// The same of levels (uint8), or with kernel 1 of floats (float32), with ReLU, to the dtype of `like`: one of the two.
Tensor quantized_conv(const Tensor& x, const Tensor& activation, Lists x_pixels, Size size, Lists y_pixels,
                      int64_t kernel, const Tensor& weight, const Tensor& norm, const Tensor& like) {
  constexpr const char* op = "quantized_conv";
  check_levels_or_floats(op, "x", x);
  check_levels_or_floats(op, "like", like);
  const bool of_levels = x.scalar_type() == ScalarType::Byte;
  // what lies outside the map is level 0
  check(of_levels || kernel == 1, op, ": x must be uint8 for kernel ", kernel, ", got ", describe(x));
  return conv_of(op, Type::kLevels, x, of_levels ? nullptr : &activation, x_pixels, size, y_pixels, kernel, true, weight,
                 norm, like);
}

// Transposed 2x2 convolution of x, of half the size, plus 1x1 convolution of `skip`, scale and shift, ReLU. `activation`
// makes levels of a skip of floats.
Tensor upsample_of(const char* op, Type type, const Tensor& x, const Lists& x_pixels, const Tensor& skip,
                   const Tensor* activation, const Lists& skip_pixels, const Size& size, const Lists& y_pixels,
                   const Tensor& up, const Tensor& lateral, const Tensor& norm) {
  const Pixels pixels = pixels_of(op, "y", y_pixels, size);
  const Size half{size[0], divide_up(size[1], 2), divide_up(size[2], 2)};
  const Map in = map_of(op, "x", x, pixels_of(op, "x", x_pixels, half));
  const Map beside = map_of(op, "skip", skip, pixels_of(op, "skip", skip_pixels, size));
  const Output y(op, x, pixels, channels_of(op, "norm", norm));
  Upsample layer{.type = type, .x = in, .skip = beside, .y = y.map};
  LayerWeights taken(op, layer.type);
  if (activation) taken.norm("activation", *activation, beside.channels, layer.activation);
  layer.up.packed = taken.matrix("up", up, y.map.channels, in.channels, 2);
  layer.lateral.packed = taken.matrix("lateral", lateral, y.map.channels, beside.channels, 1);
  taken.norm("norm", norm, y.map.channels, layer.lateral);
  layer.active = pixels.rows;
  run(layer, kernels().upsample, bands_of(pixels.rows, y.rows(), (in.channels + beside.channels) * y.map.channels));
  return y.values;
}

Tensor upsample(const Tensor& x, Lists x_pixels, const Tensor& skip, Lists skip_pixels, Size size, Lists y_pixels,
                const Tensor& up, const Tensor& lateral, const Tensor& norm) {
  constexpr const char* op = "upsample";
  check(skip.scalar_type() == x.scalar_type(), op, ": skip must have the dtype of x");
  return upsample_of(op, type_of(op, x), x, x_pixels, skip, nullptr, skip_pixels, size, y_pixels, up, lateral, norm);
}

// The same of levels (uint8) and a skip of floats (float32), to levels.
Tensor quantized_upsample(const Tensor& x, Lists x_pixels, const Tensor& skip, const Tensor& activation,
                          Lists skip_pixels, Size size, Lists y_pixels, const Tensor& up, const Tensor& lateral,
                          const Tensor& norm) {
  constexpr const char* op = "quantized_upsample";
  check(x.scalar_type() == ScalarType::Byte, op, ": x must be uint8, got ", describe(x));
  check(skip.scalar_type() == ScalarType::Float, op, ": skip must be float32, got ", describe(skip));
  return upsample_of(op, Type::kLevels, x, x_pixels, skip, &activation, skip_pixels, size, y_pixels, up, lateral, norm);
}

// 3x3 convolution of voxels, scale and shift, ReLU: bits int64 [K] and last float32 [K] of the occupied pixels of maps of
// `channels` channels. weight [9, channels, voxel_pitch] are sums; `like` has the dtype of the result, which may be levels
// (uint8).
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
  VoxelConv layer{.type = like.scalar_type() == ScalarType::Byte ? Type::kLevels : type_of(op, like),
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
  m.impl("quantized_units", TORCH_BOX(&sbnet::quantized_units));
  m.impl("quantized_conv", TORCH_BOX(&sbnet::quantized_conv));
  m.impl("quantized_upsample", TORCH_BOX(&sbnet::quantized_upsample));
  m.impl("upsample", TORCH_BOX(&sbnet::upsample));
  m.impl("voxel_conv", TORCH_BOX(&sbnet::voxel_conv));
}
