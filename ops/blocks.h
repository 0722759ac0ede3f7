// Where blocks lie on an image: pure index arithmetic, nothing of torch.
#pragma once

#include <algorithm>
#include <cstdint>

namespace sbnet {

// Pixels [begin, end) along one axis.
struct Span {
  int64_t begin, end;
  constexpr bool empty() const { return begin >= end; }
};

// Regular blocks along one axis: block b covers pixels offset + stride * b .. + size.
struct Axis {
  int64_t count, size, stride, offset;

  // The part of block b that lies inside an image of `extent` pixels.
  constexpr Span inside(int64_t b, int64_t extent) const {
    const int64_t begin = offset + stride * b;
    return {std::max<int64_t>(begin, 0), std::min(begin + size, extent)};
  }
};

}  // namespace sbnet
