// reduce_mask: the list of active blocks of a mask (SBNet, section 3.1).
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <numeric>

#include "blocks.h"
#include "check.h"

namespace sbnet {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr int64_t kPixelsPerThread = 1 << 15;

struct Pooling {
  double tol;
  bool avg;
};

// Whether the pooled value of the pixels rows x columns exceeds the threshold. `area` counts the pixels outside too.
template <typename T>
bool is_active(const T* image, int64_t width, Span rows, Span columns, int64_t area, Pooling pooling) {
  double sum = 0;
  for (int64_t y = rows.begin; y < rows.end; ++y) {
    const T* row = image + y * width;
    bool any = false;
    if (pooling.avg)
      for (int64_t x = columns.begin; x < columns.end; ++x) sum += static_cast<double>(row[x]);
    else
      for (int64_t x = columns.begin; x < columns.end; ++x) any |= static_cast<double>(row[x]) > pooling.tol;
    if (any) return true;
  }
  return pooling.avg && sum / static_cast<double>(area) > pooling.tol;
}

// One byte per block and the number of active blocks of every row of blocks.
template <typename T>
void mark(const T* mask, int64_t images, int64_t height, int64_t width, Axis vertical, Axis horizontal, Pooling pooling,
          std::vector<uint8_t>& active, std::vector<int64_t>& active_in_row) {
  const int64_t area = vertical.size * horizontal.size;
  // In floating point: the product of three sizes need not fit 64 bits.
  const double pixels_per_row = static_cast<double>(area) * static_cast<double>(std::max<int64_t>(1, horizontal.count));
  const int64_t grain = std::max<int64_t>(1, static_cast<int64_t>(kPixelsPerThread / pixels_per_row));
  torch::stable::parallel_for(0, images * vertical.count, grain, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      const T* image = mask + row / vertical.count * height * width;
      const Span rows = vertical.inside(row % vertical.count, height);
      for (int64_t bx = 0; bx < horizontal.count; ++bx) {
        const bool is = is_active(image, width, rows, horizontal.inside(bx, width), area, pooling);
        active[row * horizontal.count + bx] = is;
        active_in_row[row] += is;
      }
    }
  });
}

// mask [N, H, W] bool or float32 -> int32 [B, 3], the active blocks (n, by, bx) in raster order.
Tensor reduce_mask(const Tensor& mask_argument, std::vector<int64_t> block_count, std::vector<int64_t> block_size,
                   std::vector<int64_t> block_stride, std::vector<int64_t> block_offset, double tol, bool avg) {
  const ScalarType dtype = mask_argument.scalar_type();
  check(mask_argument.dim() == 3, "reduce_mask: mask must be [N, H, W], got ", mask_argument.dim(), " dimensions");
  check(dtype == ScalarType::Bool || dtype == ScalarType::Float, "reduce_mask: mask must be bool or float32, got ",
        torch::headeronly::toString(dtype));
  check_pair("reduce_mask", "block_count", block_count, 0);
  check_pair("reduce_mask", "block_size", block_size, 1);
  check_pair("reduce_mask", "block_stride", block_stride, 1);
  check_pair("reduce_mask", "block_offset", block_offset, std::numeric_limits<int32_t>::min());

  const Tensor mask = torch::stable::contiguous(mask_argument);
  const int64_t images = mask.size(0), height = mask.size(1), width = mask.size(2);
  const Axis vertical{block_count[0], block_size[0], block_stride[0], block_offset[0]};
  const Axis horizontal{block_count[1], block_size[1], block_stride[1], block_offset[1]};
  const int64_t block_rows = images * vertical.count;

  // pool every block, side by side
  std::vector<uint8_t> active(block_rows * horizontal.count);
  std::vector<int64_t> active_in_row(block_rows);
  const auto run = [&]<typename T>(const T* data) {
    mark(data, images, height, width, vertical, horizontal, {tol, avg}, active, active_in_row);
  };
  if (dtype == ScalarType::Bool)
    run(mask.const_data_ptr<bool>());
  else
    run(mask.const_data_ptr<float>());

  // where each row of blocks begins in the result: this makes the order independent of the threads
  std::vector<int64_t> start(block_rows + 1);
  std::inclusive_scan(active_in_row.begin(), active_in_row.end(), start.begin() + 1);

  Tensor indices = torch::stable::new_empty(mask, {start.back(), 3}, ScalarType::Int);
  int32_t* const out = indices.mutable_data_ptr<int32_t>();
  const int64_t grain = std::max<int64_t>(1, kPixelsPerThread / std::max<int64_t>(1, horizontal.count));
  torch::stable::parallel_for(0, block_rows, grain, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      int32_t* next = out + 3 * start[row];
      for (int64_t bx = 0; bx < horizontal.count; ++bx) {
        if (!active[row * horizontal.count + bx]) continue;
        *next++ = static_cast<int32_t>(row / vertical.count);
        *next++ = static_cast<int32_t>(row % vertical.count);
        *next++ = static_cast<int32_t>(bx);
      }
    }
  });
  return indices;
}

}  // namespace
}  // namespace sbnet

STABLE_TORCH_LIBRARY_IMPL(sbnet, CPU, m) { m.impl("reduce_mask", TORCH_BOX(&sbnet::reduce_mask)); }
