// reduce_mask: the list of active blocks of a mask (SBNet, section 3.1).
#include <torch/csrc/stable/library.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>
#include <type_traits>

#include "block_arguments.h"
#include "blocks.h"
#include "parallel.h"

namespace sbnet {
namespace {

constexpr int64_t kPixelsPerThread = 1 << 15;

struct Mask {
  int64_t images, height, width;
};

struct Grid {
  int64_t rows, columns;
};

// First column from `x` on that is 1, not 0; `width` if there is none.
int64_t first_set(const uint8_t* columns, int64_t x, int64_t width) {
  uint64_t eight;
  for (; x + 8 <= width; x += 8) {
    std::memcpy(&eight, columns + x, sizeof eight);
    if (eight) return x + std::countr_zero(eight) / 8;
  }
  while (x < width && !columns[x]) ++x;
  return x;
}

// Largest value: a column holds 1 where one of its pixels exceeds the tolerance. NaN never does.
template <typename T>
struct Max {
  using Column = uint8_t;
  using Number = std::conditional_t<std::is_same_v<T, double>, double, float>;
  Number tol;

  // x > tol exactly when x > the largest Number that is not above tol.
  Max(double tol, int64_t) : tol(static_cast<Number>(tol)) {
    if (this->tol > tol) this->tol = std::nextafter(this->tol, -std::numeric_limits<Number>::infinity());
  }
  void add(Column& column, T pixel) const { column |= static_cast<Number>(pixel) > tol; }
  // Sets blocks[b] for every active block along a row, passing over what is empty.
  void mark(const Column* columns, int64_t width, int64_t count, const Axis& axis, uint8_t* blocks) const {
    if (axis.size == 1 && axis.stride == 1 && axis.offset == 0) {
      std::copy_n(columns, smaller(count, width), blocks);
      return;
    }
    int64_t next = 0;  // the first set column from the block's begin on
    for (int64_t b = 0; b < count;) {
      const Span span = axis.covered(b, width);
      next = first_set(columns, larger(next, span.begin), width);
      if (next == width) return;
      if (next < span.end) {
        blocks[b++] = 1;
      } else {
        // on to the first block that ends beyond that column
        const int64_t beyond = next - axis.size - axis.offset;
        b = larger(b + 1, beyond < 0 ? 0 : beyond / axis.stride + 1);
      }
    }
  }
};

// Bool, as bytes that are 0 or not: compared once.
template <>
struct Max<uint8_t> : Max<float> {
  Column one, zero;

  Max(double tol, int64_t area) : Max<float>(tol, area), one(1 > tol), zero(0 > tol) {}
  void add(Column& column, uint8_t pixel) const { column |= pixel ? one : zero; }
};

// Mean over all pixels of the block, those outside the image counted as 0. With a NaN among them it exceeds nothing.
template <typename T>
struct Mean {
  using Column = double;
  double tol;
  double area;

