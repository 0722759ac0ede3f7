// A line of cells that leads away from a place: whole numbers save for one length, and the same on all devices.
#pragma once

#include <cmath>

#include "blocks.h"

namespace sbnet {

// A place on a raster, in half cells: a cell's centre has odd numbers.
struct Place {
  int64_t row, column;
};

// The cells that hold the centre of a cell moved by 1, 2 .. sides of a cell away from a place. Within kMostCells
// of it squares fit into 64 bits.
class Ray {
 public:
  SBNET_BOTH Ray(Place from, int64_t row, int64_t column)
      : row_(centre(row) << (kFraction - 1)), column_(centre(column) << (kFraction - 1)) {
    const int64_t rows = centre(row) - from.row, columns = centre(column) - from.column;
    // The place itself has no direction, and stays where it is.
    const double distance = std::sqrt(static_cast<double>(larger(rows * rows + columns * columns, 1)));
    per_row_ = step(rows, distance);
    per_column_ = step(columns, distance);
  }

  SBNET_BOTH void advance() {
    row_ += per_row_;
    column_ += per_column_;
  }
  SBNET_BOTH int64_t row() const { return row_ >> kFraction; }
  SBNET_BOTH int64_t column() const { return column_ >> kFraction; }

 private:
  static constexpr int kFraction = 24;

  static constexpr SBNET_BOTH int64_t centre(int64_t cell) { return 2 * cell + 1; }
  static SBNET_BOTH int64_t step(int64_t away, double distance) {
    return static_cast<int64_t>(std::floor(static_cast<double>(away) / distance * (int64_t{1} << kFraction)));
  }

  int64_t row_, column_, per_row_ = 0, per_column_ = 0;
};

}  // namespace sbnet
