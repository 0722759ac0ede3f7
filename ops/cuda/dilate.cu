// A mask grown by a stack of horizontal runs. How far the next True pixel of a row is, is found once; whether a pixel
// lies in a run of a row above or below is then a comparison.
#include "dilate.h"

#include "device.h"

namespace sbnet::cuda {
namespace {

// Half widths of rows first, first + 1, ... above and below: as many as a launch may carry.
struct Runs {
  static constexpr int kMost = 512;
  int64_t first;
  int count;
  uint32_t half_widths[kMost];
};

// How far the next bit of a row is from `column`.
__device__ uint32_t distance(const uint32_t* bits, int64_t words, int64_t column, uint32_t reach) {
  const int64_t word = column / 32;
  const int bit = static_cast<int>(column % 32);
  uint32_t best = reach + 1;
  const auto take = [&](uint32_t found) { best = found < best ? found : best; };
  // in the pixel's own word
  const uint32_t up_to_it = bits[word] << (31 - bit), from_it = bits[word] >> bit;
  if (up_to_it) take(__clz(up_to_it));
  if (from_it) take(__ffs(from_it) - 1);
  // in words further and further away, until none can be nearer
  const int nearest = bit < 31 - bit ? bit + 1 : 32 - bit;
  for (int64_t away = 1; 32 * (away - 1) + nearest < best; ++away) {
    const uint32_t left = away <= word ? bits[word - away] : 0, right = word + away < words ? bits[word + away] : 0;
    const auto between = static_cast<uint32_t>(32 * (away - 1));
    if (left) take(between + bit + 1 + __clz(left));
    if (right) take(between + 32 - bit + __ffs(right) - 1);
  }
  return best;
}

// A block of the grid has a row at a time.
__global__ void __launch_bounds__(kThreads, kResident) distance_kernel(const uint8_t* mask, Raster size, uint32_t reach,
                                                                       uint32_t* all_bits, uint32_t* distances) {
  const int64_t words = size.words();
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarp;
  for (int64_t row = blockIdx.x; row < size.rows; row += gridDim.x) {
    uint32_t* const bits = all_bits + row * words;
    for (int64_t word = thread / kWarp; word < words; word += kThreads / kWarp) {
      const int64_t column = word * 32 + lane;
      const uint32_t set = __ballot_sync(~0u, column < size.columns && mask[row * size.columns + column]);
      if (lane == 0) bits[word] = set;
    }
    __syncthreads();  // other warps wrote the words around a pixel's own
    for (int64_t column = thread; column < size.columns; column += kThreads)
      distances[row * size.columns + column] = distance(bits, words, column, reach);
  }
}

// A thread for each pixel. The first runs make the result, further ones add to it.
__global__ void __launch_bounds__(kThreads, kResident) lay_kernel(const uint32_t* distances, Raster size,
                                                                  const Runs runs, uint8_t* result) {
  const int64_t pixels = size.rows * size.columns;
  for (int64_t pixel = thread_of_grid(); pixel < pixels; pixel += threads_of_grid()) {
    const int64_t row = pixel / size.columns;
    bool reached = runs.first > 0 && result[pixel];
    for (int i = 0; i < runs.count && !reached; ++i) {
      const int64_t dy = runs.first + i, steps = dy * size.columns;
      const uint32_t half_width = runs.half_widths[i];
      reached = (row >= dy && distances[pixel - steps] <= half_width) ||
                (row + dy < size.rows && distances[pixel + steps] <= half_width);
    }
    result[pixel] = reached;
  }
}

}  // namespace

void find_distances(const uint8_t* mask, Raster size, int64_t reach, uint32_t* bits, uint32_t* distances,
                    Stream stream) {
  launch("find distances in rows", distance_kernel, size.rows, 1, 0, stream, mask, size, reach, bits, distances);
}

void lay_runs(const uint32_t* distances, Raster size, const std::vector<int64_t>& half_widths, uint8_t* result,
              Stream stream) {
  const auto rows = static_cast<int64_t>(half_widths.size());
  for (int64_t first = 0; first < rows; first += Runs::kMost) {
    Runs runs{first, static_cast<int>(smaller(Runs::kMost, rows - first)), {}};
    for (int i = 0; i < runs.count; ++i) runs.half_widths[i] = static_cast<uint32_t>(half_widths[first + i]);
    launch("lay runs", lay_kernel, size.rows * size.columns, kThreads, 0, stream, distances, size, runs, result);
  }
}

}  // namespace sbnet::cuda
