// The ground beneath a cloud, cell by cell: bev/ground.py says what is computed, this is the same answer faster.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

namespace sbnet {

// Points of [P, >= 3] floats, columns x, y, z, in any memory layout.
struct Cloud {
  const float* data;
  int64_t count, to_next, to_column;

  float x(int64_t i) const { return data[i * to_next]; }
  float y(int64_t i) const { return data[i * to_next + to_column]; }
  float z(int64_t i) const { return data[i * to_next + 2 * to_column]; }
};

// x_min <= x < x_max and y_min <= y < y_max, compared in float32.
struct Range {
  float x_min, x_max, y_min, y_max;

  // Without branches: points come in no order that a processor could foresee.
  bool holds(float x, float y) const { return (x >= x_min) & (x < x_max) & (y >= y_min) & (y < y_max); }
};

// Height of each point above the ground around it; NaN for what is outside the range or not finite.
void heights_above_ground(const Cloud& cloud, const Range& range, float* heights);

}  // namespace sbnet
