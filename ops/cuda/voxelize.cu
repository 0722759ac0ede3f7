// A point cloud as the occupied cells of a raster: bits of the cells first; when these are numbered, what each holds.
#include "voxelize.h"

#include "device.h"
#include "index.h"

namespace sbnet::cuda {
namespace {

__device__ __forceinline__ bool holds(const VoxelGrid& grid, const Cloud& cloud, int64_t i) {
  return grid.holds(cloud.x(i), cloud.y(i), cloud.z(i), cloud.intensity(i));
}

// A thread for each point; those of a warp are counted together.
__global__ void __launch_bounds__(kThreads, kResident) mark_kernel(const Cloud cloud, const VoxelGrid grid, Word* words,
                                                                   Index map, Counter* points) {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  for (int64_t first = thread_of_grid() - lane; first < cloud.count; first += threads_of_grid()) {
    const int64_t i = first + lane;
    const bool counts = i < cloud.count && holds(grid, cloud, i);
    if (counts) {
      const int64_t row = grid.cells.row(cloud.y(i)), column = grid.cells.column(cloud.x(i));
      atomicOr(&words[row * map.row_words() + column / 32].bits, uint32_t{1} << column % 32);
    }
    const uint32_t counted = __ballot_sync(~0u, counts);
    if (lane == 0 && counted) atomicAdd(points, static_cast<Counter>(__popc(counted)));
  }
}

// A thread for each point.
__global__ void __launch_bounds__(kThreads, kResident) add_kernel(const Cloud cloud, const VoxelGrid grid,
                                                                  const Index map, CellSum* sums, Counter* bits) {
  for (int64_t i = thread_of_grid(); i < cloud.count; i += threads_of_grid()) {
    if (!holds(grid, cloud, i)) continue;
    const int32_t cell = number_of(map, 0, grid.cells.row(cloud.y(i)), grid.cells.column(cloud.x(i)));
    if (cell < 0) continue;
    atomicOr(bits + cell, Counter{1} << grid.channel(cloud.z(i)));
    atomicAdd(&sums[cell].intensity, static_cast<double>(cloud.intensity(i)));
    atomicAdd(&sums[cell].points, 1);
  }
}

// A thread for each cell.
__global__ void __launch_bounds__(kThreads, kResident) mean_kernel(const int32_t* count, const CellSum* sums,
                                                                   float* mean) {
  for (int64_t cell = thread_of_grid(); cell < count[0]; cell += threads_of_grid())
    mean[cell] = static_cast<float>(sums[cell].intensity / static_cast<double>(sums[cell].points));
}

}  // namespace

void mark_cells(const Cloud& cloud, const VoxelGrid& grid, const Scanned& map, Counter* points, Stream stream) {
  fill_bytes(points, 0, sizeof(Counter), stream);
  fill_bytes(map.words, 0, static_cast<size_t>(map.index.size()) * sizeof(Word), stream);
  launch("mark occupied cells", mark_kernel, cloud.count, kThreads, 0, stream, cloud, grid, map.words, map.index,
         points);
}

void fill_cells(const Cloud& cloud, const VoxelGrid& grid, const Scanned& map, CellSum* sums, Counter* bits,
                float* mean, Stream stream) {
  const int64_t cells = map.index.capacity;
  fill_bytes(sums, 0, static_cast<size_t>(cells) * sizeof(CellSum), stream);
  fill_bytes(bits, 0, static_cast<size_t>(cells) * sizeof(Counter), stream);
  launch("add points", add_kernel, cloud.count, kThreads, 0, stream, cloud, grid, map.index, sums, bits);
  launch("mean intensities", mean_kernel, cells, kThreads, 0, stream, map.count, sums, mean);
}

}  // namespace sbnet::cuda
