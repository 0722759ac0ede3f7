// Points as rasters: their height above the ground, and the cells of those between two heights.
#include "occupancy.h"

#include <torch/csrc/stable/library.h>

#include "../cloud_arguments.h"
#include "host.h"

namespace sbnet::cuda {
namespace {

Ground ground_beneath(const Cloud& cloud, const Range& range, Scratch& scratch, Stream stream) {
  const Ground found{scratch.take<int32_t>(cloud.count), scratch.take<int32_t>(cloud.count),
                     scratch.take<uint16_t>(cloud.count), scratch.take<int32_t>(kCells + 1),
                     scratch.take<int32_t>(kCells), scratch.take<int32_t>(kCells), scratch.take<float>(kCells + 1)};
  find_ground(cloud, range, found, stream);
  return found;
}

// points float32 [P, >= 3] -> float32 [P], metres; NaN for points outside the range or not finite.
Tensor height_above_ground(const Tensor& points, std::vector<double> range) {
  constexpr const char* op = "height_above_ground";
  const Cloud cloud = check_cloud(op, points);
  const Range within = check_range(op, range);
  const OnDevice device(points);
  const Tensor heights = torch::stable::new_empty(points, {cloud.count});
  if (cloud.count == 0) return heights;
  Scratch scratch(op, "points", points);
  const Ground ground = ground_beneath(cloud, within, scratch, device.stream);
  write_heights(cloud, ground, heights.mutable_data_ptr<float>(), device.stream);
  return heights;
}

// bool [H, W]: cells of the range that hold a point with low <= height above ground <= high.
Tensor occupancy(const Tensor& points, double low, double high, std::vector<double> range, double resolution,
                 std::vector<int64_t> size) {
  constexpr const char* op = "occupancy";
  const Cloud cloud = check_cloud(op, points);
  const CellGrid grid = check_grid(op, range, resolution, size);
  check_heights(op, low, high);
  const OnDevice device(points);
  const Tensor raster = new_raster(op, points, grid);
  Scratch scratch(op, "points", points);
  const Ground ground = ground_beneath(cloud, grid.range, scratch, device.stream);
  mark_between(cloud, ground, {static_cast<float>(low), static_cast<float>(high)}, grid,
               static_cast<uint8_t*>(raster.mutable_data_ptr()), device.stream);
  return raster;
}

}  // namespace
}  // namespace sbnet::cuda

STABLE_TORCH_LIBRARY_IMPL(SBNET_LIBRARY, SBNET_DEVICE, m) {
  m.impl("height_above_ground", TORCH_BOX(&sbnet::cuda::height_above_ground));
  m.impl("occupancy", TORCH_BOX(&sbnet::cuda::occupancy));
}
