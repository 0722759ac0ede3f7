// The fused layers on maps, whatever pixels of them are stored.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <vector>

#include "maps.h"

namespace sbnet {

// One layer's output: its map, and the pixels of it that are computed, which are stored.
struct Output {
  Map map;
  Extent extent;
  Rows active;
};

// Checks `weights` of residual units, 7 tensors each, for a map of `inputs` channels: `stride` is that of the first
// unit; it alone may change the shape, and has a projection then. Returns whether it does.
bool check_units(const char* op, int64_t inputs, int64_t stride, int64_t channels, const std::vector<Tensor>& weights);

// Residual units one after the other; all but the first work in place.
void run_units(const char* op, const Tensor& like, const Map& x, Extent input, const Output& y, int64_t stride,
               const std::vector<Tensor>& weights);

// Convolution of size 1 or 3 (stride 1, padding that keeps the size), scale and shift, ReLU if `relu`.
void run_conv(const char* op, const Tensor& like, const Map& x, const Output& y, int64_t kernel, bool relu,
              const Tensor& weights, const Tensor& norm);

// Transposed 2x2 convolution of x plus 1x1 convolution of `skip`, scale and shift, ReLU.
void run_upsample(const char* op, const Tensor& like, const Map& x, const Map& skip, const Output& y, const Tensor& up,
                  const Tensor& lateral, const Tensor& norm);

}  // namespace sbnet
