// What the kernels of every device demand of the arguments of operations on clouds.
#pragma once

#include <algorithm>
#include <cmath>

#include "check.h"
#include "voxel_grid.h"

namespace sbnet {

inline Cloud cloud_of(const Tensor& points) {
  return {points.const_data_ptr<float>(), points.size(0), points.stride(0), points.stride(1)};
}

// Checks points float32 [P, >= 3].
inline Cloud check_cloud(const char* op, const Tensor& points) {
  check(points.dim() == 2 && points.size(1) >= 3 && points.scalar_type() == ScalarType::Float, op,
        ": points must be float32 [P, >= 3], got ", describe(points));
  check(points.size(0) <= kHighest, op, ": points must be at most ", kHighest, ", got ", points.size(0));
  return cloud_of(points);
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

// Checks points float32 [P, 4] and how voxels are made of them.
inline VoxelGrid check_voxels(const char* op, const Tensor& points, const std::vector<double>& range, double resolution,
                              const std::vector<int64_t>& size, double z_min, double bin_height, int64_t bins) {
  check(points.dim() == 2 && points.size(1) == 4 && points.scalar_type() == ScalarType::Float, op,
        ": points must be float32 [P, 4], got ", describe(points));
  check(points.size(0) <= kHighest, op, ": points must be at most ", kHighest);
  check(range.size() == 4 && std::all_of(range.begin(), range.end(), [](double edge) { return std::isfinite(edge); }),
        op, ": range must be x_min, x_max, y_min, y_max, all finite");
  check_pair(op, "size", size, 1);
  check(size[0] * size[1] <= kHighest, op, ": size must be at most ", kHighest, " cells");
  check(resolution > 0 && bin_height > 0 && std::isfinite(z_min) && bins >= 1 && bins <= 61, op,
        ": resolution and bin_height must be positive, z_min finite, bins 1 to 61");
  const auto f = [](double value) { return static_cast<float>(value); };
  return {{check_range(op, range), f(1 / resolution), size[0], size[1]},
          f(z_min),
          f(z_min - bin_height / 2),
          f(z_min + (static_cast<double>(bins) + 0.5) * bin_height),
          f(1 / bin_height),
          static_cast<int>(bins)};
}

}  // namespace sbnet
