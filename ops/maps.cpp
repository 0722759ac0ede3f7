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
      for (int64_t i = active.start[row]; i < active.start[row + 1]; ++i) {
        fill(next, row * width + active.runs[i].begin);
        next = row * width + active.runs[i].end;
      }
      fill(next, (row + 1) * width);
    }
  });
}

// Pixels of y outside the active tiles become those of x, or 0 if there is no x.
void restore_inactive_(Tensor y, const std::optional<Tensor>& x, const Tensor& indices, std::vector<int64_t> tile) {
  constexpr const char* op = "restore_inactive_";
  map_of(op, "y", y);
  if (x) {
    map_of(op, "x", *x);
    check(x->scalar_type() == y.scalar_type() && std::equal(x->sizes().begin(), x->sizes().end(), y.sizes().begin()),
          op, ": x must have the dtype and the shape of y, ", describe(y), ", got ", describe(*x));
  }
  const auto* const from = x ? static_cast<const char*>(x->const_data_ptr()) : nullptr;
  const RowList& active = active_pixels(op, indices, tile, extent_of(y));
  if (!x || from != y.const_data_ptr()) fill_gaps(y, from, active);
}

}  // namespace

Map map_of(const char* op, const char* name, const Tensor& x) {
  check(x.dim() == 4 && x.is_contiguous(), op, ": ", name, " must be contiguous [N, H, W, C]");
  check(x.size(3) >= 1 && x.size(3) <= kMostChannels, op, ": ", name, " must have 1 to ", kMostChannels,
        " channels, got ", x.size(3));
  int64_t pixels = 1;
  for (int i = 0; i < 3; ++i) {
    check(x.size(i) <= kHighest && pixels * x.size(i) <= kHighest, op, ": ", name, " must have at most ", kHighest,
          " pixels, got ", describe(x));
    pixels *= x.size(i);
  }
  return {const_cast<void*>(x.const_data_ptr()), x.size(1), x.size(2), static_cast<int>(x.size(3))};
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
