// The host side of pixels: the lists that operations get, checked.
#pragma once

#include "../check.h"
#include "products.h"

namespace sbnet::cuda {

// Lists (flat, count, words, neighbours) of `Pixels` of Python, on the device of `like`; raises an error that names the
// pixels if they cannot be of maps of `size`, (N, H, W).
PixelLists pixels_of(const char* op, const char* name, const std::vector<Tensor>& lists,
                     const std::vector<int64_t>& size, const Tensor& like);

}  // namespace sbnet::cuda
