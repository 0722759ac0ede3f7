// sparse_gather: blocks of an image, side by side in memory (SBNet, section 3.2).
#include "gather.h"

#include <torch/csrc/stable/library.h>

#include "host.h"

namespace sbnet::cuda {
namespace {

// x [N, C, H, W], indices int32 [B, 3] -> [B, C, h, w] in the memory format asked for; pixels outside the image are 0,
// and so are those of an image that is not there.
Tensor sparse_gather(const Tensor& x, const Tensor& indices_argument, std::vector<int64_t> block_size,
                     std::vector<int64_t> block_stride, std::vector<int64_t> block_offset,
                     std::vector<int64_t> block_dilation, bool channels_last) {
  constexpr const char* op = "sparse_gather";
  check_image(op, "x", x);
  const Geometry geometry(op, block_size, block_stride, block_offset, block_dilation);
  const OnDevice device(x);
  const Tensor indices = check_indices(op, indices_argument, "x", x);
  const Tensor blocks = new_blocks(op, x, indices.size(0), geometry, channels_last);
  if (blocks.numel() == 0) return blocks;

  const Copied copy = copied(x, blocks);
  Placed placed = placed_on(x, indices, geometry);
  placed.channels = copy.channels;
  gather(copy.bytes, placed, x.const_data_ptr(), copy.from, blocks.mutable_data_ptr(), copy.to, channels_last,
         device.stream);
  return blocks;
}

}  // namespace
}  // namespace sbnet::cuda

STABLE_TORCH_LIBRARY_IMPL(SBNET_LIBRARY, SBNET_DEVICE, m) {
  m.impl("sparse_gather", TORCH_BOX(&sbnet::cuda::sparse_gather));
}
