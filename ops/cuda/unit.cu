// A residual unit in one launch. The warps of a block of threads have the same 16 pixels; each computes some channels of
// every convolution, from what all of them left of the one before in shared memory.
#include "unit.h"

#include "windows.h"

namespace sbnet::cuda {
namespace {

constexpr int kMostWarps = kThreads / kWarp;
constexpr int kPart = 2;  // blocks of wide channels that a warp computes at a time

// The block of threads' pixels in shared memory, as the next product reads them. An odd number of blocks lies between
// two of them, so that lanes read from different banks.
template <typename T>
struct SharedRows {
  T* rows;
  int pitch;

  __host__ __device__ SharedRows(Arena& arena, int blocks)
      : rows(arena.take<T>(kPixels * kBlock * (blocks | 1))), pitch(kBlock * (blocks | 1)) {}
  __device__ __forceinline__ Piece operator()(int, int pixel, int channel) const {
    return load_piece(rows + pixel * pitch + channel);
  }
  __device__ __forceinline__ void put(const Piece& piece, int pixel, int channel) const {
    *reinterpret_cast<uint2*>(rows + pixel * pitch + channel) = {piece.pair[0], piece.pair[1]};
  }
};

template <typename T>
struct Shared {
  int32_t* found;  // [warps, kFound]
  SharedRows<T> narrow, wide;

  __host__ __device__ Shared(Arena& arena, const Unit& u, int warps)
      : found(arena.take<int32_t>(warps * kFound)),
        narrow(arena, u.expand.inputs),
        wide(arena, u.next.data ? u.next_reduce.inputs : 0) {}
};

// 3x3, BN, ReLU.
template <typename T>
__device__ void convolve(const Unit& u, const Shared<T>& shared, int32_t* rows, int64_t first, int64_t count, int warp,
                         int warps) {
  const int lane = lane_of_warp();
  const uint32_t taps = find_rows(u.conv, u.pixels, first, count, rows);
  __syncwarp();
  for (int block = warp; block < u.conv.weights.outputs; block += warps) {
    Sums<1> sums;
    add_products<T>(sums, FoundRows<T>{u.conv.x, rows}, taps, u.conv.weights, block);
    const int channel = block * kBlock + lane % 4 * 4;
    for (int half = 0; half < 2; ++half)
      shared.narrow.put(rounded<T>(normalized(sums.values(0, half), u.conv_norm, channel)), lane / 4 + 8 * half, channel);
  }
  __syncwarp();  // before rows are found for the shortcut
}

// 1x1 plus shortcut; then BN, ReLU of the next unit.
template <typename T>
__device__ void expand(const Unit& u, const Shared<T>& shared, int32_t* rows, int64_t first, int64_t count, int warp,
                       int warps) {
  const int lane = lane_of_warp();
  const bool projects = u.shortcut.weights.fragments;
  find_rows(u.shortcut, u.pixels, first, count, rows);
  __syncwarp();
  const FoundRows<T> x{u.shortcut.x, rows};
  for (int begin = warp * kPart; begin < u.expand.outputs; begin += warps * kPart) {
    Sums<kPart> sums;
    add_products<T>(sums, shared.narrow, 1, u.expand, begin);
    if (projects) add_products<T>(sums, ActivatedRows<T>{x, u.activation}, 1, u.shortcut.weights, begin);
    for (int n = 0; n < kPart && begin + n < u.expand.outputs; ++n) {
      const int channel = (begin + n) * kBlock + lane % 4 * 4;
      for (int half = 0; half < 2; ++half) {
        const int row = lane / 4 + 8 * half;
        const int64_t pixel = first + row;
        Values y = sums.values(n, half);
        if (!projects) {
          const Values beneath = values_of<T>(x(0, row, channel));
          for (int i = 0; i < 4; ++i) y.of[i] += beneath.of[i];
        }
        Piece piece = pixel < 0 ? Piece{} : rounded<T>(y);
        if (pixel >= 0 && pixel < count)
          store_piece(piece, static_cast<T*>(u.y.data) + pixel * u.y.channels, channel, u.y.channels);
        if (!u.next.data) continue;
        piece = rounded<T>(normalized(values_of<T>(piece), u.next_activation, channel));
        shared.wide.put(piece, row, channel);
      }
    }
  }
}

// The next unit's 1x1, BN, ReLU.
template <typename T>
__device__ void reduce(const Unit& u, const Shared<T>& shared, int64_t first, int64_t count, int warp, int warps) {
  const int lane = lane_of_warp();
  for (int block = warp; block < u.next_reduce.outputs; block += warps) {
    Sums<1> sums;
    add_products<T>(sums, shared.wide, 1, u.next_reduce, block);
    const int channel = block * kBlock + lane % 4 * 4;
    for (int half = 0; half < 2; ++half) {
      const int64_t pixel = first + lane / 4 + 8 * half;
      if (pixel >= count) continue;
      const Piece piece = rounded<T>(normalized(sums.values(0, half), u.next_norm, channel));
      store_piece(piece, static_cast<T*>(u.next.data) + (pixel + u.next.before) * u.next.channels, channel,
                  u.next.channels);
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads, 2) unit_kernel(const Unit u) {
  const int warp = static_cast<int>(threadIdx.x / kWarp), warps = static_cast<int>(blockDim.x / kWarp);
  Arena arena(shared_memory());
  const Shared<T> shared(arena, u, warps);
  int32_t* const rows = shared.found + warp * kFound;
  const int64_t count = *u.pixels.count;
  for (int64_t group = blockIdx.x;; group += gridDim.x) {
    const int64_t first = group * kPixels - u.next.before;
    if (first >= count) return;
    convolve(u, shared, rows, first, count, warp, warps);
    __syncthreads();  // the narrow channels are there
    expand(u, shared, rows, first, count, warp, warps);
    __syncthreads();  // and so are the wide ones; the narrow ones may be overwritten
    if (u.next.data) reduce(u, shared, first, count, warp, warps);
  }
}

}  // namespace

void run_unit(Element element, const Unit& unit, Stream stream) {
  const int warps = static_cast<int>(smaller(unit.conv.weights.outputs, kMostWarps));
  const int64_t groups = divide_up(unit.pixels.index.capacity + unit.next.before, kPixels);
  const auto start_unit = [&]<typename T>(T) {
    Arena arena(nullptr);
    const Shared<T> shared(arena, unit, warps);
    const dim3 grid{static_cast<unsigned>(smaller(groups, kMostBlocks)), 1, 1};
    start("residual unit", unit_kernel<T>, grid, dim3{static_cast<unsigned>(warps * kWarp), 1, 1}, arena.bytes(), stream,
          unit);
  };
  if (groups > 0) element == Element::kBFloat16 ? start_unit(BFloat16{}) : start_unit(Half{});
}

}  // namespace sbnet::cuda
