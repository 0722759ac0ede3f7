// The ground beneath a cloud: levels sorted into cells, a low percentile in each, a median over neighbours. In which
// order the points of a cell come is left to chance, and so is the order of the cells: nothing depends on it.
#include "ground.h"

#include <limits>

#include "device.h"

namespace sbnet::cuda {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// A thread for each point.
__global__ void __launch_bounds__(kThreads, kResident) place_kernel(const Cloud cloud, const Range range,
                                                                    int32_t* cells, int32_t* ranks, int32_t* counts) {
  for (int64_t i = thread_of_grid(); i < cloud.count; i += threads_of_grid()) {
    const int cell = ground_cell(range, cloud.x(i), cloud.y(i), cloud.z(i));
    cells[i] = cell;
    if (cell != kNowhere) ranks[i] = atomicAdd(counts + cell, 1);
  }
}

// A thread for each cell. A warp reserves room for all of its cells at once, behind that of other warps.
__global__ void __launch_bounds__(kThreads, kResident) reserve_kernel(int32_t* counts, int32_t* start) {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  for (int64_t cell = thread_of_grid(); cell < kCells; cell += threads_of_grid()) {
    const int count = counts[cell];
    const int sum = sum_up_to_lane(count);
    const int before = lane == kWarp - 1 ? atomicAdd(counts + kCells, sum) : 0;
    start[cell] = __shfl_sync(~0u, before, kWarp - 1) + sum - count;
  }
}

// A thread for each point.
__global__ void __launch_bounds__(kThreads, kResident) sort_kernel(const Cloud cloud, const int32_t* cells,
                                                                   const int32_t* ranks, const int32_t* start,
                                                                   uint16_t* levels) {
  for (int64_t i = thread_of_grid(); i < cloud.count; i += threads_of_grid())
    if (cells[i] != kNowhere) levels[start[cells[i]] + ranks[i]] = static_cast<uint16_t>(level_of(cloud.z(i)));
}

// A warp for each cell: the highest level that no more points lie below than below the percentile, bit by bit.
__global__ void __launch_bounds__(kThreads, kResident) select_kernel(const uint16_t* all_levels, const int32_t* counts,
                                                                     const int32_t* start, int32_t* low) {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  for (int64_t cell = thread_of_grid() / kWarp; cell < kCells; cell += threads_of_grid() / kWarp) {
    const int count = counts[cell];
    int level = count > 0 ? 0 : kNoLevel;
    const uint16_t* const levels = all_levels + start[cell];
    const auto most_below = static_cast<int>(points_below(count));
    for (int bit = kLevels / 2; bit > 0 && count > 0; bit /= 2) {
      int below = 0;
      for (int i = lane; i < count; i += kWarp) below += levels[i] < level + bit;
      if (__reduce_add_sync(~0u, below) <= most_below) level += bit;
    }
    if (lane == 0) low[cell] = level;
  }
}

// The lower median of a cell and its neighbours, of those that hold points.
__device__ float smoothed(const int32_t* low, int row, int column) {
  int around[9], occupied = 0;
  for (int i = 0; i < 9; ++i) {
    const int y = row + i / 3 - 1, x = column + i % 3 - 1;
    around[i] = y >= 0 && y < kSide && x >= 0 && x < kSide ? low[y * kSide + x] : kNoLevel;
    occupied += around[i] != kNoLevel;
  }
  int median = 0;
  for (int i = 0; i < 9; ++i) {
    int before = 0;
    for (int j = 0; j < 9; ++j) before += around[j] < around[i] || (around[j] == around[i] && j < i);
    if (before == (occupied - 1) / 2) median = around[i];
  }
  return metres_of(median);
}

// A thread for each cell, and one for the points that lie in none.
__global__ void __launch_bounds__(kThreads, kResident) smooth_kernel(const int32_t* low, float* ground) {
  for (int64_t i = thread_of_grid(); i <= kCells; i += threads_of_grid()) {
    const auto cell = static_cast<int>(i);
    ground[cell] = cell != kNowhere && low[cell] != kNoLevel ? smoothed(low, cell / kSide, cell % kSide) : kNaN;
  }
}

// A thread for each point.
__global__ void __launch_bounds__(kThreads, kResident) height_kernel(const Cloud cloud, const int32_t* cells,
                                                                     const float* ground, float* heights) {
  for (int64_t i = thread_of_grid(); i < cloud.count; i += threads_of_grid())
    heights[i] = cloud.z(i) - ground[cells[i]];
}

}  // namespace

void find_ground(const Cloud& cloud, const Range& range, const Ground& found, Stream stream) {
  fill_bytes(found.counts, 0, (kCells + 1) * sizeof(int32_t), stream);
  launch("place points", place_kernel, cloud.count, kThreads, 0, stream, cloud, range, found.cells, found.ranks,
         found.counts);
  launch("reserve room for levels", reserve_kernel, kCells, kThreads, 0, stream, found.counts, found.start);
  launch("sort levels", sort_kernel, cloud.count, kThreads, 0, stream, cloud, found.cells, found.ranks, found.start,
         found.levels);
  launch("select levels", select_kernel, kCells, kThreads / kWarp, 0, stream, found.levels, found.counts, found.start,
         found.low);
  launch("smooth the ground", smooth_kernel, kCells + 1, kThreads, 0, stream, found.low, found.ground);
}

void write_heights(const Cloud& cloud, const Ground& found, float* heights, Stream stream) {
  launch("write heights", height_kernel, cloud.count, kThreads, 0, stream, cloud, found.cells, found.ground, heights);
}

}  // namespace sbnet::cuda
