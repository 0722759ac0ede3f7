// A residual unit in one launch. The warps of a block of threads have the same 16 pixels; each computes some channels of
// every convolution, from what all of them left of the one before in shared memory. Where a map has few pixels, warps
// share the products of the same channels: what takes time there is one load after the other.
#include "unit.h"

#include "windows.h"

namespace sbnet::cuda {
namespace {

constexpr int kMostThreads = 512, kResidentUnits = 1;  // 128 registers
constexpr int kMostWarps = kMostThreads / kWarp;
constexpr int kPart = 2;  // blocks of wide channels that a warp computes at a time
constexpr int kPartial = 8;  // sums of a lane for one block of channels

// The block of threads' pixels in shared memory, as the next product reads them. An odd number of blocks lies between
// two of them, so that lanes read from different banks.
template <typename T>
struct SharedRows {
  T* rows;
  int pitch;

  __host__ __device__ SharedRows(Arena& arena, int blocks)
      : rows(arena.take<T>(kPixels * kBlock * (blocks | 1))), pitch(kBlock * (blocks | 1)) {}
  __device__ __forceinline__ Piece fetch(int, int pixel, int channel, bool wanted) const {
    const uint2 pairs = wanted ? *at(pixel, channel) : uint2{};
    return {{pairs.x, pairs.y}};
  }
  __device__ __forceinline__ Piece ready(const Piece& piece, int) const { return piece; }
  __device__ __forceinline__ void put(const Piece& piece, int pixel, int channel) const {
    *at(pixel, channel) = {piece.pair[0], piece.pair[1]};
  }

 private:
  __device__ __forceinline__ uint2* at(int pixel, int channel) const {
    return reinterpret_cast<uint2*>(rows + pixel * pitch + channel);
  }
};

// Warps that share the products of a block of narrow channels: `shares` of them for each of `blocks`.
struct Team {
  int blocks, shares;

  __host__ __device__ int warps() const { return blocks * shares; }
};

template <typename T>
struct Shared {
  int32_t* found;          // [warps, kFound]
  float *conv, *reduced;   // [shares - 1, blocks, kPartial, kWarp]: sums of other shares than the first
  SharedRows<T> narrow, wide;
  Staged conv_norm, activation, next_activation, next_norm;

  __host__ __device__ Shared(Arena& arena, const Unit& u, const Team& team)
      : found(arena.take<int32_t>(team.warps() * kFound)),
        conv(arena.take<float>((team.warps() - team.blocks) * kPartial * kWarp)),
        reduced(arena.take<float>((team.warps() - team.blocks) * kPartial * kWarp)),
        narrow(arena, u.expand.inputs),
        wide(arena, u.next_reduce.inputs),
        conv_norm(Staged::take(arena, u.conv_norm)),
        activation(Staged::take(arena, u.activation)),
        next_activation(Staged::take(arena, u.next_activation)),
        next_norm(Staged::take(arena, u.next_norm)) {}

  __device__ __forceinline__ void stage(const Unit& u) const {
    const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
    conv_norm.stage(u.conv_norm, 0, thread, threads);
    activation.stage(u.activation, 0, thread, threads);
    next_activation.stage(u.next_activation, 0, thread, threads);
    next_norm.stage(u.next_norm, 0, thread, threads);
  }
};

// A warp's part in a group of 16 pixels of a unit.
template <typename T>
struct Worker {
  const Unit& u;
  const Shared<T>& shared;
  const Team& team;
  int32_t* rows;
  int lane, warp;
  int32_t first, count;  // of the group, of all: pixels of a map are numbered in 32 bits

  __device__ __forceinline__ int row(int half) const { return lane / 4 + 8 * half; }
  __device__ __forceinline__ int channel(int block) const { return block * kBlock + lane % 4 * 4; }

  // Products of 16 pixels with the weights of narrow channels; calls finish(sums, block) where a block's are complete.
  template <typename Pixels, typename Finish>
  __device__ __forceinline__ void narrow_products(const Pixels& pixels, uint32_t taps, const Matrix& weights,
                                                  float* partial, const Finish& finish) const {
    const Share share{warp / team.blocks, team.shares};
    for (int block = warp % team.blocks; block < weights.outputs; block += team.blocks) {
      Sums<1> sums;
      add_products<T>(sums, pixels, taps, weights, block, share);
      if (share.count > 1) gather(sums, share, partial + block * kPartial * kWarp + lane);
      if (share.number == 0) finish(sums, block);
    }
  }

  // Adds the sums of other shares of a block of channels to those of the first. All warps have one block each.
  __device__ __forceinline__ void gather(Sums<1>& sums, const Share& share, float* partial) const {
    float* const own = &sums.of[0][0][0];
    const int pitch = team.blocks * kPartial * kWarp;
    if (share.number > 0)
      for (int i = 0; i < kPartial; ++i) partial[(share.number - 1) * pitch + i * kWarp] = own[i];
    __syncthreads();  // partial sums are there
    if (share.number > 0) return;
    for (int other = 0; other < share.count - 1; ++other)
      for (int i = 0; i < kPartial; ++i) own[i] += partial[other * pitch + i * kWarp];
  }

  // 3x3, BN, ReLU.
  __device__ void convolve() const {
    const uint32_t taps = find_rows(u.conv, u.pixels, first, count, rows);
    __syncwarp();
    const auto put = [&](const Sums<1>& sums, int block) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const Values values = normalized(sums.values(0, half), shared.conv_norm, channel(block));
        shared.narrow.put(rounded<T>(values), row(half), channel(block));
      }
    };
    narrow_products(FoundRows<T>{u.conv.x, rows}, taps, u.conv.weights, shared.conv, put);
    __syncwarp();  // rows of the shortcut go where these were
  }

