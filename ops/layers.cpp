// The fused layers as operations of torch: maps are [N, H, W, C] and contiguous, weights are packed.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "check.h"
#include "rows.h"

namespace sbnet {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr int64_t kMostChannels = 1 << 16;
constexpr int64_t kCopyGrain = 1 << 16;  // bytes that are worth a thread
constexpr int64_t kBandGrain = 1 << 21;  // multiplications that are worth a thread

Type type_of(const char* op, const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float: return Type::kFloat;
    case ScalarType::Double: return Type::kDouble;
    case ScalarType::Half: return Type::kHalf;
    case ScalarType::BFloat16: return Type::kBFloat16;
    default: break;
  }
  check(false, op, ": x must be float32, float64, float16 or bfloat16, got ",
        torch::headeronly::toString(tensor.scalar_type()));
  return Type::kFloat;
}

Map map_of(const char* op, const char* name, const Tensor& x) {
  check(x.dim() == 4 && x.is_contiguous(), op, ": ", name, " must be contiguous [N, H, W, C]");
  check(x.size(3) >= 1 && x.size(3) <= kMostChannels, op, ": ", name, " must have 1 to ", kMostChannels,
        " channels, got ", x.size(3));
  check(x.size(0) * x.size(1) * x.size(2) < std::numeric_limits<int32_t>::max(), op, ": ", name, " is too large");
  return {const_cast<void*>(x.const_data_ptr()), x.size(1), x.size(2), static_cast<int>(x.size(3))};
}

// Active pixels of the layer's output from the indices of its tiles.
RowList& active_pixels(const char* op, const Tensor& indices, const std::vector<int64_t>& tile, Extent output) {
  check_pair(op, "tile", tile, 1);
  check(indices.dim() == 2 && indices.size(1) == 3 && indices.scalar_type() == ScalarType::Int && indices.is_contiguous(),
        op, ": indices must be contiguous int32 [B, 3]");
  const auto* const data = indices.const_data_ptr<int32_t>();
  const int64_t count = indices.size(0);
  const int64_t rows = (output.height + tile[0] - 1) / tile[0], columns = (output.width + tile[1] - 1) / tile[1];
  bool inside = true;
  for (int64_t i = 0; i < 3 * count; i += 3)
    inside &= data[i] >= 0 && data[i] < output.images && data[i + 1] >= 0 && data[i + 1] < rows && data[i + 2] >= 0 &&
              data[i + 2] < columns;
  check(inside, op, ": indices must be tiles (n, ty, tx) within ", output.images, " x ", rows, " x ", columns,
        ", some lie outside the map");
  thread_local RowList active;
  pixels_of_tiles(data, count, output, tile[0], tile[1], active);
  return active;
}

// Memory of one thread that is kept from call to call.
void* scratch(int64_t bytes) {
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  thread_local std::unique_ptr<void, Free> memory;
  thread_local int64_t size = 0;
  if (bytes > size) {
    const int64_t wanted = (bytes + 4095) / 4096 * 4096;
    size = 0;
    memory.reset(std::aligned_alloc(4096, wanted));
    check(memory != nullptr, "out of memory: ", wanted, " bytes of scratch memory");
    size = wanted;
  }
  return memory.get();
}

// Runs one layer band by band, each in a thread of its own.
template <typename Layer>
void run(const Layer& layer, int64_t (*kernel)(const Layer&, const Band&, void*), const std::vector<Band>& bands) {
  const int64_t bytes = kernel(layer, {}, nullptr);
  torch::stable::parallel_for(0, static_cast<int64_t>(bands.size()), 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) kernel(layer, bands[i], scratch(bytes));
  });
}

std::vector<Band> bands_of(const RowList& active, int64_t multiplications_per_pixel) {
  int64_t pixels = 0;
  for (const Run& run : active.runs) pixels += run.end - run.begin;
  const int64_t worth = pixels * multiplications_per_pixel / kBandGrain + 1;
  return split(active, std::min<int64_t>(torch::stable::get_num_threads(), worth));
}

