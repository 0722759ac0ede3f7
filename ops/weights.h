// The weights of a layer as its kernel reads them, checked against the layer that they are for.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <vector>

#include "kernels.h"

namespace sbnet {

using torch::stable::Tensor;

// The type of a layer whose maps are floating point: that of the map `x`.
Type type_of(const char* op, const Tensor& x);
// The type of what a map of any layer holds.
Type held_type(const Tensor& x);

// Takes a layer's weights one by one. Those that come as plain tensors are packed for this call.
class LayerWeights {
 public:
  LayerWeights(const char* op, Type type) : op_(op), type_(type) {}

  // Weights [outputs, inputs, side, side], or what pack_weights made of them.
  const void* matrix(const char* name, const Tensor& weight, int64_t outputs, int64_t inputs, int64_t side);
  // Scale and shift [2, channels] of the sums of `weights`.
  void norm(const char* name, const Tensor& norm, int64_t channels, Weights& weights) const;
  // Scale [channels] alone.
  void scale(const char* name, const Tensor& scale, int64_t channels, Weights& weights) const;

 private:
  const char* op_;
  Type type_;
  std::vector<Tensor> packed_;
};

}  // namespace sbnet
