// A measurement, not a kernel of the detector: products that leave out single outputs, beside the shipped dense ones.
//
// Compiled by zeros_product.py for the machine at hand. All three take P pixels, each with `terms` rows of `depth`
// inputs, times N outputs, and leave sums [P][stride].
#include "gemm.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace sbnet::SBNET_ISA {
namespace {

constexpr int kFloats = kVectorBytes / sizeof(float);
constexpr int kMost = 8;  // sums at a time: with pointers to their rows they fill the registers
using Floats = VectorOf<float, kVectorBytes>::type;
using Quad = VectorOf<float, 16>::type;

template <typename Vector>
Vector load(const float* from) {
  Vector vector;
  std::memcpy(&vector, from, sizeof vector);
  return vector;
}

// The lanes of a vector, added up to four.
Quad fold(const Floats& vector) {
  float lanes[kFloats];
  std::memcpy(lanes, &vector, sizeof vector);
  Quad sum = load<Quad>(lanes);
#pragma GCC unroll 4
  for (int i = 4; i < kFloats; i += 4) sum += load<Quad>(lanes + i);
  return sum;
}

// The sums of the lanes of four vectors.
Quad across(Quad a, Quad b, Quad c, Quad d) {
  const Quad ab = __builtin_shufflevector(a, b, 0, 4, 1, 5) + __builtin_shufflevector(a, b, 2, 6, 3, 7);
  const Quad cd = __builtin_shufflevector(c, d, 0, 4, 1, 5) + __builtin_shufflevector(c, d, 2, 6, 3, 7);
  return __builtin_shufflevector(ab, cd, 0, 1, 4, 5) + __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
}

// Scalar products of one row with M others; each row comes as `terms` pointers.
template <int M>
inline __attribute__((always_inline)) void dots(const float* const* one, const float* const* const* others, int terms,
                                                int depth, float* results) {
  constexpr int padded = (M + 3) / 4 * 4;
  Floats sums[padded] = {};
  for (int t = 0; t < terms; ++t) {
    const float* in[M];
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) in[m] = others[m][t];
    for (int k = 0; k < depth; k += kFloats) {
      const auto shared = load<Floats>(one[t] + k);
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) sums[m] += shared * load<Floats>(in[m] + k);
    }
  }
#pragma GCC unroll 2
  for (int m = 0; m < padded; m += 4) {
    const Quad four = across(fold(sums[m]), fold(sums[m + 1]), fold(sums[m + 2]), fold(sums[m + 3]));
    std::memcpy(results + m, &four, sizeof four);
  }
}

template <int M = kMost>
void dots_of(int count, const float* const* one, const float* const* const* others, int terms, int depth,
             float* results) {
  if constexpr (M > 1)
    if (count < M) return dots_of<M - 1>(count, one, others, terms, depth, results);
  dots<M>(one, others, terms, depth, results);
}

#if defined(__AVX2__)
// Numbers of up to 4 bits: unsigned inputs, signed weights, and sums of 16 bits, which 300 products cannot exceed. More of
// them, as 3x3 layers have, may wrap: only the time of this product is used.
struct Low {
  uint8_t bits;
};
}  // namespace

template <>
struct Multiply<Low> {
  using Sum = int16_t;
  static constexpr int kStep = 2;

  template <int bytes>
  struct Lanes : Words<Low, int16_t, bytes> {
    using Sums = typename VectorOf<int16_t, bytes>::type;
    using Weights = Sums;
    static Sums add(Sums sums, Weights weights, Weights input) {
#if defined(__AVX512BW__)
      if constexpr (bytes == 64) return sums + (Sums)_mm512_maddubs_epi16((__m512i)input, (__m512i)weights);
#endif
      if constexpr (bytes == 32)
        return sums + (Sums)_mm256_maddubs_epi16((__m256i)input, (__m256i)weights);
      else if constexpr (bytes == 16)
        return sums + (Sums)_mm_maddubs_epi16((__m128i)input, (__m128i)weights);
    }
  };
};

