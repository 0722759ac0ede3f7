// The host side of the operations: what they need of torch beside the arguments that all devices share.
#pragma once

#include <memory>

#include "../block_arguments.h"
#include "launch.h"

// Tests register the same operations in a library of their own, for tensors in the memory of the CPU.
#if !defined(SBNET_LIBRARY)
#define SBNET_LIBRARY sbnet
#define SBNET_DEVICE CUDA
#endif

namespace sbnet::cuda {

// While one lives, the device of a tensor is the current one, and `stream` is torch's current stream of it.
class OnDevice {
 public:
  explicit OnDevice(const Tensor& tensor);
  Stream stream = nullptr;

 private:
  std::shared_ptr<void> guard_;
};

// Memory on the device of an argument, for as long as this lives. What does not fit names the argument.
class Scratch {
 public:
  Scratch(const char* op, const char* name, const Tensor& argument) : op_(op), name_(name), argument_(argument) {}

  template <typename T>
  T* take(int64_t count) {
    constexpr auto size = static_cast<int64_t>(sizeof(T));
    memory_.push_back(allocate(op_, name_, {count, size}, [&] {
      return torch::stable::new_empty(argument_, {count * size}, ScalarType::Byte);
    }));
    return static_cast<T*>(memory_.back().mutable_data_ptr());
  }

 private:
  const char *op_, *name_;
  const Tensor& argument_;
  std::vector<Tensor> memory_;
};

inline Element element_of(const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Bool:
      return Element::kBool;
    case ScalarType::Float:
      return Element::kFloat;
    case ScalarType::Double:
      return Element::kDouble;
    case ScalarType::BFloat16:
      return Element::kBFloat16;
    default:
      return Element::kHalf;
  }
}

inline Placed placed_on(const Tensor& images, const Tensor& indices, const Geometry& geometry) {
  return {indices.const_data_ptr<int32_t>(), indices.size(0), geometry.vertical, geometry.horizontal, images.size(0),
          images.size(1), images.size(2), images.size(3)};
}

// What is copied from one tensor [N, C, H, W] to another: elements, or vectors of them.
struct Copied {
  int bytes;  // of an element
  int64_t channels;
  Layout from, to;
};

// Vectors of 16 bytes where channels lie side by side in whole ones on both sides.
inline Copied copied(const Tensor& from, const Tensor& to) {
  const auto bytes = static_cast<int>(from.element_size());
  Copied copy{bytes, from.size(1), layout_of(from), layout_of(to)};
  const int64_t each = 16 / bytes;
  bool whole = copy.channels % each == 0;
  for (const Tensor* tensor : {&from, &to}) {
    whole = whole && tensor->stride(1) == 1 && reinterpret_cast<uintptr_t>(tensor->const_data_ptr()) % 16 == 0;
    for (const int dim : {0, 2, 3}) whole = whole && tensor->stride(dim) % each == 0;
  }
  if (!whole) return copy;
  copy.bytes = 16;
  copy.channels /= each;
  for (Layout* layout : {&copy.from, &copy.to}) {
    layout->image /= each;
    layout->row /= each;
    layout->pixel /= each;
  }
  return copy;
}

}  // namespace sbnet::cuda
