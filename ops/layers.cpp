#include "layers.h"

#include "bands.h"
#include "check.h"
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

int64_t rows_of(Extent extent) { return extent.images * extent.height; }

}  // namespace

bool check_units(const char* op, int64_t inputs, int64_t stride, int64_t channels, const std::vector<Tensor>& weights) {
  check(stride == 1 || stride == 2, op, ": stride must be 1 or 2, got ", stride);
  check(channels >= 1 && channels <= kMostChannels, op, ": channels must be 1 to ", kMostChannels, ", got ", channels);
  check(!weights.empty() && weights.size() % kUnitWeights == 0, op, ": weights must be 7 tensors per unit");
  for (size_t i = kUnitWeights; i < weights.size(); i += kUnitWeights)
    check(!has_projection(&weights[i]), op, ": only the first unit may have a projection");
  const bool changes = has_projection(weights.data());
  check(changes || (stride == 1 && channels == inputs), op, ": a unit without projection must keep the shape");
  return changes;
}

void run_units(const char* op, const Tensor& like, const Map& x, Extent input, const Output& y, int64_t stride,
               const std::vector<Tensor>& weights) {
  const Type type = type_of(like);
  const Tensor *next = weights.data(), *const end = next + weights.size();
  std::vector<Band> bands = bands_of(y.active, rows_of(y.extent), y.map.channels * y.map.channels);
  thread_local RowList beneath;
  thread_local std::vector<char> borders;

  // The first unit: from x to y.
  pixels_beneath(y.active, y.extent, input, stride, beneath);
  Unit unit = make_unit(op, type, x, y.map, stride, next);
  unit.needed = beneath.rows();
  unit.active = y.active;
  run(unit, kernels().unit, bands);

  // The others work in place.
  if (stride != 1) pixels_beneath(y.active, y.extent, y.extent, 1, beneath);
  while ((next += kUnitWeights) < end) {
    unit = make_unit(op, type, y.map, y.map, 1, next);
    unit.needed = beneath.rows();
    unit.active = y.active;
    keep_border_rows(y.map, unit.needed, like.element_size(), bands, borders);
    run(unit, kernels().unit, bands);
  }
}

void run_conv(const char* op, const Tensor& like, const Map& x, const Output& y, int64_t kernel, bool relu,
              const Tensor& weights, const Tensor& norm) {
  check(kernel == 1 || kernel == 3, op, ": kernel must be 1 or 3, got ", kernel);
  Conv conv{.type = type_of(like), .x = x, .y = y.map, .kernel = static_cast<int>(kernel), .relu = relu};
  const int depth = conv.kernel * padded_channels(x.channels);
  conv.weights.packed = packed(op, "weights", weights, conv.type, conv.kernel, y.map.channels, depth);
  set_norm(op, "norm", norm, conv.type, y.map.channels, conv.weights);
  thread_local RowList beneath;
  if (kernel == 3) pixels_beneath(y.active, y.extent, y.extent, 1, beneath);
  conv.needed = beneath.rows();
  conv.active = y.active;
  run(conv, kernels().conv, bands_of(y.active, rows_of(y.extent), kernel * kernel * x.channels * y.map.channels));
}

void run_upsample(const char* op, const Tensor& like, const Map& x, const Map& skip, const Output& y, const Tensor& up,
                  const Tensor& lateral, const Tensor& norm) {
  Upsample unit{.type = type_of(like), .x = x, .skip = skip, .y = y.map};
  check(x.height == divide_up(skip.height, 2) && x.width == divide_up(skip.width, 2), op,
        ": x must have half the size of skip");
  unit.up.packed = packed(op, "up", up, unit.type, 4, y.map.channels, padded_channels(x.channels));
  unit.lateral.packed = packed(op, "lateral", lateral, unit.type, 1, y.map.channels, padded_channels(skip.channels));
  set_norm(op, "norm", norm, unit.type, y.map.channels, unit.lateral);
  unit.active = y.active;
  const int64_t inputs = x.channels + skip.channels;
  run(unit, kernels().upsample, bands_of(y.active, rows_of(y.extent), inputs * y.map.channels));
}

}  // namespace sbnet
