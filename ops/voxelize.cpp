// A point cloud as the occupied cells of a bird's-eye-view raster.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <bit>
#include <optional>

#include "cloud_arguments.h"
#include "kernels.h"
#include "parallel.h"

namespace sbnet {
namespace {

constexpr int64_t kPointsPerThread = 1 << 14, kBits = 64;

// The row of a point that counts; -1 for others.
int32_t row_of(const VoxelGrid& grid, const float* p) {
  return grid.holds(p[0], p[1], p[2], p[3]) ? static_cast<int32_t>(grid.cells.row(p[1])) : -1;
}

struct Cell {
  int32_t column;
  float mean;
  int64_t bits;
};

// The cells of one row, gathered column by column.
class RowOfCells {
 public:
  explicit RowOfCells(int64_t width)
      : bits_(width), count_(width), sum_(width), touched_(static_cast<size_t>(width / kBits + 1)) {}

  void add(int32_t column, int channel, float intensity) {
    touched_[column / kBits] |= uint64_t{1} << column % kBits;
    bits_[column] |= int64_t{1} << channel;
    sum_[column] += intensity;
    ++count_[column];
  }
  // Writes the cells from left to right and forgets them; returns how many.
  int64_t take(Cell* to) {
    Cell* const begin = to;
    for (size_t word = 0; word < touched_.size(); ++word)
      for (; touched_[word] != 0; touched_[word] &= touched_[word] - 1) {
        const auto column = static_cast<int32_t>(word * kBits + std::countr_zero(touched_[word]));
        *to++ = {column, static_cast<float>(sum_[column] / count_[column]), bits_[column]};
        bits_[column] = 0;
        sum_[column] = 0;
        count_[column] = 0;
      }
    return to - begin;
  }

 private:
  std::vector<int64_t> bits_;
  std::vector<double> count_, sum_;
  std::vector<uint64_t> touched_;
};

// Numbers of the points that count, row by row and in their own order; `start` is where each row begins.
void sort_by_row(const Tensor& points, const VoxelGrid& grid, std::vector<int32_t>& order,
                 std::vector<int64_t>& start) {
  const int64_t count = points.size(0), step = points.size(1);
  const float* const data = points.const_data_ptr<float>();
  thread_local std::vector<int32_t> rows_of_points;
  std::vector<int32_t>& rows = rows_of_points;
  rows.resize(count);
  parallel_for(count, kPointsPerThread, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) rows[i] = row_of(grid, data + i * step);
  });
  start.assign(grid.cells.height + 1, 0);
  for (int64_t i = 0; i < count; ++i)
    if (rows[i] >= 0) ++start[rows[i] + 1];
  for (int64_t row = 0; row < grid.cells.height; ++row) start[row + 1] += start[row];
  order.resize(start.back());
  for (int64_t i = 0; i < count; ++i)
    if (rows[i] >= 0) order[start[rows[i]]++] = static_cast<int32_t>(i);
  // Each row began where the one before it has ended.
  std::copy_backward(start.begin(), start.end() - 1, start.end());
  start[0] = 0;
}

// Joins neighbouring cells of a row into runs.
void append_runs(const Cell* cells, int64_t count, int64_t number, std::vector<Run>& runs) {
  for (int64_t i = 0; i < count; ++i) {
    if (i > 0 && cells[i].column == cells[i - 1].column + 1)
      ++runs.back().end;
    else
      runs.push_back({cells[i].column, cells[i].column + 1, static_cast<int32_t>(number + i)});
  }
}

// points float32 [P, 4] x, y, z, intensity -> place int64 [K], bits int64 [K] and mean intensity float32 [K] of the K
// occupied cells, the number of points in them, start int32 [H + 1] and runs int32 [R, 3]; see kernels.h for the last
// two. `range` is x_min, x_max, y_min, y_max.
std::vector<Tensor> voxelize(const Tensor& argument, std::vector<double> range, double resolution,
                             std::vector<int64_t> size, double z_min, double bin_height, int64_t bins,
                             std::optional<int64_t> capacity) {
  constexpr const char* op = "voxelize";
  const VoxelGrid grid = check_voxels(op, argument, range, resolution, size, z_min, bin_height, bins);
  check(!capacity, op, ": capacity is for the kernels of a GPU");
  const Tensor points = torch::stable::contiguous(argument);
  const int64_t height = grid.cells.height, width = grid.cells.width;

  thread_local std::vector<int32_t> order_of_points;
  thread_local std::vector<int64_t> start_of_rows;
  thread_local std::vector<Cell> all_cells;
  std::vector<int32_t>& order = order_of_points;
  std::vector<int64_t>& first_point = start_of_rows;
  std::vector<Cell>& cells = all_cells;
  sort_by_row(points, grid, order, first_point);
  // Each row's cells, where its points were.
  cells.resize(order.size());
  std::vector<int64_t> count(height);
  const float* const data = points.const_data_ptr<float>();
  const int64_t parts = std::min<int64_t>(8, static_cast<int64_t>(order.size()) / kPointsPerThread + 1);
  parallel_for(height, divide_up(height, parts), [&](int64_t first, int64_t last) {
    RowOfCells line(width);
    for (int64_t row = first; row < last; ++row) {
      for (int64_t i = first_point[row]; i < first_point[row + 1]; ++i) {
        const float* const p = data + int64_t{order[i]} * 4;
        line.add(static_cast<int32_t>(grid.cells.column(p[0])), grid.channel(p[2]), p[3]);
      }
      count[row] = line.take(cells.data() + first_point[row]);
    }
  });

  // Runs, and the cells without the gaps that repeated points left.
  Tensor start = torch::stable::new_empty(points, {height + 1}, ScalarType::Int);
  int32_t* const starts = start.mutable_data_ptr<int32_t>();
  std::vector<Run> list;
  int64_t number = 0;
  for (int64_t row = 0; row < height; ++row) {
    starts[row] = static_cast<int32_t>(list.size());
    append_runs(cells.data() + first_point[row], count[row], number, list);
    number += count[row];
  }
  starts[height] = static_cast<int32_t>(list.size());
  Tensor runs = torch::stable::new_empty(points, {static_cast<int64_t>(list.size()), 3}, ScalarType::Int);
  if (!list.empty()) std::copy(list.begin(), list.end(), reinterpret_cast<Run*>(runs.mutable_data_ptr<int32_t>()));
  Tensor flat = torch::stable::new_empty(points, {number}, ScalarType::Long);
  Tensor bits = torch::stable::new_empty(points, {number}, ScalarType::Long);
  Tensor mean = torch::stable::new_empty(points, {number});
  Tensor in_cells = torch::stable::new_empty(points, {}, ScalarType::Long);
  *in_cells.mutable_data_ptr<int64_t>() = static_cast<int64_t>(order.size());
  int64_t *to_flat = flat.mutable_data_ptr<int64_t>(), *to_bits = bits.mutable_data_ptr<int64_t>();
  float* to_mean = mean.mutable_data_ptr<float>();
  for (int64_t row = 0; row < height; ++row)
    for (const Cell *cell = cells.data() + first_point[row], *end = cell + count[row]; cell < end; ++cell) {
      *to_flat++ = row * width + cell->column;
      *to_bits++ = cell->bits;
      *to_mean++ = cell->mean;
    }
  return {flat, bits, mean, in_cells, start, runs};
}

}  // namespace
}  // namespace sbnet

STABLE_TORCH_LIBRARY_IMPL(sbnet, CPU, m) { m.impl("voxelize", TORCH_BOX(&sbnet::voxelize)); }
