// sample_raster: a raster looked up along the rows of another one that is turned against it.
#include "sample.h"

#include <torch/csrc/stable/library.h>

#include "../mask_arguments.h"
#include "host.h"

namespace sbnet::cuda {
namespace {

// raster bool [h, w] -> bool [H, W], False beyond the raster. Positions (y, x) are in 2^-32 raster cells.
Tensor sample_raster(const Tensor& argument, std::vector<int64_t> origin, std::vector<int64_t> per_row,
                     std::vector<int64_t> per_column, std::vector<int64_t> size) {
  constexpr const char* op = "sample_raster";
  const Affine affine = check_sampling(op, argument, origin, per_row, per_column, size);
  const OnDevice device(argument);
  const Tensor raster = torch::stable::contiguous(argument);
  const Tensor result = new_sample(op, raster, size);
  sample({affine, raster.size(0), raster.size(1), size[0], size[1]},
         static_cast<const uint8_t*>(raster.const_data_ptr()), static_cast<uint8_t*>(result.mutable_data_ptr()),
         device.stream);
  return result;
}

}  // namespace
}  // namespace sbnet::cuda

STABLE_TORCH_LIBRARY_IMPL(SBNET_LIBRARY, SBNET_DEVICE, m) {
  m.impl("sample_raster", TORCH_BOX(&sbnet::cuda::sample_raster));
}