  // 1x1 plus shortcut; then BN, ReLU of the next unit.
  __device__ void expand() const {
    find_rows(u.shortcut, u.pixels, first, count, rows);
    __syncwarp();
    const FoundRows<T> x{u.shortcut.x, rows};
    const bool projects = u.shortcut.weights.fragments;
    for (int begin = warp * kPart; begin < u.expand.outputs; begin += team.warps() * kPart) {
      Piece beneath[kPart][2];
#pragma unroll
      for (int i = 0; i < 2 * kPart; ++i)
        beneath[i / 2][i % 2] = x.fetch(0, row(i % 2), channel(begin + i / 2), !projects);
      Sums<kPart> sums;
      add_products<T>(sums, shared.narrow, 1, u.expand, begin);
      if (projects) add_products<T>(sums, ActivatedRows<T>{x, shared.activation}, 1, u.shortcut.weights, begin);
#pragma unroll
      for (int i = 0; i < 2 * kPart; ++i)
        if (begin + i / 2 < u.expand.outputs)
          finish(sums.values(i / 2, i % 2), beneath[i / 2][i % 2], row(i % 2), channel(begin + i / 2));
    }
  }

  __device__ __forceinline__ void finish(Values y, const Piece& beneath, int row, int channel) const {
    const Values x = values_of<T>(beneath);
#pragma unroll
    for (int i = 0; i < 4; ++i) y.of[i] += x.of[i];
    const int64_t pixel = first + row;
    const Piece piece = pixel < 0 ? Piece{} : rounded<T>(y);
    if (pixel >= 0 && pixel < count)
      store_piece(piece, static_cast<T*>(u.y.data) + pixel * u.y.channels, channel, u.y.channels);
    if (u.next.data)
      shared.wide.put(rounded<T>(normalized(values_of<T>(piece), shared.next_activation, channel)), row, channel);
  }

  // The next unit's 1x1, BN, ReLU.
  __device__ void reduce() const {
    const auto put = [&](const Sums<1>& sums, int block) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int64_t pixel = first + row(half);
        if (pixel >= count) continue;
        const Piece piece = rounded<T>(normalized(sums.values(0, half), shared.next_norm, channel(block)));
        T* const to = static_cast<T*>(u.next.data) + (pixel + u.next.before) * u.next.channels;
        store_piece(piece, to, channel(block), u.next.channels);
      }
    };
    narrow_products(shared.wide, 1, u.next_reduce, shared.reduced, put);
  }
};

template <typename T>
__global__ void __launch_bounds__(kMostThreads, kResidentUnits) unit_kernel(const Unit u, const Team team) {
  const int warp = static_cast<int>(threadIdx.x / kWarp);
  const int32_t count = *u.pixels.count;
  const auto first_of = [&](int64_t group) { return group * kPixels - u.next.before; };
  if (first_of(blockIdx.x) >= count) return;
  Arena arena(shared_memory());
  const Shared<T> shared(arena, u, team);
  shared.stage(u);
  __syncthreads();

  for (int64_t group = blockIdx.x; first_of(group) < count; group += gridDim.x) {
    const Worker<T> worker{u,    shared, team, shared.found + warp * kFound, lane_of_warp(),
                           warp, static_cast<int32_t>(first_of(group)), count};
    worker.convolve();
    __syncthreads();  // the narrow channels are there
    worker.expand();
    __syncthreads();  // and so are the wide ones; the narrow ones may be overwritten
    if (u.next.data) worker.reduce();
  }
}

// What partial sums may add to the shared memory that every device gives unasked.
constexpr int kMostBytes = 48 << 10;

template <typename T>
int bytes_for(const Unit& unit, const Team& team) {
  Arena arena(nullptr);
  const Shared<T> shared(arena, unit, team);
  return arena.bytes();
}

// As many shares as leave the device room for all groups of pixels at a time: a second round would cost more.
template <typename T>
Team team_for(const Unit& unit, int64_t groups) {
  const bool has_next = unit.next.data != nullptr;
  const auto narrow = static_cast<int>(larger(unit.conv.weights.outputs, has_next ? unit.next_reduce.outputs : 0));
  Team team{static_cast<int>(smaller(narrow, kMostWarps)), 1};
  if (narrow > kMostWarps || (has_next && unit.next_reduce.outputs != unit.conv.weights.outputs)) return team;
  const Room room = current_room();
  for (int shares = kMostWarps / narrow; shares > 1 && team.shares == 1; --shares)
    if (room.holds(groups, narrow * shares) && bytes_for<T>(unit, {narrow, shares}) <= kMostBytes) team.shares = shares;
  return team;
}

}  // namespace

void run_unit(Element element, const Unit& unit, Stream stream) {
  const int64_t groups = divide_up(unit.pixels.index.capacity + unit.next.before, kPixels);
  const auto start_unit = [&]<typename T>(T) {
    const Team team = team_for<T>(unit, groups);
    const dim3 grid{static_cast<unsigned>(smaller(groups, kMostBlocks)), 1, 1};
    const dim3 block{static_cast<unsigned>(team.warps() * kWarp), 1, 1};
    start("residual unit", unit_kernel<T>, grid, block, bytes_for<T>(unit, team), stream, unit, team);
  };
  element == Element::kBFloat16 ? start_unit(BFloat16{}) : start_unit(Half{});
}

}  // namespace sbnet::cuda
