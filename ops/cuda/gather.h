// The launch of sparse_gather.
#pragma once

#include "launch.h"

namespace sbnet::cuda {

// Copies blocks of the images `x` to `blocks`, whose pixels lie side by side: channels of one (`channels_last`), or
// columns of one channel. Elements have 2, 4, 8 or 16 bytes; a layout counts them, and so do channels.
void gather(int element_bytes, const Placed& placed, const void* x, Layout from, void* blocks, Layout to,
            bool channels_last, Stream stream);

}  // namespace sbnet::cuda
