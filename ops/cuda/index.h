// Numbers of the pixels of a map.
#pragma once

#include "device.h"

namespace sbnet::cuda {

// The number of a pixel of an image that exists; or kAbsent, kOutside.
__device__ __forceinline__ int32_t number_of(const Index& map, int64_t image, int64_t row, int64_t column) {
  if (row < 0 || row >= map.height || column < 0 || column >= map.width) return kOutside;
  const Word word = map.words[(image * map.height + row) * map.row_words() + column / 32];
  const uint32_t bit = uint32_t{1} << column % 32;
  if (!(word.bits & bit)) return kAbsent;
  const int32_t number = word.before + __popc(word.bits & (bit - 1));
  return number < map.capacity ? number : kAbsent;
}

// Where a stored pixel lies.
struct Place {
  int64_t image, row, column;
};

// Positions are within 32 bits: divisions of 64 would be several times slower.
__device__ __forceinline__ Place place_of(const Pixels& pixels, int64_t number) {
  const auto position = static_cast<uint32_t>(pixels.flat[number]);
  const auto width = static_cast<uint32_t>(pixels.index.width), height = static_cast<uint32_t>(pixels.index.height);
  return {position / width / height, position / width % height, position % width};
}

}  // namespace sbnet::cuda
