// What the host side of an operation (.cpp, which knows torch) and its kernels (.cu, which do not) tell each other.
// Pointers are into the memory of the device.
#pragma once

#include "../blocks.h"

namespace sbnet::cuda {

using Stream = void*;  // a cudaStream_t

// What the elements of a tensor are.
enum class Element { kBool, kFloat, kDouble, kBFloat16, kHalf };

// Blocks on a batch of images: indices int32 [count, 3] of rows (n, by, bx). What names an image that is not there lies
// outside, like a pixel beyond a border.
struct Placed {
  const int32_t* indices;
  int64_t count;
  Axis vertical, horizontal;
  int64_t images, channels, height, width;
};

// 32 columns of a row of a map: bit i says whether column i is stored; `before` is the number of the first that is.
struct alignas(8) Word {
  uint32_t bits;
  int32_t before;
};

// Which pixels of a batch of maps are stored, and their numbers in raster order. 64 times smaller than a number for each
// pixel of the map: it stays in the caches.
struct Index {
  const Word* words;  // [images * height, row_words]
  int64_t images, height, width;
  int64_t capacity;  // pixels from this number on found no room and are not stored

  constexpr SBNET_BOTH int64_t row_words() const { return divide_up(width, 32); }
  constexpr SBNET_BOTH int64_t size() const { return images * height * row_words(); }
};

// The pixels of a map as an operation is given them. They belong to the lists.
struct Pixels {
  Index index;
  const int64_t* flat;
  const int32_t* count;       // [2], on the device
  const int32_t* neighbours;  // [9, capacity]; null where nobody has asked for them
};

// Instead of a pixel's number: not stored, beyond the border.
constexpr int32_t kAbsent = -1, kOutside = -2;

}  // namespace sbnet::cuda
