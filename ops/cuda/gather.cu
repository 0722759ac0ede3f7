// Blocks of an image, side by side in memory. A warp has a row of a block at a time, and writes it in its order.
#include "gather.h"

#include "device.h"

namespace sbnet::cuda {
namespace {

template <typename T>
__global__ void __launch_bounds__(kThreads, kResident) gather_kernel(const Placed placed, const T* x, Layout from,
                                                                     T* blocks, Layout to, bool channels_last) {
  const Axis &vertical = placed.vertical, &horizontal = placed.horizontal;
  const int64_t rows = placed.count * vertical.size;
  // (outer, inner) of an element in the order of memory, and how far the next one of this lane lies ahead
  const int64_t inside = channels_last ? placed.channels : horizontal.size;
  const int64_t outside = channels_last ? horizontal.size : placed.channels;
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const auto ahead_outer = static_cast<int>(kWarp / inside), ahead_inner = static_cast<int>(kWarp % inside);
  for (int64_t row = thread_of_grid() / kWarp; row < rows; row += threads_of_grid() / kWarp) {
    const int64_t b = row / vertical.size, i = row % vertical.size;
    const int32_t* const index = placed.indices + 3 * b;
    const int64_t y = vertical.pixel(index[1], i), left = horizontal.pixel(index[2], 0);
    const bool row_exists = index[0] >= 0 && index[0] < placed.images && y >= 0 && y < placed.height;
    const T* const line = x + (row_exists ? from.at(index[0], y, 0) : 0);
    T* const to_line = blocks + to.at(b, i, 0);
    for (int64_t outer = lane / inside, inner = lane % inside; outer < outside;) {
      const int64_t j = channels_last ? outer : inner, c = channels_last ? inner : outer;
      const int64_t column = left + horizontal.dilation * j;
      T element{};
      if (row_exists && column >= 0 && column < placed.width) element = line[column * from.pixel + c * from.channel];
      to_line[j * to.pixel + c * to.channel] = element;
      outer += ahead_outer;
      inner += ahead_inner;
      if (inner >= inside) {
        inner -= inside;
        ++outer;
      }
    }
  }
}

}  // namespace

void gather(int element_bytes, const Placed& placed, const void* x, Layout from, void* blocks, Layout to,
            bool channels_last, Stream stream) {
  with_bytes(element_bytes, [&]<typename T>(T) {
    launch("gather blocks", gather_kernel<T>, placed.count * placed.vertical.size, kThreads / kWarp, 0, stream, placed,
           static_cast<const T*>(x), from, static_cast<T*>(blocks), to, channels_last);
  });
}

}  // namespace sbnet::cuda
