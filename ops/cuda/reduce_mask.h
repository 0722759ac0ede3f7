// The launches of reduce_mask: which blocks are active, where each part of them begins in the list, the list.
#pragma once

#include "launch.h"

namespace sbnet::cuda {

constexpr int64_t kPart = 256;  // blocks that are counted together

// A mask [images, height, width], pooled over rows x columns blocks of each image.
struct Pooling {
  int64_t images, height, width, rows, columns;
  Axis vertical, horizontal;
  double tol;
  bool mean;

  constexpr SBNET_BOTH int64_t parts() const { return divide_up(images * rows * columns, kPart); }
};

// Of every block, in raster order, a bit: uint32 [parts, kPart / 32]; and how many are set: int32 [parts].
void find_active(Element element, const void* mask, const Pooling& pooling, uint32_t* bits, int32_t* counts,
                 Stream stream);

// start int64 [parts + 1]: how many are set before each part, and in all.
void sum_counts(const int32_t* counts, int64_t parts, int64_t* start, Stream stream);

// int32 [B, 3]: rows (n, by, bx) of the active blocks.
void list_active(const Pooling& pooling, const uint32_t* bits, const int64_t* start, int32_t* indices, Stream stream);

}  // namespace sbnet::cuda