  Mean(double tol, int64_t area) : tol(tol), area(static_cast<double>(area)) {}
  void add(Column& column, T pixel) const {
    if constexpr (std::is_same_v<T, uint8_t>)
      column += pixel != 0;
    else
      column += static_cast<double>(pixel);
  }
  void mark(const Column* columns, int64_t width, int64_t count, const Axis& axis, uint8_t* blocks) const {
    for (int64_t b = 0; b < count; ++b) {
      const Span span = axis.covered(b, width);
      double sum = 0;
      for (int64_t x = span.begin; x < span.end; ++x) sum += columns[x];
      blocks[b] = sum / area > tol;
    }
  }
};

struct Active {
  std::vector<uint8_t> blocks;   // one byte per block
  std::vector<int64_t> per_row;  // how many in every row of blocks
};

// Adds a row of the mask to the columns. Pool by value: the columns are bytes, which could be its fields.
template <typename Pool, typename T>
void add_row(const Pool pool, const T* __restrict row, int64_t width, typename Pool::Column* __restrict columns) {
  for (int64_t x = 0; x < width; ++x) pool.add(columns[x], row[x]);
}

template <template <typename> class Pool, typename T>
void mark(const T* mask, Mask size, Grid grid, const Geometry& geometry, double tol, Active& active) {
  const auto& [vertical, horizontal] = geometry;
  const Pool<T> pool(tol, vertical.size * horizontal.size);
  const auto work = [&](int64_t first, int64_t last) {
    std::vector<typename Pool<T>::Column> columns(size.width);
    for (int64_t row = first; row < last; ++row) {
      const T* const image = mask + row / grid.rows * size.height * size.width;
      const Span rows = vertical.covered(row % grid.rows, size.height);
      // pool along the columns first: one pass over whole rows of the mask
      std::fill(columns.begin(), columns.end(), 0);
      for (int64_t y = rows.begin; y < rows.end; ++y)
        add_row(pool, image + y * size.width, size.width, columns.data());
      uint8_t* const blocks = active.blocks.data() + row * grid.columns;
      pool.mark(columns.data(), size.width, grid.columns, horizontal, blocks);
      active.per_row[row] = std::accumulate(blocks, blocks + grid.columns, int32_t{0});
    }
  };
  const int64_t pixels = size.width * smaller(vertical.size, size.height) + grid.columns;
  parallel_for(size.images * grid.rows, larger(1, kPixelsPerThread / larger(1, pixels)), work);
}

template <typename T>
void mark(const Tensor& mask, Grid grid, const Geometry& geometry, double tol, bool avg, Active& active) {
  const T* const data = static_cast<const T*>(mask.const_data_ptr());
  const Mask size{mask.size(0), mask.size(1), mask.size(2)};
  if (avg)
    mark<Mean>(data, size, grid, geometry, tol, active);
  else
    mark<Max>(data, size, grid, geometry, tol, active);
}

void mark(const Tensor& mask, Grid grid, const Geometry& geometry, double tol, bool avg, Active& active) {
  switch (mask.scalar_type()) {
    case ScalarType::Bool:
      return mark<uint8_t>(mask, grid, geometry, tol, avg, active);
    case ScalarType::Float:
      return mark<float>(mask, grid, geometry, tol, avg, active);
    case ScalarType::Double:
      return mark<double>(mask, grid, geometry, tol, avg, active);
    case ScalarType::BFloat16:
      return mark<torch::headeronly::BFloat16>(mask, grid, geometry, tol, avg, active);
    default:
      return mark<torch::headeronly::Half>(mask, grid, geometry, tol, avg, active);
  }
}

// mask [N, H, W] bool or floating point -> int32 [B, 3], the active blocks (n, by, bx) in raster order.
Tensor reduce_mask(const Tensor& mask, std::vector<int64_t> block_count, std::vector<int64_t> block_size,
                   std::vector<int64_t> block_stride, std::vector<int64_t> block_offset, double tol, bool avg) {
  constexpr const char* op = "reduce_mask";
  const MaskGrid pooled(op, mask, block_count, block_size, block_stride, block_offset);
  const Grid grid{pooled.rows, pooled.columns};
  const int64_t block_rows = mask.size(0) * grid.rows;

  Active active = allocate(op, "block_count", {block_rows, grid.columns}, [&] {
    return Active{std::vector<uint8_t>(block_rows * grid.columns), std::vector<int64_t>(block_rows)};
  });
  mark(torch::stable::contiguous(mask), grid, pooled.geometry, tol, avg, active);

  // where each row of blocks begins in the result: this makes the order independent of the threads
  std::vector<int64_t> start(block_rows + 1);
  std::inclusive_scan(active.per_row.begin(), active.per_row.end(), start.begin() + 1);

  const Tensor indices = allocate(op, "block_count", {start.back(), 3, sizeof(int32_t)}, [&] {
    return torch::stable::new_empty(mask, {start.back(), 3}, ScalarType::Int);
  });
  int32_t* const out = indices.mutable_data_ptr<int32_t>();
  const int64_t grain = larger(1, kPixelsPerThread / larger(1, grid.columns));
  parallel_for(block_rows, grain, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      int32_t* next = out + 3 * start[row];
      const auto image = static_cast<int32_t>(row / grid.rows), by = static_cast<int32_t>(row % grid.rows);
      const uint8_t* const blocks = active.blocks.data() + row * grid.columns;
      for (int64_t bx = first_set(blocks, 0, grid.columns); bx < grid.columns; bx = first_set(blocks, bx, grid.columns))
        for (; bx < grid.columns && blocks[bx]; ++bx) {
          *next++ = image;
          *next++ = by;
          *next++ = static_cast<int32_t>(bx);
        }
    }
  });
  return indices;
}

}  // namespace
}  // namespace sbnet

STABLE_TORCH_LIBRARY_IMPL(sbnet, CPU, m) { m.impl("reduce_mask", TORCH_BOX(&sbnet::reduce_mask)); }
