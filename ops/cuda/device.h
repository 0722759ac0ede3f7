// What kernels use of the GPU. Where no GPU compiler reads this file, a test-only header stands for it
// (test/cuda_on_cpu): kernels and the functions that launch them are the same for both, and know nothing of torch.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include "../blocks.h"
#include "launch.h"

#if defined(__CUDACC__)
#include <cuda_runtime.h>
#else
#include <cuda_on_cpu.h>
#endif

namespace sbnet::cuda {

// Kernels have blocks of kThreads threads, kResident of them at a time on a multiprocessor: 64 registers for a thread.
// Without a word on that, ptxas stops at 32 for some, and spills.
constexpr int kWarp = 32, kThreads = 256, kResident = 4;

// Of kernels that multiply: registers of a thread, and how many of their warps the device has at a time.
constexpr int kRegistersWithProducts = 128;
struct Room {
  int multiprocessors, warps_each;

  // Whether it has all of so many blocks of threads at a time, of so many warps each.
  bool holds(int64_t blocks, int64_t warps) const { return blocks <= multiprocessors * (warps_each / warps); }
};

// Numbers of 16 bits.
struct BFloat16 {
  static constexpr bool kIsBFloat16 = true;
  uint16_t bits;
};
struct Half {
  static constexpr bool kIsBFloat16 = false;
  uint16_t bits;
};

#if defined(__CUDACC__)
constexpr int kGuard = 0;
constexpr int64_t kMostBlocks = 1 << 20;

__device__ __forceinline__ float half_to_float(uint16_t bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}
__device__ __forceinline__ uint16_t float_to_half(float value) {
  uint16_t bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}
__device__ __forceinline__ uint16_t float_to_bfloat16(float value) {
  uint16_t bits;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}

// A store that other threads may make too, of the same value.
__device__ __forceinline__ void store_relaxed(uint8_t* at, uint8_t value) {
  *static_cast<volatile uint8_t*>(at) = value;
}

// Two numbers of a register, the first in its low half.
template <typename T>
__device__ __forceinline__ uint32_t floats_to_pair(float low, float high) {
  uint32_t pair;
  if constexpr (T::kIsBFloat16)
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  else
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

// d[16 x 8] += a[16 x 16] * b[16 x 8] by a whole warp. With r = lane / 4 and t = lane % 4 a lane holds
//   a: (r, 2t..), (r + 8, 2t..), (r, 2t + 8..), (r + 8, 2t + 8..), two numbers each
//   b: (2t.., r), (2t + 8.., r)
//   d: (r, 2t), (r, 2t + 1), (r + 8, 2t), (r + 8, 2t + 1)
template <typename T>
__device__ __forceinline__ void multiply_add(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  if constexpr (T::kIsBFloat16)
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  else
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// The vector that lies `place` numbers behind `base` in global memory, or 0 unless it is wanted: without a branch, so that
// loads run ahead of what they are for. Nothing may write there while the kernel runs, save the thread itself, later.
template <typename Vector, typename T>
__device__ __forceinline__ Vector load_if(bool wanted, const T* base, int64_t place) {
  static_assert(sizeof(Vector) == 8 || sizeof(Vector) == 16);
  const uint64_t address = __cvta_generic_to_global(base) + static_cast<uint64_t>(place) * sizeof(T);
  Vector value;
  if constexpr (sizeof(Vector) == 8)
    asm("{.reg .pred p; setp.ne.s32 p, %3, 0; mov.b32 %0, 0; mov.b32 %1, 0; @p ld.global.v2.u32 {%0, %1}, [%2];}"
        : "=&r"(value.x), "=&r"(value.y)
        : "l"(address), "r"(int{wanted}));
  else
    asm("{.reg .pred p; setp.ne.s32 p, %5, 0; mov.b32 %0, 0; mov.b32 %1, 0; mov.b32 %2, 0; mov.b32 %3, 0; "
        "@p ld.global.v4.u32 {%0, %1, %2, %3}, [%4];}"
        : "=&r"(value.x), "=&r"(value.y), "=&r"(value.z), "=&r"(value.w)
        : "l"(address), "r"(int{wanted}));
  return value;
}

__device__ __forceinline__ char* shared_memory() {
  extern __shared__ __align__(128) char memory[];
  return memory;
}
__host__ __device__ inline void guard(char*, char*) {}

inline void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + what + ": " + cudaGetErrorString(status));
}

template <typename... Parameters, typename... Arguments>
void start(const char* what, void (*kernel)(Parameters...), dim3 grid, dim3 block, int shared_bytes, Stream stream,
           Arguments... arguments) {
  constexpr int kAlways = 48 << 10;  // bytes that need not be asked for before
  if (shared_bytes > kAlways)
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes), what);
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
  config.stream = static_cast<cudaStream_t>(stream);
  check(cudaLaunchKernelEx(&config, kernel, arguments...), what);
}
inline void fill_bytes(void* to, int byte, size_t bytes, Stream stream) {
  if (bytes > 0) check(cudaMemsetAsync(to, byte, bytes, static_cast<cudaStream_t>(stream)), "fill memory");
}
inline void read_back(void* to, const void* from, size_t bytes, Stream stream) {
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, cuda_stream), "copy to the host");
  check(cudaStreamSynchronize(cuda_stream), "wait for the device");
}
inline Room current_room() {
  int device = 0, multiprocessors = 0, registers = 0;
  check(cudaGetDevice(&device), "ask for the device");
  check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device), "ask the device");
  check(cudaDeviceGetAttribute(&registers, cudaDevAttrMaxRegistersPerMultiprocessor, device), "ask the device");
  return {multiprocessors, registers / (kRegistersWithProducts * kWarp)};
}
#else
constexpr int kGuard = 128;          // bytes behind an array in shared memory that nobody may touch
constexpr int64_t kMostBlocks = 2;   // so that even small grids have to come round

