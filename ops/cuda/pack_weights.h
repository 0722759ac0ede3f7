// The launch of pack_weights.
#pragma once

#include "launch.h"

namespace sbnet::cuda {

// weight float [outputs, inputs, taps] -> [taps, blocks of inputs, blocks of outputs, 32 lanes, 8] numbers of 16 bits,
// padded with zeros.
void pack_weights(Element element, const float* weight, int64_t outputs, int64_t inputs, int64_t taps, void* packed,
                  Stream stream);

}  // namespace sbnet::cuda
