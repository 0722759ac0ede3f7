// Which rows of its input a warp reads for its pixels, and reading them.
#pragma once

#include "fragments.h"
#include "index.h"

namespace sbnet::cuda {

constexpr int kMostTaps = 9;
constexpr int kFound = kMostTaps * kPixels;  // rows that a warp finds for one term

__host__ __device__ constexpr int taps_of(Window window) {
  return window == Window::kNine ? 9 : window == Window::kQuarter ? 4 : 1;
}

// The number of the input pixel that a pixel of `output` sees at a place of its window. A pixel before the first one is
// one that is not stored, and sees nothing else.
__device__ __forceinline__ int32_t seen(const Term& term, const Pixels& output, int64_t pixel, int tap) {
  if (pixel < 0) return kAbsent;
  if (term.same && term.window == Window::kOne) return static_cast<int32_t>(pixel);
  if (term.same && output.neighbours) return output.neighbours[tap * output.index.capacity + pixel];
  const Place place = place_of(output, pixel);
  if (term.window == Window::kQuarter)
    return place.row % 2 * 2 + place.column % 2 == tap
               ? number_of(term.pixels.index, place.image, place.row / 2, place.column / 2)
               : kOutside;
  const int from_centre = term.window == Window::kNine ? 1 : 0;
  return number_of(term.pixels.index, place.image, place.row * term.stride + (tap / 3 - 1) * from_centre,
                   place.column * term.stride + (tap % 3 - 1) * from_centre);
}

// Finds the rows that 16 pixels of the output from `first` on see, int32 [taps, 16]; negative where it is 0. Returns
// the places of the window where any is not.
__device__ __forceinline__ uint32_t find_rows(const Term& term, const Pixels& output, int64_t first, int64_t count,
                                              int32_t* rows) {
  const int lane = lane_of_warp(), taps = taps_of(term.window);
  const int64_t pixel = first + lane % kPixels;
  uint32_t present = 0;
  for (int two = 0; two < taps; two += 2) {
    const int tap = two + lane / kPixels;
    const bool exists = tap < taps && pixel < count;
    const int row = exists ? seen(term, output, pixel, tap) + term.x.before : -1;
    if (tap < taps) rows[tap * kPixels + lane % kPixels] = row;
    const uint32_t found = __ballot_sync(~0u, row >= 0);
    present |= (found & 0xffff ? 1u : 0u) << two | (found >> 16 ? 2u : 0u) << two;
  }
  return present;
}

// The rows that were found of a map, as add_products asks for them.
template <typename T>
struct FoundRows {
  const Rows& map;
  const int32_t* rows;

  __device__ __forceinline__ Piece fetch(int tap, int pixel, int channel, bool wanted) const {
    const int row = wanted ? rows[tap * kPixels + pixel] : -1;
    const uint2 pairs = load_if<uint2>(row >= 0 && channel < map.channels, static_cast<const T*>(map.data),
                                       int64_t{row} * map.channels + channel);
    return {{pairs.x, pairs.y}};
  }
  __device__ __forceinline__ Piece ready(const Piece& piece, int) const { return piece; }
};

// The same after scale, shift and ReLU.
template <typename T>
struct ActivatedRows : FoundRows<T> {
  const Staged& norm;

  __device__ __forceinline__ Piece ready(const Piece& piece, int channel) const {
    return rounded<T>(normalized(values_of<T>(piece), norm, channel));
  }
};

}  // namespace sbnet::cuda
