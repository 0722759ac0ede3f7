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

}  // namespace sbnet::cuda
