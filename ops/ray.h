// A line of cells that leads away from a place: whole numbers save for one length, and the same on all devices.
#pragma once

#include <cmath>

#include "blocks.h"

namespace sbnet {

// A place on a raster, in half cells: a cell's centre has odd numbers.
struct Viewpoint {
  int64_t row, column;
};

// The cells that hold the centre of a cell moved by 1, 2 .. sides of a cell away from a place. Within kMostCells
// of it squares fit into 64 bits.
class Ray {
 public:
  SBNET_BOTH Ray(Viewpoint from, int64_t row, int64_t column)
      : row_(centre(row) << (kFraction - 1)), column_(centre(column) << (kFraction - 1)) {
    const int64_t rows = centre(row) - from.row, columns = centre(column) - from.column;
    // The place itself has no direction, and stays where it is.
    const double distance = std::sqrt(static_cast<double>(larger(rows * rows + columns * columns, 1)));
    per_row_ = step(rows, distance);
    per_column_ = step(columns, distance);
  }

  // How many of `most` steps stay on a raster: a line that has left it does not come back.
  SBNET_BOTH int64_t steps_within(int64_t rows, int64_t columns, int64_t most) const {
    return smaller(most, smaller(steps_to_border(row_, per_row_, rows), steps_to_border(column_, per_column_, columns)));
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

  static SBNET_BOTH int64_t steps_to_border(int64_t from, int64_t per_step, int64_t extent) {
    if (per_step == 0) return INT64_MAX;
    return per_step > 0 ? ((extent << kFraction) - 1 - from) / per_step : from / -per_step;
  }

  int64_t row_, column_, per_row_ = 0, per_column_ = 0;
};

}  // namespace sbnet
