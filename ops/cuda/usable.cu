#include "usable.h"

#include <cuda_runtime.h>

namespace sbnet::cuda {
namespace {

// All kernels are compiled for the same architectures: one speaks for all.
constexpr int kOneWarp = 32, kAtOnce = 16;
__global__ void __launch_bounds__(kOneWarp, kAtOnce) probe() {}
constexpr int kArchitectures[] = {SBNET_ARCHITECTURES};

}  // namespace

Answer ask(int device) {
  Answer answer{nullptr, nullptr, kArchitectures, kArchitectures + sizeof(kArchitectures) / sizeof(int)};
  cudaFuncAttributes attributes;
  cudaError_t status = cudaSetDevice(device);
  if (status == cudaSuccess) status = cudaFuncGetAttributes(&attributes, probe);
  if (status == cudaSuccess) return answer;
  answer.error = cudaGetErrorName(status);
  answer.reason = cudaGetErrorString(status);
  return answer;
}

}  // namespace sbnet::cuda
