// The fused layers as operations of torch: maps are [N, H, W, C] and contiguous, weights are packed.
#include <torch/csrc/stable/library.h>

#include "bands.h"
#include "check.h"
#include "maps.h"
#include "weights.h"

namespace sbnet {
namespace {

// The weights of one residual unit are 7 tensors: scale and shift of the activation, reduce, its scale and shift,
// conv, its scale and shift, expand, project (empty where the shape is unchanged).
constexpr size_t kUnitWeights = 7;

bool has_projection(const Tensor* w) { return w[6].numel() > 0; }

Unit make_unit(const char* op, Type type, const Map& x, const Map& y, int64_t stride, const Tensor* w) {
  Unit unit{.type = type, .x = x, .y = y, .stride = static_cast<int>(stride)};
  const int in = padded_channels(x.channels), middle = static_cast<int>(channels_of(op, "second norm", w[2]));
  unit.middle = middle;
  set_norm(op, "first norm", w[0], type, x.channels, unit.activation);
  unit.reduce.packed = packed(op, "reduce", w[1], type, 1, middle, in);
  set_norm(op, "second norm", w[2], type, middle, unit.reduce);
  unit.conv.packed = packed(op, "conv", w[3], type, 3, middle, 3 * padded_channels(middle));
  set_norm(op, "third norm", w[4], type, middle, unit.conv);
  unit.expand.packed = packed(op, "expand", w[5], type, 1, y.channels, padded_channels(middle));
  if (has_projection(w)) unit.project.packed = packed(op, "project", w[6], type, 1, y.channels, in);
  return unit;
}

// Checks that one unit after the other fits; returns whether the first changes the shape.
bool check_units(const char* op, const Map& x, int64_t stride, int64_t channels, const std::vector<Tensor>& weights) {
  check(stride == 1 || stride == 2, op, ": stride must be 1 or 2, got ", stride);
  check(channels >= 1 && channels <= kMostChannels, op, ": channels must be 1 to ", kMostChannels, ", got ", channels);
  check(!weights.empty() && weights.size() % kUnitWeights == 0, op, ": weights must be 7 tensors per unit");
  for (size_t i = kUnitWeights; i < weights.size(); i += kUnitWeights)
    check(!has_projection(&weights[i]), op, ": only the first unit may have a projection");
  const bool changes = has_projection(weights.data());
  check(changes || (stride == 1 && channels == x.channels), op, ": a unit without projection must keep the shape");
  return changes;
}

// The first unit: from x to y.
void run_first(const char* op, Type type, const Map& x, const Map& y, int64_t stride, const RowList& active,
               const RowList& beneath, const Tensor* weights, const std::vector<Band>& bands) {
  Unit unit = make_unit(op, type, x, y, stride, weights);
  unit.needed = beneath.rows();
  unit.active = active.rows();
  run(unit, kernels().unit, bands);
}

// The others work in place.
void run_in_place(const char* op, Type type, int64_t element, const Map& y, const RowList& active,
                  const RowList& beneath, const Tensor* weights, const Tensor* end, std::vector<Band>& bands) {
  thread_local std::vector<char> borders;
  for (; weights < end; weights += kUnitWeights) {
    Unit unit = make_unit(op, type, y, y, 1, weights);
    unit.needed = beneath.rows();
    unit.active = active.rows();
    keep_border_rows(y, unit.needed, element, bands, borders);
    run(unit, kernels().unit, bands);
  }
}

// x [N, H, W, C] through residual units, on the active tiles of the output. `stride` is that of the first unit; it
// alone may change the shape, and has a projection then. Inactive tiles keep x, or are 0 where the shape changes.
Tensor residual_units(const Tensor& x, const Tensor& indices, std::vector<int64_t> tile, int64_t stride,
                      int64_t channels, std::vector<Tensor> weights) {
  constexpr const char* op = "residual_units";
  const Type type = type_of(x);
  const Map in = map_of(op, "x", x);
  const bool changes = check_units(op, in, stride, channels, weights);
  const Extent input = extent_of(x);
  const Extent output{input.images, divide_up(input.height, stride), divide_up(input.width, stride)};
  const RowList& active = active_pixels(op, indices, tile, output);
  Tensor y = new_map(x, output, channels, active, changes ? nullptr : &x);
  if (active.runs.empty()) return y;

  const Map out = map_of(op, "y", y);
  const Tensor *const first = weights.data(), *const others = first + kUnitWeights, *const end = first + weights.size();
  std::vector<Band> bands = bands_of(active, channels * channels);
  thread_local RowList beneath;
  pixels_beneath(active, output, input, stride, beneath);
  run_first(op, type, in, out, stride, active, beneath, first, bands);
  if (changes && others < end) pixels_beneath(active, output, output, 1, beneath);
  run_in_place(op, type, x.element_size(), out, active, beneath, others, end, bands);
  return y;
}

// Convolution of size 1 or 3 (stride 1, padding that keeps the size), scale and shift, ReLU if `relu`; 0 elsewhere.
Tensor conv_unit(const Tensor& x, const Tensor& indices, std::vector<int64_t> tile, int64_t kernel, bool relu,
                 const Tensor& weights, const Tensor& norm) {
  constexpr const char* op = "conv_unit";
  Conv conv{.type = type_of(x), .x = map_of(op, "x", x), .kernel = static_cast<int>(kernel), .relu = relu};
  check(kernel == 1 || kernel == 3, op, ": kernel must be 1 or 3, got ", kernel);
  const Extent extent = extent_of(x);
  const RowList& active = active_pixels(op, indices, tile, extent);
  Tensor y = new_map(x, extent, channels_of(op, "norm", norm), active, nullptr);
  conv.y = map_of(op, "y", y);
  const int depth = conv.kernel * padded_channels(conv.x.channels);
  conv.weights.packed = packed(op, "weights", weights, conv.type, conv.kernel, conv.y.channels, depth);
  set_norm(op, "norm", norm, conv.type, conv.y.channels, conv.weights);
  thread_local RowList beneath;
  if (kernel == 3) pixels_beneath(active, extent, extent, 1, beneath);
  conv.needed = beneath.rows();
  conv.active = active.rows();
  run(conv, kernels().conv, bands_of(active, kernel * kernel * conv.x.channels * conv.y.channels));
  return y;
}

// Transposed 2x2 convolution of x plus 1x1 convolution of `skip`, scale and shift, ReLU, of the size of `skip`; 0
// elsewhere.
Tensor upsample_unit(const Tensor& x, const Tensor& skip, const Tensor& indices, std::vector<int64_t> tile,
                     const Tensor& up, const Tensor& lateral, const Tensor& norm) {
  constexpr const char* op = "upsample_unit";
  Upsample unit{.type = type_of(x), .x = map_of(op, "x", x), .skip = map_of(op, "skip", skip)};
  check(skip.scalar_type() == x.scalar_type(), op, ": skip must have the dtype of x");
  const Extent extent = extent_of(skip);
  check(x.size(0) == extent.images && unit.x.height == divide_up(extent.height, 2) &&
            unit.x.width == divide_up(extent.width, 2),
        op, ": x must have half the size of skip");
  const RowList& active = active_pixels(op, indices, tile, extent);
  Tensor y = new_map(skip, extent, channels_of(op, "norm", norm), active, nullptr);
  unit.y = map_of(op, "y", y);
  unit.up.packed = packed(op, "up", up, unit.type, 4, unit.y.channels, padded_channels(unit.x.channels));
  unit.lateral.packed = packed(op, "lateral", lateral, unit.type, 1, unit.y.channels, padded_channels(unit.skip.channels));
  set_norm(op, "norm", norm, unit.type, unit.y.channels, unit.lateral);
  unit.active = active.rows();
  const int64_t inputs = unit.x.channels + unit.skip.channels;
  run(unit, kernels().upsample, bands_of(active, inputs * unit.y.channels));
  return y;
}

std::string isa() { return kernels().isa; }

}  // namespace
}  // namespace sbnet

STABLE_TORCH_LIBRARY_FRAGMENT(sbnet, m) {
  m.def("isa() -> str");
  m.def(
      "residual_units_packed(Tensor x, Tensor indices, int[2] tile, int stride, int channels, Tensor[] weights) -> Tensor");
  m.def(
      "conv_unit_packed(Tensor x, Tensor indices, int[2] tile, int kernel, bool relu, Tensor weights, Tensor norm) -> "
      "Tensor");
  m.def(
      "upsample_unit_packed(Tensor x, Tensor skip, Tensor indices, int[2] tile, Tensor up, Tensor lateral, Tensor norm) "
      "-> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(sbnet, CompositeExplicitAutograd, m) { m.impl("isa", TORCH_BOX(&sbnet::isa)); }

STABLE_TORCH_LIBRARY_IMPL(sbnet, CPU, m) {
  m.impl("residual_units_packed", TORCH_BOX(&sbnet::residual_units));
  m.impl("conv_unit_packed", TORCH_BOX(&sbnet::conv_unit));
  m.impl("upsample_unit_packed", TORCH_BOX(&sbnet::upsample_unit));
}
