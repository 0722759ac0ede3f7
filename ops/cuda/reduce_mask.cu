// From a mask to the list of its active blocks: a scan, in raster order, without atomics.
#include "reduce_mask.h"

#include "device.h"

namespace sbnet::cuda {
namespace {

constexpr int kWords = kPart / kWarp;
static_assert(kPart == kThreads);

// Whether the largest pixel of a block exceeds the tolerance; NaN never does.
template <typename T>
__device__ bool exceeds(const T* image, Span rows, Span columns, const Pooling& pooling) {
  for (int64_t y = rows.begin; y < rows.end; ++y)
    for (int64_t x = columns.begin; x < columns.end; ++x)
      if (static_cast<double>(value_of(image[y * pooling.width + x])) > pooling.tol) return true;
  return false;
}

// The same of the mean, with 0 outside the image. Columns are summed first, as on the CPU.
template <typename T>
__device__ bool mean_exceeds(const T* image, Span rows, Span columns, const Pooling& pooling) {
  double sum = 0;
  for (int64_t x = columns.begin; x < columns.end; ++x) {
    double column = 0;
    for (int64_t y = rows.begin; y < rows.end; ++y)
      column += static_cast<double>(value_of(image[y * pooling.width + x]));
    sum += column;
  }
  return sum / static_cast<double>(pooling.vertical.size * pooling.horizontal.size) > pooling.tol;
}

// A thread for each block of the mask; the threads of a block of the grid have a part together.
template <typename T>
__global__ void __launch_bounds__(kThreads, kResident) find_kernel(const T* mask, const Pooling pooling, uint32_t* bits,
                                                                   int32_t* counts) {
  const int64_t per_image = pooling.rows * pooling.columns, parts = pooling.parts();
  const int thread = static_cast<int>(threadIdx.x);
  for (int64_t part = blockIdx.x; part < parts; part += gridDim.x) {
    const int64_t block = part * kPart + thread;
    bool active = false;
    if (block < pooling.images * per_image) {
      const int64_t n = block / per_image, by = block % per_image / pooling.columns, bx = block % pooling.columns;
      const T* const image = mask + n * pooling.height * pooling.width;
      const Span rows = pooling.vertical.covered(by, pooling.height);
      const Span columns = pooling.horizontal.covered(bx, pooling.width);
      active = pooling.mean ? mean_exceeds(image, rows, columns, pooling) : exceeds(image, rows, columns, pooling);
    }
    const uint32_t word = __ballot_sync(~0u, active);
    if (thread % kWarp == 0) bits[part * kWords + thread / kWarp] = word;
    const int count = __syncthreads_count(active);
    if (thread == 0) counts[part] = count;
  }
}

// One block of the grid for all counts, kThreads of them at a time.
__global__ void __launch_bounds__(kThreads, kResident) sum_kernel(const int32_t* counts, int64_t parts,
                                                                  int64_t* start) {
  Arena arena(shared_memory());
  int* const warp_sum = arena.take<int>(kThreads / kWarp);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarp, warp = thread / kWarp;
  int64_t before = 0;
  for (int64_t first = 0; first < parts; first += kThreads) {
    const int64_t part = first + thread;
    const int count = part < parts ? counts[part] : 0;
    // sum within the warp up to each lane
    const int sum = sum_up_to_lane(count);
    if (lane == kWarp - 1) warp_sum[warp] = sum;
    __syncthreads();
    // and that of the warps before it
    int64_t all = before;
    for (int w = 0; w < kThreads / kWarp; ++w) {
      if (w == warp && part < parts) start[part] = all + sum - count;
      all += warp_sum[w];
    }
    before = all;
    __syncthreads();  // the next round overwrites the sums
  }
  if (thread == 0) start[parts] = before;
}

// A thread for each block of the mask: its number is what was set before its part, word and bit.
__global__ void __launch_bounds__(kThreads, kResident) list_kernel(const Pooling pooling, const uint32_t* bits,
                                                                   const int64_t* start, int32_t* indices) {
  const int64_t per_image = pooling.rows * pooling.columns, parts = pooling.parts();
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarp, warp = thread / kWarp;
  for (int64_t part = blockIdx.x; part < parts; part += gridDim.x) {
    const uint32_t* const words = bits + part * kWords;
    if (!(words[warp] >> lane & 1)) continue;
    int64_t number = start[part] + __popc(words[warp] & ((1u << lane) - 1));
    for (int w = 0; w < warp; ++w) number += __popc(words[w]);
    const int64_t block = part * kPart + thread;
    int32_t* const index = indices + 3 * number;
    index[0] = static_cast<int32_t>(block / per_image);
    index[1] = static_cast<int32_t>(block % per_image / pooling.columns);
    index[2] = static_cast<int32_t>(block % pooling.columns);
  }
}

}  // namespace

void find_active(Element element, const void* mask, const Pooling& pooling, uint32_t* bits, int32_t* counts,
                 Stream stream) {
  with_type(element, [&]<typename T>(T) {
    launch("find active blocks", find_kernel<T>, pooling.parts(), 1, 0, stream, static_cast<const T*>(mask), pooling,
           bits, counts);
  });
}

void sum_counts(const int32_t* counts, int64_t parts, int64_t* start, Stream stream) {
  Arena arena(nullptr);
  arena.take<int>(kThreads / kWarp);
  launch("sum counts", sum_kernel, 1, 1, arena.bytes(), stream, counts, parts, start);
}

void list_active(const Pooling& pooling, const uint32_t* bits, const int64_t* start, int32_t* indices, Stream stream) {
  launch("list active blocks", list_kernel, pooling.parts(), 1, 0, stream, pooling, bits, start, indices);
}

}  // namespace sbnet::cuda