using cuda_on_cpu::float_to_bfloat16;
using cuda_on_cpu::float_to_half;
using cuda_on_cpu::half_to_float;
using cuda_on_cpu::shared_memory;
using cuda_on_cpu::store_relaxed;

template <typename T>
uint32_t floats_to_pair(float low, float high) {
  if constexpr (T::kIsBFloat16) return float_to_bfloat16(low) | uint32_t{float_to_bfloat16(high)} << 16;
  return float_to_half(low) | uint32_t{float_to_half(high)} << 16;
}
template <typename T>
void multiply_add(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                  cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
  if constexpr (T::kIsBFloat16)
    cuda_on_cpu::multiply_add(d, a, b0, b1, [](uint16_t bits) { return __uint_as_float(uint32_t{bits} << 16); }, site);
  else
    cuda_on_cpu::multiply_add(d, a, b0, b1, half_to_float, site);
}

template <typename Vector, typename T>
Vector load_if(bool wanted, const T* base, int64_t place) {
  return wanted ? *reinterpret_cast<const Vector*>(base + place) : Vector{};
}

inline void guard(char* begin, char* end) { cuda_on_cpu::poison(begin, static_cast<size_t>(end - begin)); }

template <typename... Parameters, typename... Arguments>
void start(const char*, void (*kernel)(Parameters...), dim3 grid, dim3 block, int shared_bytes, Stream,
           Arguments... arguments) {
  cuda_on_cpu::run_grid(grid, block, static_cast<size_t>(shared_bytes), [&] { kernel(arguments...); });
}
inline void fill_bytes(void* to, int byte, size_t bytes, Stream) {
  if (bytes > 0) std::memset(to, byte, bytes);
}
inline Room current_room() { return {8, 16}; }  // small: few tests have maps that fill a GPU
inline void read_back(void* to, const void* from, size_t bytes, Stream) { std::memcpy(to, from, bytes); }
#endif

// --- launches

