// The launches of voxelize.
#pragma once

#include "../voxel_grid.h"
#include "scan.h"

namespace sbnet::cuda {

using Counter = unsigned long long;

// Sets the bits of the cells that hold points, in words that were 0; counts these points.
void mark_cells(const Cloud& cloud, const VoxelGrid& grid, const Scanned& map, Counter* points, Stream stream);

// What is added up over the points of a cell. In float64 the sum of float32 intensities is exact, and so the same in
// any order, unless the intensities of the cell are a factor of 2^29 / points apart.
struct CellSum {
  double intensity;
  int32_t points;
};

// Channels and mean intensities of the cells, whose numbers are known. `sums` is room for one of each.
void fill_cells(const Cloud& cloud, const VoxelGrid& grid, const Scanned& map, CellSum* sums, Counter* bits,
                float* mean, Stream stream);

}  // namespace sbnet::cuda
