// What the kernels of every instruction set can do, and what they need to know: plain data, nothing of torch.
#pragma once

#include <cstdint>

namespace sbnet {

enum class Type { kFloat, kDouble, kHalf, kBFloat16 };

// Columns begin .. end of one row of a map.
struct Run {
  int32_t begin, end;
};

// Some pixels of a batch of maps: row r (of all images, one after the other) has the runs start[r] .. start[r + 1],
// from left to right, without overlap.
struct Rows {
  const int64_t* start;
  const Run* runs;
};

// Pixels of rows [first, last).
inline int64_t count_pixels(const Rows& rows, int64_t first, int64_t last) {
  int64_t pixels = 0;
  for (int64_t i = rows.start[first]; i < rows.start[last]; ++i) pixels += rows.runs[i].end - rows.runs[i].begin;
  return pixels;
}

// Rows of packed weights are padded to an even number of channels: bfloat16 is multiplied in pairs.
constexpr int padded_channels(int channels) { return (channels + 1) / 2 * 2; }

// A batch of maps in memory, pixel by pixel with all channels (channels_last).
struct Map {
  void* data;
  int64_t height, width;
  int channels;
};

// A part of the output rows (of all images, one after the other), for one thread. A layer that writes into its own
// input gets copies of the two input rows that neighbours may have written to already; null elsewhere.
struct Band {
  int64_t begin, end;
  const void* above;
  const void* below;
};

// Packed weights and what is done to their sums: times scale, plus shift.
struct Weights {
  const void* packed = nullptr;
  const void* scale = nullptr;
  const void* shift = nullptr;
};

// Bottleneck residual unit; writes y, which may be x where the shape is unchanged.
struct Unit {
  Type type{};
  Map x{}, y{};
  int stride = 1, middle = 0;  // `middle`: channels of the bottleneck
  Rows needed{}, active{};     // input pixels that are read, output pixels that are computed
  Weights activation{}, reduce{}, conv{}, expand{}, project{};  // no `project`: x itself is added
};

// Convolution of size `kernel` (1 or 3) and stride 1, scale and shift, ReLU.
struct Conv {
  Type type{};
  Map x{}, y{};
  int kernel = 1;
  bool relu = true;
  Rows needed{}, active{};
  Weights weights{};
};

// Transposed 2x2 convolution of x plus 1x1 convolution of `skip`, scale and shift, ReLU.
struct Upsample {
  Type type{};
  Map x{}, skip{}, y{};
  Rows active{};
  Weights up{}, lateral{};  // scale and shift are those of `lateral`
};

// One layer. Scratch memory is aligned to 64 bytes and belongs to one thread.
template <typename Layer>
struct LayerKernel {
  int64_t (*scratch_bytes)(const Layer&);
  void (*compute)(const Layer&, const Band&, void* scratch);
};

// Weights [terms, outputs, depth] (float, or double for kDouble), as the kernels read them.
struct PackKernel {
  int64_t (*bytes)(Type type, int terms, int outputs, int depth);
  void (*pack)(Type type, const void* weights, int terms, int outputs, int depth, void* packed);
};

// The kernels of one instruction set.
struct Kernels {
  const char* isa;
  PackKernel weights;
  LayerKernel<Unit> unit;
  LayerKernel<Conv> conv;
  LayerKernel<Upsample> upsample;
};

// The best that this machine can run, or the one that the environment variable SBNET_ISA names.
const Kernels& kernels();

}  // namespace sbnet
