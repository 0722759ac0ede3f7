// Which pixels of a batch of maps are stored, and their numbers in raster order: one bit for each pixel, and for every
// 32 of them how many were stored before.
#pragma once

#include "device.h"

namespace sbnet::cuda {

constexpr int kAbsent = -1, kOutside = -2;  // instead of a number: not stored, beyond the border

// 32 columns of a row: bit i says whether column i is stored; `before` is the number of the first that is.
struct alignas(8) Word {
  uint32_t bits;
  int32_t before;
};

struct Index {
  const Word* words;  // [images * height, row_words]
  int height, width;

  __device__ int row_words() const { return (width + 31) / 32; }
  __device__ int number(int image, int row, int column) const {
    if (row < 0 || row >= height || column < 0 || column >= width) return kOutside;
    const Word word = words[(int64_t{image} * height + row) * row_words() + column / 32];
    const uint32_t bit = 1u << column % 32;
    return word.bits & bit ? word.before + __popc(word.bits & (bit - 1)) : kAbsent;
  }
};

}  // namespace sbnet::cuda
