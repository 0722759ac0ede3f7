// Which pixels a layer computes and reads, as runs per row, and how they are shared between threads.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels.h"

namespace sbnet {

// A batch of maps, or of tiles.
struct Extent {
  int64_t images, height, width;
};

// Rows of runs that own their memory, which is used again.
struct RowList {
  std::vector<int32_t> start;
  std::vector<Run> runs;

  Rows rows() const { return {start.data(), runs.data()}; }
};

// First active tile, a byte that is not 0, from `x` on; `width` if there is none.
int64_t next_active(const uint8_t* tiles, int64_t x, int64_t width);

// The pixels of the active ones of `tiles`, a byte each, that partition `map`; numbered from 0 on.
void pixels_of_tiles(const uint8_t* active, Extent tiles, Extent map, int64_t tile_height, int64_t tile_width,
                     RowList& pixels);

// The input pixels beneath the 3x3 windows (padding 1, the given stride) of the output pixels `active`.
void pixels_beneath(const Rows& active, Extent output, Extent input, int64_t stride, RowList& needed);

// Splits `count` rows into at most `parts` bands with about as many active pixels each.
std::vector<Band> split(const Rows& active, int64_t count, int64_t parts);

}  // namespace sbnet
