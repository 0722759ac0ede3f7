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

// The kernels of one instruction set. Those of a layer return the bytes of scratch memory they need if `scratch` is
// null, and compute one band otherwise; scratch memory is aligned to 64 bytes and belongs to one thread.
struct Kernels {
  const char* isa;
  // Weights [terms, outputs, depth] (float, or double for kDouble) as the kernels read them; returns the bytes.
  int64_t (*pack)(Type type, const void* weights, int terms, int outputs, int depth, void* packed);
  int64_t (*unit)(const Unit&, const Band&, void* scratch);
  int64_t (*conv)(const Conv&, const Band&, void* scratch);
  int64_t (*upsample)(const Upsample&, const Band&, void* scratch);
};

// The best that this machine can run, or the one that the environment variable SBNET_ISA names.
const Kernels& kernels();

}  // namespace sbnet
