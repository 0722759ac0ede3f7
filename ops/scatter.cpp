// sparse_scatter: blocks written, or added, to an image (SBNet, section 3.2).
#include <torch/csrc/stable/library.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "block_arguments.h"
#include "blocks.h"
#include "parallel.h"
#include "strided.h"

namespace sbnet {
namespace {

constexpr int64_t kElementsPerThread = 1 << 14;

struct Job {
  const int32_t* indices;
  int64_t blocks;
  Geometry geometry;
  Layout from, to;
  int64_t images, channels, height, width;

  Step from_step() const { return {from.pixel, from.channel}; }
  Step to_step() const { return {to.pixel * geometry.horizontal.dilation, to.channel}; }
};

// What falls on each row of the images: rows of blocks, in the order of the indices.
struct Parts {
  std::vector<int64_t> start;  // where the parts of an image row begin
  std::vector<int64_t> parts;  // block * h + row of the block
};

Parts sort_by_image_row(const Job& job) {
  const auto& [vertical, horizontal] = job.geometry;
  const auto for_parts = [&](const auto& visit) {
    for (int64_t b = 0; b < job.blocks; ++b) {
      const int32_t* const index = job.indices + 3 * b;
      if (horizontal.inside(index[2], job.width).size() == 0) continue;
      const Span rows = vertical.inside(index[1], job.height);
      for (int64_t i = rows.begin; i < rows.end; ++i)
        visit(index[0] * job.height + vertical.pixel(index[1], i), b * vertical.size + i);
    }
  };
  // Counts stand two rows ahead, so that placing the parts moves each start to where it belongs.
  std::vector<int64_t> start(job.images * job.height + 2);
  for_parts([&](int64_t row, int64_t) { ++start[row + 2]; });
  std::partial_sum(start.begin(), start.end(), start.begin());
  std::vector<int64_t> parts(start.back());
  for_parts([&](int64_t row, int64_t part) { parts[start[row + 1]++] = part; });
  return {std::move(start), std::move(parts)};
}

// Writes the parts of an image row; the last one wins.
template <typename T>
struct Write {
  const Job& job;

  void put(T* line, int64_t left, const T* from, int64_t pixels) {
    copy_row(line + left * job.to.pixel, job.to_step(), from, job.from_step(), pixels, job.channels);
  }
  void finish(T*) {}
};

// Adds the parts of an image row one after the other.
template <typename T>
struct Add {
  const Job& job;

  void put(T* line, int64_t left, const T* from, int64_t pixels) {
    for_runs(line + left * job.to.pixel, job.to_step(), from, job.from_step(), pixels, job.channels,
             [](T* a, const T* b, int64_t to, int64_t from, int64_t count) {
               if (to == 1 && from == 1)
                 for (int64_t k = 0; k < count; ++k) a[k] += b[k];
               else
                 for (int64_t k = 0; k < count; ++k) a[k * to] += b[k * from];
             });
  }
  void finish(T*) {}
};

// Adds the parts of an image row one after the other in float32 and rounds the sums once.
template <typename T>
struct AddInFloat {
  const Job& job;
  std::vector<float> sums = std::vector<float>(job.width * job.channels);
  std::vector<uint8_t> touched = std::vector<uint8_t>(job.width);

  void put(T* line, int64_t left, const T* from, int64_t pixels) {
    for (int64_t p = 0; p < pixels; ++p, from += job.from.pixel) {
      const int64_t x = left + p * job.geometry.horizontal.dilation;
      float* const sum = sums.data() + x * job.channels;
      if (!touched[x]) for_channels(line + x * job.to.pixel, job.to.channel, sum, [](T& a, float& b) { b = a; });
      touched[x] = true;
      for_channels(from, job.from.channel, sum, [](const T& a, float& b) { b += a; });
    }
  }
  void finish(T* line) {
    for (int64_t x = 0; x < job.width; ++x)
      if (touched[x])
        for_channels(line + x * job.to.pixel, job.to.channel, sums.data() + x * job.channels,
                     [](T& a, float& b) { a = b; });
    std::fill(touched.begin(), touched.end(), 0);
  }

