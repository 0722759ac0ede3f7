// reduce_mask: the list of active blocks of a mask (SBNet, section 3.1).
#include "reduce_mask.h"

#include <torch/csrc/stable/library.h>

#include "host.h"
#include "memory.h"

namespace sbnet::cuda {
namespace {

// mask [N, H, W] bool or floating point -> int32 [B, 3], the active blocks (n, by, bx) in raster order. The size of the
// result depends on the mask: the host waits for the device, once.
Tensor reduce_mask(const Tensor& argument, std::vector<int64_t> block_count, std::vector<int64_t> block_size,
                   std::vector<int64_t> block_stride, std::vector<int64_t> block_offset, double tol, bool avg) {
  constexpr const char* op = "reduce_mask";
  const MaskGrid grid(op, argument, block_count, block_size, block_stride, block_offset);
  const OnDevice device(argument);
  const Tensor mask = torch::stable::contiguous(argument);
  const Pooling pooling{mask.size(0), mask.size(1), mask.size(2), grid.rows, grid.columns, grid.geometry.vertical,
                        grid.geometry.horizontal, tol, avg};
  const auto ints = [&](ScalarType type, int64_t size) { return torch::stable::new_empty(mask, {size}, type); };
  const auto new_list = [&](int64_t count) { return torch::stable::new_empty(mask, {count, 3}, ScalarType::Int); };
  if (pooling.images == 0 || pooling.rows == 0 || pooling.columns == 0) return new_list(0);

  const Tensor bits = allocate(op, "block_count", {pooling.images, pooling.rows, pooling.columns},
                               [&] { return ints(ScalarType::Int, pooling.parts() * (kPart / 32)); });
  const Tensor counts = ints(ScalarType::Int, pooling.parts()), start = ints(ScalarType::Long, pooling.parts() + 1);
  auto* const words = static_cast<uint32_t*>(bits.mutable_data_ptr());
  int64_t* const starts = start.mutable_data_ptr<int64_t>();
  find_active(element_of(mask), mask.const_data_ptr(), pooling, words, counts.mutable_data_ptr<int32_t>(),
              device.stream);
  sum_counts(counts.const_data_ptr<int32_t>(), pooling.parts(), starts, device.stream);

  int64_t count;
  copy_to_host(&count, starts + pooling.parts(), sizeof count, device.stream);
  const Tensor indices = allocate(op, "block_count", {count, 3, sizeof(int32_t)}, [&] { return new_list(count); });
  list_active(pooling, words, starts, indices.mutable_data_ptr<int32_t>(), device.stream);
  return indices;
}

}  // namespace
}  // namespace sbnet::cuda

STABLE_TORCH_LIBRARY_IMPL(SBNET_LIBRARY, SBNET_DEVICE, m) {
  m.impl("reduce_mask", TORCH_BOX(&sbnet::cuda::reduce_mask));
}
