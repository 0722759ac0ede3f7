// Where blocks lie on an image: pure index arithmetic, nothing of torch.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define SBNET_BOTH __host__ __device__
#else
#define SBNET_BOTH
#endif

namespace sbnet {

constexpr SBNET_BOTH int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr SBNET_BOTH int64_t larger(int64_t a, int64_t b) { return a < b ? b : a; }
constexpr SBNET_BOTH int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Positions [begin, end) along one axis.
struct Span {
  int64_t begin, end;
  constexpr SBNET_BOTH int64_t size() const { return end - begin; }
  constexpr SBNET_BOTH bool holds(int64_t position) const { return begin <= position && position < end; }
};

// Regular blocks along one axis: pixel i < size of block b lies at offset + stride * b + dilation * i.
// While every field, b and the image are within 32 bits, nothing here leaves 64 bits.
struct Axis {
  int64_t size, stride, offset, dilation = 1;

  constexpr SBNET_BOTH int64_t pixel(int64_t b, int64_t i) const { return offset + stride * b + dilation * i; }

  // Which pixels i of block b lie inside an image of `extent` pixels.
  constexpr SBNET_BOTH Span inside(int64_t b, int64_t extent) const {
    const int64_t first = pixel(b, 0);
    const int64_t begin = first < 0 ? smaller(divide_up(-first, dilation), size) : 0;
    const int64_t end = first < extent ? smaller(divide_up(extent - first, dilation), size) : 0;
    return {begin, larger(begin, end)};
  }

  // The positions of block b, which is not dilated, inside an image of `extent` pixels.
  constexpr SBNET_BOTH Span covered(int64_t b, int64_t extent) const {
    const int64_t first = pixel(b, 0), begin = smaller(larger(first, 0), extent);
    return {begin, larger(smaller(first + size, extent), begin)};
  }
};

// How images or blocks [N, C, H, W] lie in memory: steps in elements.
struct Layout {
  int64_t image, channel, row, pixel;
  constexpr SBNET_BOTH int64_t at(int64_t n, int64_t y, int64_t x) const { return n * image + y * row + x * pixel; }
};

}  // namespace sbnet
