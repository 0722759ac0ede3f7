// Whether the kernels run on a device. Only a GPU can say: this is not compiled for the CPU.
#pragma once

#include <string>

namespace sbnet::cuda {

// What CUDA says against it, and what the kernels were compiled for; empty where they run.
std::string problem(int device);

}  // namespace sbnet::cuda
