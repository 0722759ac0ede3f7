// tile_pyramid: the active tiles of several partitions of one mask, from one pass over it, and their pixels.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "map_arguments.h"
#include "parallel.h"
#include "pixels.h"

namespace sbnet {
namespace {

constexpr int64_t kPixelsPerThread = 1 << 15;

// Bytes [images, rows, columns], 0 or not.
struct Raster {
  const uint8_t* data;
  int64_t images, rows, columns;
};

// A partition of the mask: tiles of side (y, x), at first none of them known to be active.
struct Level {
  int64_t side_y, side_x, images, rows, columns;
  std::vector<uint8_t> active;

  Level(const Raster& mask, const int64_t* side)
      : side_y(side[0]), side_x(side[1]), images(mask.images), rows(divide_up(mask.rows, side_y)),
        columns(divide_up(mask.columns, side_x)), active(images * rows * columns) {}

  Raster raster() const { return {active.data(), images, rows, columns}; }
};

void add_row(const uint8_t* __restrict row, int64_t width, uint8_t* __restrict sum) {
  for (int64_t x = 0; x < width; ++x) sum[x] |= row[x];
}

void halve(const uint8_t* __restrict bytes, int64_t count, uint8_t* __restrict out) {
  for (int64_t i = 0; i < count; ++i) out[i] = bytes[2 * i] | bytes[2 * i + 1];
}

// Whether any of each `side` bytes is set. The bytes are followed by zeros; `scratch` is overwritten.
void pool_row(std::vector<uint8_t>& bytes, std::vector<uint8_t>& scratch, int64_t side, uint8_t* out, int64_t count) {
  for (; side % 2 == 0; side /= 2, bytes.swap(scratch)) halve(bytes.data(), count * side / 2, scratch.data());
  for (int64_t x = 0; x < side; ++x)
    for (int64_t i = 0; i < count; ++i) out[i] |= bytes[side * i + x] != 0;
}

// Each tile of `level` from the `step_y` x `step_x` bytes of `from` beneath it.
void pool(const Raster& from, int64_t step_y, int64_t step_x, Level& level) {
  if (level.columns == 1) step_x = from.columns;  // one tile may be far wider than what is beneath it
  const int64_t grain = larger(1, kPixelsPerThread / larger(1, smaller(step_y, from.rows) * from.columns));
  parallel_for(level.images * level.rows, grain, [&](int64_t first, int64_t last) {
    std::vector<uint8_t> bytes(level.columns * step_x), scratch(bytes.size());
    for (int64_t row = first; row < last; ++row) {
      const int64_t image = row / level.rows, begin = row % level.rows * step_y;
      const uint8_t* line = from.data + (image * from.rows + begin) * from.columns;
      std::fill(bytes.begin(), bytes.end(), 0);
      for (int64_t y = begin; y < smaller(begin + step_y, from.rows); ++y, line += from.columns)
        add_row(line, from.columns, bytes.data());
      pool_row(bytes, scratch, step_x, level.active.data() + row * level.columns, level.columns);
    }
  });
}

// The coarsest of the levels before `level` whose tiles divide its own, or none.
const Level* finer(const std::vector<Level>& before, const Level& level) {
  const Level* best = nullptr;
  for (const Level& other : before)
    if (level.side_y % other.side_y == 0 && level.side_x % other.side_x == 0 &&
        (!best || other.rows * other.columns < best->rows * best->columns))
      best = &other;
  return best;
}

// mask bool [N, H, W] and, of each partition, the sides (y, x) of its tiles in pixels of a feature map and the map's
// stride on the mask -> for each the lists of the pixels of its active tiles.
std::vector<Tensor> tile_pyramid(const Tensor& argument, std::vector<int64_t> sides, std::vector<int64_t> strides,
                                 std::optional<std::vector<int64_t>> capacities) {
  constexpr const char* op = "tile_pyramid";
  const Extent extent = check_pyramid(op, argument, sides, strides);
  check(!capacities, op, ": capacities are for the kernels of a GPU");
  const Tensor mask = torch::stable::contiguous(argument);
  const Raster pixels{static_cast<const uint8_t*>(mask.const_data_ptr()), extent.images, extent.height, extent.width};

  std::vector<Level> levels;
  std::vector<Tensor> lists;
  for (size_t i = 0; i < strides.size(); ++i) {
    const auto [map, tile_height, tile_width] = partition_of(extent, &sides[2 * i], strides[i]);
    const int64_t side[2] = {tile_height * strides[i], tile_width * strides[i]};
    Level level = allocate(op, "mask", {pixels.images, pixels.rows, pixels.columns},
                           [&] { return Level(pixels, side); });
    // tiles made of whole tiles of an earlier partition are active where one of those is
    if (const Level* const source = finer(levels, level))
      pool(source->raster(), level.side_y / source->side_y, level.side_x / source->side_x, level);
    else
      pool(pixels, level.side_y, level.side_x, level);
    thread_local RowList active;
    pixels_of_tiles(level.active.data(), {level.images, level.rows, level.columns}, map, tile_height, tile_width, active);
    for (Tensor& list : lists_of(active, map, mask)) lists.push_back(list);
    levels.push_back(std::move(level));
  }
  return lists;
}

}  // namespace
}  // namespace sbnet

STABLE_TORCH_LIBRARY_IMPL(sbnet, CPU, m) { m.impl("tile_pyramid", TORCH_BOX(&sbnet::tile_pyramid)); }
