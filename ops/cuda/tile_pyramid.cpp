// tile_pyramid: the pixels of the active tiles of several partitions of one mask.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include "../map_arguments.h"
#include "pixels.h"

namespace sbnet::cuda {
namespace {

// mask bool [N, H, W] and, of each partition, the sides (y, x) of its tiles in pixels of a feature map and the map's
// stride on the mask -> for each the lists of the pixels of its active tiles, at most `capacities` of them.
Lists tile_pyramid(const Tensor& argument, std::vector<int64_t> sides, std::vector<int64_t> strides,
                   std::optional<std::vector<int64_t>> capacities) {
  constexpr const char* op = "tile_pyramid";
  const Extent extent = check_pyramid(op, argument, sides, strides);
  check(!capacities || capacities->size() == strides.size(), op, ": capacities must be one for each of the strides");
  if (capacities)
    for (const int64_t capacity : *capacities)
      check(capacity >= 1 && capacity <= kMostCells, op, ": capacities must be positive, got ", capacity);
  const OnDevice device(argument);
  const Tensor mask = torch::stable::contiguous(argument);

  const auto levels = static_cast<int64_t>(strides.size());
  const Tensor counts = torch::stable::new_empty(mask, {levels, 2}, ScalarType::Int);
  std::vector<NewPixels> maps;
  std::vector<Tiling> tilings;
  for (int64_t i = 0; i < levels; ++i) {
    const auto [map, tile_height, tile_width] = partition_of(extent, &sides[2 * i], strides[i]);
    const std::vector<int64_t> size{map.images, map.height, map.width};
    maps.emplace_back(op, mask, size, torch::stable::select(counts, 0, i));
    tilings.push_back({tile_height, tile_width, strides[i]});
  }
  const auto scanned = [&] {
    std::vector<Scanned> all;
    for (const NewPixels& map : maps) all.push_back(map.scanned());
    return all;
  };
  const auto make_room = [&](const std::vector<int64_t>& room) {
    for (size_t i = 0; i < maps.size(); ++i) maps[i].make_room(room[i], true);
  };

  if (capacities) make_room(*capacities);
  find_tiles(static_cast<const uint8_t*>(mask.const_data_ptr()), extent.height, extent.width, scanned(), tilings,
             device.stream);
  number_words(scanned(), device.stream);
  if (!capacities) make_room(read_counts(counts, device.stream));
  list_pixels(scanned(), device.stream);

  Lists lists;
  for (const NewPixels& map : maps)
    for (const Tensor& list : map.lists()) lists.push_back(list);
  return lists;
}

}  // namespace
}  // namespace sbnet::cuda

STABLE_TORCH_LIBRARY_IMPL(SBNET_LIBRARY, SBNET_DEVICE, m) {
  m.impl("tile_pyramid", TORCH_BOX(&sbnet::cuda::tile_pyramid));
}