// A new map that is 0 between the active pixels.
Tensor new_map(const Tensor& like, Extent extent, int64_t channels, const RowList& active) {
  Tensor y = torch::stable::new_empty(like, {extent.images, extent.height, extent.width, channels});
  if (y.numel() == 0) return y;
  const int64_t pixel = channels * y.element_size(), row_bytes = extent.width * pixel;
  auto* const data = static_cast<char*>(y.mutable_data_ptr());
  const int64_t grain = kCopyGrain / std::max<int64_t>(1, row_bytes) + 1;
  torch::stable::parallel_for(0, extent.images * extent.height, grain, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      char* const to = data + row * row_bytes;
      int64_t column = 0;
      for (int64_t i = active.start[row]; i < active.start[row + 1]; ++i) {
        std::memset(to + column * pixel, 0, (active.runs[i].begin - column) * pixel);
        column = active.runs[i].end;
      }
      std::memset(to + column * pixel, 0, (extent.width - column) * pixel);
    }
  });
  return y;
}

Tensor copy_map(const Tensor& x) {
  Tensor y = torch::stable::new_empty(x, {x.size(0), x.size(1), x.size(2), x.size(3)});
  const auto* const from = static_cast<const char*>(x.const_data_ptr());
  auto* const to = static_cast<char*>(y.mutable_data_ptr());
  torch::stable::parallel_for(0, x.numel() * x.element_size(), kCopyGrain, [&](int64_t first, int64_t last) {
    std::memcpy(to + first, from + first, last - first);
  });
  return y;
}

// Copies of the input rows beside the borders of the bands: each band overwrites its own rows while its neighbours may
// still read the outermost of them.
void keep_border_rows(const Map& x, const Rows& needed, int64_t bytes, std::vector<Band>& bands,
                      std::vector<char>& memory) {
  const int64_t pixel = x.channels * bytes, row_bytes = x.width * pixel;
  memory.resize(2 * bands.size() * row_bytes);
  char* free = memory.data();
  const auto keep = [&](int64_t row) {
    const auto* const from = static_cast<const char*>(x.data) + row * row_bytes;
    for (int64_t i = needed.start[row]; i < needed.start[row + 1]; ++i)
      std::memcpy(free + needed.runs[i].begin * pixel, from + needed.runs[i].begin * pixel,
                  (needed.runs[i].end - needed.runs[i].begin) * pixel);
    free += row_bytes;
    return free - row_bytes;
  };
  for (size_t b = 0; b + 1 < bands.size(); ++b) {
    bands[b + 1].above = keep(bands[b].end - 1);
    bands[b].below = keep(bands[b].end);
  }
}

// Depths are padded to an even number of channels: bfloat16 is multiplied in pairs.
int padded(int channels) { return (channels + 1) / 2 * 2; }

// Packed weights of `terms` matrices [outputs, depth], after checking that they are as large as the kernel reads.
const void* packed(const char* op, const char* name, const Tensor& tensor, Type type, int terms, int outputs,
                   int depth) {
  const int64_t bytes = kernels().pack(type, nullptr, terms, outputs, depth, nullptr);
  check(tensor.scalar_type() == ScalarType::Byte && tensor.is_contiguous() && tensor.numel() == bytes, op, ": ", name,
        " must be ", bytes, " packed bytes, got ", tensor.numel());
  return tensor.const_data_ptr();
}

// Scale and shift [2, channels] that follow packed weights.
void set_norm(const char* op, const char* name, const Tensor& tensor, Type type, int64_t channels, Weights& weights) {
  const ScalarType wanted = type == Type::kDouble ? ScalarType::Double : ScalarType::Float;
  check(tensor.scalar_type() == wanted && tensor.is_contiguous() && tensor.dim() == 2 && tensor.size(0) == 2 &&
            tensor.size(1) == channels,
        op, ": ", name, " must be contiguous [2, ", channels, "] of scale and shift");
  weights.scale = tensor.const_data_ptr();
  weights.shift = static_cast<const char*>(weights.scale) + channels * tensor.element_size();
}

// The weights of one residual unit are 7 tensors: scale and shift of the activation, reduce, its scale and shift,
// conv, its scale and shift, expand, project (empty where the shape is unchanged).
constexpr size_t kUnitWeights = 7;

