#include "maps.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "check.h"
#include "parallel.h"

namespace sbnet {
namespace {

constexpr int64_t kCopyGrain = 1 << 16;  // bytes that are worth a thread

// Fills y between its active pixels with those of `from`, a map of the same shape, or with 0 if there is none.
void fill_gaps(const Tensor& y, const char* from, const RowList& active) {
  if (y.numel() == 0) return;
  const int64_t width = y.size(2), pixel = y.size(3) * y.element_size();
  auto* const to = static_cast<char*>(y.mutable_data_ptr());
  const auto fill = [&](int64_t begin, int64_t end) {
    if (begin == end) return;
    if (from)
      std::memcpy(to + begin * pixel, from + begin * pixel, (end - begin) * pixel);
    else
      std::memset(to + begin * pixel, 0, (end - begin) * pixel);
  };
  const int64_t grain = kCopyGrain / (width * pixel) + 1;
  parallel_for(y.size(0) * y.size(1), grain, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      int64_t next = row * width;
      for (const Run* run = active.rows().begin(row); run != active.rows().end(row); ++run) {
        fill(next, row * width + run->begin);
        next = row * width + run->end;
      }
      fill(next, (row + 1) * width);
    }
  });
}

void check_channels(const char* op, const char* name, int64_t channels) {
  check(channels >= 1 && channels <= kMostChannels, op, ": ", name, " must have 1 to ", kMostChannels,
        " channels, got ", channels);
}

void check_map(const char* op, const char* name, const Tensor& x) {
  check(x.dim() == 4 && x.is_contiguous(), op, ": ", name, " must be contiguous [N, H, W, C]");
  check_channels(op, name, x.size(3));
  int64_t pixels = 1;
  for (int i = 0; i < 3; ++i) {
    check(x.size(i) <= kHighest && pixels * x.size(i) <= kHighest, op, ": ", name, " must have at most ", kHighest,
          " pixels, got ", describe(x));
    pixels *= x.size(i);
  }
}

// Pixels of y outside the active tiles become those of x, or 0 if there is no x.
void restore_inactive_(Tensor y, const std::optional<Tensor>& x, const Tensor& indices, std::vector<int64_t> tile) {
  constexpr const char* op = "restore_inactive_";
  check_map(op, "y", y);
  if (x) {
    check_map(op, "x", *x);
    check(x->scalar_type() == y.scalar_type() && std::equal(x->sizes().begin(), x->sizes().end(), y.sizes().begin()),
          op, ": x must have the dtype and the shape of y, ", describe(y), ", got ", describe(*x));
  }
  const auto* const from = x ? static_cast<const char*>(x->const_data_ptr()) : nullptr;
  const RowList& active = active_pixels(op, indices, tile, extent_of(y));
  if (!x || from != y.const_data_ptr()) fill_gaps(y, from, active);
}

}  // namespace

Map map_of(const char* op, const char* name, const Tensor& x, RowList& stored) {
  check_map(op, name, x);
  whole(extent_of(x), stored);
  return {const_cast<void*>(x.const_data_ptr()), x.size(1), x.size(2), static_cast<int>(x.size(3)), stored.rows()};
}

Extent checked_extent(const char* op, const std::vector<int64_t>& size) {
  check(size.size() == 3, op, ": size must be (N, H, W), got ", size.size(), " integers");
  int64_t pixels = 1;
  for (const int64_t side : size) {
    check(side >= 0 && side <= kHighest && pixels * side <= kHighest, op, ": size must be at most ", kHighest,
          " pixels, got ", size[0], " x ", size[1], " x ", size[2]);
    pixels *= side;
  }
  return {size[0], size[1], size[2]};
}

Pixels pixels_of(const char* op, const char* name, const Tensor& start, const Tensor& runs,
                 const std::vector<int64_t>& size) {
  const Extent extent = checked_extent(op, size);
  const int64_t rows = extent.images * extent.height;
  check(start.dim() == 1 && start.size(0) == rows + 1 && start.scalar_type() == ScalarType::Int && start.is_contiguous(),
        op, ": start of ", name, " must be contiguous int32 [", rows + 1, "], got ", describe(start));
  check(runs.dim() == 2 && runs.size(1) == 3 && runs.scalar_type() == ScalarType::Int && runs.is_contiguous(), op,
        ": runs of ", name, " must be contiguous int32 [R, 3], got ", describe(runs));
  static_assert(sizeof(Run) == 3 * sizeof(int32_t));
  const Rows stored{start.const_data_ptr<int32_t>(), reinterpret_cast<const Run*>(runs.const_data_ptr<int32_t>())};

  // Every run lies in its row, behind the one before, and the pixels are numbered in this order.
  bool right = stored.start[0] == 0 && stored.start[rows] == runs.size(0);
  int64_t number = 0;
  for (int64_t row = 0; row < rows && right; ++row) {
    right = stored.start[row] <= stored.start[row + 1] && stored.start[row + 1] <= runs.size(0);
    int32_t last = 0;
    for (const Run* run = stored.begin(row); right && run != stored.end(row); ++run) {
      right = run->begin >= last && run->end > run->begin && run->end <= extent.width && run->number == number;
      last = run->end;
      number += run->size();
    }
  }
  check(right, op, ": runs of ", name, " must lie within ", extent.images, " x ", extent.height, " rows of ",
        extent.width, " pixels, from left to right, and number their pixels from 0 on");
  return {extent, stored, number};
}

Map map_of(const char* op, const char* name, const Tensor& x, const Pixels& stored) {
  check(x.dim() == 2 && x.is_contiguous() && x.size(0) == stored.count, op, ": ", name, " must be contiguous [",
        stored.count, ", C], a row per stored pixel, got ", describe(x));
  check_channels(op, name, x.size(1));
  return {const_cast<void*>(x.const_data_ptr()), stored.extent.height, stored.extent.width,
          static_cast<int>(x.size(1)), stored.rows};
}

const RowList& active_pixels(const char* op, const Tensor& indices, const std::vector<int64_t>& tile, Extent map) {
  check_pair(op, "tile", tile, 1);
  check(indices.dim() == 2 && indices.size(1) == 3 && indices.scalar_type() == ScalarType::Int && indices.is_contiguous(),
        op, ": indices must be contiguous int32 [B, 3]");
  thread_local RowList active;
  const int32_t* const data = indices.const_data_ptr<int32_t>();
  check(pixels_of_tiles(data, indices.size(0), map, tile[0], tile[1], active), op,
        ": indices must be tiles (n, ty, tx) within ", map.images, " x ", divide_up(map.height, tile[0]), " x ",
        divide_up(map.width, tile[1]), ", some lie outside the map");
  return active;
}

Tensor new_map(const Tensor& like, Extent extent, int64_t channels, const RowList& active, const Tensor* base) {
  Tensor y = torch::stable::new_empty(like, {extent.images, extent.height, extent.width, channels});
  fill_gaps(y, base ? static_cast<const char*>(base->const_data_ptr()) : nullptr, active);
  return y;
}

}  // namespace sbnet

STABLE_TORCH_LIBRARY_FRAGMENT(sbnet, m) {
  m.def("restore_inactive_(Tensor(a!) y, Tensor? x, Tensor indices, int[2] tile) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(sbnet, CPU, m) { m.impl("restore_inactive_", TORCH_BOX(&sbnet::restore_inactive_)); }
