// shadow: a mask grown by lines that lead away from a place.
#include <torch/csrc/stable/library.h>

#include <atomic>
#include <cstring>

#include "mask_arguments.h"
#include "parallel.h"

namespace sbnet {
namespace {

constexpr int64_t kCellsPerThread = 1 << 13;

struct Raster {
  int64_t rows, columns;
};

// Threads may set the same cell.
void set(uint8_t& cell) { std::atomic_ref(cell).store(1, std::memory_order_relaxed); }

void cast_from(Viewpoint origin, int64_t row, int64_t column, int64_t steps, Raster size, uint8_t* result) {
  set(result[row * size.columns + column]);
  Ray ray(origin, row, column);
  for (int64_t left = ray.steps_within(size.rows, size.columns, steps); left > 0; --left) {
    ray.advance();
    set(result[ray.row() * size.columns + ray.column()]);
  }
}

// mask bool [H, W] -> bool [H, W]: every True cell makes True the cells that hold its centre moved by 1, 2 .. steps sides
// of a cell away from origin (y, x), which is in half cells.
Tensor shadow(const Tensor& argument, std::vector<int64_t> origin, int64_t steps) {
  const Viewpoint place = check_shadow("shadow", argument, origin, steps);
  const Tensor mask = torch::stable::contiguous(argument);
  const Raster size{mask.size(0), mask.size(1)};
  Tensor result = torch::stable::empty_like(mask);
  const auto* const from = static_cast<const uint8_t*>(mask.const_data_ptr());
  auto* const to = static_cast<uint8_t*>(result.mutable_data_ptr());
  std::memset(to, 0, static_cast<size_t>(size.rows * size.columns));
  parallel_for(size.rows, divide_up(kCellsPerThread, size.columns + 1), [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row)
      for (const uint8_t *cells = from + row * size.columns, *end = cells + size.columns, *cell = cells;
           (cell = static_cast<const uint8_t*>(std::memchr(cell, 1, static_cast<size_t>(end - cell)))); ++cell)
        cast_from(place, row, cell - cells, steps, size, to);
  });
  return result;
}

}  // namespace
}  // namespace sbnet

STABLE_TORCH_LIBRARY_IMPL(sbnet, CPU, m) { m.impl("shadow", TORCH_BOX(&sbnet::shadow)); }
