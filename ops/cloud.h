// Points and the rasters they fall on: the arithmetic that all devices share, in float32; nothing of torch.
#pragma once

#include <limits>

#include "blocks.h"

namespace sbnet {

// Points of [P, >= 3] floats, columns x, y, z and perhaps intensity, in any memory layout.
struct Cloud {
  const float* data;
  int64_t count, to_next, to_column;

  constexpr SBNET_BOTH float x(int64_t i) const { return data[i * to_next]; }
  constexpr SBNET_BOTH float y(int64_t i) const { return data[i * to_next + to_column]; }
  constexpr SBNET_BOTH float z(int64_t i) const { return data[i * to_next + 2 * to_column]; }
  constexpr SBNET_BOTH float intensity(int64_t i) const { return data[i * to_next + 3 * to_column]; }
};

// x_min <= x < x_max and y_min <= y < y_max.
struct Range {
  float x_min, x_max, y_min, y_max;

  // Without branches: points come in no order that a processor could foresee.
  constexpr SBNET_BOTH bool holds(float x, float y) const {
    return (x >= x_min) & (x < x_max) & (y >= y_min) & (y < y_max);
  }
};

constexpr float kLargestFloat = std::numeric_limits<float>::max();

constexpr SBNET_BOTH bool is_finite(float value) { return (value >= -kLargestFloat) & (value <= kLargestFloat); }

constexpr SBNET_BOTH float clamped(float value, float low, float high) {
  value = value > low ? value : low;
  return value < high ? value : high;
}

// The cell of a coordinate along an axis of `count` cells from `low` on: rounding next to the upper edge stays in the
// last one.
constexpr SBNET_BOTH int64_t cell_of(float value, float low, float per_metre, int64_t count) {
  const auto last = static_cast<float>(count - 1);
  return smaller(static_cast<int64_t>(clamped((value - low) * per_metre, 0.0f, last)), count - 1);
}

// A raster of cells over a range.
struct CellGrid {
  Range range;
  float per_metre;
  int64_t height, width;

  constexpr SBNET_BOTH int64_t row(float y) const { return cell_of(y, range.y_min, per_metre, height); }
  constexpr SBNET_BOTH int64_t column(float x) const { return cell_of(x, range.x_min, per_metre, width); }
};

}  // namespace sbnet
