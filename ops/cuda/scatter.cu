// Blocks written, or added, to an image. Several may fall on a pixel, and the order of the indices counts: first the
// pixels of blocks are linked to lists, one for each pixel of the image. Their order is that of chance; what is taken
// from them is not, so the result is the same in every run.
#include "scatter.h"

#include <type_traits>

#include "device.h"

namespace sbnet::cuda {
namespace {

__global__ void __launch_bounds__(kThreads, kResident) link_kernel(const Placed placed, Link* first, Link* next) {
  const Axis &vertical = placed.vertical, &horizontal = placed.horizontal;
  const int64_t pixels = placed.count * vertical.size * horizontal.size;
  for (int64_t pixel = thread_of_grid(); pixel < pixels; pixel += threads_of_grid()) {
    const int64_t row = pixel / horizontal.size, j = pixel % horizontal.size;
    const int64_t b = row / vertical.size, i = row % vertical.size;
    const int32_t* const index = placed.indices + 3 * b;
    const int64_t n = index[0], y = vertical.pixel(index[1], i), x = horizontal.pixel(index[2], j);
    if (n < 0 || n >= placed.images || y < 0 || y >= placed.height || x < 0 || x >= placed.width) continue;
    next[pixel] = atomicExch(first + (n * placed.height + y) * placed.width + x, static_cast<Link>(pixel + 1));
  }
}

// The pixel of a list that comes last.
__device__ __forceinline__ Link last_of(Link first, const Link* next) {
  Link last = 0;
  for (Link pixel = first; pixel; pixel = next[pixel - 1])
    if (pixel > last) last = pixel;
  return last;
}

// The pixel of a list that comes next after `done`, or none.
__device__ __forceinline__ Link following(Link first, const Link* next, Link done) {
  Link best = 0;
  for (Link pixel = first; pixel; pixel = next[pixel - 1])
    if (pixel > done && (best == 0 || pixel < best)) best = pixel;
  return best;
}

__device__ __forceinline__ int64_t offset_of(Link pixel, const Placed& placed, const Layout& layout) {
  const int64_t number = static_cast<int64_t>(pixel) - 1, row = number / placed.horizontal.size;
  return layout.at(row / placed.vertical.size, row % placed.vertical.size, number % placed.horizontal.size);
}

// What happens to an element of the image. The list has a pixel at least.
template <typename T>
struct Write {
  __device__ static void put(T& element, const T* blocks, Link first, const Link* next, const Placed& placed,
                             const Layout& from) {
    element = blocks[offset_of(last_of(first, next), placed, from)];
  }
};

template <typename T>
struct Add {
  __device__ static void put(T& element, const T* blocks, Link first, const Link* next, const Placed& placed,
                             const Layout& from) {
    auto sum = value_of(element);
    for (Link pixel = following(first, next, 0); pixel; pixel = following(first, next, pixel))
      sum += value_of(blocks[offset_of(pixel, placed, from)]);
    round_to(element, sum);
  }
};

// A thread for each element of the images, in the order of memory.
template <typename T, template <typename> class Put>
__global__ void __launch_bounds__(kThreads, kResident) put_kernel(const Placed placed, const Link* first,
                                                                  const Link* next, const T* blocks, Layout from,
                                                                  T* base, Layout to) {
  const int64_t per_image = placed.height * placed.width, elements = placed.images * per_image * placed.channels;
  const bool channels_last = to.channel == 1;
  for (int64_t k = thread_of_grid(); k < elements; k += threads_of_grid()) {
    int64_t n, c, pixel;
    if (channels_last) {
      c = k % placed.channels;
      n = k / placed.channels / per_image;
      pixel = k / placed.channels % per_image;
    } else {
      pixel = k % per_image;
      n = k / per_image / placed.channels;
      c = k / per_image % placed.channels;
    }
    const Link link = first[n * per_image + pixel];
    if (!link) continue;
    const int64_t y = pixel / placed.width, x = pixel % placed.width;
    Put<T>::put(base[to.at(n, y, x) + c * to.channel], blocks + c * from.channel, link, next, placed, from);
  }
}

template <typename T, template <typename> class Put>
void put(const char* what, const Placed& placed, const Link* first, const Link* next, const void* blocks, Layout from,
         void* base, Layout to, Stream stream) {
  launch(what, put_kernel<T, Put>, placed.images * placed.channels * placed.height * placed.width, kThreads, 0, stream,
         placed, first, next, static_cast<const T*>(blocks), from, static_cast<T*>(base), to);
}

}  // namespace

void link_pixels(const Placed& placed, Link* first, Link* next, Stream stream) {
  const auto pixels = static_cast<size_t>(placed.images * placed.height * placed.width);
  fill_bytes(first, 0, pixels * sizeof(Link), stream);
  launch("link pixels", link_kernel, placed.count * placed.vertical.size * placed.horizontal.size, kThreads, 0, stream,
         placed, first, next);
}

void write_pixels(int element_bytes, const Placed& placed, const Link* first, const Link* next, const void* blocks,
                  Layout from, void* base, Layout to, Stream stream) {
  with_bytes(element_bytes, [&]<typename T>(T) {
    put<T, Write>("write blocks", placed, first, next, blocks, from, base, to, stream);
  });
}

void add_pixels(Element element, const Placed& placed, const Link* first, const Link* next, const void* blocks,
                Layout from, void* base, Layout to, Stream stream) {
  with_type(element, [&]<typename T>(T) {
    if constexpr (!std::is_same_v<T, uint8_t>)
      put<T, Add>("add blocks", placed, first, next, blocks, from, base, to, stream);
  });
}

}  // namespace sbnet::cuda
