// Moving one row of pixels, [pixels, channels] with any steps, between images and blocks.
#pragma once

#include <cstdint>
#include <cstring>

#include "blocks.h"

namespace sbnet {

// Steps in elements from one pixel, and one channel, to the next.
struct Step {
  int64_t pixel, channel;
};

// Pixels are transposed in groups, so that each cache line of a planar image is read once.
constexpr int64_t kTransposed = 16;

// Calls move(to, from, to_step, from_step, count) for runs of elements that cover the row, contiguous ones if possible.
template <typename T, typename Move>
inline void for_runs(T* to, Step to_step, const T* from, Step from_step, int64_t pixels, int64_t channels,
                     const Move& move) {
  if (to_step.channel == 1 && from_step.channel == 1) {
    if (to_step.pixel == channels && from_step.pixel == channels) return move(to, from, 1, 1, pixels * channels);
    for (int64_t p = 0; p < pixels; ++p) move(to + p * to_step.pixel, from + p * from_step.pixel, 1, 1, channels);
    return;
  }
  const bool planar = to_step.pixel == 1 && from_step.pixel == 1;
  const int64_t group = planar ? pixels : kTransposed;
  for (int64_t p = 0; p < pixels; p += group)
    for (int64_t c = 0; c < channels; ++c)
      move(to + p * to_step.pixel + c * to_step.channel, from + p * from_step.pixel + c * from_step.channel,
           to_step.pixel, from_step.pixel, smaller(group, pixels - p));
}

// Copies a row. T is any type of the elements' size.
template <typename T>
void copy_row(T* to, Step to_step, const T* from, Step from_step, int64_t pixels, int64_t channels) {
  const auto copy = [](T* a, const T* b, int64_t to, int64_t from, int64_t count) {
    if (to == 1 && from == 1)
      std::memcpy(a, b, count * sizeof(T));
    else
      for (int64_t k = 0; k < count; ++k) a[k * to] = b[k * from];
  };
  for_runs(to, to_step, from, from_step, pixels, channels, copy);
}

}  // namespace sbnet
