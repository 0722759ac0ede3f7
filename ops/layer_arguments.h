// What the kernels of every device demand of the arguments of the layers.
#pragma once

#include "extents.h"

namespace sbnet {

constexpr int64_t kMostChannels = 1 << 16;

// What the sums of a layer are: float64 for maps of float64, else float32.
inline ScalarType sums_of(ScalarType maps) { return maps == ScalarType::Double ? maps : ScalarType::Float; }

inline void check_dtype(const char* op, const Tensor& x) {
  check(is_floating(x.scalar_type()), op, ": x must be float32, float64, float16 or bfloat16, got ", describe(x));
}

// A map of a layer that multiplies levels.
inline void check_levels_or_floats(const char* op, const char* name, const Tensor& x) {
  check(x.scalar_type() == ScalarType::Byte || x.scalar_type() == ScalarType::Float, op, ": ", name,
        " must be uint8 or float32, got ", describe(x));
}

// A map's values: a row for each of `count` pixels.
inline void check_map(const char* op, const char* name, const Tensor& x, int64_t count) {
  check(x.dim() == 2 && x.is_contiguous() && x.size(0) == count, op, ": ", name, " must be contiguous [", count,
        ", C], a row per stored pixel, got ", describe(x));
  check(x.size(1) >= 1 && x.size(1) <= kMostChannels, op, ": ", name, " must have 1 to ", kMostChannels,
        " channels, got ", x.size(1));
}

// How many channels scale and shift [2, C] have.
inline int channels_of(const char* op, const char* name, const Tensor& norm) {
  check(norm.dim() == 2 && norm.size(1) >= 1 && norm.size(1) <= kMostChannels, op, ": ", name,
        " must be [2, C] of scale and shift of 1 to ", kMostChannels, " channels, got ", describe(norm));
  return static_cast<int>(norm.size(1));
}

inline void check_norm(const char* op, const char* name, const Tensor& norm, int64_t channels, ScalarType sums) {
  check(norm.scalar_type() == sums && norm.is_contiguous() && norm.dim() == 2 && norm.size(0) == 2 &&
            norm.size(1) == channels,
        op, ": ", name, " must be contiguous ", torch::headeronly::toString(sums), " [2, ", channels,
        "] of scale and shift, got ", describe(norm));
}

// Weights of a convolution, or of a transposed one of 2x2.
inline void check_weight(const char* op, const char* name, const Tensor& weight, ScalarType sums) {
  check(weight.dim() == 4 && weight.size(2) == weight.size(3) && weight.size(2) >= 1 && weight.size(2) <= 3, op, ": ",
        name, " must be [N, K, 1, 1], [N, K, 2, 2] or [N, K, 3, 3], got ", describe(weight));
  for (int i = 0; i < 2; ++i)
    check(weight.size(i) >= 1 && weight.size(i) <= kMostChannels, op, ": ", name, " must have 1 to ", kMostChannels,
          " input and output channels, got ", describe(weight));
  check_cells(op, name, weight.size(0), weight.size(2), weight.size(1) * weight.size(3));
  check(weight.scalar_type() == sums, op, ": ", name, " must be ", torch::headeronly::toString(sums), ", got ",
        describe(weight));
}

// Those of a layer: either as they are, or `bytes` as pack_weights made them.
inline void check_weight_of(const char* op, const char* name, const Tensor& weight, int64_t outputs, int64_t inputs,
                            int64_t side, int64_t bytes) {
  if (weight.scalar_type() == ScalarType::Byte)
    check(weight.is_contiguous() && weight.numel() == bytes, op, ": ", name, " must be ", bytes,
          " packed bytes, those of ", inputs, " input and ", outputs, " output channels, got ", describe(weight));
  else
    check(weight.dim() == 4 && weight.size(0) == outputs && weight.size(1) == inputs && weight.size(2) == side &&
              weight.size(3) == side,
          op, ": ", name, " must be [", outputs, ", ", inputs, ", ", side, ", ", side, "], got ", describe(weight));
}

inline void check_kernel_size(const char* op, int64_t kernel) {
  check(kernel == 1 || kernel == 3, op, ": kernel must be 1 or 3, got ", kernel);
}

// The weights of one residual unit are 7 tensors: scale and shift of the activation, reduce, its scale and shift, conv,
// its scale and shift, expand, project (empty where the shape is unchanged).
constexpr size_t kUnitWeights = 7;

inline bool has_projection(const Tensor* weights) { return weights[6].numel() > 0; }

// `per_unit`: with one more where levels are multiplied.
inline void check_units(const char* op, int64_t inputs, int64_t stride, int64_t channels,
                        const std::vector<Tensor>& weights, size_t per_unit = kUnitWeights) {
  check(stride == 1 || stride == 2, op, ": stride must be 1 or 2, got ", stride);
  check(channels >= 1 && channels <= kMostChannels, op, ": channels must be 1 to ", kMostChannels, ", got ", channels);
  check(!weights.empty() && weights.size() % per_unit == 0, op, ": weights must be ", per_unit, " tensors per unit");
  for (size_t i = per_unit; i < weights.size(); i += per_unit)
    check(!has_projection(&weights[i]), op, ": only the first unit may have a projection");
  check(has_projection(weights.data()) || (stride == 1 && channels == inputs), op,
        ": a unit without projection must keep the shape");
}

// Channels of a row of weights of voxel_conv: whole vectors of any instruction set.
constexpr int64_t voxel_pitch(int64_t outputs) { return divide_up(outputs, 16) * 16; }

// Voxels, a row for each of `count` occupied pixels, and the weights of their convolution.
inline void check_voxels(const char* op, const Tensor& bits, const Tensor& last, int64_t count, int64_t channels,
                         const Tensor& weight, const Tensor& norm) {
  check(bits.dim() == 1 && bits.size(0) == count && bits.scalar_type() == ScalarType::Long && bits.is_contiguous(), op,
        ": bits must be contiguous int64 [", count, "], got ", describe(bits));
  check(last.dim() == 1 && last.size(0) == count && last.scalar_type() == ScalarType::Float && last.is_contiguous(), op,
        ": last must be contiguous float32 [", count, "], got ", describe(last));
  check(channels >= 2 && channels <= 64, op, ": channels must be 2 to 64, got ", channels);
  const int64_t pitch = voxel_pitch(channels_of(op, "norm", norm));
  check(weight.dim() == 3 && weight.is_contiguous() && weight.scalar_type() == norm.scalar_type() &&
            weight.size(0) == 9 && weight.size(1) == channels && weight.size(2) == pitch,
        op, ": weight must be contiguous [9, ", channels, ", ", pitch, "], got ", describe(weight));
}

}  // namespace sbnet
