// The launch of the convolution of voxels.
#pragma once

#include "products.h"

namespace sbnet::cuda {

// 3x3 convolution of voxels, scale and shift, ReLU. Occupied pixel number k has the channels c < channels - 1 whose bit
// is set in bits[k], and last[k] in the last one. Weights [9, channels, pitch], scale and shift [2, outputs] are double
// for a `y` [pixels, outputs] of double, else float.
struct VoxelConv {
  Pixels occupied;
  const int64_t* bits;
  const float* last;
  int channels, outputs, pitch;
  const void *weights, *norm;
  Pixels pixels;  // of y
  void* y;
};

void convolve_voxels(Element element, const VoxelConv& conv, Stream stream);

}  // namespace sbnet::cuda
