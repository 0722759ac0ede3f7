// Whether the kernels run on a device. Only a GPU can say: this is not compiled for the CPU.
#pragma once

namespace sbnet::cuda {

struct Answer {
  const char *error, *reason;  // CUDA's name for it and its words; null where the kernels run
  const int *first, *end;      // the architectures that they are compiled for
};

// Asks CUDA about a device, which becomes the current one of this thread.
Answer ask(int device);

}  // namespace sbnet::cuda
