#include "weights.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "layer_arguments.h"

namespace sbnet {
namespace {

ScalarType sums_of(Type type) { return type == Type::kDouble ? ScalarType::Double : ScalarType::Float; }
ScalarType weights_of(Type type) { return type == Type::kLevels ? ScalarType::Char : sums_of(type); }

constexpr int64_t kMostLevels = 1 << 16;  // that are multiplied for one output
constexpr int kMostWeight = 64;  // of those that multiply levels: ops/kernels/multiply_u8.h says why

// How the kernels see a convolution's window: a product for each row of it; a transposed one of 2x2 has one for each of
// its four phases.
struct Window {
  int64_t outputs, inputs, height, width;

  bool is_transposed() const { return height == 2; }
  int terms() const { return static_cast<int>(is_transposed() ? 4 : height); }
  int64_t taps() const { return is_transposed() ? 1 : width; }
  int depth() const { return static_cast<int>(taps() * padded_channels(static_cast<int>(inputs))); }
};

// What stands before packed weights: what they are for. As long as a line of the cache, so that vectors stay aligned.
struct alignas(64) Header {
  char isa[16] = {};
  int64_t type, outputs, inputs, side;

  Header(Type of, const Window& window)
      : type(static_cast<int64_t>(of)), outputs(window.outputs), inputs(window.inputs), side(window.height) {
    std::strncpy(isa, kernels().isa, sizeof isa - 1);
  }
};
static_assert(sizeof(Header) == 64);
constexpr size_t kWritten = offsetof(Header, side) + sizeof(int64_t);  // the rest is padding

int64_t packed_bytes(Type type, const Window& window) {
  return static_cast<int64_t>(sizeof(Header)) +
         kernels().weights.bytes(type, window.terms(), static_cast<int>(window.outputs), window.depth());
}

// Refuses bytes that pack_weights did not make for this layer: their words would lead a kernel out of them.
void check_packed(const char* op, const char* name, const Tensor& packed, Type type, const Window& window) {
  const auto* const bytes = static_cast<const char*>(packed.const_data_ptr());
  const Header expected(type, window);
  const bool aligned = reinterpret_cast<uintptr_t>(bytes) % alignof(double) == 0;
  check(aligned && std::memcmp(bytes, &expected, kWritten) == 0 &&
            kernels().weights.valid(type, window.terms(), static_cast<int>(window.outputs), window.depth(),
                                    bytes + sizeof expected),
        op, ": ", name, " must be what pack_weights makes of [", window.outputs, ", ", window.inputs, ", ",
        window.height, ", ", window.width, "] for maps of this dtype on this machine (", expected.isa,
        "), these bytes are of other weights; pack them again");
}

// weight [outputs, inputs, height, width] as [terms, outputs, depth], a pixel's channels beside each other.
template <typename Weight>
std::vector<Weight> arranged(const Weight* weight, const Window& window) {
  std::vector<Weight> matrices(window.terms() * window.outputs * window.depth());
  const int64_t pitch = window.depth() / window.taps();
  for (int64_t n = 0; n < window.outputs; ++n)
    for (int64_t k = 0; k < window.inputs; ++k)
      for (int64_t y = 0; y < window.height; ++y)
        for (int64_t x = 0; x < window.width; ++x) {
          const int64_t term = window.is_transposed() ? 2 * y + x : y, tap = window.is_transposed() ? 0 : x;
          matrices[((term * window.outputs + n) * window.taps() + tap) * pitch + k] = *weight++;
        }
  return matrices;
}

Tensor pack(const char* op, const char* name, const Tensor& argument, Type type) {
  check_weight(op, name, argument, weights_of(type));
  const Window window{argument.size(0), argument.size(1), argument.size(2), argument.size(3)};
  const Tensor weight = torch::stable::contiguous(argument);
  const auto outputs = static_cast<int>(window.outputs);
  const PackKernel& kernel = kernels().weights;
  const int64_t bytes = packed_bytes(type, window);
  Tensor packed = allocate(op, name, {bytes}, [&] { return torch::stable::new_empty(weight, {bytes}, ScalarType::Byte); });
  std::memset(packed.mutable_data_ptr(), 0, bytes);  // the same weights give the same bytes, also where rows are left out
  const Header header(type, window);
  std::memcpy(packed.mutable_data_ptr(), &header, kWritten);
  auto* const matrix = static_cast<char*>(packed.mutable_data_ptr()) + sizeof header;
  const auto pack_as = [&]<typename Weight>(Weight) {
    const auto* const numbers = static_cast<const Weight*>(weight.const_data_ptr());
    if constexpr (std::is_same_v<Weight, int8_t>)
      for (int64_t i = 0; i < weight.numel(); ++i)
        check(numbers[i] >= -kMostWeight && numbers[i] <= kMostWeight, op, ": ", name, " must be in -", kMostWeight, " .. ",
              kMostWeight, ", got ", int{numbers[i]});
    const auto matrices = arranged(numbers, window);
    kernel.pack(type, matrices.data(), window.terms(), outputs, window.depth(), matrix);
  };
  switch (type) {
    case Type::kDouble: pack_as(double{}); break;
    case Type::kLevels: pack_as(int8_t{}); break;
    default: pack_as(float{});
  }
  return packed;
}

// weight [N, K, 1, 1], [N, K, 3, 3], or [N, K, 2, 2] of a transposed convolution, float64 for maps of float64, int8 of 7
// bits for those of levels (uint8), else float32 -> the bytes that the kernels of this machine read for maps of the dtype of `like`.
Tensor pack_weights(const Tensor& weight, const Tensor& like) {
  const bool of_levels = like.scalar_type() == ScalarType::Byte;
  return pack("pack_weights", "weight", weight, of_levels ? Type::kLevels : type_of("pack_weights", like));
}

}  // namespace

Type type_of(const char* op, const Tensor& x) {
  check_dtype(op, x);
  return held_type(x);
}

Type held_type(const Tensor& x) {
  switch (x.scalar_type()) {
    case ScalarType::Byte: return Type::kLevels;
    case ScalarType::Double: return Type::kDouble;
    case ScalarType::Half: return Type::kHalf;
    case ScalarType::BFloat16: return Type::kBFloat16;
    default: return Type::kFloat;
  }
}

const void* LayerWeights::matrix(const char* name, const Tensor& weight, int64_t outputs, int64_t inputs,
                                 int64_t side) {
  const Window window{outputs, inputs, side, side};
  // all sums of levels fit 32 bits
  check(type_ != Type::kLevels || inputs * side * side <= kMostLevels, op_, ": ", name, " must have at most ",
        kMostLevels, " inputs and taps, got ", inputs, " x ", side, " x ", side);
  check_weight_of(op_, name, weight, outputs, inputs, side, packed_bytes(type_, window));
  const bool is_packed = weight.scalar_type() == ScalarType::Byte;
  if (is_packed)
    check_packed(op_, name, weight, type_, window);
  else
    packed_.push_back(pack(op_, name, weight, type_));
  return static_cast<const char*>((is_packed ? weight : packed_.back()).const_data_ptr()) + sizeof(Header);
}

void LayerWeights::norm(const char* name, const Tensor& norm, int64_t channels, Weights& weights) const {
  check_norm(op_, name, norm, channels, sums_of(type_));
  weights.scale = norm.const_data_ptr();
  weights.shift = static_cast<const char*>(weights.scale) + channels * norm.element_size();
}

void LayerWeights::scale(const char* name, const Tensor& scale, int64_t channels, Weights& weights) const {
  check(scale.scalar_type() == ScalarType::Float && scale.is_contiguous() && scale.dim() == 1 &&
            scale.size(0) == channels,
        op_, ": ", name, " must be contiguous Float [", channels, "], got ", describe(scale));
  weights.scale = scale.const_data_ptr();
}

}  // namespace sbnet

STABLE_TORCH_LIBRARY_IMPL(sbnet, CPU, m) { m.impl("pack_weights", TORCH_BOX(&sbnet::pack_weights)); }
