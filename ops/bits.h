// Rows of a mask as bits, 64 columns a word.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#include "blocks.h"

namespace sbnet {

static_assert(std::endian::native == std::endian::little);

constexpr int64_t kWordBits = 64;
constexpr int64_t words_of(int64_t columns) { return divide_up(columns, kWordBits); }

// Eight bytes of 0 or 1 as the lowest eight bits, first byte lowest, and back.
constexpr uint64_t bits_of(uint64_t bytes) { return bytes * 0x0102040810204080 >> 56; }
constexpr uint64_t bytes_of(uint64_t bits) {
  const uint64_t spread = (bits * 0x0101010101010101) & 0x8040201008040201;
  return ((spread + 0x7f7f7f7f7f7f7f7f) | spread) >> 7 & 0x0101010101010101;
}

// Bytes of 0 or 1 to bits; returns whether any is set.
inline bool pack_row(const uint8_t* bytes, int64_t columns, uint64_t* words) {
  uint64_t any = 0;
  for (int64_t first = 0; first < columns; first += kWordBits) {
    uint64_t word = 0;
    const int64_t end = smaller(kWordBits, columns - first);
    for (int64_t x = 0; x < end; x += 8) {
      uint64_t eight = 0;
      if (end - x >= 8)
        std::memcpy(&eight, bytes + first + x, 8);
      else
        std::memcpy(&eight, bytes + first + x, end - x);
      if (eight) word |= bits_of(eight) << x;
    }
    words[first / kWordBits] = word;
    any |= word;
  }
  return any != 0;
}

inline void unpack_row(const uint64_t* words, int64_t columns, uint8_t* bytes) {
  for (int64_t x = 0; x < columns; x += 8) {
    const uint64_t eight = bytes_of(words[x / kWordBits] >> x % kWordBits & 0xff);
    std::memcpy(bytes + x, &eight, smaller(8, columns - x));
  }
}

}  // namespace sbnet
