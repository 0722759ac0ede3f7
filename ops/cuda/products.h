// The launch of layers that are one product: 3x3 and 1x1 convolutions, upsampling, the first 1x1 of residual units.
#pragma once

#include "launch.h"

namespace sbnet::cuda {

// Weights as pack_weights leaves them; inputs and outputs are blocks of 16 channels.
struct Matrix {
  const void* fragments;
  int inputs, outputs;
};

// Scale and shift [2, channels]; whole vectors of 16 bytes where channels are a multiple of 4.
struct Norm {
  const float* scale;
  int channels;
};

// A map [before + pixels, channels]. One row comes before the first pixel where a pixel that is not stored is not 0: it
// is what such a pixel has. Maps that are read have a multiple of 4 channels.
struct Rows {
  void* data;
  int channels, before;
};

// Which pixels of the input a pixel of the output sees.
enum class Window {
  kOne,      // that beneath it
  kNine,     // the 3x3 around that one
  kQuarter,  // that of the map of half the size, through one of four matrices
};

// One product: the pixels of `x` in a window, times the weights of each place in it.
struct Term {
  Rows x;
  Pixels pixels;
  Window window;
  int stride;
  bool same;  // the pixels of the input are those of the output, and the stride is 1
  Matrix weights;
};

// y = the sum of one or two products, scale and shift, ReLU.
struct Products {
  Term terms[2];
  int count;
  Norm activation;  // and ReLU, of the input before the product; or no scale. Only where there is one term.
  Norm norm;
  bool relu;
  Rows y;
  Pixels pixels;  // of y
};

void multiply(Element element, const Products& products, Stream stream);

}  // namespace sbnet::cuda
