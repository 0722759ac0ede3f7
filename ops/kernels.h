// What the kernels of every instruction set can do, and what they need to know: plain data, nothing of torch.
#pragma once

#include <cstdint>

namespace sbnet {

// `kLevels` are whole numbers of 0 to 255, each worth a step that only scale and shift of a layer know.
enum class Type { kFloat, kDouble, kHalf, kBFloat16, kLevels };

// Columns begin .. end of one row of a map; `number` says where in memory the first of them lies, in pixels.
struct Run {
  int32_t begin, end, number;

  int32_t size() const { return end - begin; }
};

// Some pixels of a batch of maps: row r (of all images, one after the other) has the runs start[r] .. start[r + 1],
// from left to right, without overlap.
struct Rows {
  const int32_t* start;
  const Run* runs;

  const Run* begin(int64_t row) const { return runs + start[row]; }
  const Run* end(int64_t row) const { return runs + start[row + 1]; }
};

// Pixels of rows [first, last).
inline int64_t count_pixels(const Rows& rows, int64_t first, int64_t last) {
  int64_t pixels = 0;
  for (const Run* run = rows.begin(first); run != rows.begin(last); ++run) pixels += run->size();
  return pixels;
}

// Walks along the stored pixels of a row, from left to right.
class Walk {
 public:
  Walk(const Rows& stored, int64_t row) : next_(stored.begin(row)), end_(stored.end(row)) {}

  // Calls stored(begin, end, number) and absent(begin, end) for the parts of columns [begin, end).
  template <typename Stored, typename Absent>
  void along(int64_t begin, int64_t end, Stored stored, Absent absent) {
    while (begin < end) {
      while (next_ != end_ && next_->end <= begin) ++next_;
      if (next_ == end_ || next_->begin >= end) return absent(begin, end);
      if (next_->begin > begin) {
        absent(begin, int64_t{next_->begin});
        begin = next_->begin;
      }
      const int64_t stop = end < next_->end ? end : next_->end;
      stored(begin, stop, next_->number + (begin - next_->begin));
      begin = stop;
    }
  }

  // The number of the pixel in a column; -1 if it is not stored.
  int64_t number(int64_t column) {
    while (next_ != end_ && next_->end <= column) ++next_;
    return next_ != end_ && next_->begin <= column ? next_->number + (column - next_->begin) : -1;
  }

 private:
  const Run *next_, *end_;
};

// Rows of packed weights are padded to this number of channels: bfloat16 is multiplied in pairs, levels in fours.
constexpr int padded_channels(int channels) { return (channels + 3) / 4 * 4; }

// A batch of maps in memory, pixel by pixel with all channels (channels_last). Pixels that are not stored are 0.
struct Map {
  void* data;
  int64_t height, width;
  int channels;
  Rows stored;
  Type type;
};

// A copy of the stored pixels of a row, from pixel number `first` on; or none.
struct RowCopy {
  const void* data = nullptr;
  int64_t first = 0;
};

// A part of the output rows (of all images, one after the other), for one thread. A layer that writes into its own
// input gets copies of the two input rows that neighbours may have written to already.
struct Band {
  int64_t begin, end;
  RowCopy above, below;
};

// Packed weights and what is done to their sums: times scale, plus shift. (An `activation` is done to inputs.)
struct Weights {
  const void* packed = nullptr;
  const void* scale = nullptr;
  const void* shift = nullptr;
};

// Layers have the type of what is multiplied. With levels, other maps than those of levels are of floats.

// Bottleneck residual unit; writes y, which may be x where the shape is unchanged. With levels the sums are scaled by
// `expand`.
struct Unit {
  Type type{};
  Map x{}, y{};
  int stride = 1, middle = 0;  // `middle`: channels of the bottleneck
  Rows needed{}, active{};     // input pixels that are looked at, output pixels that are computed
  Weights activation{}, reduce{}, conv{}, expand{}, project{};  // no `project`: x itself is added
};

// Convolution of size `kernel` (1 or 3) and stride 1, scale and shift, ReLU. Of a map of floats `activation` makes levels
// where these are multiplied; its kernel is 1 then.
struct Conv {
  Type type{};
  Map x{}, y{};
  int kernel = 1;
  bool relu = true;
  Rows needed{}, active{};
  Weights activation{}, weights{};
};

// 3x3 convolution (stride 1, padding 1) of voxels, scale and shift, ReLU. Occupied pixel number k has the channels
// c < channels - 1 whose bit is set in bits[k], and last[k] in the last one.
struct VoxelConv {
  Type type{};
  Rows occupied{};
  const int64_t* bits = nullptr;
  const float* last = nullptr;
  int channels = 0;
  Map y{};
  Rows active{};
  Weights weights{};  // sums [9, channels, pitch]: windows in raster order
  int pitch = 0;      // at least the channels of y, whole vectors of any instruction set
};

// Transposed 2x2 convolution of x plus 1x1 convolution of `skip`, scale and shift, ReLU. Where levels are multiplied x
// and y are of levels, and `activation` makes them of `skip`.
struct Upsample {
  Type type{};
  Map x{}, skip{}, y{};
  Rows active{};
  Weights activation{}, up{}, lateral{};  // scale and shift are those of `lateral`
};

// One layer. Scratch memory is aligned to 64 bytes and belongs to one thread.
template <typename Layer>
struct LayerKernel {
  int64_t (*scratch_bytes)(const Layer&);
  void (*compute)(const Layer&, const Band&, void* scratch);
};

// Weights [terms, outputs, depth] (float, or double for kDouble), as the kernels read them. `valid`: whether what stands
// in `packed` beside the weights leads a kernel nowhere outside of its bytes.
struct PackKernel {
  int64_t (*bytes)(Type type, int terms, int outputs, int depth);
  void (*pack)(Type type, const void* weights, int terms, int outputs, int depth, void* packed);
  bool (*valid)(Type type, int terms, int outputs, int depth, const void* packed);
};

// The kernels of one instruction set.
struct Kernels {
  const char* isa;
  PackKernel weights;
  LayerKernel<Unit> unit;
  LayerKernel<Conv> conv;
  LayerKernel<Upsample> upsample;
  LayerKernel<VoxelConv> voxels;
};

// The best that this machine can run, or the one that the environment variable SBNET_ISA names.
const Kernels& kernels();

}  // namespace sbnet
