// A scan from bits to numbers: every block of the grid adds up all words before its own, which lie in the caches, so that
// one launch is enough for all maps.
#include "scan.h"

#include "index.h"

namespace sbnet::cuda {
namespace {

constexpr int kMostMaps = 8, kWarps = kThreads / kWarp;
constexpr int kResidentWithMasks = 3;  // 80 registers
constexpr int64_t kPart = kThreads;  // words that a block numbers together

struct Maps {
  Scanned map[kMostMaps];
  int count;
};

struct Tilings {
  Tiling of[kMostMaps];
};

// Whether any byte of the rows and columns is set. They are read as vectors, one independent of the other.
template <typename Vector>
__device__ bool any_of(const uint8_t* image, int64_t width, Span rows, Span columns) {
  constexpr int kBytes = sizeof(Vector);
  Vector found{};
  for (int64_t y = rows.begin; y < rows.end; ++y)
    for (int64_t x = columns.begin; x < columns.end; x += kBytes)
      found |= *reinterpret_cast<const Vector*>(image + y * width + x);
  return found != 0;
}
__device__ bool any(const uint8_t* image, int64_t width, Span rows, Span columns) {
  const auto all = reinterpret_cast<uintptr_t>(image) | static_cast<uintptr_t>(width | columns.begin | columns.end);
  if (all % 8 == 0) return any_of<uint64_t>(image, width, rows, columns);
  if (all % 4 == 0) return any_of<uint32_t>(image, width, rows, columns);
  if (all % 2 == 0) return any_of<uint16_t>(image, width, rows, columns);
  return any_of<uint8_t>(image, width, rows, columns);
}

// A warp for each word: a lane asks what lies beneath the tile of its pixel.
__global__ void __launch_bounds__(kThreads, kResidentWithMasks)
    find_kernel(const uint8_t* mask, int64_t height, int64_t width, const Maps maps, const Tilings tilings) {
  const int lane = lane_of_warp();
  for (int m = 0; m < maps.count; ++m) {
    const Index& map = maps.map[m].index;
    const Tiling& tiling = tilings.of[m];
    const int64_t side_y = tiling.tile_height * tiling.stride, side_x = tiling.tile_width * tiling.stride;
    for (int64_t w = warp_of_grid(); w < map.size(); w += warps_of_grid()) {
      const int64_t line = w / map.row_words(), column = w % map.row_words() * kWarp + lane;
      const int64_t top = line % map.height / tiling.tile_height * side_y, left = column / tiling.tile_width * side_x;
      const bool active = column < map.width && any(mask + line / map.height * height * width, width,
                                                    {top, smaller(top + side_y, height)},
                                                    {left, smaller(left + side_x, width)});
      const uint32_t bits = __ballot_sync(~0u, active);
      if (lane == 0) maps.map[m].words[w].bits = bits;
    }
  }
}

__global__ void __launch_bounds__(kThreads, kResident) mark_kernel(const int64_t* flat, int64_t count, Word* words,
                                                                   const Index map) {
  for (int64_t i = thread_of_grid(); i < count; i += threads_of_grid()) {
    const int64_t position = flat[i];
    if (position < 0) continue;
    const int64_t column = position % map.width, word = position / map.width * map.row_words() + column / kWarp;
    atomicOr(&words[word].bits, uint32_t{1} << column % kWarp);
  }
}

// A number of each thread: their sum over the block, and that of the threads before this one.
struct Sums {
  int all, before;
};
__device__ Sums sum_over_block(int value, int* warp_sum) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int sum = sum_up_to_lane(value);
  if (lane == kWarp - 1) warp_sum[warp] = sum;
  __syncthreads();
  Sums sums{0, sum - value};
  for (int w = 0; w < kWarps; ++w) {
    if (w < warp) sums.before += warp_sum[w];
    sums.all += warp_sum[w];
  }
  __syncthreads();  // the next sum overwrites these
  return sums;
}

// A block of the grid for each part of the words of a map.
__global__ void __launch_bounds__(kThreads, kResident) number_kernel(const Maps maps) {
  Arena arena(shared_memory());
  int* const warp_sum = arena.take<int>(kWarps);
  int64_t parts_before = 0;
  for (int m = 0; m < maps.count; ++m) {
    const Scanned& map = maps.map[m];
    const int64_t words = map.index.size(), parts = larger(divide_up(words, kPart), 1);
    // the first part of this map that falls to this block
    const int64_t shift = (parts_before + gridDim.x - 1 - blockIdx.x) / gridDim.x * gridDim.x + blockIdx.x - parts_before;
    for (int64_t part = shift; part < parts; part += gridDim.x) {
      int earlier = 0;
      for (int64_t w = threadIdx.x; w < part * kPart; w += kThreads) earlier += __popc(map.words[w].bits);
      const int64_t word = part * kPart + threadIdx.x;
      const int own = word < words ? __popc(map.words[word].bits) : 0;
      const int before = sum_over_block(earlier, warp_sum).all;
      const Sums sums = sum_over_block(own, warp_sum);
      if (word < words) map.words[word].before = before + sums.before;
      if (part == parts - 1 && threadIdx.x == 0) {
        map.count[1] = before + sums.all;
        map.count[0] = static_cast<int32_t>(smaller(map.count[1], map.index.capacity));
      }
    }
    parts_before += parts;
  }
}

// A warp for each word, a lane for each pixel of it.
__global__ void __launch_bounds__(kThreads, kResident) list_kernel(const Maps maps) {
  const int lane = lane_of_warp();
  for (int m = 0; m < maps.count; ++m) {
    const Scanned& map = maps.map[m];
    const Index& index = map.index;
    for (int64_t w = warp_of_grid(); w < index.size(); w += warps_of_grid()) {
      const Word word = map.words[w];
      if (!(word.bits >> lane & 1)) continue;
      const int64_t number = word.before + __popc(word.bits & ((uint32_t{1} << lane) - 1));
      if (number >= index.capacity) continue;
      const int64_t line = w / index.row_words(), column = w % index.row_words() * kWarp + lane;
      if (map.flat) map.flat[number] = line * index.width + column;
      if (!map.neighbours) continue;
      for (int tap = 0; tap < 9; ++tap)
        map.neighbours[tap * index.capacity + number] =
            number_of(index, line / index.height, line % index.height + tap / 3 - 1, column + tap % 3 - 1);
    }
    // what is not in use says so
    if (!map.flat) continue;
    for (int64_t i = map.count[0] + thread_of_grid(); i < index.capacity; i += threads_of_grid()) map.flat[i] = -1;
  }
}

// Calls run(maps, first) for at most kMostMaps of them at a time.
template <typename Run>
void in_groups(const std::vector<Scanned>& all, const Run& run) {
  for (size_t first = 0; first < all.size(); first += kMostMaps) {
    Maps maps{};
    for (; maps.count < kMostMaps && first + static_cast<size_t>(maps.count) < all.size(); ++maps.count)
      maps.map[maps.count] = all[first + static_cast<size_t>(maps.count)];
    run(maps, first);
  }
}

int64_t most_words(const Maps& maps) {
  int64_t most = 0;
  for (int m = 0; m < maps.count; ++m) most = larger(most, maps.map[m].index.size());
  return most;
}

}  // namespace

