// Maps [N, H, W, C] as tensors, and which of their pixels are active.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <vector>

#include "rows.h"

namespace sbnet {

using torch::stable::Tensor;

constexpr int64_t kMostChannels = 1 << 16;

// A contiguous tensor as a map; else raises an error that names it.
Map map_of(const char* op, const char* name, const Tensor& x);

inline Extent extent_of(const Tensor& x) { return {x.size(0), x.size(1), x.size(2)}; }

// Pixels of the tiles at `indices` [B, 3], which are checked. They belong to this thread and last until the next call.
const RowList& active_pixels(const char* op, const Tensor& indices, const std::vector<int64_t>& tile, Extent map);

// A new map with the pixels of `base`, or 0 if there is none, between the active pixels; those are yet to be written.
Tensor new_map(const Tensor& like, Extent extent, int64_t channels, const RowList& active, const Tensor* base);

}  // namespace sbnet
