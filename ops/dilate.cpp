// dilate: a mask grown by a stack of horizontal runs, on bits.
#include <torch/csrc/stable/library.h>

#include "bits.h"
#include "mask_arguments.h"
#include "parallel.h"

namespace sbnet {
namespace {

// Rows that a thread takes at least, times the runs laid over each.
constexpr int64_t kWorkPerThread = 1 << 15;

// One row of bits between two words that stay empty.
class Row {
 public:
  explicit Row(int64_t words) : words_(words), now_(words + 2), next_(words + 2) {}

  uint64_t* data() { return now_.data() + 1; }

  // From `reach` columns on either side of every bit of the mask to `target`. Even where the border cuts a run on one
  // side, it is reach + 1 columns wide and leaves no gap when it moves by as much.
  void grow(int64_t reach, int64_t target) {
    while (reach < target) {
      const int64_t step = smaller(smaller(target - reach, reach + 1), kWordBits - 1);
      const uint64_t* const now = now_.data();
      uint64_t* const next = next_.data();
      for (int64_t i = 1; i <= words_; ++i)
        next[i] = now[i] | now[i] << step | now[i - 1] >> (kWordBits - step) | now[i] >> step |
                  now[i + 1] << (kWordBits - step);
      now_.swap(next_);
      reach += step;
    }
  }

  void lay_over(uint64_t* other) const {
    for (int64_t i = 0; i < words_; ++i) other[i] |= now_[i + 1];
  }

 private:
  int64_t words_;
  std::vector<uint64_t> now_, next_;
};

struct Raster {
  int64_t rows, columns;
};

// The rows [first, last) of the result, from all rows of the mask that reach them.
void dilate_rows(const uint8_t* mask, Raster size, const std::vector<int64_t>& half_widths, int64_t first,
                 int64_t last, uint8_t* result) {
  const int64_t words = words_of(size.columns), reach = static_cast<int64_t>(half_widths.size()) - 1;
  std::vector<uint64_t> grown((last - first) * words);
  Row row(words);
  for (int64_t y = larger(first - reach, 0); y < smaller(last + reach, size.rows); ++y) {
    if (!pack_row(mask + y * size.columns, size.columns, row.data())) continue;
    int64_t half_width = 0;
    for (int64_t dy = reach; dy >= 0; --dy) {
      row.grow(half_width, half_widths[dy]);
      half_width = half_widths[dy];
      if (y - dy >= first && y - dy < last) row.lay_over(grown.data() + (y - dy - first) * words);
      if (y + dy >= first && y + dy < last) row.lay_over(grown.data() + (y + dy - first) * words);
    }
  }
  for (int64_t y = first; y < last; ++y)
    unpack_row(grown.data() + (y - first) * words, size.columns, result + y * size.columns);
}

// mask bool [H, W] -> bool [H, W]: every True pixel (y, x) makes True the columns x - half_widths[i] ..
// x + half_widths[i] of the rows y - i and y + i. half_widths never grow.
Tensor dilate(const Tensor& argument, std::vector<int64_t> half_widths) {
  constexpr const char* op = "dilate";
  half_widths = check_dilation(op, argument, half_widths);
  const Tensor mask = torch::stable::contiguous(argument);
  const Raster size{mask.size(0), mask.size(1)};
  Tensor result = torch::stable::empty_like(mask);
  const int64_t runs = static_cast<int64_t>(half_widths.size());
  const int64_t grain = larger(kWorkPerThread / (words_of(size.columns) * runs + 1), runs);
  const auto* const from = static_cast<const uint8_t*>(mask.const_data_ptr());
  auto* const to = static_cast<uint8_t*>(result.mutable_data_ptr());
  parallel_for(size.rows, grain, [&](int64_t first, int64_t last) {
    dilate_rows(from, size, half_widths, first, last, to);
  });
  return result;
}

}  // namespace
}  // namespace sbnet

STABLE_TORCH_LIBRARY_IMPL(sbnet, CPU, m) { m.impl("dilate", TORCH_BOX(&sbnet::dilate)); }
