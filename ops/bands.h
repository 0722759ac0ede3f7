// A layer band by band, each in a thread of its own.
#pragma once

#include <cstdint>
#include <vector>

#include "parallel.h"
#include "rows.h"

namespace sbnet {

// Bands of a layer's output rows: as many as there are threads, as far as the work is worth it.
std::vector<Band> bands_of(const Rows& active, int64_t rows, int64_t multiplications_per_pixel);

// Copies of the input rows beside the borders of the bands: each band overwrites its own rows while its neighbours may
// still read the outermost of them. `element` is the bytes of a channel.
void keep_border_rows(const Map& x, const Rows& needed, int64_t element, std::vector<Band>& bands,
                      std::vector<char>& memory);

// Memory of this thread that is kept from call to call.
void* scratch(int64_t bytes);

template <typename Layer>
void run(const Layer& layer, const LayerKernel<Layer>& kernel, const std::vector<Band>& bands) {
  const int64_t bytes = kernel.scratch_bytes(layer);
  parallel_for(static_cast<int64_t>(bands.size()), 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) kernel.compute(layer, bands[i], scratch(bytes));
  });
}

}  // namespace sbnet
