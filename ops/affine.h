// Positions on a raster that is turned against another one: whole numbers, nothing of torch.
#pragma once

#include "blocks.h"

namespace sbnet {

// Positions are in raster cells with this many bits after the point: sums of them are exact.
constexpr int kFraction = 32;
constexpr int64_t kFarthestCell = int64_t{1} << 29;  // how far from a raster positions may be

// The raster cell (y, x) of pixel (row, column): floor of origin + row * per_row + column * per_column.
struct Affine {
  int64_t origin[2], per_row[2], per_column[2];

  constexpr SBNET_BOTH int64_t cell(int axis, int64_t row, int64_t column) const {
    return (origin[axis] + row * per_row[axis] + column * per_column[axis]) >> kFraction;
  }
};

}  // namespace sbnet
