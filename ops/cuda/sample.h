// The launch of sample_raster.
#pragma once

#include "../affine.h"
#include "launch.h"

namespace sbnet::cuda {

// Looks the pixels of `out` [rows, columns] up in `raster` [height, width]; both have a byte for each, 0 or 1.
struct Lookup {
  Affine affine;
  int64_t height, width, rows, columns;
};
void sample(const Lookup& lookup, const uint8_t* raster, uint8_t* out, Stream stream);

}  // namespace sbnet::cuda
