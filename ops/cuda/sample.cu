// A raster looked up along the rows of another one that is turned against it: a thread for each pixel.
#include "sample.h"

#include "device.h"

namespace sbnet::cuda {
namespace {

__global__ void __launch_bounds__(kThreads, kResident) sample_kernel(const Lookup lookup, const uint8_t* raster,
                                                                     uint8_t* out) {
  const int64_t pixels = lookup.rows * lookup.columns;
  for (int64_t pixel = thread_of_grid(); pixel < pixels; pixel += threads_of_grid()) {
    const int64_t row = pixel / lookup.columns, column = pixel % lookup.columns;
    const int64_t y = lookup.affine.cell(0, row, column), x = lookup.affine.cell(1, row, column);
    const bool inside = y >= 0 && y < lookup.height && x >= 0 && x < lookup.width;
    out[pixel] = inside ? raster[y * lookup.width + x] : 0;
  }
}

}  // namespace

void sample(const Lookup& lookup, const uint8_t* raster, uint8_t* out, Stream stream) {
  launch("sample a raster", sample_kernel, lookup.rows * lookup.columns, kThreads, 0, stream, lookup, raster, out);
}

}  // namespace sbnet::cuda
