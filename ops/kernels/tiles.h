// Products in matrix tiles (AMX): 16 outputs of all pixels of a group at once.
//
// A panel of 16 outputs lies in memory as a tile of weights wants it: 16 steps of inputs, one row each. So tiles read
// what `pack` leaves; the last rows are 0, up to a whole tile. Inputs lie anywhere and end anywhere, so 64 bytes of each
// pixel are copied side by side, filled up with 0.
#pragma once

#include "packed.h"

namespace sbnet::SBNET_ISA {

#if defined(__AMX_TILE__)

constexpr int kTileBytes = 64;  // of a row

// Shapes of the tiles: 0 to 3 are sums, 4 inputs, 5 to 7 weights.
struct alignas(64) TileShapes {
  uint8_t palette = 1, start = 0, reserved[14] = {};
  uint16_t bytes[16] = {kTileBytes, kTileBytes, kTileBytes, kTileBytes, kTileBytes, kTileBytes, kTileBytes, kTileBytes};
  uint8_t rows[16] = {kTileRows, kTileRows, kTileRows, kTileRows, kTileRows, kTileRows, kTileRows, kTileRows};
};

// Rows of sums and inputs that this thread has shaped its tiles for; 0 means that they are not shaped.
inline int& shaped_pixels() {
  static thread_local int pixels = 0;
  return pixels;
}

inline void shape_tiles(int pixels) {
  if (shaped_pixels() == pixels) return;
  TileShapes shapes;
  for (int t = 0; t < 5; ++t) shapes.rows[t] = static_cast<uint8_t>(pixels);
  asm volatile("" ::"m"(shapes));
  _tile_loadconfig(&shapes);
  shaped_pixels() = pixels;
}

// Leaves the tiles of this thread unshaped, as others expect them, PyTorch's products among them.
struct TileGuard {
  TileGuard() = default;
  TileGuard(const TileGuard&) = delete;
  TileGuard& operator=(const TileGuard&) = delete;
  ~TileGuard() {
    if (shaped_pixels() != 0) _tile_release();
    shaped_pixels() = 0;
  }
};

// Where the weights of a matrix lie for 16 outputs: `at` for the first inputs, the next row `stride` bytes on.
struct TiledPanel {
  const char* at;
  int stride;
};

// 64 bytes of each pixel from `offset` on, of which `bytes` are there, side by side.
template <typename Element>
inline void copy_inputs(const Element* const* pixels, int count, int64_t offset, int64_t bytes, char* to) {
  const __mmask64 there = bytes >= kTileBytes ? ~uint64_t{0} : (uint64_t{1} << bytes) - 1;
  for (int p = 0; p < count; ++p)
    _mm512_store_si512(to + p * kTileBytes,
                       _mm512_maskz_loadu_epi8(there, reinterpret_cast<const char*>(pixels[p]) + offset));
  asm volatile("" ::: "memory");  // GCC does not know that a tile is read from memory
}

// GCC takes the numbers of tiles as written.
#define SBNET_ADD_TILE(sums, weights, panel, offset)                          \
  _tile_loadd(weights, (panel).at + (offset) * (panel).stride, (panel).stride); \
  if constexpr (std::is_same_v<Element, uint8_t>)                             \
    _tile_dpbusd(sums, 4, weights);                                           \
  else                                                                        \
    _tile_dpbf16ps(sums, 4, weights)

// Sums of up to four panels, to[p][0 .. 16 * Tiles), of all terms. `panels` has those of each term, one term after the
// other, `most` of them each.
template <int Tiles, typename Element, typename Term>
void multiply_tiles_of(const Term* terms, int count, const TiledPanel* panels, int most, int pixels, void* to,
                       int64_t stride) {
  alignas(64) char inputs[kTileRows * kTileBytes];
  _tile_zero(0);
  if constexpr (Tiles > 1) _tile_zero(1);
  if constexpr (Tiles > 2) _tile_zero(2);
  if constexpr (Tiles > 3) _tile_zero(3);
  for (int t = 0; t < count; ++t, panels += most) {
    const int64_t bytes = terms[t].depth * static_cast<int64_t>(sizeof(Element));
    for (int64_t begin = 0; begin < bytes; begin += kTileBytes) {
      copy_inputs(terms[t].pixels, pixels, begin, bytes - begin, inputs);
      _tile_loadd(4, inputs, kTileBytes);
      const int64_t row = begin / static_cast<int64_t>(sizeof(Element) * Multiply<Element>::kStep);
      SBNET_ADD_TILE(0, 5, panels[0], row);
      if constexpr (Tiles > 1) {
        SBNET_ADD_TILE(1, 6, panels[1], row);
      }
      if constexpr (Tiles > 2) {
        SBNET_ADD_TILE(2, 7, panels[2], row);
      }
      if constexpr (Tiles > 3) {
        SBNET_ADD_TILE(3, 5, panels[3], row);
      }
    }
  }
  char* const sums = static_cast<char*>(to);
  _tile_stored(0, sums, stride);
  if constexpr (Tiles > 1) _tile_stored(1, sums + kTileBytes, stride);
  if constexpr (Tiles > 2) _tile_stored(2, sums + 2 * kTileBytes, stride);
  if constexpr (Tiles > 3) _tile_stored(3, sums + 3 * kTileBytes, stride);
  asm volatile("" ::: "memory");
}

#undef SBNET_ADD_TILE

// The panels [first, first + count) of a matrix. They are joined in pairs, but for the last of an odd number.
template <typename Element>
void find_panels(const Element* weights, int outputs, int depth, int first, int count, TiledPanel* found) {
  constexpr int lanes = kLanes<Element>, step = Multiply<Element>::kStep;
  for (int panel = first; panel < first + count; ++panel) {
    const int pair = panel / 2 * 2, width = (pair + 1) * lanes < outputs ? 2 * lanes : lanes;
    const Element* const rows = weights + static_cast<int64_t>(pair) * lanes * padded_inputs<Element>(depth);
    *found++ = {reinterpret_cast<const char*>(rows + panel % 2 * lanes * step),
                width * step * static_cast<int>(sizeof(Element))};
  }
}

// sums [pixels][stride] = the sum of up to three terms (gemm.h); stride >= padded_outputs(outputs).
template <typename Element, typename Term>
void multiply_tiles(const Term* terms, int count, int pixels, int outputs, typename Multiply<Element>::Sum* sums,
                    int stride) {
  constexpr int lanes = kLanes<Element>, most = 4, most_terms = 3;
  shape_tiles(pixels);
  for (int first = 0; first * lanes < outputs; first += most) {
    const int tiles = std::min(most, (outputs + lanes - 1) / lanes - first);
    TiledPanel panels[most_terms * most];
    for (int t = 0; t < count; ++t)
      find_panels(terms[t].weights, outputs, terms[t].depth, first, tiles, panels + t * most);
    auto* const to = sums + first * lanes;
    const int64_t row = stride * static_cast<int64_t>(sizeof *sums);
    if (tiles == 4)
      multiply_tiles_of<4, Element>(terms, count, panels, most, pixels, to, row);
    else if (tiles == 3)
      multiply_tiles_of<3, Element>(terms, count, panels, most, pixels, to, row);
    else if (tiles == 2)
      multiply_tiles_of<2, Element>(terms, count, panels, most, pixels, to, row);
    else
      multiply_tiles_of<1, Element>(terms, count, panels, most, pixels, to, row);
  }
}

#else

struct TileGuard {};
template <typename Element, typename Term>
void multiply_tiles(const Term*, int, int, int, typename Multiply<Element>::Sum*, int);  // never called

#endif

}  // namespace sbnet::SBNET_ISA
