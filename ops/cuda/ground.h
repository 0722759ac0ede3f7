// The ground beneath a cloud, for heights above it and for what stands on it.
#pragma once

#include "../ground_cells.h"
#include "launch.h"

namespace sbnet::cuda {

// What is found of the ground, and what is needed on the way there.
struct Ground {
  int32_t *cells, *ranks;  // [points] cell of each, kNowhere for those that do not count; its number in the cell
  uint16_t* levels;        // [points] of the cells, one after the other
  int32_t *counts, *start;  // [kCells + 1] points of each cell, and of all; where its levels begin
  int32_t* low;            // [kCells] low percentile, a level; kNoLevel where the cell is empty
  float* ground;           // [kCells + 1] metres; NaN of an empty cell and of kNowhere
};
constexpr int32_t kNoLevel = kLevels;

void find_ground(const Cloud& cloud, const Range& range, const Ground& found, Stream stream);

// Height of each point above its ground; NaN of those that do not count.
void write_heights(const Cloud& cloud, const Ground& found, float* heights, Stream stream);

}  // namespace sbnet::cuda
