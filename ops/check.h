// Argument checks: a failed one raises RuntimeError in Python with a sentence that names the argument.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <limits>
#include <sstream>
#include <stdexcept>
#include <vector>

#include "blocks.h"

namespace sbnet {

template <typename... Parts>
void check(bool condition, const Parts&... parts) {
  if (condition) return;
  std::ostringstream message;
  (message << ... << parts);
  throw std::runtime_error(message.str());
}

// Checks one (vertical, horizontal) pair of integers. The bound keeps every product of two in 64 bits.
inline void check_pair(const char* op, const char* name, const std::vector<int64_t>& pair, int64_t lowest) {
  constexpr int64_t highest = std::numeric_limits<int32_t>::max();
  check(pair.size() == 2, op, ": ", name, " must be 2 integers, got ", pair.size());
  for (const int64_t value : pair)
    check(value >= lowest && value <= highest, op, ": ", name, " must be in ", lowest, " .. ", highest, ", got (",
          pair[0], ", ", pair[1], ")");
}

}  // namespace sbnet
