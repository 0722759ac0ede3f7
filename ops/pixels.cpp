#include "pixels.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>

#include "layer_arguments.h"
#include "map_arguments.h"
#include "weights.h"

namespace sbnet {
namespace {

static_assert(sizeof(Run) == 3 * sizeof(int32_t));

bool is_list(const Tensor& list, ScalarType type, int64_t dim) {
  return list.dim() == dim && list.scalar_type() == type && list.is_contiguous();
}

Rows rows_of(const char* op, const char* name, const Tensor& start, const Tensor& runs, int64_t rows) {
  check(is_list(start, ScalarType::Int, 1) && start.size(0) == rows + 1, op, ": start of ", name,
        " must be contiguous int32 [", rows + 1, "], got ", describe(start));
  check(is_list(runs, ScalarType::Int, 2) && runs.size(1) == 3, op, ": runs of ", name,
        " must be contiguous int32 [R, 3], got ", describe(runs));
  const int32_t* const first = start.const_data_ptr<int32_t>();
  check(first[rows] == runs.size(0), op, ": start of ", name, " must end with the number of runs, ", runs.size(0),
        ", got ", first[rows]);
  return {first, reinterpret_cast<const Run*>(runs.const_data_ptr<int32_t>())};
}

Tensor starts_of(const RowList& list, const Tensor& like) {
  Tensor start = torch::stable::new_empty(like, {static_cast<int64_t>(list.start.size())}, ScalarType::Int);
  std::copy(list.start.begin(), list.start.end(), start.mutable_data_ptr<int32_t>());
  return start;
}

Tensor runs_of(const RowList& list, const Tensor& like) {
  Tensor runs = torch::stable::new_empty(like, {static_cast<int64_t>(list.runs.size()), 3}, ScalarType::Int);
  std::copy(list.runs.begin(), list.runs.end(), reinterpret_cast<Run*>(runs.mutable_data_ptr<int32_t>()));
  return runs;
}

}  // namespace

std::vector<Tensor> lists_of(const RowList& pixels, Extent map, const Tensor& like) {
  thread_local RowList windows;
  pixels_beneath(pixels.rows(), map, map, 1, windows);
  const int64_t count = pixels.runs.empty() ? 0 : pixels.runs.back().number + pixels.runs.back().size();
  Tensor positions = torch::stable::new_empty(like, {count}, ScalarType::Long);
  int64_t* to = positions.mutable_data_ptr<int64_t>();
  for (int64_t row = 0; row < map.images * map.height; ++row)
    for (const Run* run = pixels.rows().begin(row); run != pixels.rows().end(row); ++run)
      for (int64_t x = run->begin; x < run->end; ++x) *to++ = row * map.width + x;
  return {positions, starts_of(pixels, like), runs_of(pixels, like), starts_of(windows, like), runs_of(windows, like)};
}

Pixels pixels_of(const char* op, const char* name, const std::vector<Tensor>& lists, const std::vector<int64_t>& size) {
  const Extent extent = checked_extent(op, size);
  check(lists.size() == 3 || lists.size() == 5, op, ": pixels of ", name, " must be 3 or 5 lists, got ", lists.size());
  check(is_list(lists[0], ScalarType::Long, 1), op, ": positions of ", name, " must be contiguous int64 [P], got ",
        describe(lists[0]));
  const int64_t rows = extent.images * extent.height, count = lists[0].size(0);
  Pixels pixels{extent, rows_of(op, name, lists[1], lists[2], rows), count, {}};
  const Run* const end = pixels.rows.begin(rows);  // of all
  check(count == (end == pixels.rows.runs ? 0 : end[-1].number + end[-1].size()), op, ": runs of ", name,
        " must hold as many pixels as there are positions, ", count);
  if (lists.size() == 5) pixels.windows = rows_of(op, name, lists[3], lists[4], rows);
  return pixels;
}

Map map_of(const char* op, const char* name, const Tensor& x, const Pixels& stored) {
  check_map(op, name, x, stored.count);
  return {const_cast<void*>(x.const_data_ptr()), stored.extent.height, stored.extent.width,
          static_cast<int>(x.size(1)), stored.rows, held_type(x)};
}

}  // namespace sbnet
