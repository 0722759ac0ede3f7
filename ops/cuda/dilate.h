// The launches of dilate.
#pragma once

#include <vector>

#include "launch.h"

namespace sbnet::cuda {

struct Raster {
  int64_t rows, columns;

  constexpr SBNET_BOTH int64_t words() const { return divide_up(columns, 32); }  // of a row of bits
};

// Of every pixel how many columns lie between it and the next True one of its row: uint32 [rows, columns]; `reach` + 1
// where that is further than `reach`. `bits` is room for uint32 [rows, words].
void find_distances(const uint8_t* mask, Raster size, int64_t reach, uint32_t* bits, uint32_t* distances,
                    Stream stream);

// The mask grown by runs: of the rows y - i and y + i, all pixels half_widths[i] or less from a True one.
void lay_runs(const uint32_t* distances, Raster size, const std::vector<int64_t>& half_widths, uint8_t* result,
              Stream stream);

}  // namespace sbnet::cuda
