// Points as rasters: their height above the ground, and the cells of those between two heights.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <atomic>
#include <cmath>

#include "check.h"
#include "ground.h"
#include "parallel.h"

namespace sbnet {
namespace {

constexpr int64_t kPointsPerThread = 1 << 13;
constexpr int64_t kMostPoints = std::numeric_limits<int32_t>::max();

void check_points(const char* op, const Tensor& points) {
  check(points.dim() == 2 && points.size(1) >= 3 && points.scalar_type() == ScalarType::Float, op,
        ": points must be float32 [P, >= 3], got ", describe(points));
  check(points.size(0) <= kMostPoints, op, ": points must be at most ", kMostPoints, ", got ", points.size(0));
}

Cloud cloud_of(const Tensor& points) {
  return {points.const_data_ptr<float>(), points.size(0), points.stride(0), points.stride(1)};
}

Range range_of(const char* op, const std::vector<double>& range) {
  check(range.size() == 4, op, ": range must be x_min, x_max, y_min, y_max, got ", range.size(), " numbers");
  return {static_cast<float>(range[0]), static_cast<float>(range[1]), static_cast<float>(range[2]),
          static_cast<float>(range[3])};
}

// points float32 [P, >= 3] -> float32 [P], metres; NaN for points outside the range or not finite.
Tensor height_above_ground(const Tensor& points, std::vector<double> range) {
  constexpr const char* op = "height_above_ground";
  check_points(op, points);
  const Range within = range_of(op, range);
  Tensor heights = torch::stable::new_empty(points, {points.size(0)});
  heights_above_ground(cloud_of(points), within, heights.mutable_data_ptr<float>());
  return heights;
}

// The cell of a coordinate of the range: rounding next to the upper edge stays in the last one.
int64_t cell_of(float value, float low, float per_metre, int64_t count) {
  const auto last = static_cast<float>(count - 1);
  return smaller(static_cast<int64_t>(std::clamp((value - low) * per_metre, 0.0f, last)), count - 1);
}

// bool [H, W]: cells of the range that hold a point with low <= height above ground <= high.
Tensor occupancy(const Tensor& points, double low, double high, std::vector<double> range, double resolution,
                 std::vector<int64_t> size) {
  constexpr const char* op = "occupancy";
  check_points(op, points);
  const Range within = range_of(op, range);
  for (const double bound : range) check(std::isfinite(bound), op, ": range must be finite, got ", bound);
  check(std::isfinite(1.0 / resolution) && resolution > 0, op, ": resolution must be positive, got ", resolution);
  check_pair(op, "size", size, 1);
  const Cloud cloud = cloud_of(points);
  const auto lowest = static_cast<float>(low), highest = static_cast<float>(high);
  const auto per_metre = static_cast<float>(1.0 / resolution);

  Tensor raster = allocate(op, "size", {size[0], size[1]},
                           [&] { return torch::stable::new_empty(points, {size[0], size[1]}, ScalarType::Bool); });
  bool* const cells = raster.mutable_data_ptr<bool>();
  std::fill_n(cells, size[0] * size[1], false);
  std::vector<float> heights(cloud.count);
  heights_above_ground(cloud, within, heights.data());
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
        const int64_t row = cell_of(cloud.y(between[k]), within.y_min, per_metre, size[0]);
        const int64_t column = cell_of(cloud.x(between[k]), within.x_min, per_metre, size[1]);
        std::atomic_ref(cells[row * size[1] + column]).store(true, std::memory_order_relaxed);
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
