// Maps as tensors, whole [N, H, W, C] or the stored pixels [P, C] alone, and which of their pixels are active.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <vector>

#include "rows.h"

namespace sbnet {

using torch::stable::Tensor;

constexpr int64_t kMostChannels = 1 << 16;

// A contiguous tensor [N, H, W, C] as a map whose rows, all stored, are written to `stored`; else raises an error that
// names it.
Map map_of(const char* op, const char* name, const Tensor& x, RowList& stored);

// Pixels as tensors: start int32 [N * H + 1], runs int32 [R, 3] with numbers from 0 on, size (N, H, W).
struct Pixels {
  Extent extent;
  Rows rows;
  int64_t count;
};

// `size` as (N, H, W); raises an error unless positions within such maps fit 32 bits.
Extent checked_extent(const char* op, const std::vector<int64_t>& size);

// Raises an error that names the pixels if they are not what they should be.
Pixels pixels_of(const char* op, const char* name, const Tensor& start, const Tensor& runs,
                 const std::vector<int64_t>& size);

// A contiguous tensor [P, C] as the map of these pixels.
Map map_of(const char* op, const char* name, const Tensor& x, const Pixels& stored);

inline Extent extent_of(const Tensor& x) { return {x.size(0), x.size(1), x.size(2)}; }

// Pixels of the tiles at `indices` [B, 3], which are checked. They belong to this thread and last until the next call.
const RowList& active_pixels(const char* op, const Tensor& indices, const std::vector<int64_t>& tile, Extent map);

// A new map with the pixels of `base`, or 0 if there is none, between the active pixels; those are yet to be written.
Tensor new_map(const Tensor& like, Extent extent, int64_t channels, const RowList& active, const Tensor* base);

}  // namespace sbnet
