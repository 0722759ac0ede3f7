// The ground beneath a cloud, cell by cell: bev/ground.py says what is computed, this is the same answer faster.
#pragma once

#include "cloud.h"

namespace sbnet {

// Height of each point above the ground around it; NaN for what is outside the range or not finite.
void heights_above_ground(const Cloud& cloud, const Range& range, float* heights);

}  // namespace sbnet
