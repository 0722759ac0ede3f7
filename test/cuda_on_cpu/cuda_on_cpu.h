// Runs CUDA kernels on the CPU, for tests only: g++ compiles the kernel, this header stands for the GPU. What CUDA
// leaves open is made as bad as it may be, and what it forbids is caught (docs/gpu.md says what, and by what).
//
// Only what the kernels use is here: add what a new one needs.
#pragma once

#include <atomic>
#include <cmath>

#include "tensor_core.h"

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))

#define threadIdx (cuda_on_cpu::machine().current->index)
#define blockIdx (cuda_on_cpu::machine().current->block->index)
#define blockDim (cuda_on_cpu::machine().block)
#define gridDim (cuda_on_cpu::machine().grid)

struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};

namespace cuda_on_cpu {

// Each lane gets the value of lane source(lane), or its own if there is none.
template <typename T, typename Source>
T shuffle(uint32_t mask, T value, Site site, Source source) {
  static_assert(sizeof(T) == 4);
  Thread& me = *machine().current;
  std::memcpy(&me.in, &value, 4);
  meet(mask, site, false, [&](Warp& warp) {
    for (int lane = 0; lane < static_cast<int>(kWarp); ++lane) {
      if (!(mask >> lane & 1)) continue;
      const int from = source(lane);
      const bool exists = from >= 0 && from < static_cast<int>(kWarp);
      if (exists && !(mask >> from & 1)) fail("a lane reads from one that is not in the mask", site);
      warp.lanes[lane]->out = warp.lanes[exists ? from : lane]->in;
    }
  });
  std::memcpy(&value, &me.out, 4);
  return value;
}

inline char* shared_memory() { return machine().current->block->shared; }

}  // namespace cuda_on_cpu

inline void __syncthreads(cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
  cuda_on_cpu::block_barrier(false, site);
}
inline int __syncthreads_count(bool predicate, cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
  return cuda_on_cpu::block_barrier(predicate, site);
}
inline void __syncwarp(uint32_t mask = ~0u, cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
  cuda_on_cpu::meet(mask, site, true, [](auto&) {});
}

inline uint32_t __ballot_sync(uint32_t mask, bool predicate, cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
  cuda_on_cpu::Thread& me = *cuda_on_cpu::machine().current;
  me.in = predicate;
  cuda_on_cpu::meet(mask, site, false, [mask](cuda_on_cpu::Warp& warp) {
    uint32_t bits = 0;
    for (unsigned lane = 0; lane < cuda_on_cpu::kWarp; ++lane)
      if (mask >> lane & 1) bits |= warp.lanes[lane]->in << lane;
    for (unsigned lane = 0; lane < cuda_on_cpu::kWarp; ++lane)
      if (mask >> lane & 1) warp.lanes[lane]->out = bits;
  });
  return me.out;
}

// The distance must be the same in all lanes.
template <typename T>
T __shfl_up_sync(uint32_t mask, T value, int by, cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
  return cuda_on_cpu::shuffle(mask, value, site, [by](int lane) { return lane - by; });
}

// The source must be the same in all lanes.
template <typename T>
T __shfl_sync(uint32_t mask, T value, int from, cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
  return cuda_on_cpu::shuffle(mask, value, site, [from](int) { return from; });
}

inline int __reduce_add_sync(uint32_t mask, int value, cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
  cuda_on_cpu::Thread& me = *cuda_on_cpu::machine().current;
  me.in = static_cast<uint32_t>(value);
  cuda_on_cpu::meet(mask, site, false, [mask](cuda_on_cpu::Warp& warp) {
    uint32_t sum = 0;
    for (unsigned lane = 0; lane < cuda_on_cpu::kWarp; ++lane)
      if (mask >> lane & 1) sum += warp.lanes[lane]->in;
    for (unsigned lane = 0; lane < cuda_on_cpu::kWarp; ++lane)
      if (mask >> lane & 1) warp.lanes[lane]->out = sum;
  });
  return static_cast<int>(me.out);
}

inline int __ffsll(long long bits) { return __builtin_ffsll(bits); }
inline int __popc(uint32_t bits) { return __builtin_popcount(bits); }
inline int __popcll(unsigned long long bits) { return __builtin_popcountll(bits); }
inline int __clz(uint32_t bits) { return bits ? __builtin_clz(bits) : 32; }
inline int __ffs(int bits) { return __builtin_ffs(bits); }

inline float __uint_as_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

template <typename T>
T atomicExch(T* at, T value) {
  return __atomic_exchange_n(at, value, __ATOMIC_RELAXED);
}

template <typename T>
T atomicAdd(T* at, T value) {
  return __atomic_fetch_add(at, value, __ATOMIC_RELAXED);
}

inline double atomicAdd(double* at, double value) {
  return std::atomic_ref(*at).fetch_add(value, std::memory_order_relaxed);
}

template <typename T>
T atomicOr(T* at, T value) {
  return __atomic_fetch_or(at, value, __ATOMIC_RELAXED);
}

template <typename T>
T atomicMin(T* at, T value) {
  T before = __atomic_load_n(at, __ATOMIC_RELAXED);
  while (value < before && !__atomic_compare_exchange_n(at, &before, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return before;
}

namespace cuda_on_cpu {

inline void store_relaxed(uint8_t* at, uint8_t value) { __atomic_store_n(at, value, __ATOMIC_RELAXED); }

inline float half_to_float(uint16_t bits) {
  const uint32_t sign = uint32_t{bits} >> 15 << 31, exponent = bits >> 10 & 31, mantissa = bits & 0x3ff;
  const float small = static_cast<float>(mantissa) / 16777216.f;
  if (exponent == 0) return sign ? -small : small;
  return __uint_as_float(sign | (exponent == 31 ? 255 : exponent + 112) << 23 | mantissa << 13);
}

// To nearest, ties to even.
inline uint16_t float_to_half(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  const uint32_t sign = bits >> 31 << 15, size = bits & 0x7fffffff;
  if (size > 0x7f800000) return 0x7fff;
  if (size >= 0x477ff000) return static_cast<uint16_t>(sign | 0x7c00);
  if (size < 0x38800000) return static_cast<uint16_t>(sign | static_cast<uint32_t>(std::nearbyint(std::fabs(value) * 16777216.f)));
  return static_cast<uint16_t>(sign | (size + 0xfff + (size >> 13 & 1) - (112u << 23)) >> 13);
}
inline uint16_t float_to_bfloat16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return static_cast<uint16_t>(value != value ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

}  // namespace cuda_on_cpu
