// sparse_gather: blocks of an image, side by side in memory (SBNet, section 3.2).
#include <torch/csrc/stable/library.h>

#include "block_arguments.h"
#include "blocks.h"
#include "parallel.h"
#include "strided.h"

namespace sbnet {
namespace {

constexpr int64_t kElementsPerThread = 1 << 14;

struct Image {
  int64_t channels, height, width;
  Layout layout;
};

// Sets pixels `span` of a row of a new block, which is dense in either memory format, to zero.
template <typename T>
void zero_pixels(T* row, Step step, Span span, int64_t channels) {
  if (step.channel == 1)
    std::memset(row + span.begin * step.pixel, 0, span.size() * channels * sizeof(T));
  else
    for (int64_t c = 0; c < channels; ++c)
      std::memset(row + span.begin * step.pixel + c * step.channel, 0, span.size() * sizeof(T));
}

// T is any type of the elements' size.
template <typename T>
void gather(const T* x, Image image, const int32_t* indices, int64_t count, Geometry geometry, T* blocks, Layout to) {
  const auto& [vertical, horizontal] = geometry;
  const int64_t channels = image.channels, elements = horizontal.size * channels;
  const Step to_step{to.pixel, to.channel};
  const Step from_step{image.layout.pixel * horizontal.dilation, image.layout.channel};
  const int64_t grain = larger(1, kElementsPerThread / elements);
  parallel_for(count * vertical.size, grain, [&](int64_t first, int64_t last) {
    for (int64_t part = first; part < last; ++part) {
      const int64_t b = part / vertical.size, i = part % vertical.size;
      const int32_t* const index = indices + 3 * b;
      const bool inside = vertical.inside(index[1], image.height).holds(i);
      const Span columns = inside ? horizontal.inside(index[2], image.width) : Span{0, 0};
      T* const row = blocks + to.at(b, i, 0);
      zero_pixels(row, to_step, {0, columns.begin}, channels);
      zero_pixels(row, to_step, {columns.end, horizontal.size}, channels);
      if (columns.size() == 0) continue;
      const int64_t y = vertical.pixel(index[1], i), left = horizontal.pixel(index[2], columns.begin);
      copy_row(row + columns.begin * to.pixel, to_step, x + image.layout.at(index[0], y, left), from_step,
               columns.size(), channels);
    }
  });
}

// x [N, C, H, W], indices int32 [B, 3] -> [B, C, h, w] in the memory format asked for; pixels outside the image are 0.
Tensor sparse_gather(const Tensor& x, const Tensor& indices_argument, std::vector<int64_t> block_size,
                     std::vector<int64_t> block_stride, std::vector<int64_t> block_offset,
                     std::vector<int64_t> block_dilation, bool channels_last) {
  constexpr const char* op = "sparse_gather";
  check_image(op, "x", x);
  const Geometry geometry(op, block_size, block_stride, block_offset, block_dilation);
  const Tensor indices = check_indices(op, indices_argument, "x", x);
  check_image_numbers(op, indices, x);
  const int64_t count = indices.size(0), channels = x.size(1);
  const int64_t element = static_cast<int64_t>(x.element_size());
  const Tensor blocks = new_blocks(op, x, count, geometry, channels_last);
  if (blocks.numel() == 0) return blocks;

  const Image image{channels, x.size(2), x.size(3), layout_of(x)};
  const auto run = [&]<typename T>(T) {
    gather(static_cast<const T*>(x.const_data_ptr()), image, indices.const_data_ptr<int32_t>(), count, geometry,
           static_cast<T*>(blocks.mutable_data_ptr()), layout_of(blocks));
  };
  if (element == 2)
    run(uint16_t{});
  else if (element == 4)
    run(uint32_t{});
  else
    run(uint64_t{});
  return blocks;
}

}  // namespace
}  // namespace sbnet

STABLE_TORCH_LIBRARY_IMPL(sbnet, CPU, m) { m.impl("sparse_gather", TORCH_BOX(&sbnet::sparse_gather)); }
