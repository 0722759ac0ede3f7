#include "weights.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include "check.h"
#include "maps.h"

namespace sbnet {
namespace {

ScalarType type_of_sums(Type type) { return type == Type::kDouble ? ScalarType::Double : ScalarType::Float; }

// weights [T, N, K] (float64 for maps of float64, else float32; K even) as the kernels of this machine read them for
// maps of the dtype of `like`.
Tensor pack_weights(const Tensor& weights, const Tensor& like) {
  const Type type = type_of(like);
  const ScalarType wanted = type_of_sums(type);
  check(weights.dim() == 3 && weights.is_contiguous() && weights.scalar_type() == wanted && weights.size(2) % 2 == 0,
        "weights must be contiguous ", torch::headeronly::toString(wanted), " [T, N, K] with an even K, got ",
        describe(weights));
  for (int i = 0; i < 3; ++i)
    check(weights.size(i) >= 1 && weights.size(i) <= 3 * kMostChannels,
          "weights must have between 1 and ", kMostChannels, " input and output channels, got [T, N, K] = ",
          describe(weights));
  const auto terms = static_cast<int>(weights.size(0)), outputs = static_cast<int>(weights.size(1)),
             depth = static_cast<int>(weights.size(2));
  const PackKernel& kernel = kernels().weights;
  Tensor packed = torch::stable::new_empty(weights, {kernel.bytes(type, terms, outputs, depth)}, ScalarType::Byte);
  kernel.pack(type, weights.const_data_ptr(), terms, outputs, depth, packed.mutable_data_ptr());
  return packed;
}

}  // namespace

Type type_of(const Tensor& x) {
  switch (x.scalar_type()) {
    case ScalarType::Float: return Type::kFloat;
    case ScalarType::Double: return Type::kDouble;
    case ScalarType::Half: return Type::kHalf;
    case ScalarType::BFloat16: return Type::kBFloat16;
    default: break;
  }
  check(false, "x must be float32, float64, float16 or bfloat16, got ", describe(x));
  return {};
}

const void* packed(const char* op, const char* name, const Tensor& tensor, Type type, int terms, int outputs,
                   int depth) {
  const int64_t bytes = kernels().weights.bytes(type, terms, outputs, depth);
  check(tensor.scalar_type() == ScalarType::Byte && tensor.is_contiguous() && tensor.numel() == bytes, op, ": ", name,
        " must be ", bytes, " packed bytes, got ", describe(tensor));
  return tensor.const_data_ptr();
}

int64_t channels_of(const char* op, const char* name, const Tensor& norm) {
  check(norm.dim() == 2 && norm.size(1) >= 1 && norm.size(1) <= kMostChannels, op, ": ", name,
        " must be [2, C] of scale and shift of 1 to ", kMostChannels, " channels, got ", describe(norm));
  return norm.size(1);
}

void set_norm(const char* op, const char* name, const Tensor& norm, Type type, int64_t channels, Weights& weights) {
  const ScalarType wanted = type_of_sums(type);
  check(norm.scalar_type() == wanted && norm.is_contiguous() && norm.dim() == 2 && norm.size(0) == 2 &&
            norm.size(1) == channels,
        op, ": ", name, " must be contiguous ", torch::headeronly::toString(wanted), " [2, ", channels,
        "] of scale and shift, got ", describe(norm));
  weights.scale = norm.const_data_ptr();
  weights.shift = static_cast<const char*>(weights.scale) + channels * norm.element_size();
}

}  // namespace sbnet

STABLE_TORCH_LIBRARY_FRAGMENT(sbnet, m) { m.def("pack_weights(Tensor weights, Tensor like) -> Tensor"); }

STABLE_TORCH_LIBRARY_IMPL(sbnet, CPU, m) { m.impl("pack_weights", TORCH_BOX(&sbnet::pack_weights)); }