Unit make_unit(const char* op, Type type, const Map& x, const Map& y, int64_t stride, const Tensor* w) {
  Unit unit{.type = type, .x = x, .y = y, .stride = static_cast<int>(stride)};
  check(w[2].dim() == 2 && w[2].size(1) >= 1 && w[2].size(1) <= kMostChannels, op, ": the second norm must be [2, M]");
  const int in = padded(x.channels), middle = static_cast<int>(w[2].size(1));
  unit.middle = middle;
  set_norm(op, "first norm", w[0], type, x.channels, unit.activation);
  unit.reduce.packed = packed(op, "reduce", w[1], type, 1, middle, in);
  set_norm(op, "second norm", w[2], type, middle, unit.reduce);
  unit.conv.packed = packed(op, "conv", w[3], type, 3, middle, 3 * padded(middle));
  set_norm(op, "third norm", w[4], type, middle, unit.conv);
  unit.expand.packed = packed(op, "expand", w[5], type, 1, y.channels, padded(middle));
  if (w[6].numel() > 0) unit.project.packed = packed(op, "project", w[6], type, 1, y.channels, in);
  return unit;
}

// x [N, H, W, C] through residual units, on the active tiles of the output. `stride` is that of the first unit; it
// alone may change the shape, and has a projection then. Inactive tiles keep x, or are 0 where the shape changes.
Tensor residual_units(const Tensor& x, const Tensor& indices, std::vector<int64_t> tile, int64_t stride,
                      int64_t channels, std::vector<Tensor> weights) {
  constexpr const char* op = "residual_units";
  const Type type = type_of(op, x);
  const Map in = map_of(op, "x", x);
  check(stride == 1 || stride == 2, op, ": stride must be 1 or 2, got ", stride);
  check(channels >= 1 && channels <= kMostChannels, op, ": channels must be 1 to ", kMostChannels, ", got ", channels);
  check(!weights.empty() && weights.size() % kUnitWeights == 0, op, ": weights must be 7 tensors per unit");
  const Extent input{x.size(0), in.height, in.width};
  const Extent output{input.images, (in.height + stride - 1) / stride, (in.width + stride - 1) / stride};
  const RowList& active = active_pixels(op, indices, tile, output);
  const bool changes = weights[6].numel() > 0;
  check(changes || (stride == 1 && channels == in.channels), op, ": a unit without projection must keep the shape");
  Tensor y = changes ? new_map(x, output, channels, active) : copy_map(x);
  const Map out = map_of(op, "y", y);
  if (active.runs.empty()) return y;

  thread_local RowList beneath, beneath_first;
  thread_local std::vector<char> borders;
  std::vector<Band> bands = bands_of(active, channels * channels);
  pixels_beneath(active, output, output, 1, beneath);
  if (changes) pixels_beneath(active, output, input, stride, beneath_first);
  for (size_t i = 0; i < weights.size(); i += kUnitWeights) {
    // the first unit may read x; the others work in place
    const bool in_place = i > 0 || !changes;
    Unit unit = make_unit(op, type, in_place ? out : in, out, in_place ? 1 : stride, &weights[i]);
    check(in_place == (unit.project.packed == nullptr), op, ": only the first unit may have a projection");
    unit.needed = in_place ? beneath.rows() : beneath_first.rows();
    unit.active = active.rows();
    for (Band& band : bands) band.above = band.below = nullptr;
    if (in_place) keep_border_rows(out, unit.needed, x.element_size(), bands, borders);
    run(unit, kernels().unit, bands);
  }
  return y;
}

// Convolution of size 1 or 3 (stride 1, padding that keeps the size), scale and shift, ReLU if `relu`; 0 elsewhere.
Tensor conv_unit(const Tensor& x, const Tensor& indices, std::vector<int64_t> tile, int64_t kernel, bool relu,
                 const Tensor& weights, const Tensor& norm) {
  constexpr const char* op = "conv_unit";
  const Map in = map_of(op, "x", x);
  check(kernel == 1 || kernel == 3, op, ": kernel must be 1 or 3, got ", kernel);
  check(norm.dim() == 2 && norm.size(1) >= 1 && norm.size(1) <= kMostChannels, op, ": norm must be [2, C]");
  const Extent extent{x.size(0), in.height, in.width};
  const RowList& active = active_pixels(op, indices, tile, extent);
  Tensor y = new_map(x, extent, norm.size(1), active);
  Conv conv{.type = type_of(op, x), .x = in, .y = map_of(op, "y", y), .kernel = static_cast<int>(kernel), .relu = relu};
  const int terms = static_cast<int>(kernel), depth = static_cast<int>(kernel) * padded(in.channels);
  conv.weights.packed = packed(op, "weights", weights, conv.type, terms, conv.y.channels, depth);
  set_norm(op, "norm", norm, conv.type, conv.y.channels, conv.weights);
  thread_local RowList beneath;
  if (kernel == 3) pixels_beneath(active, extent, extent, 1, beneath);
  conv.needed = beneath.rows();
  conv.active = active.rows();
  run(conv, kernels().conv, bands_of(active, kernel * kernel * in.channels * conv.y.channels));
  return y;
}