namespace {
#endif

// Numbers that a packed matrix has room for, with whatever packing keeps beside the weights.
template <typename Element>
int64_t room(int outputs, int depth) {
  return (static_cast<int64_t>(padded_outputs<Element>(outputs)) * depth * 5 / 4 + 4096) / 64 * 64;
}

template <typename Element>
void multiply_all(const Element* const* rows, const Element* packed, int pixels, int terms, int depth, int outputs,
                  typename Multiply<Element>::Sum* sums, int stride) {
  const int64_t matrix = room<Element>(outputs, depth);
  const Element* inputs[3][kGroup];
  Term<Element> list[3];
  for (int first = 0; first < pixels; first += kGroup) {
    const int size = pixels - first < kGroup ? pixels - first : kGroup;
    for (int t = 0; t < terms; ++t) {
      for (int p = 0; p < padded_group(size); ++p) inputs[t][p] = rows[(first + (p < size ? p : 0)) * terms + t];
      list[t] = {inputs[t], packed + t * matrix, depth};
    }
    multiply<Element>(list, terms, size, outputs, sums + static_cast<int64_t>(first) * stride, stride);
  }
}

template <typename Element, typename From, typename Convert>
void pack_all(const From* weights, int terms, int outputs, int depth, Element* packed, Convert convert) {
  for (int t = 0; t < terms; ++t)
    pack<Element>(weights + static_cast<int64_t>(t) * outputs * depth, outputs, depth,
                  packed + t * room<Element>(outputs, depth), convert);
}

}  // namespace
}  // namespace sbnet::SBNET_ISA

namespace isa = sbnet::SBNET_ISA;

extern "C" {

// Floats in a vector; rows are read in whole vectors.
int zeros_lanes() { return isa::kFloats; }
// Outputs that the rows of sums must have room for, and numbers that a packed matrix must.
int zeros_padded(int outputs) { return isa::padded_outputs<float>(outputs); }
int zeros_room(int outputs, int depth) { return static_cast<int>(isa::room<float>(outputs, depth)); }

// weights [terms][outputs][depth] -> packed
void zeros_pack(const float* weights, int terms, int outputs, int depth, float* packed) {
  isa::pack_all<float>(weights, terms, outputs, depth, packed, [](float value) { return value; });
}

// All outputs, as the layers compute them; rows [pixels][terms].
void zeros_dense(const float* const* rows, const float* packed, int pixels, int terms, int depth, int outputs,
                 float* sums, int stride) {
  isa::multiply_all<float>(rows, packed, pixels, terms, depth, outputs, sums, stride);
}

// Some outputs: list i is the products of row ones[i] with rows others[start[i] .. start[i + 1]], rows being `terms`
// pointers each. A product goes to sums[one * one_step + other * other_step].
void zeros_some(const float* const* one_rows, const float* const* other_rows, const int* ones, const int* start,
                const int* others, int lists, int terms, int depth, float* sums, int one_step, int other_step) {
  const float* const* chosen[isa::kMost];
  float results[isa::kMost];
  for (int i = 0; i < lists; ++i) {
    float* const to = sums + static_cast<int64_t>(ones[i]) * one_step;
    for (int first = start[i]; first < start[i + 1]; first += isa::kMost) {
      const int count = start[i + 1] - first < isa::kMost ? start[i + 1] - first : isa::kMost;
      for (int m = 0; m < count; ++m) chosen[m] = other_rows + static_cast<int64_t>(others[first + m]) * terms;
      isa::dots_of(count, one_rows + static_cast<int64_t>(ones[i]) * terms, chosen, terms, depth, results);
      for (int m = 0; m < count; ++m) to[static_cast<int64_t>(others[first + m]) * other_step] = results[m];
    }
  }
}

// The low-bit copy: all outputs in small whole numbers. 0 where the machine has no such product.
#if defined(__AVX2__)
int zeros_has_low() { return 1; }
int zeros_low_padded(int outputs) { return isa::padded_outputs<isa::Low>(outputs); }
int zeros_low_room(int outputs, int depth) { return static_cast<int>(isa::room<isa::Low>(outputs, depth)); }
void zeros_low_pack(const int16_t* weights, int terms, int outputs, int depth, uint8_t* packed) {
  isa::pack_all<isa::Low>(weights, terms, outputs, depth, reinterpret_cast<isa::Low*>(packed), [](int16_t value) {
    return isa::Low{static_cast<uint8_t>(value)};
  });
}
void zeros_low(const uint8_t* const* rows, const uint8_t* packed, int pixels, int terms, int depth, int outputs,
               int16_t* sums, int stride) {
  isa::multiply_all<isa::Low>(reinterpret_cast<const isa::Low* const*>(rows),
                              reinterpret_cast<const isa::Low*>(packed), pixels, terms, depth, outputs, sums, stride);
}
#else
int zeros_has_low() { return 0; }
#endif
}
