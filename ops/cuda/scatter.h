// The launches of sparse_scatter.
#pragma once

#include "launch.h"

namespace sbnet::cuda {

// A pixel of a block: its number among all of them, from 1 on; 0 is none.
using Link = unsigned long long;

// Of every pixel of the images [images, height, width] the first pixel of a block that falls on it, and of every pixel
// of a block [count, h, w] the next one that falls on the same: lists in any order.
void link_pixels(const Placed& placed, Link* first, Link* next, Stream stream);

// Writes what falls last on each pixel of `base`. Elements have 2, 4, 8 or 16 bytes; layouts and channels count them.
void write_pixels(int element_bytes, const Placed& placed, const Link* first, const Link* next, const void* blocks,
                  Layout from, void* base, Layout to, Stream stream);

// Adds what falls on each pixel of `base`, in the order of the blocks; numbers of 16 bits are summed in float32.
void add_pixels(Element element, const Placed& placed, const Link* first, const Link* next, const void* blocks,
                Layout from, void* base, Layout to, Stream stream);

}  // namespace sbnet::cuda
