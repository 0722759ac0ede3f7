#include "usable.h"

#include <cuda_runtime.h>

#include <future>

namespace sbnet::cuda {
namespace {

__global__ void probe() {}

// All kernels are compiled for the same architectures: one speaks for all.
std::string ask(int device) {
  cudaFuncAttributes attributes;
  cudaError_t status = cudaSetDevice(device);
  if (status == cudaSuccess) status = cudaFuncGetAttributes(&attributes, probe);
  if (status == cudaSuccess) return "";
  std::string said = std::string(cudaGetErrorString(status)) + " (" + cudaGetErrorName(status) + "; compiled for";
  for (const int architecture : {__CUDA_ARCH_LIST__}) said += " sm_" + std::to_string(architecture / 10);
  return said + ")";
}

}  // namespace

// In a thread of its own: the current device is one for each thread.
std::string problem(int device) { return std::async(std::launch::async, ask, device).get(); }

}  // namespace sbnet::cuda
