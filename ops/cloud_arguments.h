// What the kernels of every device demand of the arguments of operations on clouds.
#pragma once

#include "extents.h"
#include "voxel_grid.h"

namespace sbnet {

inline Cloud cloud_of(const Tensor& points) {
  return {points.const_data_ptr<float>(), points.size(0), points.stride(0), points.stride(1)};
}

// Checks points float32 [P, >= 3].
inline Cloud check_cloud(const char* op, const Tensor& points) {
  check(points.dim() == 2 && points.size(1) >= 3 && points.scalar_type() == ScalarType::Float, op,
        ": points must be float32 [P, >= 3], got ", describe(points));
  check(points.size(0) <= kMostCells, op, ": points must be at most ", kMostCells, ", got ", points.size(0));
  return cloud_of(points);
}

// Checks the bounds of what counts; they may be infinite.
inline Range check_range(const char* op, const std::vector<double>& range) {
  check(range.size() == 4, op, ": range must be x_min, x_max, y_min, y_max, got ", range.size(), " numbers");
  for (const double bound : range) check_limit(op, "range", bound);
  return {static_cast<float>(range[0]), static_cast<float>(range[1]), static_cast<float>(range[2]),
          static_cast<float>(range[3])};
}

inline CellGrid check_grid(const char* op, const std::vector<double>& range, double resolution,
                           const std::vector<int64_t>& size) {
  const Range within = check_range(op, range);
  for (const double bound : range) check_position(op, "range", bound);
  check_side(op, "resolution", resolution);
  check_pair(op, "size", size, 1);
  check_cells(op, "size", 1, size[0], size[1]);
  return {within, static_cast<float>(1.0 / resolution), size[0], size[1]};
}

// Checks heights between which a point counts; they may be infinite.
inline void check_heights(const char* op, double low, double high) {
  check_limit(op, "low", low);
  check_limit(op, "high", high);
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
  check(points.size(0) <= kMostCells, op, ": points must be at most ", kMostCells, ", got ", points.size(0));
  const CellGrid cells = check_grid(op, range, resolution, size);
  check_side(op, "bin_height", bin_height);
  check_position(op, "z_min", z_min);
  check(bins >= 1 && bins <= 61, op, ": bins must be 1 to 61, got ", bins);
  const auto f = [](double value) { return static_cast<float>(value); };
  return {cells,
          f(z_min),
          f(z_min - bin_height / 2),
          f(z_min + (static_cast<double>(bins) + 0.5) * bin_height),
          f(1 / bin_height),
          static_cast<int>(bins)};
}

}  // namespace sbnet
