// A mask grown by lines that lead away from a place.
#include "shadow.h"

#include "device.h"

namespace sbnet::cuda {
namespace {

// A thread for each cell: those of the mask walk along their lines.
__global__ void __launch_bounds__(kThreads, kResident) cast_kernel(const Lines lines, const uint8_t* mask,
                                                                   uint8_t* result) {
  const int64_t cells = lines.rows * lines.columns;
  for (int64_t cell = thread_of_grid(); cell < cells; cell += threads_of_grid()) {
    if (!mask[cell]) continue;
    store_relaxed(result + cell, 1);
    Ray ray(lines.origin, cell / lines.columns, cell % lines.columns);
    for (int64_t left = ray.steps_within(lines.rows, lines.columns, lines.steps); left > 0; --left) {
      ray.advance();
      store_relaxed(result + ray.row() * lines.columns + ray.column(), 1);
    }
  }
}

}  // namespace

void cast_lines(const Lines& lines, const uint8_t* mask, uint8_t* result, Stream stream) {
  fill_bytes(result, 0, static_cast<size_t>(lines.rows * lines.columns), stream);
  launch("cast shadows", cast_kernel, lines.rows * lines.columns, kThreads, 0, stream, lines, mask, result);
}

}  // namespace sbnet::cuda
