// The one part of ops/cuda/host.cpp that is about the GPU.
#include <cuda/host.h>

namespace sbnet::cuda {

OnDevice::OnDevice(const Tensor&) {}

}  // namespace sbnet::cuda
