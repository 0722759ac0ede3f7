// The schemas of torch.ops.sbnet. Each kernel registers itself beside its code.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(sbnet, m) {
  m.def(
      "reduce_mask(Tensor mask, int[2] block_count, int[2] block_size, int[2] block_stride, int[2] block_offset, "
      "float tol, bool avg) -> Tensor");
  m.def(
      "sparse_gather(Tensor x, Tensor indices, int[2] block_size, int[2] block_stride, int[2] block_offset, "
      "int[2] block_dilation, bool channels_last) -> Tensor");
  m.def(
      "sparse_scatter(Tensor blocks, Tensor indices, Tensor base, int[2] block_size, int[2] block_stride, "
      "int[2] block_offset, int[2] block_dilation, bool add) -> Tensor");
  m.def(
      "sparse_scatter_(Tensor blocks, Tensor indices, Tensor(a!) base, int[2] block_size, int[2] block_stride, "
      "int[2] block_offset, int[2] block_dilation, bool add) -> ()");
}
