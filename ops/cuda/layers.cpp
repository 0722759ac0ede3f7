// The layers as operations of torch on the stored pixels of maps, [P, C] in raster order. In 16 bits the kernels of
// products and units compute, in other dtypes the plain form.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include "layer.h"
#include "unit.h"
#include "voxel_conv.h"

namespace sbnet::cuda {
namespace {

Rows rows_of(const Tensor& y) { return {y.mutable_data_ptr(), static_cast<int>(y.size(1)), 0}; }

// Convolution of size 1 or 3 (stride 1, padding that keeps the size), scale and shift, ReLU if `relu`.
Tensor conv(const Tensor& x, Lists x_pixels, Size size, Lists y_pixels, int64_t kernel, bool relu, const Tensor& weight,
            const Tensor& norm) {
  constexpr const char* op = "conv";
  if (!has_kernels(op, x)) return in_plain_form(op, x, x_pixels, size, y_pixels, kernel, relu, weight, norm);
  check_kernel_size(op, kernel);
  Layer layer(op, x);
  const Pixels in = layer.pixels("x", x_pixels, size), out = layer.pixels("y", y_pixels, size);
  const int64_t outputs = channels_of(op, "norm", norm);
  const Tensor y = torch::stable::new_empty(x, {out.index.capacity, outputs});
  const Window window = kernel == 3 ? Window::kNine : Window::kOne;
  const Matrix matrix = layer.matrix("weight", weight, outputs, x.size(1), kernel);
  const Term term{layer.rows("x", x, in), in, window, 1, are_same(in, out), matrix};
  multiply(layer.element(), {{term}, 1, {}, layer.norm("norm", norm, outputs), relu, rows_of(y), out}, layer.stream());
  return y;
}

// Transposed 2x2 convolution of x, of half the size, plus 1x1 convolution of `skip`, scale and shift, ReLU.
Tensor upsample(const Tensor& x, Lists x_pixels, const Tensor& skip, Lists skip_pixels, Size size, Lists y_pixels,
                const Tensor& up, const Tensor& lateral, const Tensor& norm) {
  constexpr const char* op = "upsample";
  if (!has_kernels(op, x)) return in_plain_form(op, x, x_pixels, skip, skip_pixels, size, y_pixels, up, lateral, norm);
  Layer layer(op, x);
  const Pixels out = layer.pixels("y", y_pixels, size), beside = layer.pixels("skip", skip_pixels, size);
  const Pixels in = layer.pixels("x", x_pixels, {size[0], divide_up(size[1], 2), divide_up(size[2], 2)});
  const int64_t outputs = channels_of(op, "norm", norm);
  const Tensor y = torch::stable::new_empty(x, {out.index.capacity, outputs});
  const Term term{layer.rows("x", x, in), in, Window::kQuarter, 1, false,
                  layer.matrix("up", up, outputs, x.size(1), 2)};
  const Term more{layer.rows("skip", skip, beside), beside, Window::kOne, 1, are_same(beside, out),
                  layer.matrix("lateral", lateral, outputs, skip.size(1), 1)};
  const Norm after = layer.norm("norm", norm, outputs);
  multiply(layer.element(), {{term, more}, 2, {}, after, true, rows_of(y), out}, layer.stream());
  return y;
}

// The weights of a residual unit.
struct UnitParts {
  Norm activation;
  Matrix reduce;
  Norm reduce_norm;
  Matrix conv;
  Norm conv_norm;
  Matrix expand, project;

