// Products of pixels and weights by a warp on tensor cores: who holds which channel.
//
// The hardware fixes which rows and columns of a product a lane holds, but which channel is called row or column number
// k is ours to say, as long as both factors agree. Channels go in blocks of 16; of pixels lane / 4 and lane / 4 + 8 a
// lane owns the quarter number lane % 4 of every block. So it reads and writes its share as one vector, straight between
// memory and registers, as input and as output.
#pragma once

#include "device.h"
#include "products.h"

namespace sbnet::cuda {

constexpr int kBlock = 16;   // channels
constexpr int kPixels = 16;  // that a warp has at a time
constexpr int kResidentWithProducts = 2;  // blocks of kThreads on a multiprocessor: kRegistersWithProducts

// The channels that a lane holds of a pixel in a block, two in a register; and as numbers.
struct Piece {
  uint32_t pair[2];
};
struct Values {
  float of[4];
};

template <typename T>
__device__ __forceinline__ Piece rounded(const Values& values) {
  return {{floats_to_pair<T>(values.of[0], values.of[1]), floats_to_pair<T>(values.of[2], values.of[3])}};
}

__device__ __forceinline__ uint16_t bits_of(const Piece& piece, int i) {
  return static_cast<uint16_t>(piece.pair[i / 2] >> i % 2 * 16 & 0xffff);
}

template <typename T>
__device__ __forceinline__ Values values_of(const Piece& piece) {
  Values values;
  for (int i = 0; i < 4; ++i) values.of[i] = value_of(T{bits_of(piece, i)});
  return values;
}

// A pixel's channels from `channel` on, in a row of `channels`.
template <typename T>
__device__ __forceinline__ void store_piece(const Piece& piece, T* row, int channel, int channels) {
  if (channels % 4 == 0) {
    if (channel < channels) *reinterpret_cast<uint2*>(row + channel) = {piece.pair[0], piece.pair[1]};
    return;
  }
  for (int i = 0; i < 4; ++i)
    if (channel + i < channels) row[channel + i].bits = bits_of(piece, i);
}

// Scale and shift of some channels in shared memory, whole blocks with 0 behind the last.
struct Staged {
  float* scale;  // [2, pitch]
  int channels, pitch;

  // All channels of a norm.
  __host__ __device__ static Staged take(Arena& arena, const Norm& norm) {
    const int pitch = (norm.channels + kBlock - 1) / kBlock * kBlock;
    return {arena.take<float>(2 * pitch), norm.channels, pitch};
  }
  // Those of the norm from `first` on, by some threads.
  __device__ __forceinline__ void stage(const Norm& norm, int first, int thread, int threads) const {
    for (int i = thread; i < pitch; i += threads)
      for (int of = 0; of < 2; ++of)
        scale[of * pitch + i] = i < channels ? norm.scale[of * norm.channels + first + i] : 0.f;
  }
};

// Four channels times scale plus shift, then ReLU (NaN stays NaN); 0 behind the last channel.
__device__ __forceinline__ Values normalized(const Values& values, const Staged& norm, int channel, bool relu = true) {
  const float4 scale = *reinterpret_cast<const float4*>(norm.scale + channel);
  const float4 shift = *reinterpret_cast<const float4*>(norm.scale + norm.pitch + channel);
  const float by[4] = {scale.x, scale.y, scale.z, scale.w}, plus[4] = {shift.x, shift.y, shift.z, shift.w};
  Values result;
  for (int i = 0; i < 4; ++i) {
    const float value = values.of[i] * by[i] + plus[i];
    result.of[i] = channel + i >= norm.channels || (relu && value < 0) ? 0.f : value;
  }
  return result;
}

// Sums of `N` blocks of outputs: of each two tiles of 8 columns, and of these what a lane holds.
template <int N>
struct Sums {
  float of[N][2][4] = {};

  // Block number n of the pixel lane / 4 + 8 * half.
  __device__ __forceinline__ Values values(int n, int half) const {
    return {{of[n][0][2 * half], of[n][0][2 * half + 1], of[n][1][2 * half], of[n][1][2 * half + 1]}};
  }
};

// Where the products of a warp have arrived: a block of the input at one of the places `taps` of the window.
struct Step {
  uint32_t taps;
  int tap, block;

  __device__ __forceinline__ static Step first(uint32_t taps) { return {taps, __ffs(static_cast<int>(taps)) - 1, 0}; }
  __device__ __forceinline__ static Step at(uint32_t taps, int step, int blocks) {
    for (; step >= blocks; step -= blocks) taps &= taps - 1;
    Step found = first(taps);
    found.block = step;
    return found;
  }
  __device__ __forceinline__ void advance(int blocks) {
    if (++block == blocks) *this = first(taps & (taps - 1));
  }
};

// Part number `number` of `count` equal ones.
struct Share {
  int number = 0, count = 1;
};

// Adds the products of 16 pixels at the places `taps` of a window with the weights of outputs from block `first` on, or
// a share of them. rows.fetch(tap, pixel, channel, wanted) loads the piece of a pixel, rows.ready(piece, channel) is what
// is multiplied.
template <typename T, int N, typename Pixels>
__device__ __forceinline__ void add_products(Sums<N>& sums, const Pixels& rows, uint32_t taps, const Matrix& weights,
                                             int first, Share share = {}) {
  constexpr int kAhead = N == 1 ? 6 : 4;  // steps whose loads run ahead
  const int lane = lane_of_warp(), pixel = lane / 4;
  int from[N];  // a block behind the last one is the last one again: nobody reads its sums
#pragma unroll
  for (int n = 0; n < N; ++n) from[n] = (first + n < weights.outputs ? first + n : weights.outputs - 1) * kWarp + lane;
  const int all = __popc(taps) * weights.inputs;
  const int steps = all * (share.number + 1) / share.count;
  int begin = all * share.number / share.count;
  for (Step next = Step::at(taps, begin, weights.inputs); begin < steps; begin += kAhead) {
    Piece upper[kAhead], lower[kAhead];
    uint4 matrix[kAhead][N];
    int channel[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const bool wanted = begin + i < steps;
      channel[i] = next.block * kBlock + lane % 4 * 4;
      upper[i] = rows.fetch(next.tap, pixel, channel[i], wanted);
      lower[i] = rows.fetch(next.tap, pixel + 8, channel[i], wanted);
      const int64_t row = (int64_t{next.tap} * weights.inputs + next.block) * weights.outputs * kWarp;
#pragma unroll
      for (int n = 0; n < N; ++n)
        matrix[i][n] = load_if<uint4>(wanted, static_cast<const uint4*>(weights.fragments), row + from[n]);
      next.advance(weights.inputs);
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (begin + i >= steps) continue;
      const Piece up = rows.ready(upper[i], channel[i]), low = rows.ready(lower[i], channel[i]);
      const uint32_t pixels[4] = {up.pair[0], low.pair[0], up.pair[1], low.pair[1]};
#pragma unroll
      for (int n = 0; n < N; ++n) {
        multiply_add<T>(sums.of[n][0], pixels, matrix[i][n].x, matrix[i][n].y);
        multiply_add<T>(sums.of[n][1], pixels, matrix[i][n].z, matrix[i][n].w);
      }
    }
  }
}

}  // namespace sbnet::cuda
