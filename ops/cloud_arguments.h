// What the kernels of every device demand of the arguments of operations on clouds.
#pragma once

#include <cmath>

#include "check.h"
#include "cloud.h"

namespace sbnet {

// Checks points float32 [P, >= 3].
inline Cloud check_cloud(const char* op, const Tensor& points) {
  check(points.dim() == 2 && points.size(1) >= 3 && points.scalar_type() == ScalarType::Float, op,
        ": points must be float32 [P, >= 3], got ", describe(points));
  check(points.size(0) <= kHighest, op, ": points must be at most ", kHighest, ", got ", points.size(0));
  return {points.const_data_ptr<float>(), points.size(0), points.stride(0), points.stride(1)};
}

inline Range check_range(const char* op, const std::vector<double>& range) {
  check(range.size() == 4, op, ": range must be x_min, x_max, y_min, y_max, got ", range.size(), " numbers");
  return {static_cast<float>(range[0]), static_cast<float>(range[1]), static_cast<float>(range[2]),
          static_cast<float>(range[3])};
}

inline CellGrid check_grid(const char* op, const std::vector<double>& range, double resolution,
                           const std::vector<int64_t>& size) {
  const Range within = check_range(op, range);
  for (const double bound : range) check(std::isfinite(bound), op, ": range must be finite, got ", bound);
  check(std::isfinite(1.0 / resolution) && resolution > 0, op, ": resolution must be positive, got ", resolution);
  check_pair(op, "size", size, 1);
  return {within, static_cast<float>(1.0 / resolution), size[0], size[1]};
}

// The result of occupancy, not filled.
inline Tensor new_raster(const char* op, const Tensor& points, const CellGrid& grid) {
  return allocate(op, "size", {grid.height, grid.width}, [&] {
    return torch::stable::new_empty(points, {grid.height, grid.width}, ScalarType::Bool);
  });
}

}  // namespace sbnet
