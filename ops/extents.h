// How large the arguments of an operation may be: sbnet_perception/extents.py has the same bounds.
#pragma once

#include <cmath>
#include <initializer_list>

#include "check.h"

namespace sbnet {

constexpr int64_t kMostCells = int64_t{1} << 28;   // of a mask, a raster, or the maps or blocks of a batch
constexpr int64_t kLeastRow = 64;                  // a row counts as no fewer cells
constexpr int64_t kMostSteps = int64_t{1} << 34;   // where cells are visited once for each block or run over them
constexpr double kFarthest = 1e8;                  // metres from the origin
constexpr double kFinest = 1e-6, kCoarsest = 1e6;  // metres

// Whether a product of sizes, none of them negative, is at most `most`; 0 counts as 1.
inline bool product_within(int64_t most, std::initializer_list<int64_t> sizes) {
  int64_t product = 1;
  for (const int64_t size : sizes)
    if (__builtin_mul_overflow(product, larger(size, 1), &product)) return false;
  return product <= most;
}

inline void check_cells(const char* op, const char* name, int64_t images, int64_t rows, int64_t columns) {
  check(product_within(kMostCells, {images, rows, larger(columns, kLeastRow)}), op, ": ", name, " is too large: ",
        images, " x ", rows, " x ", columns, ", it must have at most ", kMostCells,
        " cells, where a row counts as no fewer than ", kLeastRow);
}

inline void check_steps(const char* op, const char* name, std::initializer_list<int64_t> sizes) {
  check(product_within(kMostSteps, sizes), op, ": ", name, " is too large: it overlaps more than ", kMostSteps,
        " cells in all");
}

// A side in metres.
inline void check_side(const char* op, const char* name, double metres) {
  check(metres >= kFinest && metres <= kCoarsest, op, ": ", name, " must be positive, from ", kFinest, " to ", kCoarsest,
        " m, got ", metres);
}

inline bool is_near(double metres) { return std::abs(metres) <= kFarthest; }

// A position in metres; one that is not finite is none.
inline void check_position(const char* op, const char* name, double metres) {
  check(is_near(metres), op, ": ", name, " must be finite and within ", kFarthest, " m, got ", metres);
}

// A limit in metres, which may be infinite.
inline void check_limit(const char* op, const char* name, double metres) {
  check(is_near(metres) || std::isinf(metres), op, ": ", name, " must be within ", kFarthest, " m or infinite, got ",
        metres);
}

}  // namespace sbnet
