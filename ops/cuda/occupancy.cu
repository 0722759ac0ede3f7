// The cells that hold a point between two heights above the ground.
#include "occupancy.h"

#include "device.h"

namespace sbnet::cuda {
namespace {

// A thread for each point.
__global__ void __launch_bounds__(kThreads, kResident) mark_kernel(const Cloud cloud, const int32_t* cells,
                                                                   const float* ground, const Heights between,
                                                                   const CellGrid grid, uint8_t* raster) {
  for (int64_t i = thread_of_grid(); i < cloud.count; i += threads_of_grid()) {
    const float height = cloud.z(i) - ground[cells[i]];
    if (height >= between.low && height <= between.high)
      store_relaxed(raster + grid.row(cloud.y(i)) * grid.width + grid.column(cloud.x(i)), 1);
  }
}

}  // namespace

void mark_between(const Cloud& cloud, const Ground& found, Heights between, const CellGrid& grid, uint8_t* raster,
                  Stream stream) {
  fill_bytes(raster, 0, static_cast<size_t>(grid.height * grid.width), stream);
  launch("mark what stands up", mark_kernel, cloud.count, kThreads, 0, stream, cloud, found.cells, found.ground,
         between, grid, raster);
}

}  // namespace sbnet::cuda
