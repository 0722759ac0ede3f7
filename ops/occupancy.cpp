// Points as rasters: their height above the ground, and the cells of those between two heights.
#include <torch/csrc/stable/library.h>

#include <atomic>

#include "cloud_arguments.h"
#include "ground.h"
#include "parallel.h"

namespace sbnet {
namespace {

constexpr int64_t kPointsPerThread = 1 << 13;

// points float32 [P, >= 3] -> float32 [P], metres; NaN for points outside the range or not finite.
Tensor height_above_ground(const Tensor& points, std::vector<double> range) {
  constexpr const char* op = "height_above_ground";
  const Cloud cloud = check_cloud(op, points);
  const Range within = check_range(op, range);
  Tensor heights = torch::stable::new_empty(points, {cloud.count});
  heights_above_ground(cloud, within, heights.mutable_data_ptr<float>());
  return heights;
}

// bool [H, W]: cells of the range that hold a point with low <= height above ground <= high.
Tensor occupancy(const Tensor& points, double low, double high, std::vector<double> range, double resolution,
                 std::vector<int64_t> size) {
  constexpr const char* op = "occupancy";
  const Cloud cloud = check_cloud(op, points);
  const CellGrid grid = check_grid(op, range, resolution, size);
  check_heights(op, low, high);
  const auto lowest = static_cast<float>(low), highest = static_cast<float>(high);
  Tensor raster = new_raster(op, points, grid);
  bool* const cells = raster.mutable_data_ptr<bool>();
  std::fill_n(cells, grid.height * grid.width, false);
  std::vector<float> heights(cloud.count);
  heights_above_ground(cloud, grid.range, heights.data());
  // The points between come in no foreseeable order: list them without a branch.
  constexpr int64_t kChunk = 1024;
  parallel_for(divide_up(cloud.count, kChunk), kPointsPerThread / kChunk, [&](int64_t begin, int64_t end) {
    int64_t between[kChunk];
    for (int64_t first = begin * kChunk; first < smaller(end * kChunk, cloud.count); first += kChunk) {
      int64_t count = 0;
      for (int64_t i = first; i < smaller(first + kChunk, cloud.count); ++i) {
        between[count] = i;
        count += (heights[i] >= lowest) & (heights[i] <= highest);
      }
      for (int64_t k = 0; k < count; ++k) {
        const int64_t row = grid.row(cloud.y(between[k])), column = grid.column(cloud.x(between[k]));
        std::atomic_ref(cells[row * grid.width + column]).store(true, std::memory_order_relaxed);
      }
    }
  });
  return raster;
}

}  // namespace
}  // namespace sbnet

STABLE_TORCH_LIBRARY_IMPL(sbnet, CPU, m) {
  m.impl("height_above_ground", TORCH_BOX(&sbnet::height_above_ground));
  m.impl("occupancy", TORCH_BOX(&sbnet::occupancy));
}
