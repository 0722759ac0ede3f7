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

__device__ __forceinline__ int lane_of_warp() { return static_cast<int>(threadIdx.x % kWarp); }

// The channels that a lane holds of a pixel in a block, two in a register; and as numbers.
struct Piece {
  uint32_t pair[2];
};
struct Values {
  float of[4];
};

template <typename T>
__device__ __forceinline__ Piece load_piece(const T* from) {
  const uint2 pairs = *reinterpret_cast<const uint2*>(from);
  return {{pairs.x, pairs.y}};
}

template <typename T>
__device__ __forceinline__ Piece rounded(const Values& values) {
  return {{floats_to_pair<T>(values.of[0], values.of[1]), floats_to_pair<T>(values.of[2], values.of[3])}};
}

template <typename T>
__device__ __forceinline__ Values values_of(const Piece& piece) {
  Values values;
  for (int i = 0; i < 4; ++i)
    values.of[i] = value_of(T{static_cast<uint16_t>(piece.pair[i / 2] >> i % 2 * 16 & 0xffff)});
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
    if (channel + i < channels) row[channel + i].bits = static_cast<uint16_t>(piece.pair[i / 2] >> i % 2 * 16 & 0xffff);
}

// Scale and shift of four channels, then ReLU (NaN stays NaN); 0 behind the last channel.
__device__ __forceinline__ Values normalized(const Values& values, const Norm& norm, int channel, bool relu = true) {
  if (channel >= norm.channels) return {};
  const float4 scale = *reinterpret_cast<const float4*>(norm.scale + channel);
  const float4 shift = *reinterpret_cast<const float4*>(norm.shift + channel);
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

// Adds the products of 16 pixels at the places `taps` of a window with the weights of outputs from block `first` on. What
// rows(tap, pixel, channel) gives is the piece of a pixel.
template <typename T, int N, typename Rows>
__device__ __forceinline__ void add_products(Sums<N>& sums, const Rows& rows, uint32_t taps, const Matrix& weights,
                                             int first) {
  const int lane = lane_of_warp(), pixel = lane / 4;
  int from[N];  // a block behind the last one is the last one again: nobody reads its sums
  for (int n = 0; n < N; ++n) from[n] = (first + n < weights.outputs ? first + n : weights.outputs - 1) * kWarp + lane;
  const int steps = __popc(taps) * weights.inputs;
  int tap = __ffs(static_cast<int>(taps)) - 1, block = 0;
#pragma unroll 4
  for (int step = 0; step < steps; ++step) {
    const int channel = block * kBlock + lane % 4 * 4;
    const Piece upper = rows(tap, pixel, channel), lower = rows(tap, pixel + 8, channel);
    const uint32_t pixels[4] = {upper.pair[0], lower.pair[0], upper.pair[1], lower.pair[1]};
    const uint4* const fragments = static_cast<const uint4*>(weights.fragments) +
                                   (int64_t{tap} * weights.inputs + block) * weights.outputs * kWarp;
    for (int n = 0; n < N; ++n) {
      const uint4 w = fragments[from[n]];
      multiply_add<T>(sums.of[n][0], pixels, w.x, w.y);
      multiply_add<T>(sums.of[n][1], pixels, w.z, w.w);
    }
    if (++block < weights.inputs) continue;
    block = 0;
    taps &= taps - 1;
    tap = __ffs(static_cast<int>(taps)) - 1;
  }
}

// Where the numbers of an output of packed weights lie in those of its block: lane, tile and place.
// (pack_weights.cu, and the definition above)
}  // namespace sbnet::cuda
