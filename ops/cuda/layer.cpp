#include "layer.h"

#include <torch/csrc/stable/library.h>

#include "pack_weights.h"

namespace sbnet::cuda {
namespace {

constexpr int64_t kBlock = 16;  // channels that are multiplied together

int64_t packed_bytes(int64_t outputs, int64_t inputs, int64_t side) {
  return side * side * divide_up(outputs, kBlock) * divide_up(inputs, kBlock) * kBlock * kBlock * 2;
}

// `x`, or a copy that begins at a whole vector of 4 numbers.
Tensor aligned(const Tensor& x) {
  const auto address = reinterpret_cast<uintptr_t>(x.const_data_ptr());
  return address % (4 * x.element_size()) ? torch::stable::clone(x) : x;
}

// weight [N, K, k, k] float -> the bytes that the kernels read. In other dtypes the plain form computes, and reads
// weights as they are.
Tensor pack_weights_op(const Tensor& weight, const Tensor& like) {
  constexpr const char* op = "pack_weights";
  const bool packs = has_kernels(op, like);
  check_weight(op, "weight", weight, sums_of(like.scalar_type()));
  if (!packs) return in_plain_form(op, weight, like);
  return packed(op, "weight", weight, like, OnDevice(weight).stream);
}

}  // namespace

Tensor packed(const char* op, const char* name, const Tensor& argument, const Tensor& like, Stream stream) {
  check_weight(op, name, argument, ScalarType::Float);
  const Tensor weight = torch::stable::contiguous(argument);
  const int64_t outputs = weight.size(0), inputs = weight.size(1), side = weight.size(2);
  const int64_t bytes = packed_bytes(outputs, inputs, side);
  Tensor result =
      allocate(op, name, {bytes}, [&] { return torch::stable::new_empty(weight, {bytes}, ScalarType::Byte); });
  pack_weights(element_of(like), weight.const_data_ptr<float>(), outputs, inputs, side * side,
               result.mutable_data_ptr(), stream);
  return result;
}

Pixels Layer::pixels(const char* name, const Lists& lists, const Size& size) const {
  for (const Tensor& list : lists) check_device(name, list);
  return pixels_of(op_, name, lists, size);
}

Rows Layer::rows(const char* name, const Tensor& x, const Pixels& pixels) {
  check_map(op_, name, x, pixels.index.capacity);
  check_device(name, x);
  check(x.scalar_type() == like_.scalar_type(), op_, ": ", name, " must have the dtype of x");
  const int64_t missing = divide_up(x.size(1), 4) * 4 - x.size(1);
  const Tensor& whole = kept(missing ? torch::stable::pad(x, {0, missing}) : aligned(x));
  return {const_cast<void*>(whole.const_data_ptr()), static_cast<int>(whole.size(1)), 0};
}

Matrix Layer::matrix(const char* name, const Tensor& weight, int64_t outputs, int64_t inputs, int64_t side) {
  check_weight_of(op_, name, weight, outputs, inputs, side, packed_bytes(outputs, inputs, side));
  check_device(name, weight);
  const bool is_packed = weight.scalar_type() == ScalarType::Byte;
  const Tensor& read = is_packed ? weight : kept(packed(op_, name, weight, like_, device_.stream));
  return {read.const_data_ptr(), static_cast<int>(divide_up(inputs, kBlock)),
          static_cast<int>(divide_up(outputs, kBlock))};
}

Norm Layer::norm(const char* name, const Tensor& norm, int64_t channels) {
  check_norm(op_, name, norm, channels, ScalarType::Float);
  check_device(name, norm);
  return {kept(aligned(norm)).const_data_ptr<float>(), static_cast<int>(channels)};
}

Rows Layer::narrow_rows(const Pixels& pixels, const Matrix& reduce) {
  const int64_t channels = reduce.outputs * kBlock;
  const Tensor& rows = kept(torch::stable::new_empty(like_, {1 + pixels.index.capacity, channels}));
  return {rows.mutable_data_ptr(), static_cast<int>(channels), 1};
}

void Layer::check_device(const char* name, const Tensor& tensor) const {
  check(tensor.device() == like_.device(), op_, ": ", name, " must be on the device of the map");
}

}  // namespace sbnet::cuda

STABLE_TORCH_LIBRARY_IMPL(SBNET_LIBRARY, SBNET_DEVICE, m) {
  m.impl("pack_weights", TORCH_BOX(&sbnet::cuda::pack_weights_op));
}
