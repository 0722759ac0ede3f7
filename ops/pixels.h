// Maps as tensors: the stored pixels [P, C] of a batch of maps, and which pixels they are.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <vector>

#include "rows.h"

namespace sbnet {

using torch::stable::Tensor;

// Pixels as `Pixels` of Python holds them, which has checked what the lists say: positions int64 [P], start int32
// [N * H + 1], runs int32 [R, 3] with numbers from 0 on; then, if known, start and runs of the pixels beneath their 3x3
// windows.
struct Pixels {
  Extent extent;
  Rows rows;
  int64_t count;
  Rows windows;  // no `start` if not known
};

// Pixels of `map` as lists, windows included.
std::vector<Tensor> lists_of(const RowList& pixels, Extent map, const Tensor& like);

// Raises an error that names the pixels if the lists cannot be of maps of `size`.
Pixels pixels_of(const char* op, const char* name, const std::vector<Tensor>& lists, const std::vector<int64_t>& size);

// A contiguous tensor [P, C] as the map of these pixels.
Map map_of(const char* op, const char* name, const Tensor& x, const Pixels& stored);

}  // namespace sbnet
