// Products of 8-bit numbers: inputs without a sign, weights of 7 bits with one, exact sums of 32 bits.
//
// Each lane of the sums takes four inputs and weights at a time. Where there is no instruction for that (VNNI), pairs
// are multiplied into 16 bits and then added. A pair is at most 2 * 255 * 64, so it fits: that is what the eighth bit
// of the weights is given up for, and why every instruction set finds the same sums.
#pragma once

#include "vectors.h"

namespace sbnet::SBNET_ISA {

template <>
struct Multiply<uint8_t> {
  using Sum = int32_t;
  static constexpr int kStep = 4;

  template <int bytes>
  struct Lanes : Words<uint8_t, int32_t, bytes> {
    using Sums = typename VectorOf<int32_t, bytes>::type;
    using Weights = Sums;
    static Sums add(Sums sums, Weights weights, Weights input) {
#if defined(__AVX512VNNI__)
      if constexpr (bytes == 64) return (Sums)_mm512_dpbusd_epi32((__m512i)sums, (__m512i)input, (__m512i)weights);
      if constexpr (bytes == 32) return (Sums)_mm256_dpbusd_epi32((__m256i)sums, (__m256i)input, (__m256i)weights);
#elif defined(__AVX512BW__)
      if constexpr (bytes == 64) {
        const __m512i pairs = _mm512_maddubs_epi16((__m512i)input, (__m512i)weights);
        return sums + (Sums)_mm512_madd_epi16(pairs, _mm512_set1_epi16(1));
      }
#endif
#if defined(__AVX2__)
      if constexpr (bytes == 32) {
        const __m256i pairs = _mm256_maddubs_epi16((__m256i)input, (__m256i)weights);
        return sums + (Sums)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
      }
      if constexpr (bytes == 16) {
        const __m128i pairs = _mm_maddubs_epi16((__m128i)input, (__m128i)weights);
        return sums + (Sums)_mm_madd_epi16(pairs, _mm_set1_epi16(1));
      }
#endif
      return sums + sums_of_pairs(weights, input);
    }

   private:
    // Vectors of 16 bits hold the even and the odd of four bytes: a pair is a sum of products of the two.
    static Sums sums_of_pairs(Weights weights, Weights input) {
      using Short = typename VectorOf<int16_t, bytes>::type;
      using Positive = typename VectorOf<uint16_t, bytes>::type;
      const Short even = (Short)((Positive)weights << 8) >> 8, odd = (Short)weights >> 8;
      const Short pairs = even * (Short)((Positive)input & 0xff) + odd * (Short)((Positive)input >> 8);
      return ((Sums)pairs << 16 >> 16) + ((Sums)pairs >> 16);
    }
  };
};

}  // namespace sbnet::SBNET_ISA
