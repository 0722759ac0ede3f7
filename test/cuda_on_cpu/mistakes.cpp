// Small kernels with one mistake each, or none: mistakes NAME [schedule]. What cuda_on_cpu.h promises to catch.
#include <cstdio>
#include <cstdlib>
#include <string>

#include <cuda/device.h>

using namespace sbnet::cuda;

namespace {

int result[1024];

__global__ void with_syncwarp() {
  int* const shared = Arena(shared_memory()).take<int>(32);
  const int lane = static_cast<int>(threadIdx.x % 32);
  if (threadIdx.x < 32) shared[lane] = lane;
  __syncwarp();
  if (threadIdx.x < 32) result[lane] = shared[31 - lane];
}
__global__ void without_syncwarp() {
  int* const shared = Arena(shared_memory()).take<int>(32);
  const int lane = static_cast<int>(threadIdx.x % 32);
  if (threadIdx.x < 32) shared[lane] = lane;
  __shfl_up_sync(~0u, lane, 1);  // lanes meet, but memory is not ordered
  if (threadIdx.x < 32) result[lane] = shared[31 - lane];
}
__global__ void blocks_race() { result[0] = static_cast<int>(blockIdx.x); }
__global__ void barrier_in_a_branch() {
  if (threadIdx.x < 32)
    __syncthreads();
  else
    __syncthreads();
}
__global__ void ballot_in_a_branch() {
  if (threadIdx.x % 32 < 16) result[threadIdx.x] = static_cast<int>(__ballot_sync(~0u, true));
}
__global__ void between_arrays() {
  Arena arena(shared_memory());
  int* const first = arena.take<int>(kThreads);
  int* const second = arena.take<int>(kThreads);
  first[threadIdx.x + 1] = 1;  // the last one would be second[0]
  result[threadIdx.x] = second[threadIdx.x];
}
__global__ void never_written() {
  const float* const shared = Arena(shared_memory()).take<float>(kThreads);
  result[threadIdx.x] = shared[threadIdx.x] == shared[threadIdx.x];  // not for NaN
}

}  // namespace

int main(int argc, char** argv) {
  const std::string wanted = argc > 1 ? argv[1] : "";
  cuda_on_cpu::seed(argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1);
  const auto run = [&](const char* name, void (*kernel)(), int64_t blocks = 1) {
    if (name == wanted) launch(name, kernel, blocks, 1, 4096, nullptr);
  };
  run("with_syncwarp", with_syncwarp);
  run("without_syncwarp", without_syncwarp);
  run("blocks_race", blocks_race, 4);
  run("barrier_in_a_branch", barrier_in_a_branch);
  run("ballot_in_a_branch", ballot_in_a_branch);
  run("between_arrays", between_arrays);
  run("never_written", never_written);
  std::printf("no complaint, %d\n", result[0]);
}
