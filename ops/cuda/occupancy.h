// The launch of occupancy.
#pragma once

#include "ground.h"

namespace sbnet::cuda {

// Heights above the ground, both ends included.
struct Heights {
  float low, high;
};

// Sets to 1 the cells of `raster` uint8 [H, W] that hold a point whose height lies between, to 0 all others.
void mark_between(const Cloud& cloud, const Ground& found, Heights between, const CellGrid& grid, uint8_t* raster,
                  Stream stream);

}  // namespace sbnet::cuda
