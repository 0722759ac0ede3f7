// The launch of a bottleneck residual unit.
#pragma once

#include "products.h"

namespace sbnet::cuda {

// It starts behind the unit's first 1x1, which the launch before has computed, and ends with that of the next unit:
//   narrow -> 3x3, BN, ReLU -> 1x1 -> + x -> y -> BN, ReLU -> 1x1, BN, ReLU -> narrow of the next unit
struct Unit {
  Term conv;  // of the narrow map
  Norm conv_norm;
  Matrix expand;
  Term shortcut;    // x, which may lie where y does if its pixels are the same; or, with weights, its projection ...
  Norm activation;  // ... after this and ReLU; else none
  Rows y;
  Pixels pixels;  // of y
  Rows next;          // narrow map of the next unit; or no data
  Norm next_activation, next_norm;
  Matrix next_reduce;
};

void run_unit(Element element, const Unit& unit, Stream stream);

}  // namespace sbnet::cuda
