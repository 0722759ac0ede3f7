// Vectors of the instruction set that this translation unit is compiled for, as GCC vector types of the native width.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__F16C__)
#include <immintrin.h>
#endif

namespace sbnet::SBNET_ISA {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kRegisters = 32;
#else
constexpr int kRegisters = 16;
#endif

template <typename T, int bytes>
struct VectorOf {
  typedef T type __attribute__((vector_size(bytes)));
};

// Numbers as they lie in memory; float and double lie there as themselves.
struct BFloat16 {
  uint16_t bits;
};
struct Half {
  uint16_t bits;
};

// How inputs of type `Element` are multiplied: each lane of a vector of sums takes kStep inputs and weights at a time.
template <typename Element>
struct Multiply {
  using Sum = Element;
  static constexpr int kStep = 1;

  template <int bytes>
  struct Lanes {
    using Sums = typename VectorOf<Sum, bytes>::type;
    using Weights = Sums;
    static Weights load(const Element* weights) {
      Weights lanes;
      std::memcpy(&lanes, weights, sizeof lanes);
      return lanes;
    }
    // (x - 0 is x for every x; 0 + x is not, for -0, and costs an addition.)
    static Weights broadcast(const Element* input) { return *input - Weights{}; }
    static Sums add(Sums sums, Weights weights, Weights input) { return sums + weights * input; }
  };
};

// Where several inputs or weights are multiplied at a time, they lie in a lane as one `Word`.
template <typename Element, typename Word, int bytes>
struct Words {
  using Weights = typename VectorOf<Word, bytes>::type;
  static Weights load(const Element* weights) {
    Weights lanes;
    std::memcpy(&lanes, weights, sizeof lanes);
    return lanes;
  }
  static Weights broadcast(const Element* input) {
    Word word;
    std::memcpy(&word, input, sizeof word);
    return Weights{} + word;
  }
};

#if defined(__AVX512BF16__)
template <>
struct Multiply<BFloat16> {
  using Sum = float;
  static constexpr int kStep = 2;

  template <int bytes>
  struct Lanes : Words<BFloat16, int, bytes> {
    static_assert(bytes == 64 || bytes == 32);
    using Sums = typename VectorOf<float, bytes>::type;
    using Weights = typename Words<BFloat16, int, bytes>::Weights;
    static Sums add(Sums sums, Weights weights, Weights input) {
      if constexpr (bytes == 64)
        return _mm512_dpbf16_ps(sums, (__m512bh)weights, (__m512bh)input);
      else
        return _mm256_dpbf16_ps(sums, (__m256bh)weights, (__m256bh)input);
    }
  };
};
#endif

// Whether products of a type are taken in matrix tiles (tiles.h), and steps of inputs in one.
#if defined(__AMX_TILE__)
template <typename Element>
constexpr bool kHasTiles = std::is_same_v<Element, BFloat16> || std::is_same_v<Element, uint8_t>;
#else
template <typename Element>
constexpr bool kHasTiles = false;
#endif
constexpr int kTileRows = 16;

}  // namespace sbnet::SBNET_ISA
