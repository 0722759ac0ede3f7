// What the kernels of every device demand of the arguments of the block operations, and the results that they fill.
#pragma once

#include "extents.h"

namespace sbnet {

// How reduce_mask pools a mask: rows x columns blocks of each image.
struct MaskGrid {
  int64_t rows, columns;
  Geometry geometry;

  MaskGrid(const char* op, const Tensor& mask, const std::vector<int64_t>& block_count,
           const std::vector<int64_t>& block_size, const std::vector<int64_t>& block_stride,
           const std::vector<int64_t>& block_offset)
      : geometry(op, block_size, block_stride, block_offset, {1, 1}) {
    check(mask.dim() == 3 && (mask.scalar_type() == ScalarType::Bool || is_floating(mask.scalar_type())), op,
          ": mask must be bool, float32, float64, bfloat16 or float16 [N, H, W], got ", describe(mask));
    check_cells(op, "mask", mask.size(0), mask.size(1), mask.size(2));
    check_pair(op, "block_count", block_count, 0);
    rows = block_count[0];
    columns = block_count[1];
    check_cells(op, "block_count", mask.size(0), rows, columns);
    const int64_t height = smaller(block_size[0], mask.size(1)), width = smaller(block_size[1], mask.size(2));
    check_steps(op, "block_size", {mask.size(0), rows, height, mask.size(2)});
    check_steps(op, "block_size", {mask.size(0), rows, columns, width});
  }
};

// Checks images or blocks: floating point [N, C, H, W].
inline void check_image(const char* op, const char* name, const Tensor& image) {
  check(image.dim() == 4 && is_floating(image.scalar_type()), op, ": ", name,
        " must be float32, float64, bfloat16 or float16 [N, C, H, W], got ", describe(image));
  check_cells(op, name, image.size(0), image.size(2), image.size(3));
  const auto element = static_cast<int64_t>(image.element_size());
  check(product_within(kMostBytes, {image.size(0), image.size(1), image.size(2), image.size(3), element}), op, ": ", name,
        " is too large, it must have at most ", kMostBytes, " bytes, got ", describe(image));
}

// The result of sparse_gather, not filled: [B, C, h, w] of the dtype and on the device of `x`.
inline Tensor new_blocks(const char* op, const Tensor& x, int64_t count, const Geometry& geometry, bool channels_last) {
  const int64_t channels = x.size(1), h = geometry.vertical.size, w = geometry.horizontal.size;
  check_cells(op, "block_size", count, h, w);
  return allocate(op, "block_size", {count, channels, h, w, static_cast<int64_t>(x.element_size())}, [&] {
    using torch::headeronly::MemoryFormat;
    const auto format = channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous;
    return torch::stable::empty({count, channels, h, w}, x.scalar_type(), std::nullopt, x.device(), std::nullopt,
                                format);
  });
}

// Checks what is scattered into `base`; returns the indices contiguous.
inline Tensor check_scatter(const char* op, const Tensor& blocks, const Tensor& indices_argument, const Tensor& base,
                            const Geometry& geometry) {
  check_image(op, "base", base);
  check_image(op, "blocks", blocks);
  check(blocks.device() == base.device(), op, ": blocks must be on the device of base");
  const Tensor indices = check_indices(op, indices_argument, "base", base);
  const int64_t count = indices.size(0), channels = base.size(1);
  const int64_t h = geometry.vertical.size, w = geometry.horizontal.size;
  check(blocks.scalar_type() == base.scalar_type() && blocks.size(0) == count && blocks.size(1) == channels &&
            blocks.size(2) == h && blocks.size(3) == w,
        op, ": blocks must be ", torch::headeronly::toString(base.scalar_type()), " [", count, ", ", channels, ", ", h,
        ", ", w, "], got ", describe(blocks));
  if (base.numel())
    for (int64_t i = 0; i < 4; ++i)
      check(base.stride(i) != 0 || base.size(i) == 1, op,
            ": base is an expanded view, several of its pixels share memory; pass base.clone()");
  return indices;
}

// Whether the memory between the first and the last element of two tensors, neither empty, meets.
inline bool share_memory(const Tensor& a, const Tensor& b) {
  const auto end = [](const Tensor& tensor) {
    int64_t last = 0;
    for (int64_t i = 0; i < tensor.dim(); ++i) last += (tensor.size(i) - 1) * tensor.stride(i);
    return static_cast<const char*>(tensor.const_data_ptr()) + (last + 1) * tensor.element_size();
  };
  return a.const_data_ptr() < end(b) && b.const_data_ptr() < end(a);
}

}  // namespace sbnet
