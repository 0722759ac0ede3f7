// From bits to numbered pixels, in raster order and without a word to the host: a scan of one or several maps at a time.
#pragma once

#include <vector>

#include "launch.h"

namespace sbnet::cuda {

// A map whose words have their bits, and what becomes of it.
struct Scanned {
  Word* words;  // those of `index`, to be written
  Index index;
  int32_t* count;       // [2]: pixels that are stored, and how many there would be with room for all
  int64_t* flat;        // [capacity]: position of each, -1 behind the last; or null
  int32_t* neighbours;  // [9, capacity]: numbers of the pixels in the 3x3 windows; or null
};

// A partition of a mask: tiles of pixels of a map of `stride` on it.
struct Tiling {
  int64_t tile_height, tile_width, stride;
};

// Bits of the pixels of tiles over which the mask, bytes [images, height, width], is not all 0: maps and tilings are as
// many.
void find_tiles(const uint8_t* mask, int64_t height, int64_t width, const std::vector<Scanned>& maps,
                const std::vector<Tiling>& tilings, Stream stream);

// Bits of the pixels at positions int64 [count]; negative ones are none. The words must be 0.
void mark_positions(const int64_t* flat, int64_t count, const Scanned& map, Stream stream);

// Numbers and counts, from bits.
void number_words(const std::vector<Scanned>& maps, Stream stream);

// Positions and neighbours, from numbers and counts.
void list_pixels(const std::vector<Scanned>& maps, Stream stream);

}  // namespace sbnet::cuda