// Launches `kernel` with blocks of kThreads threads for `items`, `per_block` for each block. There are at most
// kMostBlocks of them: a kernel comes round (`for (...; i += gridDim.x)`) until nothing is left. `what` names it where
// the launch fails.
template <typename... Parameters, typename... Arguments>
void launch(const char* what, void (*kernel)(Parameters...), int64_t items, int64_t per_block, int shared_bytes,
            Stream stream, Arguments... arguments) {
  const int64_t blocks = smaller(divide_up(items, per_block), kMostBlocks);
  if (blocks == 0) return;
  start(what, kernel, dim3{static_cast<unsigned>(blocks), 1, 1}, dim3{kThreads, 1, 1}, shared_bytes, stream,
        Parameters(arguments)...);
}

// This thread, or warp, among all of the grid, and how many these are.
__device__ __forceinline__ int64_t thread_of_grid() { return int64_t{blockIdx.x} * kThreads + threadIdx.x; }
__device__ __forceinline__ int64_t threads_of_grid() { return int64_t{gridDim.x} * kThreads; }
__device__ __forceinline__ int64_t warp_of_grid() { return thread_of_grid() / kWarp; }
__device__ __forceinline__ int64_t warps_of_grid() { return threads_of_grid() / kWarp; }
__device__ __forceinline__ int lane_of_warp() { return static_cast<int>(threadIdx.x % kWarp); }

// The sum over the lanes of a warp up to this one.
__device__ __forceinline__ int sum_up_to_lane(int value) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (int by = 1; by < kWarp; by *= 2) {
    const int other = __shfl_up_sync(~0u, value, by);
    if (lane >= by) value += other;
  }
  return value;
}

// Hands out arrays in shared memory. Without memory it counts the bytes that a launch has to ask for. Arrays declared
// __shared__ would be variables of the program on the CPU, without guards: do not use them.
class Arena {
 public:
  __host__ __device__ explicit Arena(char* memory) : memory_(memory) {}

  template <typename T>
  __host__ __device__ T* take(int count) {
    const int begin = used_, end = begin + count * static_cast<int>(sizeof(T));
    used_ = (end + 15) / 16 * 16 + kGuard;
    if (!memory_) return nullptr;
    guard(memory_ + end, memory_ + used_);
    return reinterpret_cast<T*>(memory_ + begin);
  }
  __host__ __device__ int bytes() const { return used_; }

 private:
  char* memory_;
  int used_ = 0;
};

// --- numbers

__device__ __forceinline__ float value_of(float number) { return number; }
__device__ __forceinline__ double value_of(double number) { return number; }
__device__ __forceinline__ float value_of(BFloat16 number) { return __uint_as_float(uint32_t{number.bits} << 16); }
__device__ __forceinline__ float value_of(Half number) { return half_to_float(number.bits); }
__device__ __forceinline__ float value_of(uint8_t number) { return number ? 1.f : 0.f; }

// To nearest, ties to even.
__device__ __forceinline__ void round_to(float& number, float value) { number = value; }
__device__ __forceinline__ void round_to(double& number, double value) { number = value; }
__device__ __forceinline__ void round_to(BFloat16& number, float value) { number.bits = float_to_bfloat16(value); }
__device__ __forceinline__ void round_to(Half& number, float value) { number.bits = float_to_half(value); }

// Calls visit(T{}) with a type of 2, 4, 8 or 16 bytes, for what is copied whatever it means.
template <typename Visit>
void with_bytes(int bytes, const Visit& visit) {
  if (bytes == 2)
    visit(uint16_t{});
  else if (bytes == 4)
    visit(uint32_t{});
  else if (bytes == 8)
    visit(uint64_t{});
  else
    visit(uint4{});
}

// Calls visit(T{}) with the type of a tensor's elements.
template <typename Visit>
void with_type(Element element, const Visit& visit) {
  switch (element) {
    case Element::kBool:
      return visit(uint8_t{});  // 0 or not
    case Element::kFloat:
      return visit(0.f);
    case Element::kDouble:
      return visit(0.);
    case Element::kBFloat16:
      return visit(BFloat16{});
    case Element::kHalf:
      return visit(Half{});
  }
}

}  // namespace sbnet::cuda