// Transposed 2x2 convolution of x plus 1x1 convolution of `skip`, scale and shift, ReLU, of the size of `skip`; 0
// elsewhere.
Tensor upsample_unit(const Tensor& x, const Tensor& skip, const Tensor& indices, std::vector<int64_t> tile,
                     const Tensor& up, const Tensor& lateral, const Tensor& norm) {
  constexpr const char* op = "upsample_unit";
  Upsample unit{.type = type_of(op, x), .x = map_of(op, "x", x), .skip = map_of(op, "skip", skip)};
  check(skip.scalar_type() == x.scalar_type(), op, ": skip must have the dtype of x");
  check(norm.dim() == 2 && norm.size(1) >= 1 && norm.size(1) <= kMostChannels, op, ": norm must be [2, C]");
  const Extent extent{skip.size(0), unit.skip.height, unit.skip.width};
  check(x.size(0) == extent.images && unit.x.height == (extent.height + 1) / 2 && unit.x.width == (extent.width + 1) / 2,
        op, ": x must have half the size of skip");
  const RowList& active = active_pixels(op, indices, tile, extent);
  Tensor y = new_map(skip, extent, norm.size(1), active);
  unit.y = map_of(op, "y", y);
  unit.up.packed = packed(op, "up", up, unit.type, 4, unit.y.channels, padded(unit.x.channels));
  unit.lateral.packed = packed(op, "lateral", lateral, unit.type, 1, unit.y.channels, padded(unit.skip.channels));
  set_norm(op, "norm", norm, unit.type, unit.y.channels, unit.lateral);
  unit.active = active.rows();
  const int64_t inputs = unit.x.channels + unit.skip.channels;
  run(unit, kernels().upsample, bands_of(active, inputs * unit.y.channels));
  return y;
}

// weights [T, N, K] (float64 for maps of float64, else float32; K even) as the kernels of this machine read them for
// maps of the dtype of `like`.
Tensor pack_weights(const Tensor& weights, const Tensor& like) {
  constexpr const char* op = "pack_weights";
  const Type type = type_of(op, like);
  const ScalarType wanted = type == Type::kDouble ? ScalarType::Double : ScalarType::Float;
  check(weights.dim() == 3 && weights.is_contiguous() && weights.scalar_type() == wanted && weights.size(2) % 2 == 0,
        op, ": weights must be contiguous [T, N, K] with an even K, float64 for maps of float64, else float32");
  for (int i = 0; i < 3; ++i)
    check(weights.size(i) >= 1 && weights.size(i) <= 3 * kMostChannels, op, ": weights are too large");
  const auto pack = [&](void* to) {
    return kernels().pack(type, weights.const_data_ptr(), static_cast<int>(weights.size(0)),
                          static_cast<int>(weights.size(1)), static_cast<int>(weights.size(2)), to);
  };
  Tensor packed = torch::stable::new_empty(weights, {pack(nullptr)}, ScalarType::Byte);
  pack(packed.mutable_data_ptr());
  return packed;
}

std::string isa() { return kernels().isa; }

}  // namespace
}  // namespace sbnet

STABLE_TORCH_LIBRARY_FRAGMENT(sbnet, m) {
  m.def("isa() -> str");
  m.def("pack_weights(Tensor weights, Tensor like) -> Tensor");
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
  m.impl("pack_weights", TORCH_BOX(&sbnet::pack_weights));
  m.impl("residual_units_packed", TORCH_BOX(&sbnet::residual_units));
  m.impl("conv_unit_packed", TORCH_BOX(&sbnet::conv_unit));
  m.impl("upsample_unit_packed", TORCH_BOX(&sbnet::upsample_unit));
}
