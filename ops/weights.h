// Packed weights as tensors, checked against the layer that they are for.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>

#include "kernels.h"

namespace sbnet {

using torch::stable::Tensor;

// The type of the maps of a layer.
Type type_of(const Tensor& x);

// Packed weights of `terms` matrices [outputs, depth], after checking that they are as large as the kernel reads.
const void* packed(const char* op, const char* name, const Tensor& tensor, Type type, int terms, int outputs,
                   int depth);

// Channels of scale and shift [2, channels].
int64_t channels_of(const char* op, const char* name, const Tensor& norm);

// Takes scale and shift [2, channels] that follow packed weights.
void set_norm(const char* op, const char* name, const Tensor& norm, Type type, int64_t channels, Weights& weights);

}  // namespace sbnet
