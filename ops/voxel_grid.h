// Cells and channels that points fall into: bev/voxelize.py says how; nothing of torch.
#pragma once

#include <cmath>

#include "cloud.h"

namespace sbnet {

struct VoxelGrid {
  CellGrid cells;
  float z_min, lowest, highest, bins_per_metre;
  int bins;

  constexpr SBNET_BOTH bool holds(float x, float y, float z, float intensity) const {
    return cells.range.holds(x, y) && is_finite(z) && is_finite(intensity);
  }
  // Heights from below upwards, then all that is below, all that is above.
  SBNET_BOTH int channel(float z) const {
    const int bin = static_cast<int>(std::floor((clamped(z, lowest, highest) - z_min) * bins_per_metre));
    return bin < 0 ? bins : bin >= bins ? bins + 1 : bin;
  }
};

}  // namespace sbnet
