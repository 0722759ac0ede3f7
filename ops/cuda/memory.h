// Memory of the device as a whole.
#pragma once

#include <cstddef>

#include "launch.h"

namespace sbnet::cuda {

void set_to_zero(void* to, size_t bytes, Stream stream);

// Waits for the device.
void copy_to_host(void* to, const void* from, size_t bytes, Stream stream);

}  // namespace sbnet::cuda
