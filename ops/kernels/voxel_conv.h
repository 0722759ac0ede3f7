// The first convolution of the network, straight from voxels: nearly all of its input is 0, and of the rest nearly all
// is 1, so the product is a sum of rows of weights.
#pragma once

#include <bit>

#include "stream.h"

namespace sbnet::SBNET_ISA {

// Output pixels that are summed together: few enough for the cache.
constexpr int kSpan = 64;

// Adds the rows of weights `offsets` and `last` times the row at `last_row` to the sums of one pixel.
template <typename Sum>
void add_rows(const Sum* weights, const int* offsets, int count, int last_row, Sum last, Sum* sums, int stride) {
  constexpr int lanes = kVectorBytes / sizeof(Sum);
  using Lanes = Vector<Sum, kVectorBytes>;
  for (int v = 0; v < stride; v += lanes) {
    Lanes total, row;
    std::memcpy(&total, sums + v, sizeof total);
    for (int i = 0; i < count; ++i) {
      std::memcpy(&row, weights + offsets[i] + v, sizeof row);
      total += row;
    }
    std::memcpy(&row, weights + last_row + v, sizeof row);
    total += row * last;
    std::memcpy(sums + v, &total, sizeof total);
  }
}

template <typename Storage>
void compute(const VoxelConv& c, const Band& band, Scratch& scratch) {
  using Sum = std::conditional_t<std::is_same_v<Storage, double>, double, float>;
  const int out = c.y.channels, stride = c.pitch, tap = c.channels * stride;
  const auto* const weights = static_cast<const Sum*>(c.weights.packed);
  const auto* const scale = static_cast<const Sum*>(c.weights.scale);
  const auto* const shift = static_cast<const Sum*>(c.weights.shift);
  auto* const sums = scratch.take<Sum>(kSpan * stride);
  if (scratch.counts()) return;

  // One occupied pixel of row i of the window, at `column`: it counts in up to three output pixels.
  const auto add = [&](int i, int64_t column, int64_t number, int64_t begin, int64_t end) {
    int offsets[64], count = 0;
    for (auto bits = static_cast<uint64_t>(c.bits[number]); bits != 0; bits &= bits - 1)
      offsets[count++] = std::countr_zero(bits) * stride;
    for (int64_t x = std::max(begin, column - 1); x < std::min(end, column + 2); ++x)
      add_rows(weights + (3 * i + column - x + 1) * tap, offsets, count, (c.channels - 1) * stride,
               static_cast<Sum>(c.last[number]), sums + (x - begin) * stride, stride);
  };
  for (int64_t row = band.begin; row < band.end; ++row) {
    const int64_t y = row % c.y.height;
    for (const Run* run = c.active.begin(row); run != c.active.end(row); ++run)
      for (int64_t begin = run->begin; begin < run->end; begin += kSpan) {
        const int64_t end = std::min<int64_t>(begin + kSpan, run->end);
        zero(sums, (end - begin) * stride);
        for (int i = 0; i < 3; ++i) {
          if (y + i - 1 < 0 || y + i - 1 >= c.y.height) continue;
          const int64_t above = row + i - 1;
          const Run* cells = std::partition_point(c.occupied.begin(above), c.occupied.end(above),
                                                  [&](const Run& one) { return one.end < begin; });
          for (; cells != c.occupied.end(above) && cells->begin <= end; ++cells) {
            const int64_t stop = std::min<int64_t>(cells->end, end + 1);
            for (int64_t column = std::max<int64_t>(cells->begin, begin - 1); column < stop; ++column)
              add(i, column, cells->number + (column - cells->begin), begin, end);
          }
        }
        auto* to = static_cast<Storage*>(c.y.data) + (run->number + (begin - run->begin)) * int64_t{out};
        for (int64_t x = 0; x < end - begin; ++x, to += out) normalize(sums + x * stride, out, scale, shift, to);
      }
  }
}

}  // namespace sbnet::SBNET_ISA