  template <typename Pixel, typename Visit>
  void for_channels(Pixel* __restrict pixel, int64_t step, float* __restrict sum, const Visit& visit) const {
    if (step == 1)
      for (int64_t c = 0; c < job.channels; ++c) visit(pixel[c], sum[c]);
    else
      for (int64_t c = 0; c < job.channels; ++c) visit(pixel[c * step], sum[c]);
  }
};

// Each row of the image belongs to one thread, which takes its parts in the order of the indices: no race where blocks
// overlap, and the same result whatever the number of threads.
template <template <typename> class Put, typename T>
void scatter(const T* blocks, T* base, const Job& job) {
  const auto& [vertical, horizontal] = job.geometry;
  const auto [start, parts] = sort_by_image_row(job);
  const int64_t image_rows = job.images * job.height;
  const int64_t grain = larger(1, kElementsPerThread / (horizontal.size * job.channels));
  const auto work = [&, &start = start, &parts = parts](int64_t first, int64_t last) {
    Put<T> into{job};
    // The thread owns the image rows whose parts begin in [first, last).
    for (int64_t row = std::lower_bound(start.begin(), start.end(), first) - start.begin();
         row < image_rows && start[row] < last; ++row) {
      T* const line = base + job.to.at(row / job.height, row % job.height, 0);
      for (int64_t k = start[row]; k < start[row + 1]; ++k) {
        const int64_t b = parts[k] / vertical.size, i = parts[k] % vertical.size;
        const int64_t bx = job.indices[3 * b + 2];
        const Span columns = horizontal.inside(bx, job.width);
        into.put(line, horizontal.pixel(bx, columns.begin), blocks + job.from.at(b, i, columns.begin), columns.size());
      }
      into.finish(line);
    }
  };
  parallel_for(static_cast<int64_t>(parts.size()), grain, work);
}

// Number is what the elements are, Bits any type of their size.
template <typename Number, typename Bits, template <typename> class Sum>
void scatter(const Tensor& blocks, const Tensor& base, const Job& job, bool add) {
  const void* const from = blocks.const_data_ptr();
  void* const to = base.mutable_data_ptr();
  if (add)
    scatter<Sum>(static_cast<const Number*>(from), static_cast<Number*>(to), job);
  else
    scatter<Write>(static_cast<const Bits*>(from), static_cast<Bits*>(to), job);
}

void scatter(const Tensor& blocks, const Tensor& base, const Job& job, bool add) {
  switch (base.scalar_type()) {
    case ScalarType::Double:
      return scatter<double, uint64_t, Add>(blocks, base, job, add);
    case ScalarType::Float:
      return scatter<float, uint32_t, Add>(blocks, base, job, add);
    case ScalarType::BFloat16:
      return scatter<torch::headeronly::BFloat16, uint16_t, AddInFloat>(blocks, base, job, add);
    default:
      return scatter<torch::headeronly::Half, uint16_t, AddInFloat>(blocks, base, job, add);
  }
}

void scatter_checked(const char* op, const Tensor& blocks, const Tensor& indices_argument, const Tensor& base,
                     const Geometry& geometry, bool add) {
  const Tensor indices = check_scatter(op, blocks, indices_argument, base, geometry);
  check_image_numbers(op, indices, base);
  if (base.numel() == 0 || blocks.numel() == 0) return;
  const Tensor source = share_memory(blocks, base) ? torch::stable::clone(blocks) : blocks;
  const Job job{indices.const_data_ptr<int32_t>(), indices.size(0), geometry, layout_of(source), layout_of(base),
                base.size(0), base.size(1), base.size(2), base.size(3)};
  scatter(source, base, job, add);
}

// blocks [B, C, h, w], indices int32 [B, 3] -> written into base [N, C, H, W]; pixels outside the image are dropped.
void sparse_scatter_(const Tensor& blocks, const Tensor& indices, Tensor base, std::vector<int64_t> block_size,
                     std::vector<int64_t> block_stride, std::vector<int64_t> block_offset,
                     std::vector<int64_t> block_dilation, bool add) {
  constexpr const char* op = "sparse_scatter_";
  scatter_checked(op, blocks, indices, base, {op, block_size, block_stride, block_offset, block_dilation}, add);
}

// As `sparse_scatter_`, into a copy of base.
Tensor sparse_scatter(const Tensor& blocks, const Tensor& indices, const Tensor& base, std::vector<int64_t> block_size,
                      std::vector<int64_t> block_stride, std::vector<int64_t> block_offset,
                      std::vector<int64_t> block_dilation, bool add) {
  constexpr const char* op = "sparse_scatter";
  check_image(op, "base", base);
  const Tensor copy = torch::stable::clone(base);
  scatter_checked(op, blocks, indices, copy, {op, block_size, block_stride, block_offset, block_dilation}, add);
  return copy;
}

}  // namespace
}  // namespace sbnet

STABLE_TORCH_LIBRARY_IMPL(sbnet, CPU, m) {
  m.impl("sparse_scatter", TORCH_BOX(&sbnet::sparse_scatter));
  m.impl("sparse_scatter_", TORCH_BOX(&sbnet::sparse_scatter_));
}
