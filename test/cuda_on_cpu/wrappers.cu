// What kernels use of the GPU, one wrapper or intrinsic after the other: the same program for a GPU and for the CPU. It
// prints what each gives, "name[first number] values in hexadecimal", and both must print the same.
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include <cuda/device.h>

#include "buffer.h"

using namespace sbnet;
using namespace sbnet::cuda;

namespace {

constexpr int kLine = 16;

template <typename T>
void print(const std::string& name, Buffer<T>& values) {
  for (size_t i = 0; i < values.size(); ++i) {
    uint64_t bits = 0;
    std::memcpy(&bits, &values.host()[i], sizeof(T));
    if (i % kLine == 0) std::printf("%s%s[%zu]", i ? "\n" : "", name.c_str(), i);
    std::printf(" %llx", static_cast<unsigned long long>(bits));
  }
  std::printf("\n");
}

template <typename Out, typename... Parameters, typename... Arguments>
void run(const std::string& name, void (*kernel)(Parameters...), Buffer<Out> out, int shared_bytes,
         Arguments... arguments) {
  launch(name.c_str(), kernel, static_cast<int64_t>(out.size()), kThreads, shared_bytes, nullptr, out.data(),
         arguments...);
  print(name, out);
}

#define KERNEL __global__ void __launch_bounds__(kThreads)

// --- numbers

// Every half; of a NaN only that it is one.
KERNEL all_halves(float* out) {
  for (int64_t i = thread_of_grid(); i < 1 << 16; i += threads_of_grid()) {
    const float value = half_to_float(static_cast<uint16_t>(i));
    out[i] = value != value ? 0.125f : value;
  }
}

KERNEL all_bfloats(float* out) {
  for (int64_t i = thread_of_grid(); i < 1 << 16; i += threads_of_grid())
    out[i] = value_of(BFloat16{static_cast<uint16_t>(i)});
}

// To 16 bits, alone and as a pair with the number before it; a NaN as some NaN.
template <typename T>
KERNEL rounded(uint32_t* out, const float* in, int64_t count) {
  for (int64_t i = thread_of_grid(); i < count; i += threads_of_grid()) {
    T alone;
    round_to(alone, in[i]);
    const float before = in[i ? i - 1 : count - 1];
    const uint32_t pair = floats_to_pair<T>(before, in[i]);
    out[2 * i] = in[i] != in[i] ? value_of(alone) != value_of(alone) : alone.bits;
    const bool is_nan = in[i] != in[i] || before != before;
    const float high = value_of(T{static_cast<uint16_t>(pair >> 16)}), low = value_of(T{static_cast<uint16_t>(pair)});
    out[2 * i + 1] = is_nan ? (high != high) + 2 * (low != low) : pair;
  }
}

// Numbers of every sign and exponent, and such as lie between two of 16 bits, or next to the middle.
std::vector<float> hard_numbers() {
  std::vector<float> numbers;
  for (uint32_t high = 0; high < 512; ++high)
    for (const uint32_t middle : {0x0u, 0x15u, 0x2au, 0x7fu})
      for (const uint32_t low : {0x0u, 0x1u, 0xfffu, 0x1000u, 0x1001u, 0x2fffu, 0x3000u, 0x3001u, 0x5000u, 0x7000u,
                                 0x7fffu, 0x8000u, 0x8001u, 0xf000u, 0xf001u, 0xffffu}) {
        const uint32_t bits = high << 23 | middle << 16 | low;
        std::memcpy(&numbers.emplace_back(), &bits, 4);
      }
  return numbers;
}

void numbers() {
  run("half_to_float", all_halves, Buffer<float>(1 << 16), 0);
  run("bfloat16 to float", all_bfloats, Buffer<float>(1 << 16), 0);
  Buffer<float> in(hard_numbers());
  const auto count = static_cast<int64_t>(in.size());
  run("to half", rounded<Half>, Buffer<uint32_t>(2 * in.size()), 0, in.data(), count);
  run("to bfloat16", rounded<BFloat16>, Buffer<uint32_t>(2 * in.size()), 0, in.data(), count);
}

// --- products on tensor cores

// One warp multiplies a [16 x 16] and b [16 x 8] and adds d; what a lane holds lies where device.h says.
template <typename T>
KERNEL product(float* out, const uint16_t* a, const uint16_t* b, const float* sums) {
  const int lane = lane_of_warp(), r = lane / 4, t = lane % 4;
  const auto pair = [](uint16_t low, uint16_t high) { return low | uint32_t{high} << 16; };
  uint32_t left[4], right[2];
  float d[4];
  for (int i = 0; i < 4; ++i) {
    const uint16_t* at = a + (r + i % 2 * 8) * 16 + 2 * t + i / 2 * 8;
    left[i] = pair(at[0], at[1]);
    d[i] = sums[(r + i / 2 * 8) * 8 + 2 * t + i % 2];
  }
  for (int i = 0; i < 2; ++i) right[i] = pair(b[(2 * t + 8 * i) * 8 + r], b[(2 * t + 8 * i + 1) * 8 + r]);
  multiply_add<T>(d, left, right[0], right[1]);
  if (threadIdx.x < kWarp)
    for (int i = 0; i < 4; ++i) out[(r + i / 2 * 8) * 8 + 2 * t + i % 2] = d[i];
}

// Whole numbers up to 128 in 16 bits.
template <typename T>
uint16_t bits_of_whole(int number) {
  const uint32_t sign = number < 0 ? 1 : 0, size = static_cast<uint32_t>(number < 0 ? -number : number);
  if (size == 0) return 0;
  const auto exponent = static_cast<uint32_t>(31 - __builtin_clz(size));
  const int mantissa = T::kIsBFloat16 ? 7 : 10;
  const uint32_t bias = T::kIsBFloat16 ? 127 : 15;
  const uint32_t rest = (size ^ 1u << exponent) << mantissa >> exponent;
  return static_cast<uint16_t>(sign << 15 | (exponent + bias) << mantissa | rest);
}

template <typename T>
void products(const std::string& name) {
  std::mt19937 random(1);
  for (int turn = 0; turn < 4; ++turn) {
    std::vector<uint16_t> a(256), b(128);
    std::vector<float> d(128);
    for (int i = 0; i < 256; ++i) a[i] = bits_of_whole<T>(turn < 2 ? (i * 7 + 3) % 255 - 127 : int(random() % 17) - 8);
    // At first b takes a column of a for each of its own: whose number lies where shows.
    for (int i = 0; i < 128; ++i)
      b[i] = bits_of_whole<T>(turn < 2 ? i / 8 == i % 8 + 8 * turn : int(random() % 17) - 8);
    for (int i = 0; i < 128; ++i) d[i] = turn < 2 ? 0.f : static_cast<float>(int(random() % 1000) - 500);
    Buffer<uint16_t> left(a), right(b);
    Buffer<float> sums(d);
    run(name + " " + std::to_string(turn), product<T>, Buffer<float>(128), 0, left.data(), right.data(), sums.data());
  }
}

// --- loads and stores

template <typename Vector>
KERNEL loaded(Vector* out, const uint16_t* from, int64_t count) {
  constexpr int kEach = sizeof(Vector) / sizeof(uint16_t);
  for (int64_t i = thread_of_grid(); i < count; i += threads_of_grid())
    out[i] = load_if<Vector>(i % 3 != 1, from, (count - 1 - i) * kEach);
}

KERNEL stored(uint8_t* out) {
  for (int64_t i = thread_of_grid(); i < 4 * kThreads; i += threads_of_grid()) store_relaxed(out + i / 7, 3);
}

template <typename Vector, typename Part>
void vectors(const std::string& name) {
  constexpr int64_t kCount = 600;
  std::vector<uint16_t> values(kCount * sizeof(Vector) / 2);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<uint16_t>(i + 1);
  Buffer<uint16_t> from(values);
  Buffer<Vector> to(kCount);
  launch(name.c_str(), loaded<Vector>, kCount, kThreads, 0, nullptr, to.data(), from.data(), kCount);
  Buffer<Part> parts(kCount * sizeof(Vector) / sizeof(Part));
  std::memcpy(parts.host().data(), to.host().data(), kCount * sizeof(Vector));
  print(name, parts);
}

void memory() {
  vectors<uint2, uint64_t>("load_if of 8 bytes");
  vectors<uint4, uint64_t>("load_if of 16 bytes");
  run("store_relaxed", stored, Buffer<uint8_t>(4 * kThreads), 0);
  Buffer<uint32_t> filled(100);
  fill_bytes(filled.data() + 10, 0xa5, 50 * sizeof(uint32_t), nullptr);
  print("fill_bytes", filled);
}

// --- what lanes, threads and blocks tell each other

KERNEL between_lanes(int32_t* out, int32_t* scratch) {
  const int lane = lane_of_warp(), thread = static_cast<int>(threadIdx.x), warp = thread / kWarp;
  int32_t* const to = out + int64_t{thread} * 7;
  to[0] = static_cast<int32_t>(__ballot_sync(~0u, (thread * 37) % 11 < 4));
  to[1] = __shfl_up_sync(~0u, thread * thread, 5);
  to[2] = __shfl_sync(~0u, thread * 3 + 1, 19);
  to[3] = __reduce_add_sync(~0u, thread - 100);
  to[4] = sum_up_to_lane(thread % 13 - 3);
  // Written by another lane, before a barrier of the warp.
  scratch[thread] = thread * 5;
  __syncwarp();
  to[5] = scratch[warp * kWarp + (lane + 9) % kWarp];
  to[6] = __syncthreads_count(thread % 7 == 2);
}

KERNEL in_shared_memory(int32_t* out) {
  Arena arena(shared_memory());
  auto* const first = arena.take<int32_t>(kThreads);
  auto* const second = arena.take<uint16_t>(kThreads);
  const int thread = static_cast<int>(threadIdx.x);
  first[thread] = thread * 11;
  second[thread] = static_cast<uint16_t>(thread ^ 0x55);
  __syncthreads();
  out[thread] = first[(thread + 77) % kThreads] * 1000 + second[kThreads - 1 - thread];
}

KERNEL counted_bits(int32_t* out, const uint64_t* in, int64_t count) {
  for (int64_t i = thread_of_grid(); i < count; i += threads_of_grid()) {
    const auto low = static_cast<uint32_t>(in[i]);
    int32_t* const to = out + i * 6;
    to[0] = __popc(low);
    to[1] = __popcll(in[i]);
    to[2] = __clz(static_cast<int>(low));
    to[3] = __ffs(static_cast<int>(low));
    to[4] = __ffsll(static_cast<long long>(in[i]));
    to[5] = __uint_as_float(0x3f800000u | low >> 9) > 1.5f;
  }
}

// Sums, bits and the least of many threads in few places; of what is exchanged the sum of all that came out.
KERNEL atomics(uint32_t* bits, uint32_t* least, int32_t* sums, double* exact, uint32_t* last, int32_t* came_out) {
  for (int64_t i = thread_of_grid(); i < 8 * kThreads; i += threads_of_grid()) {
    const auto number = static_cast<uint32_t>(i * 2654435761u);
    const int64_t place = i % 5;
    atomicOr(bits + place, 1u << number % 32);
    atomicMin(least + place, number);
    atomicAdd(sums + place, static_cast<int32_t>(number % 1000));
    atomicAdd(exact + place, 0.25 * static_cast<double>(number % 1000));
    atomicAdd(came_out, static_cast<int32_t>(atomicExch(last, static_cast<uint32_t>(i + 1))));
  }
}

void together() {
  Buffer<int32_t> scratch(kThreads), lanes(7 * kThreads), shared(kThreads);
  launch("lanes", between_lanes, 1, 1, 0, nullptr, lanes.data(), scratch.data());
  print("lanes", lanes);
  Arena bytes(nullptr);
  bytes.take<int32_t>(kThreads);
  bytes.take<uint16_t>(kThreads);
  launch("shared memory", in_shared_memory, 1, 1, bytes.bytes(), nullptr, shared.data());
  print("shared memory", shared);

  std::vector<uint64_t> patterns = {0, ~uint64_t{0}, 1, uint64_t{1} << 63, uint64_t{1} << 31, uint64_t{1} << 32};
  std::mt19937_64 random(1);
  for (int i = 0; i < 200; ++i) patterns.push_back(random() & random() & (i % 2 ? random() : ~uint64_t{0}));
  const auto count = static_cast<int64_t>(patterns.size());
  Buffer<uint64_t> in(patterns);
  run("bits", counted_bits, Buffer<int32_t>(6 * patterns.size()), 0, in.data(), count);

  Buffer<uint32_t> bits(5), least(std::vector<uint32_t>(5, ~0u)), last(1);
  Buffer<int32_t> sums(5), came_out(1);
  Buffer<double> exact(5);
  launch("atomics", atomics, 8 * kThreads, kThreads, 0, nullptr, bits.data(), least.data(), sums.data(), exact.data(),
         last.data(), came_out.data());
  print("atomicOr", bits);
  print("atomicMin", least);
  print("atomicAdd", sums);
  print("atomicAdd of double", exact);
  // All that came out, and what is left there.
  came_out.host()[0] += static_cast<int32_t>(last.host()[0]);
  print("atomicExch", came_out);
}

}  // namespace

int main() {
  numbers();
  products<BFloat16>("product of bfloat16");
  products<Half>("product of half");
  memory();
  together();
}
