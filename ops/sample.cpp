// sample_raster: a raster looked up along the rows of another one that is turned against it.
#include <torch/csrc/stable/library.h>

#include <algorithm>

#include "check.h"
#include "parallel.h"

namespace sbnet {
namespace {

// Positions are in raster cells with this many bits after the point: sums of them are exact.
constexpr int kFraction = 32;
constexpr int64_t kMostCells = int64_t{1} << 29;
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

// The raster cell (y, x) of pixel (row, column): floor of origin + row * per_row + column * per_column.
struct Affine {
  int64_t origin[2], per_row[2], per_column[2];

  Walk along(int64_t row, int axis) const { return {origin[axis] + row * per_row[axis], per_column[axis]}; }
};

void sample_row(const uint8_t* raster, const int64_t (&extent)[2], const Affine& affine, int64_t row, int64_t columns,
                uint8_t* out) {
  const Walk y = affine.along(row, 0), x = affine.along(row, 1);
  const Span rows = y.inside(columns, extent[0]), cols = x.inside(columns, extent[1]);
  const int64_t begin = larger(rows.begin, cols.begin), end = larger(begin, smaller(rows.end, cols.end));
  std::fill_n(out, smaller(begin, columns), 0);
  int64_t at_y = y.begin + begin * y.step, at_x = x.begin + begin * x.step;
  for (int64_t column = begin; column < end; ++column, at_y += y.step, at_x += x.step)
    out[column] = raster[(at_y >> kFraction) * extent[1] + (at_x >> kFraction)];
  std::fill(out + end, out + columns, 0);
}

// Checks one (y, x) pair of positions and that no pixel of `size` leaves 64 bits.
void check_positions(const char* op, const char* name, const std::vector<int64_t>& pair, int64_t times) {
  check(pair.size() == 2, op, ": ", name, " must be 2 integers, got ", pair.size());
  const int64_t most = (kMostCells << kFraction) / larger(times, 1);
  for (const int64_t value : pair)
    check(value >= -most && value <= most, op, ": ", name, " must stay within ", kMostCells, " raster cells");
}

// raster bool [h, w] -> bool [H, W], False beyond the raster. Positions (y, x) are in 2^-32 raster cells.
Tensor sample_raster(const Tensor& argument, std::vector<int64_t> origin, std::vector<int64_t> per_row,
                     std::vector<int64_t> per_column, std::vector<int64_t> size) {
  constexpr const char* op = "sample_raster";
  check(argument.dim() == 2 && argument.scalar_type() == ScalarType::Bool, op, ": raster must be bool [h, w], got ",
        describe(argument));
  check(argument.size(0) <= kMostCells && argument.size(1) <= kMostCells, op, ": raster must have at most ",
        kMostCells, " rows and columns, got ", describe(argument));
  check_pair(op, "size", size, 1);
  check_positions(op, "origin", origin, 1);
  check_positions(op, "per_row", per_row, 2 * size[0]);
  check_positions(op, "per_column", per_column, 2 * size[1]);
  const Affine affine{{origin[0], origin[1]}, {per_row[0], per_row[1]}, {per_column[0], per_column[1]}};

  const Tensor raster = torch::stable::contiguous(argument);
  const int64_t extent[2] = {raster.size(0), raster.size(1)};
  const auto* const cells = static_cast<const uint8_t*>(raster.const_data_ptr());
  Tensor result = allocate(op, "size", {size[0], size[1]},
                           [&] { return torch::stable::new_empty(raster, {size[0], size[1]}); });
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
