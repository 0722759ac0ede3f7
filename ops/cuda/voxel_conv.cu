// The first convolution of the network, straight from voxels: a sum of rows of weights, as many as there are ones. A
// warp has a pixel at a time, a lane a channel of its output.
#include "voxel_conv.h"

#include "index.h"

namespace sbnet::cuda {
namespace {

constexpr int kTaps = 9;

// Calls visit(tap, number) for the occupied pixels in the 3x3 window, which lanes look up side by side.
template <typename Visit>
__device__ void for_each_occupied(const VoxelConv& c, int64_t pixel, const Visit& visit) {
  const Place place = place_of(c.pixels, pixel);
  const int lane = lane_of_warp();
  int32_t number = kOutside;
  if (lane < kTaps)
    number = number_of(c.occupied.index, place.image, place.row + lane / 3 - 1, place.column + lane % 3 - 1);
  for (uint32_t taps = __ballot_sync(~0u, number >= 0); taps; taps &= taps - 1) {
    const int tap = __ffs(static_cast<int>(taps)) - 1;
    visit(tap, __shfl_sync(~0u, number, tap));
  }
}

template <typename T, typename Sum>
__global__ void __launch_bounds__(kThreads, kResident) voxel_kernel(const VoxelConv c) {
  const int lane = lane_of_warp();
  const auto *const weights = static_cast<const Sum*>(c.weights), *const norm = static_cast<const Sum*>(c.norm);
  const uint64_t known = (uint64_t{1} << (c.channels - 1)) - 1;
  const int64_t count = *c.pixels.count;
  for (int64_t pixel = warp_of_grid(); pixel < count; pixel += warps_of_grid())
    for (int begin = 0; begin < c.outputs; begin += kWarp) {
      const int output = begin + lane;
      Sum sum = 0;
      for_each_occupied(c, pixel, [&](int tap, int number) {
        if (output >= c.outputs) return;
        const Sum* const row = weights + int64_t{tap} * c.channels * c.pitch + output;
        for (uint64_t bits = static_cast<uint64_t>(c.bits[number]) & known; bits; bits &= bits - 1)
          sum += row[(__ffsll(static_cast<long long>(bits)) - 1) * int64_t{c.pitch}];
        sum += row[(c.channels - 1) * int64_t{c.pitch}] * static_cast<Sum>(c.last[number]);
      });
      if (output >= c.outputs) continue;
      const Sum value = sum * norm[output] + norm[c.outputs + output];
      round_to(static_cast<T*>(c.y)[pixel * c.outputs + output], value < 0 ? Sum{0} : value);
    }
}

}  // namespace

void convolve_voxels(Element element, const VoxelConv& conv, Stream stream) {
  const auto start = [&](auto kernel) {
    launch("convolve voxels", kernel, conv.pixels.index.capacity, kThreads / kWarp, 0, stream, conv);
  };
  if (element == Element::kDouble)
    start(voxel_kernel<double, double>);
  else if (element == Element::kFloat)
    start(voxel_kernel<float, float>);
  else if (element == Element::kBFloat16)
    start(voxel_kernel<BFloat16, float>);
  else
    start(voxel_kernel<Half, float>);
}

}  // namespace sbnet::cuda
