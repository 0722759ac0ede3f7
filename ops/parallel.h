// Loops that are shared between threads.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <cstdint>
#include <exception>
#include <mutex>

namespace sbnet {

// Calls body(first, last) for parts of 0 .. count, of `grain` or more. The first exception is thrown when all threads
// are done: torch would replace what it says.
template <typename Body>
void parallel_for(int64_t count, int64_t grain, const Body& body) {
  std::mutex mutex;
  std::exception_ptr failure;
  torch::stable::parallel_for(0, count, grain, [&](int64_t first, int64_t last) {
    try {
      body(first, last);
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (!failure) failure = std::current_exception();
    }
  });
  if (failure) std::rethrow_exception(failure);
}

}  // namespace sbnet
