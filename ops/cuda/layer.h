// The host side of the layers: tensors as the launches take them, checked.
#pragma once

#include <array>

#include "../layer_arguments.h"
#include "host.h"
#include "pixels.h"
#include "products.h"

namespace sbnet::cuda {

// Whether kernels compute with maps like `x`: in 16 bits, on tensor cores.
inline bool has_kernels(const char* op, const Tensor& x) {
  check_dtype(op, x);
  return x.scalar_type() == ScalarType::BFloat16 || x.scalar_type() == ScalarType::Half;
}

// Calls the plain form of an operation, for what no kernel computes.
template <typename... Arguments>
Tensor in_plain_form(const std::string& op, const Arguments&... arguments) {
  std::array<StableIValue, sizeof...(Arguments)> stack{torch::stable::detail::from(arguments)...};
  TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher(("sbnet::" + op + "_plain").c_str(), "", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

using Size = std::vector<int64_t>;

// The arguments of one layer. What has to be copied for the launches lives as long as it does.
class Layer {
 public:
  // `like` has the dtype of the layer's maps.
  Layer(const char* op, const Tensor& like) : op_(op), like_(like), device_(like) {}

  Element element() const { return element_of(like_); }
  Stream stream() const { return device_.stream; }

  // No kernel would survive memory of the host, or of another device.
  void check_device(const char* name, const Tensor& tensor) const;

  Pixels pixels(const char* name, const Lists& lists, const Size& size) const;
  // A row for each of the pixels, padded to a multiple of 4 channels.
  Rows rows(const char* name, const Tensor& x, const Pixels& pixels);
  // Weights [outputs, inputs, side, side], or what pack_weights made of them.
  Matrix matrix(const char* name, const Tensor& weight, int64_t outputs, int64_t inputs, int64_t side);
  // Scale and shift [2, channels].
  Norm norm(const char* name, const Tensor& norm, int64_t channels);
  // Memory for rows of the dtype of the maps, with one for a pixel that is not stored before those of the pixels.
  Rows narrow_rows(const Pixels& pixels, const Matrix& reduce);

 private:
  const Tensor& kept(Tensor tensor) { return kept_.emplace_back(std::move(tensor)); }

  const char* op_;
  const Tensor& like_;
  OnDevice device_;
  std::vector<Tensor> kept_;
};

// Weights of a product for maps of the dtype of `like`: what Layer::matrix takes.
Tensor packed(const char* op, const char* name, const Tensor& weight, const Tensor& like, Stream stream);

// Whether a layer's output has the pixels of its input.
inline bool are_same(const Pixels& a, const Pixels& b) { return a.flat == b.flat && a.index.capacity == b.index.capacity; }

}  // namespace sbnet::cuda
