// Products of small matrices by a warp, as mma.sync.m16n8k16 has them.
#pragma once

#include "machine.h"

namespace cuda_on_cpu {

// d[16 x 8] += a[16 x 16] * b[16 x 8]. With r = lane / 4 and t = lane % 4 a lane holds, two numbers in a register,
//   a: (r, 2t..), (r + 8, 2t..), (r, 2t + 8..), (r + 8, 2t + 8..)
//   b: (2t.., r), (2t + 8.., r)
//   d: (r, 2t), (r, 2t + 1), (r + 8, 2t), (r + 8, 2t + 1)
template <typename ToFloat>
__attribute__((optimize("O3"))) inline void multiply(Warp& warp, ToFloat to_float) {
  float a[16][16], b[16][8], d[16][8] = {};
  const auto put = [&](uint32_t pair, float* low, float* high) {
    *low = to_float(static_cast<uint16_t>(pair & 0xffff));
    *high = to_float(static_cast<uint16_t>(pair >> 16));
  };
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    const Thread& of = *warp.lanes[lane];
    const unsigned r = lane / 4, t = lane % 4;
    for (unsigned i = 0; i < 4; ++i) {
      float* const at = &a[r + i % 2 * 8][2 * t + i / 2 * 8];
      put(of.factors[i], at, at + 1);
    }
    for (unsigned i = 0; i < 2; ++i) put(of.factors[4 + i], &b[2 * t + i * 8][r], &b[2 * t + i * 8 + 1][r]);
  }
  for (int row = 0; row < 16; ++row)
    for (int k = 0; k < 16; ++k)
      for (int column = 0; column < 8; ++column) d[row][column] += a[row][k] * b[k][column];
  for (unsigned lane = 0; lane < kWarp; ++lane)
    for (unsigned i = 0; i < 4; ++i) warp.lanes[lane]->sums[i] = d[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
}

template <typename ToFloat>
void multiply_add(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, ToFloat to_float, Site site) {
  Thread& me = *machine().current;
  for (int i = 0; i < 4; ++i) me.factors[i] = a[i];
  me.factors[4] = b0;
  me.factors[5] = b1;
  meet(~0u, site, false, [to_float](Warp& warp) { multiply(warp, to_float); });
  for (int i = 0; i < 4; ++i) d[i] += me.sums[i];
}

}  // namespace cuda_on_cpu
