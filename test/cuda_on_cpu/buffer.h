// An array that the host fills and reads, and kernels work on: memory of the device, where there is one.
#pragma once

#include <cstdlib>
#include <memory>
#include <vector>

#include <cuda/device.h>

#if defined(__CUDACC__)
namespace cuda_on_cpu {

inline void seed(uint64_t) {}  // a GPU has its own schedule

}  // namespace cuda_on_cpu
#endif

namespace sbnet::cuda {

#if defined(__CUDACC__)
inline void* take_memory(size_t bytes) {
  void* memory = nullptr;
  check(cudaMalloc(&memory, bytes), "take memory");
  return memory;
}
struct GiveBack {
  void operator()(void* memory) const { cudaFree(memory); }
};
inline void write_to(void* to, const void* from, size_t bytes) {
  check(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice), "copy to the device");
}
#else
inline void* take_memory(size_t bytes) { return std::malloc(bytes); }
struct GiveBack {
  void operator()(void* memory) const { std::free(memory); }
};
inline void write_to(void* to, const void* from, size_t bytes) { std::memcpy(to, from, bytes); }
#endif

// The contents are where they were last asked for. Memory ends where they end.
template <typename T>
class Buffer {
 public:
  explicit Buffer(size_t count = 0) : Buffer(std::vector<T>(count)) {}
  explicit Buffer(std::vector<T> contents)
      : host_(std::move(contents)), device_(static_cast<T*>(take_memory(bytes()))) {}

  size_t size() const { return host_.size(); }

  // For kernels, until the next call of `host`.
  T* data() {
    if (on_host_ && size()) write_to(device_.get(), host_.data(), bytes());
    on_host_ = false;
    return device_.get();
  }
  // What kernels have left there.
  std::vector<T>& host() {
    if (!on_host_ && size()) read_back(host_.data(), device_.get(), bytes(), nullptr);
    on_host_ = true;
    return host_;
  }

 private:
  size_t bytes() const { return host_.size() * sizeof(T); }

  std::vector<T> host_;
  std::unique_ptr<T, GiveBack> device_;
  bool on_host_ = true;
};

}  // namespace sbnet::cuda
