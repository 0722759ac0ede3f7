// sparse_scatter: blocks written, or added, to an image (SBNet, section 3.2).
#include "scatter.h"

#include <torch/csrc/stable/library.h>

#include "host.h"

namespace sbnet::cuda {
namespace {

// Blocks of an image that is not there write nothing.
void scatter_checked(const char* op, const Tensor& blocks, const Tensor& indices_argument, const Tensor& base,
                     const Geometry& geometry, bool add) {
  const OnDevice device(base);
  const Tensor indices = check_scatter(op, blocks, indices_argument, base, geometry);
  if (base.numel() == 0 || blocks.numel() == 0) return;

  const Tensor source = share_memory(blocks, base) ? torch::stable::clone(blocks) : blocks;
  const auto links = [&](int64_t a, int64_t b, int64_t c) {
    return allocate(op, "base", {a, b, c, sizeof(Link)},
                    [&] { return torch::stable::new_empty(base, {a, b, c}, ScalarType::Long); });
  };
  const Tensor firsts = links(base.size(0), base.size(2), base.size(3));
  const Tensor nexts = links(blocks.size(0), blocks.size(2), blocks.size(3));
  auto* const first = static_cast<Link*>(firsts.mutable_data_ptr());
  auto* const next = static_cast<Link*>(nexts.mutable_data_ptr());
  Placed placed = placed_on(base, indices, geometry);
  link_pixels(placed, first, next, device.stream);
  if (add) {
    add_pixels(element_of(base), placed, first, next, source.const_data_ptr(), layout_of(source),
               base.mutable_data_ptr(), layout_of(base), device.stream);
  } else {
    const Copied copy = copied(source, base);
    placed.channels = copy.channels;
    write_pixels(copy.bytes, placed, first, next, source.const_data_ptr(), copy.from, base.mutable_data_ptr(), copy.to,
                 device.stream);
  }
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
}  // namespace sbnet::cuda

STABLE_TORCH_LIBRARY_IMPL(SBNET_LIBRARY, SBNET_DEVICE, m) {
  m.impl("sparse_scatter", TORCH_BOX(&sbnet::cuda::sparse_scatter));
  m.impl("sparse_scatter_", TORCH_BOX(&sbnet::cuda::sparse_scatter_));
}
