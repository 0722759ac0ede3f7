// Cells and levels from which the ground is found: bev/ground.py says how; nothing of torch.
#pragma once

#include "cloud.h"

namespace sbnet {

constexpr int kSide = 128;  // cells of 4 m about the origin; what lies beyond belongs to the outermost
constexpr int kCells = kSide * kSide;
constexpr int kNowhere = kCells;  // one more for the points that do not count
constexpr float kCellsPerMetre = 0.25f;
constexpr double kPercentile = 0.05;

// z in whole centimetres
constexpr int kLevels = 1 << 13, kZeroLevel = kLevels / 2;
constexpr float kLowestZ = -40.96f, kHighestZ = 40.95f, kStep = 0.01f, kPerStep = 100.0f;

constexpr SBNET_BOTH int ground_cell_along(float metres) {
  const float scaled = clamped(metres * kCellsPerMetre, -kSide / 2.0f, kSide / 2.0f - 1);
  const int towards_zero = static_cast<int>(scaled);
  return towards_zero - (static_cast<float>(towards_zero) > scaled) + kSide / 2;
}

// Without branches.
constexpr SBNET_BOTH int ground_cell(const Range& range, float x, float y, float z) {
  const int counts = range.holds(x, y) & is_finite(x) & is_finite(y) & is_finite(z);
  const int cell = ground_cell_along(y) * kSide + ground_cell_along(x);
  return kNowhere + counts * (cell - kNowhere);
}

constexpr SBNET_BOTH int level_of(float z) {
  return static_cast<int>((clamped(z, kLowestZ, kHighestZ) - kLowestZ) * kPerStep);
}
constexpr SBNET_BOTH float metres_of(int level) { return static_cast<float>(level - kZeroLevel) * kStep; }

// How many of a cell's points, at least one, lie below the one that its low percentile is.
constexpr SBNET_BOTH int64_t points_below(int64_t count) {
  return static_cast<int64_t>(static_cast<double>(count - 1) * kPercentile);
}

}  // namespace sbnet
