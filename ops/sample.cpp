// sample_raster: a raster looked up along the rows of another one that is turned against it.
#include <torch/csrc/stable/library.h>

#include <algorithm>

#include "mask_arguments.h"
#include "parallel.h"

namespace sbnet {
namespace {

constexpr int64_t kPixelsPerThread = 1 << 14;

// A position that moves by `step` from one pixel to the next.
struct Walk {
  int64_t begin, step;

  // The pixels [begin, end) of 0 .. count at which the position lies in 0 .. extent raster cells.
  Span inside(int64_t count, int64_t extent) const {
    const int64_t end = extent << kFraction;
    if (step == 0) return {0, begin >= 0 && begin < end ? count : 0};
    // first pixel at or beyond each border; walking backwards, the position falls below it
    const int64_t enters = step > 0 ? pixels_to(-begin, step) : pixels_to(begin - end + 1, -step);
    const int64_t leaves = step > 0 ? pixels_to(end - begin, step) : pixels_to(begin + 1, -step);
    const int64_t first = smaller(enters, count);
    return {first, larger(first, smaller(leaves, count))};
  }

 private:
  static int64_t pixels_to(int64_t distance, int64_t step) { return distance <= 0 ? 0 : (distance - 1) / step + 1; }
};

Walk along(const Affine& affine, int64_t row, int axis) {
  return {affine.origin[axis] + row * affine.per_row[axis], affine.per_column[axis]};
}

void sample_row(const uint8_t* raster, const int64_t (&extent)[2], const Affine& affine, int64_t row, int64_t columns,
                uint8_t* out) {
  const Walk y = along(affine, row, 0), x = along(affine, row, 1);
  const Span rows = y.inside(columns, extent[0]), cols = x.inside(columns, extent[1]);
  const int64_t begin = larger(rows.begin, cols.begin), end = larger(begin, smaller(rows.end, cols.end));
  std::fill_n(out, smaller(begin, columns), 0);
  int64_t at_y = y.begin + begin * y.step, at_x = x.begin + begin * x.step;
  for (int64_t column = begin; column < end; ++column, at_y += y.step, at_x += x.step)
    out[column] = raster[(at_y >> kFraction) * extent[1] + (at_x >> kFraction)];
  std::fill(out + end, out + columns, 0);
}

// raster bool [h, w] -> bool [H, W], False beyond the raster. Positions (y, x) are in 2^-32 raster cells.
Tensor sample_raster(const Tensor& argument, std::vector<int64_t> origin, std::vector<int64_t> per_row,
                     std::vector<int64_t> per_column, std::vector<int64_t> size) {
  constexpr const char* op = "sample_raster";
  const Affine affine = check_sampling(op, argument, origin, per_row, per_column, size);
  const Tensor raster = torch::stable::contiguous(argument);
  const int64_t extent[2] = {raster.size(0), raster.size(1)};
  const auto* const cells = static_cast<const uint8_t*>(raster.const_data_ptr());
  Tensor result = new_sample(op, raster, size);
  auto* const out = static_cast<uint8_t*>(result.mutable_data_ptr());
  parallel_for(size[0], larger(kPixelsPerThread / size[1], 1), [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row)
      sample_row(cells, extent, affine, row, size[1], out + row * size[1]);
  });
  return result;
}

}  // namespace
}  // namespace sbnet

STABLE_TORCH_LIBRARY_IMPL(sbnet, CPU, m) { m.impl("sample_raster", TORCH_BOX(&sbnet::sample_raster)); }
