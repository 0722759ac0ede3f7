// What happens to the channels of one pixel outside of products: conversions, normalization, ReLU, residual sum.
#pragma once

#include <type_traits>

#include "gemm.h"
#include "multiply_u8.h"

namespace sbnet::SBNET_ISA {

// Numbers of type `Storage` in memory are multiplied as this type.
template <typename Storage>
struct ElementOf {
  using type = std::conditional_t<std::is_same_v<Storage, double>, double, float>;
};
#if defined(__AVX512BF16__)
template <>
struct ElementOf<BFloat16> {
  using type = BFloat16;
};
#endif

inline float number_of(uint32_t bits) {
  float number;
  std::memcpy(&number, &bits, sizeof number);
  return number;
}
inline uint32_t bits_of(float number) {
  uint32_t bits;
  std::memcpy(&bits, &number, sizeof bits);
  return bits;
}

inline float read(float value) { return value; }
inline double read(double value) { return value; }
inline float read(int32_t value) { return static_cast<float>(value); }
inline float read(uint8_t value) { return value; }
inline float read(BFloat16 value) { return number_of(static_cast<uint32_t>(value.bits) << 16); }
inline float read(Half value) {
#if defined(__F16C__)
  return _cvtsh_ss(value.bits);
#else
  const uint32_t sign = (value.bits & 0x8000u) << 16, rest = value.bits & 0x7fffu;
  // infinity and NaN; the exponent moved to that of float; subnormal numbers, which float holds as normal ones
  if (rest >= 0x7c00) return number_of(sign | 0x7f800000 | rest << 13);
  if (rest >= 0x0400) return number_of(sign | ((rest << 13) + (112u << 23)));
  const float small = static_cast<float>(rest) * 0x1p-24f;
  return sign ? -small : small;
#endif
}

// Writing rounds to nearest, ties to even; NaN stays NaN.
inline void write(float value, float* to) { *to = value; }
inline void write(double value, double* to) { *to = value; }
inline void write(float value, BFloat16* to) {
  const uint32_t bits = bits_of(value), rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  to->bits = static_cast<uint16_t>(value != value ? 0x7fc0 : rounded);
}
inline void write(float value, Half* to) {
#if defined(__F16C__)
  to->bits = _cvtss_sh(value, 0);
#else
  const uint32_t bits = bits_of(value), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
  uint32_t half;
  if (rest > 0x7f800000) {
    half = 0x7e00;
  } else if (rest < 113u << 23) {
    // subnormal: adding 0.5 leaves the digits that fit, rounded, at the end
    half = bits_of(number_of(rest) + 0.5f) - bits_of(0.5f);
  } else {
    half = rest >= 0x477ff000 ? 0x7c00 : (rest + 0xfff + (rest >> 13 & 1) - (112u << 23)) >> 13;
  }
  to->bits = static_cast<uint16_t>(sign | half);
#endif
}

// Levels are whole numbers of 0 to 255: what lies below or above is the first or last of them, and NaN the first.
inline void write(float value, uint8_t* to) {
  const float positive = value > 0 ? value : 0;
  // adding 2^23 leaves the whole number at the end of the bits
  *to = static_cast<uint8_t>(bits_of((positive < 255 ? positive : 255) + 0x1p23f));
}

// The same for a vector of `bytes` bytes of sums.
template <typename Sum, int bytes>
using Vector = typename VectorOf<Sum, bytes>::type;

// Floats as levels, in vectors of a quarter of the size.
template <int bytes>
Vector<uint8_t, bytes / 4> levels_of(Vector<float, bytes> vector) {
  const Vector<float, bytes> positive = vector > 0 ? vector : 0.0f;
  const Vector<float, bytes> level = positive < 255 ? positive : 255.0f;
#if defined(__AVX512F__)
  if constexpr (bytes == 64)  // (masked: GCC warns of the other form)
    return (Vector<uint8_t, 16>)_mm512_maskz_cvtusepi32_epi8(0xffff, _mm512_maskz_cvtps_epi32(0xffff, (__m512)level));
#endif
#if defined(__AVX2__)
  if constexpr (bytes == 32) {
    const __m256i numbers = _mm256_cvtps_epi32((__m256)level);
    const __m128i low = _mm256_castsi256_si128(numbers), high = _mm256_extracti128_si256(numbers, 1);
    const __m128i shorts = _mm_packs_epi32(low, high);
    const int64_t eight = _mm_cvtsi128_si64(_mm_packus_epi16(shorts, shorts));
    return (Vector<uint8_t, 8>)eight;
  }
#endif
  return __builtin_convertvector((Vector<uint32_t, bytes>)(level + 0x1p23f) & 0xff, Vector<uint8_t, bytes / 4>);
}

template <typename Sum, int bytes, typename Storage>
Vector<Sum, bytes> read_vector(const Storage* from) {
  constexpr int lanes = bytes / sizeof(Sum);
  Vector<Sum, bytes> vector;
  if constexpr (std::is_same_v<Storage, Sum>) {
    std::memcpy(&vector, from, sizeof vector);
  } else if constexpr (std::is_same_v<Storage, BFloat16>) {
    Vector<uint16_t, bytes / 2> bits;
    std::memcpy(&bits, from, sizeof bits);
    vector = (Vector<Sum, bytes>)(__builtin_convertvector(bits, Vector<uint32_t, bytes>) << 16);
  } else if constexpr (std::is_integral_v<Storage>) {
    Vector<Storage, bytes * static_cast<int>(sizeof(Storage)) / 4> numbers;
    std::memcpy(&numbers, from, sizeof numbers);
    vector = __builtin_convertvector(__builtin_convertvector(numbers, Vector<int32_t, bytes>), Vector<Sum, bytes>);
  } else {
    for (int i = 0; i < lanes; ++i) vector[i] = read(from[i]);
  }
  return vector;
}

template <typename Sum, int bytes, typename Storage>
void write_vector(Vector<Sum, bytes> vector, Storage* to) {
  constexpr int lanes = bytes / sizeof(Sum);
  if constexpr (std::is_same_v<Storage, Sum>) {
    std::memcpy(to, &vector, sizeof vector);
  } else if constexpr (std::is_same_v<Storage, BFloat16>) {
    Vector<uint16_t, bytes / 2> half;
#if defined(__AVX512BF16__)
    if constexpr (bytes == 64)
      half = (Vector<uint16_t, bytes / 2>)_mm512_cvtneps_pbh((__m512)vector);
    else
      half = (Vector<uint16_t, bytes / 2>)_mm256_cvtneps_pbh((__m256)vector);
#else
    const auto bits = (Vector<uint32_t, bytes>)vector;
    const auto rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    const auto chosen = vector != vector ? Vector<uint32_t, bytes>{} + 0x7fc0 : rounded;
    half = __builtin_convertvector(chosen, Vector<uint16_t, bytes / 2>);
#endif
    std::memcpy(to, &half, sizeof half);
  } else if constexpr (std::is_same_v<Storage, uint8_t>) {
    const auto levels = levels_of<bytes>(vector);
    std::memcpy(to, &levels, sizeof levels);
  } else {
    for (int i = 0; i < lanes; ++i) write(vector[i], to + i);
  }
}

// NaN stays NaN, as in PyTorch.
template <typename T>
T relu(T value) {
  return value < 0 ? T{} : value;
}

// Calls body(width, c) for all channels: in whole vectors, then in a half one, then one by one. body<bytes> reads and
// writes vectors of that many bytes of sums; 0 means a single channel.
template <typename Sum, typename Body>
inline __attribute__((always_inline)) void for_each_channel(int channels, Body body) {
  constexpr int lanes = kVectorBytes / sizeof(Sum);
  int c = 0;
  for (; c + lanes <= channels; c += lanes) body.template operator()<kVectorBytes>(c);
  if (c + lanes / 2 <= channels) {
    body.template operator()<kVectorBytes / 2>(c);
    c += lanes / 2;
  }
  for (; c < channels; ++c) body.template operator()<0>(c);
}

template <typename Sum, int bytes, typename Storage>
auto read_channels(const Storage* from) {
  if constexpr (bytes == 0)
    return static_cast<Sum>(read(*from));
  else
    return read_vector<Sum, bytes>(from);
}

template <typename Sum, int bytes, typename Value, typename Storage>
void write_channels(Value value, Storage* to) {
  if constexpr (bytes == 0)
    write(value, to);
  else
    write_vector<Sum, bytes>(value, to);
}

// A product as a number of its own, even where the processor multiplies and adds at once: what becomes of levels is
// then the same on all of them.
template <typename Value>
Value product(Value a, Value b) {
  Value value = a * b;
#if defined(__FMA__)
  asm("" : "+v"(value));
#elif defined(__aarch64__)
  asm("" : "+w"(value));
#endif
  return value;
}

// to[c] = relu(from[c] * scale[c] + shift[c]), or without the ReLU, which levels have in any case.
template <bool with_relu = true, typename Sum, typename From, typename To>
void normalize(const From* from, int channels, const Sum* scale, const Sum* shift, To* to) {
  constexpr bool to_levels = std::is_same_v<To, uint8_t>, of_levels = to_levels || std::is_integral_v<From>;
  for_each_channel<Sum>(channels, [&]<int bytes>(int c) {
    const auto number = read_channels<Sum, bytes>(from + c), factor = read_channels<Sum, bytes>(scale + c);
    const auto scaled = of_levels ? product(number, factor) : number * factor;
    const auto value = scaled + read_channels<Sum, bytes>(shift + c);
    write_channels<Sum, bytes>(with_relu && !to_levels ? relu(value) : value, to + c);
  });
}

// to[c] = from[c] + sums[c].
template <typename Sum, typename Storage>
void add(const Storage* from, const Sum* sums, int channels, Storage* to) {
  for_each_channel<Sum>(channels, [&]<int bytes>(int c) {
    write_channels<Sum, bytes>(read_channels<Sum, bytes>(from + c) + read_channels<Sum, bytes>(sums + c), to + c);
  });
}

// to[c] = sums[c] * scale[c], with from[c] added if there is such a pixel.
template <typename Storage>
void add_scaled(const Storage* from, const int32_t* sums, const float* scale, int channels, Storage* to) {
  for_each_channel<float>(channels, [&]<int bytes>(int c) {
    auto value = product(read_channels<float, bytes>(sums + c), read_channels<float, bytes>(scale + c));
    if (from) value += read_channels<float, bytes>(from + c);
    write_channels<float, bytes>(value, to + c);
  });
}

// to[c] = from[c] in another type.
template <typename Sum, typename From, typename To>
void convert(const From* from, int channels, To* to) {
  if constexpr (std::is_same_v<From, To>)
    std::memcpy(to, from, channels * sizeof(To));
  else
    for_each_channel<Sum>(channels, [&]<int bytes>(int c) {
      write_channels<Sum, bytes>(read_channels<Sum, bytes>(from + c), to + c);
    });
}

}  // namespace sbnet::SBNET_ISA
