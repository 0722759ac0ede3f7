// Layers that are one product. A warp has 16 pixels and a part of the outputs: no barrier, and the warps beside it, which
// have the other outputs of the same pixels, find these in the cache.
#include "products.h"

#include <type_traits>

#include "windows.h"

namespace sbnet::cuda {
namespace {

constexpr int kMostPart = 2;  // blocks of outputs that a warp has, kPart in a kernel

template <typename T, int kPart>
__device__ void store(const Sums<kPart>& sums, const Products& p, const Staged& norm, int part, int64_t first,
                      int64_t count) {
  const int lane = lane_of_warp();
#pragma unroll
  for (int n = 0; n < kPart; ++n) {
    const int own = n * kBlock + lane % 4 * 4, channel = part * kPart * kBlock + own;
    if (channel >= p.y.channels) continue;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t pixel = first + lane / 4 + 8 * half;
      if (pixel >= count) continue;
      const Piece piece = rounded<T>(normalized(sums.values(n, half), norm, own, p.relu));
      store_piece(piece, static_cast<T*>(p.y.data) + (pixel + p.y.before) * p.y.channels, channel, p.y.channels);
    }
  }
}

struct Shared {
  int32_t* found;  // [warps, kFound]
  float* norm;     // [warps, 2, kMostPart * kBlock]
  Staged activation;

  __host__ __device__ Shared(Arena& arena, const Products& p)
      : found(arena.take<int32_t>(kThreads / kWarp * kFound)),
        norm(arena.take<float>(kThreads / kWarp * 2 * kMostPart * kBlock)),
        activation(Staged::take(arena, p.activation)) {}
};

template <typename T, bool Activates, int kPart>
__global__ void __launch_bounds__(kThreads, kResidentWithProducts) products_kernel(const Products p) {
  const int64_t count = *p.pixels.count;
  const int parts = (p.terms[0].weights.outputs + kPart - 1) / kPart;
  const auto first_of = [&](int64_t item) { return item / parts * kPixels - p.y.before; };
  if (first_of(int64_t{blockIdx.x} * (kThreads / kWarp)) >= count) return;
  Arena arena(shared_memory());
  const Shared shared(arena, p);
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarp;
  if constexpr (Activates) {
    shared.activation.stage(p.activation, 0, thread, kThreads);
    __syncthreads();
  }

  int32_t* const rows = shared.found + warp * kFound;
  for (int64_t item = warp_of_grid(); first_of(item) < count; item += warps_of_grid()) {
    const int64_t first = first_of(item);
    const int part = static_cast<int>(item % parts), channel = part * kPart * kBlock;
    const Staged norm{shared.norm + warp * 2 * kPart * kBlock, p.norm.channels - channel, kPart * kBlock};
    norm.stage(p.norm, channel, thread % kWarp, kWarp);
    Sums<kPart> sums;
    for (int t = 0; t < p.count; ++t) {
      const Term& term = p.terms[t];
      const uint32_t taps = find_rows(term, p.pixels, first, count, rows);
      __syncwarp();
      const FoundRows<T> found{term.x, rows};
      if constexpr (Activates)
        add_products<T>(sums, ActivatedRows<T>{found, shared.activation}, 1, term.weights, part * kPart);
      else
        add_products<T>(sums, found, taps, term.weights, part * kPart);
      __syncwarp();  // the next term's rows go where these were
    }
    store<T, kPart>(sums, p, norm, part, first, count);
    __syncwarp();  // and the next part's scale and shift
  }
}

}  // namespace

void multiply(Element element, const Products& products, Stream stream) {
  Arena arena(nullptr);
  const Shared shared(arena, products);
  const int64_t groups = divide_up(products.pixels.index.capacity + products.y.before, kPixels);
  const int64_t outputs = products.terms[0].weights.outputs;
  const auto start = [&]<typename T, int kPart>(T, std::integral_constant<int, kPart>) {
    const auto kernel = products.activation.scale ? products_kernel<T, true, kPart> : products_kernel<T, false, kPart>;
    const int64_t warps = groups * divide_up(outputs, kPart);
    launch("multiply pixels", kernel, warps, kThreads / kWarp, arena.bytes(), stream, products);
  };
  // More warps with less to do each, where the device has room for all of them at a time.
  const bool few = current_room().holds(divide_up(groups * outputs, kThreads / kWarp), kThreads / kWarp);
  const auto start_of = [&](auto element_type) {
    few ? start(element_type, std::integral_constant<int, 1>{})
        : start(element_type, std::integral_constant<int, kMostPart>{});
  };
  element == Element::kBFloat16 ? start_of(BFloat16{}) : start_of(Half{});
}

}  // namespace sbnet::cuda