  UnitParts(const char* op, Layer& layer, const Tensor* w, int64_t inputs, int64_t outputs) {
    const int64_t middle = channels_of(op, "reduce_norm", w[2]);
    activation = layer.norm("activation", w[0], inputs);
    reduce = layer.matrix("reduce", w[1], middle, inputs, 1);
    reduce_norm = layer.norm("reduce_norm", w[2], middle);
    conv = layer.matrix("conv", w[3], middle, middle, 3);
    conv_norm = layer.norm("conv_norm", w[4], middle);
    expand = layer.matrix("expand", w[5], outputs, middle, 1);
    project = has_projection(w) ? layer.matrix("project", w[6], outputs, inputs, 1) : Matrix{};
  }
};

// Residual units one after the other; `stride` is that of the first, the others work in place.
Tensor residual_units(const Tensor& x, Lists x_pixels, Size x_size, Lists y_pixels, int64_t stride, int64_t channels,
                      Lists weights) {
  constexpr const char* op = "residual_units";
  if (!has_kernels(op, x)) return in_plain_form(op, x, x_pixels, x_size, y_pixels, stride, channels, weights);
  Layer layer(op, x);
  const Pixels in = layer.pixels("x", x_pixels, x_size);
  const Rows from = layer.rows("x", x, in);
  check_units(op, x.size(1), stride, channels, weights);
  const Size size{in.index.images, divide_up(in.index.height, stride), divide_up(in.index.width, stride)};
  const Pixels out = layer.pixels("y", y_pixels, size);
  std::vector<UnitParts> units;
  for (size_t i = 0; i < weights.size(); i += kUnitWeights)
    units.emplace_back(op, layer, &weights[i], i ? channels : x.size(1), channels);
  Tensor y = torch::stable::new_empty(x, {out.index.capacity, divide_up(channels, 4) * 4});

  // The 1x1 that begins the first unit.
  const UnitParts& first = units[0];
  Term term{from, in, Window::kOne, 1, true, first.reduce};
  Rows narrow = layer.narrow_rows(in, first.reduce);
  if (out.index.capacity)
    multiply(layer.element(), {{term}, 1, first.activation, first.reduce_norm, true, narrow, in}, layer.stream());

  // The units, each with the 1x1 that begins the next one: the first from x to y, the others in place.
  for (size_t i = 0; i < units.size(); ++i) {
    const UnitParts& parts = units[i];
    const int step = i ? 1 : static_cast<int>(stride);
    const Pixels& pixels = i ? out : in;
    const bool same = step == 1 && are_same(pixels, out);
    Unit unit{};
    unit.conv = {narrow, pixels, Window::kNine, step, same, parts.conv};
    unit.conv_norm = parts.conv_norm;
    unit.expand = parts.expand;
    unit.shortcut = {i ? rows_of(y) : from, pixels, Window::kOne, step, same, parts.project};
    if (parts.project.fragments) unit.activation = parts.activation;
    unit.y = rows_of(y);
    unit.pixels = out;
    if (i + 1 < units.size()) {
      const UnitParts& next = units[i + 1];
      unit.next = narrow = layer.narrow_rows(out, next.reduce);
      unit.next_activation = next.activation;
      unit.next_reduce = next.reduce;
      unit.next_norm = next.reduce_norm;
    }
    if (out.index.capacity) run_unit(layer.element(), unit, layer.stream());
  }
  return y.size(1) == channels ? y : torch::stable::contiguous(torch::stable::narrow(y, 1, 0, channels));
}

// 3x3 convolution of voxels, scale and shift, ReLU: bits int64 [K] and last float32 [K] of the occupied pixels of maps
// of `channels` channels. Bits of other channels are nobody's. weight [9, channels, voxel_pitch] are sums; `like` has
// the dtype of the result.
Tensor voxel_conv(const Tensor& bits, const Tensor& last, Lists x_pixels, Size size, Lists y_pixels, int64_t channels,
                  const Tensor& weight, const Tensor& norm, const Tensor& like) {
  constexpr const char* op = "voxel_conv";
  check_dtype(op, like);
  Layer layer(op, like);
  for (const Tensor* tensor : {&bits, &last, &weight, &norm}) layer.check_device("each argument", *tensor);
  const Pixels occupied = layer.pixels("x", x_pixels, size), out = layer.pixels("y", y_pixels, size);
  check_voxels(op, bits, last, occupied.index.capacity, channels, weight, norm);
  const int64_t outputs = norm.size(1);
  check_norm(op, "norm", norm, outputs, sums_of(like.scalar_type()));
  const Tensor y = torch::stable::new_empty(like, {out.index.capacity, outputs});
  const VoxelConv conv{.occupied = occupied,
                       .bits = bits.const_data_ptr<int64_t>(),
                       .last = last.const_data_ptr<float>(),
                       .channels = static_cast<int>(channels),
                       .outputs = static_cast<int>(outputs),
                       .pitch = static_cast<int>(weight.size(2)),
                       .weights = weight.const_data_ptr(),
                       .norm = norm.const_data_ptr(),
                       .pixels = out,
                       .y = y.mutable_data_ptr()};
  convolve_voxels(layer.element(), conv, layer.stream());
  return y;
}

}  // namespace
}  // namespace sbnet::cuda

STABLE_TORCH_LIBRARY_IMPL(SBNET_LIBRARY, SBNET_DEVICE, m) {
  m.impl("residual_units", TORCH_BOX(&sbnet::cuda::residual_units));
  m.impl("conv", TORCH_BOX(&sbnet::cuda::conv));
  m.impl("upsample", TORCH_BOX(&sbnet::cuda::upsample));
  m.impl("voxel_conv", TORCH_BOX(&sbnet::cuda::voxel_conv));
}