void find_tiles(const uint8_t* mask, int64_t height, int64_t width, const std::vector<Scanned>& maps,
                const std::vector<Tiling>& tilings, Stream stream) {
  in_groups(maps, [&](const Maps& group, size_t first) {
    Tilings of{};
    for (int m = 0; m < group.count; ++m) of.of[m] = tilings[first + static_cast<size_t>(m)];
    launch("find tiles", find_kernel, most_words(group), kWarps, 0, stream, mask, height, width, group, of);
  });
}

void mark_positions(const int64_t* flat, int64_t count, const Scanned& map, Stream stream) {
  launch("mark pixels", mark_kernel, count, kThreads, 0, stream, flat, count, map.words, map.index);
}

void number_words(const std::vector<Scanned>& maps, Stream stream) {
  Arena arena(nullptr);
  arena.take<int>(kWarps);
  in_groups(maps, [&](const Maps& group, size_t) {
    int64_t parts = 0;
    for (int m = 0; m < group.count; ++m) parts += larger(divide_up(group.map[m].index.size(), kPart), 1);
    launch("number pixels", number_kernel, parts, 1, arena.bytes(), stream, group);
  });
}

void list_pixels(const std::vector<Scanned>& maps, Stream stream) {
  in_groups(maps, [&](const Maps& group, size_t) {
    int64_t items = most_words(group) * kWarp;
    for (int m = 0; m < group.count; ++m) items = larger(items, group.map[m].index.capacity);
    launch("list pixels", list_kernel, items, kThreads, 0, stream, group);
  });
}

}  // namespace sbnet::cuda
