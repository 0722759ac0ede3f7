#include "memory.h"

#include "device.h"

namespace sbnet::cuda {

void set_to_zero(void* to, size_t bytes, Stream stream) { fill_bytes(to, 0, bytes, stream); }

void copy_to_host(void* to, const void* from, size_t bytes, Stream stream) { read_back(to, from, bytes, stream); }

}  // namespace sbnet::cuda
