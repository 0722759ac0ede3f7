// voxelize: a point cloud as the occupied cells of a bird's-eye-view raster.
#include "voxelize.h"

#include <torch/csrc/stable/library.h>

#include <optional>

#include "../cloud_arguments.h"
#include "pixels.h"

namespace sbnet::cuda {
namespace {

// points float32 [P, 4] x, y, z, intensity -> place int64 [K], bits int64 [K] and mean intensity float32 [K] of the K
// occupied cells, the number of points in all of them, and the index of the cells. `range` is x_min, x_max, y_min,
// y_max. With a capacity it is K, and nothing waits for the device; otherwise the host asks for the number of cells.
std::vector<Tensor> voxelize(const Tensor& points, std::vector<double> range, double resolution,
                             std::vector<int64_t> size, double z_min, double bin_height, int64_t bins,
                             std::optional<int64_t> capacity) {
  constexpr const char* op = "voxelize";
  const VoxelGrid grid = check_voxels(op, points, range, resolution, size, z_min, bin_height, bins);
  check(!capacity || (*capacity >= 1 && *capacity <= kMostCells), op, ": capacity must be positive, got ",
        capacity.value_or(0));
  const OnDevice device(points);
  const Cloud cloud = cloud_of(points);
  const auto empty = [&](std::vector<int64_t> shape, ScalarType type) {
    return torch::stable::new_empty(points, shape, type);
  };

  // The cells that hold points are numbered.
  const Tensor counts = empty({1, 2}, ScalarType::Int), in_cells = empty({}, ScalarType::Long);
  NewPixels map(op, points, {1, size[0], size[1]}, torch::stable::select(counts, 0, 0));
  mark_cells(cloud, grid, map.scanned(), static_cast<Counter*>(in_cells.mutable_data_ptr()), device.stream);
  if (capacity) map.make_room(*capacity, false);
  number_words({map.scanned()}, device.stream);
  if (!capacity) map.make_room(read_counts(counts, device.stream)[0], false);
  list_pixels({map.scanned()}, device.stream);

  // Each gets what its points have.
  const int64_t cells = map.scanned().index.capacity;
  const Tensor bits = empty({cells}, ScalarType::Long), mean = empty({cells}, ScalarType::Float);
  Scratch scratch(op, "points", points);
  fill_cells(cloud, grid, map.scanned(), scratch.take<CellSum>(cells), static_cast<Counter*>(bits.mutable_data_ptr()),
             mean.mutable_data_ptr<float>(), device.stream);
  std::vector<Tensor> results = map.lists();
  results.insert(results.begin() + 1, {bits, mean, in_cells});
  return results;
}

}  // namespace
}  // namespace sbnet::cuda

STABLE_TORCH_LIBRARY_IMPL(SBNET_LIBRARY, SBNET_DEVICE, m) {
  m.impl("voxelize", TORCH_BOX(&sbnet::cuda::voxelize));
}
