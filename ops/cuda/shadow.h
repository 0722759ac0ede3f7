// The launch of shadow.
#pragma once

#include "../ray.h"
#include "launch.h"

namespace sbnet::cuda {

// Lines of `steps` cells away from a place, over a raster.
struct Lines {
  Viewpoint origin;
  int64_t steps, rows, columns;
};

// Sets to 1 the cells of `result` that are 1 in `mask` or on a line that begins at one of these, to 0 all others; both
// are uint8 [rows, columns].
void cast_lines(const Lines& lines, const uint8_t* mask, uint8_t* result, Stream stream);

}  // namespace sbnet::cuda
