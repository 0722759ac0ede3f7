// Argument checks: a failed one raises RuntimeError in Python with a sentence that names the argument.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "blocks.h"

namespace sbnet {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr int64_t kHighest = std::numeric_limits<int32_t>::max();

template <typename... Parts>
void check(bool condition, const Parts&... parts) {
  if (condition) return;
  std::ostringstream message;
  (message << ... << parts);
  throw std::runtime_error(message.str());
}

// Checks one (vertical, horizontal) pair of integers. The bound keeps every product of two in 64 bits.
inline void check_pair(const char* op, const char* name, const std::vector<int64_t>& pair, int64_t lowest) {
  check(pair.size() == 2, op, ": ", name, " must be 2 integers, got ", pair.size());
  for (const int64_t value : pair)
    check(value >= lowest && value <= kHighest, op, ": ", name, " must be in ", lowest, " .. ", kHighest, ", got (",
          pair[0], ", ", pair[1], ")");
}

// A tensor's dtype and shape in a message; costs nothing where the check holds.
struct Described {
  const Tensor& tensor;
};

inline Described describe(const Tensor& tensor) { return {tensor}; }

inline std::ostream& operator<<(std::ostream& text, const Described& described) {
  const Tensor& tensor = described.tensor;
  text << torch::headeronly::toString(tensor.scalar_type()) << " [";
  for (int64_t i = 0; i < tensor.dim(); ++i) text << (i ? ", " : "") << tensor.size(i);
  return text << "]";
}

inline bool is_floating(ScalarType type) {
  return type == ScalarType::Float || type == ScalarType::Double || type == ScalarType::BFloat16 ||
         type == ScalarType::Half;
}

// Checks int32 [B, 3] on the device of `image`; returns it contiguous.
inline Tensor check_indices(const char* op, const Tensor& argument, const char* name, const Tensor& image) {
  check(argument.device() == image.device(), op, ": indices must be on the device of ", name);
  check(argument.dim() == 2 && argument.size(1) == 3 && argument.scalar_type() == ScalarType::Int, op,
        ": indices must be int32 [B, 3], got ", describe(argument));
  return torch::stable::contiguous(argument);
}

// Checks the images that contiguous indices, in the memory of the CPU, name.
inline void check_image_numbers(const char* op, const Tensor& indices, const Tensor& image) {
  const int32_t* const index = indices.const_data_ptr<int32_t>();
  for (int64_t b = 0; b < indices.size(0); ++b)
    check(index[3 * b] >= 0 && index[3 * b] < image.size(0), op, ": indices name image ", index[3 * b], " in row ", b,
          ", outside the batch of ", image.size(0));
}

// The shape of blocks that the operations share.
struct Geometry {
  Axis vertical, horizontal;

  Geometry(const char* op, const std::vector<int64_t>& size, const std::vector<int64_t>& stride,
           const std::vector<int64_t>& offset, const std::vector<int64_t>& dilation) {
    check_pair(op, "block_size", size, 1);
    check_pair(op, "block_stride", stride, 1);
    check_pair(op, "block_offset", offset, std::numeric_limits<int32_t>::min());
    check_pair(op, "block_dilation", dilation, 1);
    vertical = {size[0], stride[0], offset[0], dilation[0]};
    horizontal = {size[1], stride[1], offset[1], dilation[1]};
  }
};

inline Layout layout_of(const Tensor& image) {
  return {image.stride(0), image.stride(1), image.stride(2), image.stride(3)};
}

constexpr int64_t kMostBytes = int64_t{1} << 32;  // of a result

// Runs `allocate` unless the product of `sizes`, in bytes, exceeds the bound; what does not fit names the argument.
template <typename Allocate>
auto allocate(const char* op, const char* name, std::initializer_list<int64_t> sizes, const Allocate& allocate) {
  int64_t bytes = 1;
  bool fits = true;
  for (const int64_t size : sizes) fits = fits && !__builtin_mul_overflow(bytes, size, &bytes);
  if (fits && bytes <= kMostBytes) {
    try {
      return allocate();
    } catch (const std::exception&) {
    }
  }
  throw std::runtime_error(std::string(op) + ": " + name + " is too large, the result does not fit in memory");
}

}  // namespace sbnet
