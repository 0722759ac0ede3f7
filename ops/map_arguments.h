// Checks of the sizes of maps and of the tiles on them, which all devices share.
#pragma once

#include <optional>

#include "extents.h"
#include "rows.h"

namespace sbnet {

// `size` as (N, H, W); raises an error unless maps may be so large: positions within them fit 32 bits.
inline Extent checked_extent(const char* op, const std::vector<int64_t>& size, const char* name = "size") {
  check(size.size() == 3, op, ": size must be (N, H, W), got ", size.size(), " integers");
  for (const int64_t side : size) check(side >= 0, op, ": ", name, " must not be negative, got ", side);
  check_cells(op, name, size[0], size[1], size[2]);
  return {size[0], size[1], size[2]};
}

constexpr size_t kMostMaps = 64;  // of one pyramid

// Checks the mask, and of each partition the sides (y, x) of its tiles in pixels of a map, and the map's stride.
inline Extent check_pyramid(const char* op, const Tensor& mask, const std::vector<int64_t>& sides,
                            const std::vector<int64_t>& strides) {
  check(mask.dim() == 3 && mask.scalar_type() == ScalarType::Bool, op, ": mask must be bool [N, H, W], got ",
        describe(mask));
  const Extent extent = checked_extent(op, {mask.size(0), mask.size(1), mask.size(2)}, "mask");
  check(sides.size() == 2 * strides.size(), op, ": sides must be pairs, one for each of the strides, got ", sides.size(),
        " integers and ", strides.size(), " strides");
  check(strides.size() <= kMostMaps, op, ": strides must be at most ", kMostMaps, ", got ", strides.size());
  for (const int64_t side : sides) check(side >= 1 && side <= kHighest, op, ": sides must be positive, got ", side);
  for (const int64_t stride : strides) check(stride >= 1 && stride <= kHighest, op, ": strides must be positive, got ", stride);
  return extent;
}

// The map of a stride on a mask of `mask`, and the sides of its tiles: none need exceed the map.
struct Partition {
  Extent map;
  int64_t tile_height, tile_width;
};

inline Partition partition_of(const Extent& mask, const int64_t* sides, int64_t stride) {
  const Extent map{mask.images, divide_up(mask.height, stride), divide_up(mask.width, stride)};
  return {map, smaller(sides[0], larger(map.height, 1)), smaller(sides[1], larger(map.width, 1))};
}

}  // namespace sbnet
