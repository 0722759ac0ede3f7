#include "host.h"

#include <torch/csrc/stable/accelerator.h>

// A torch without CUDA has no such function: then this is null, the library loads all the same, and nobody calls what
// needs it, since no tensor lies on a GPU.
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device_index, void** stream);

namespace sbnet::cuda {

OnDevice::OnDevice(const Tensor& tensor) {
  const int32_t index = tensor.get_device_index();
  guard_ = std::make_shared<torch::stable::accelerator::DeviceGuard>(index);
  const bool known =
      aoti_torch_get_current_cuda_stream && aoti_torch_get_current_cuda_stream(index, &stream) == TORCH_SUCCESS;
  check(known, "CUDA: torch does not tell its current stream of device ", index);
}

}  // namespace sbnet::cuda
