// What the kernels of every device demand of the arguments of operations on masks.
#pragma once

#include <algorithm>

#include "affine.h"
#include "extents.h"
#include "ray.h"

namespace sbnet {

// Checks a mask and the half widths of the runs it is grown by; returns them without what reaches beyond the raster
// from anywhere.
inline std::vector<int64_t> check_dilation(const char* op, const Tensor& mask, std::vector<int64_t> half_widths) {
  check(mask.dim() == 2 && mask.scalar_type() == ScalarType::Bool, op, ": mask must be bool [H, W], got ",
        describe(mask));
  check_cells(op, "mask", 1, mask.size(0), mask.size(1));
  check(!half_widths.empty() && half_widths.back() >= 0 && half_widths.front() <= kHighest &&
            std::is_sorted(half_widths.rbegin(), half_widths.rend()),
        op, ": half_widths must be whole numbers from 0 to ", kHighest, " that never grow, at least one");
  half_widths.resize(smaller(static_cast<int64_t>(half_widths.size()), larger(mask.size(0), 1)));
  for (int64_t& half_width : half_widths) half_width = smaller(half_width, mask.size(1));
  check_steps(op, "half_widths", {mask.size(0), divide_up(mask.size(1), 64), static_cast<int64_t>(half_widths.size())});
  return half_widths;
}

// Checks a mask and the place from which lines of so many cells lead away.
inline Viewpoint check_shadow(const char* op, const Tensor& mask, const std::vector<int64_t>& origin, int64_t steps) {
  check(mask.dim() == 2 && mask.scalar_type() == ScalarType::Bool, op, ": mask must be bool [H, W], got ",
        describe(mask));
  check_cells(op, "mask", 1, mask.size(0), mask.size(1));
  check(origin.size() == 2, op, ": origin must be 2 integers, got ", origin.size());
  for (const int64_t value : origin)
    check(value >= -2 * kMostCells && value <= 2 * kMostCells, op, ": origin must stay within ", kMostCells, " cells");
  check(steps >= 0 && steps <= kHighest, op, ": steps must be a whole number from 0 to ", kHighest);
  check_steps(op, "steps", {mask.size(0), mask.size(1), smaller(steps, mask.size(0) + mask.size(1))});
  return {origin[0], origin[1]};
}

// Checks one (y, x) pair of positions and that no pixel leaves 64 bits.
inline void check_positions(const char* op, const char* name, const std::vector<int64_t>& pair, int64_t times) {
  check(pair.size() == 2, op, ": ", name, " must be 2 integers, got ", pair.size());
  const int64_t most = (kFarthestCell << kFraction) / larger(times, 1);
  for (const int64_t value : pair)
    check(value >= -most && value <= most, op, ": ", name, " must stay within ", kFarthestCell, " raster cells");
}

// Checks a raster and how the pixels of `size` lie on it.
inline Affine check_sampling(const char* op, const Tensor& raster, const std::vector<int64_t>& origin,
                             const std::vector<int64_t>& per_row, const std::vector<int64_t>& per_column,
                             const std::vector<int64_t>& size) {
  check(raster.dim() == 2 && raster.scalar_type() == ScalarType::Bool, op, ": raster must be bool [h, w], got ",
        describe(raster));
  check_cells(op, "raster", 1, raster.size(0), raster.size(1));
  check_pair(op, "size", size, 1);
  check_cells(op, "size", 1, size[0], size[1]);
  check_positions(op, "origin", origin, 1);
  check_positions(op, "per_row", per_row, 2 * size[0]);
  check_positions(op, "per_column", per_column, 2 * size[1]);
  return {{origin[0], origin[1]}, {per_row[0], per_row[1]}, {per_column[0], per_column[1]}};
}

// The result of sample_raster, not filled.
inline Tensor new_sample(const char* op, const Tensor& raster, const std::vector<int64_t>& size) {
  return allocate(op, "size", {size[0], size[1]},
                  [&] { return torch::stable::new_empty(raster, {size[0], size[1]}); });
}

}  // namespace sbnet
