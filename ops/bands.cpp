#include "bands.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "blocks.h"
#include "check.h"

namespace sbnet {
namespace {

constexpr int64_t kBandGrain = 1 << 21;  // multiplications that are worth a thread
constexpr int64_t kPage = 4096;

}  // namespace

std::vector<Band> bands_of(const Rows& active, int64_t rows, int64_t multiplications_per_pixel) {
  const int64_t worth = count_pixels(active, 0, rows) * multiplications_per_pixel / kBandGrain + 1;
  return split(active, rows, std::min<int64_t>(torch::stable::get_num_threads(), worth));
}

void keep_border_rows(const Map& x, const Rows& needed, int64_t element, std::vector<Band>& bands,
                      std::vector<char>& memory) {
  const int64_t pixel = x.channels * element, row_bytes = x.width * pixel;
  memory.resize(2 * bands.size() * row_bytes);
  char* free = memory.data();
  const auto keep = [&](int64_t row) {
    if (x.stored.begin(row) == x.stored.end(row)) return RowCopy{};
    const int64_t first = x.stored.begin(row)->number;
    Walk walk(x.stored, row);
    for (const Run* run = needed.begin(row); run != needed.end(row); ++run)
      walk.along(
          run->begin, run->end,
          [&](int64_t from, int64_t to, int64_t number) {
            std::memcpy(free + (number - first) * pixel, static_cast<const char*>(x.data) + number * pixel,
                        (to - from) * pixel);
          },
          [](int64_t, int64_t) {});
    free += row_bytes;
    return RowCopy{free - row_bytes, first};
  };
  for (size_t b = 0; b + 1 < bands.size(); ++b) {
    bands[b + 1].above = keep(bands[b].end - 1);
    bands[b].below = keep(bands[b].end);
  }
}

void* scratch(int64_t bytes) {
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  thread_local std::unique_ptr<void, Free> memory;
  thread_local int64_t size = 0;
  if (bytes > size) {
    const int64_t wanted = divide_up(bytes, kPage) * kPage;
    size = 0;
    memory.reset();  // before the new memory is asked for
    memory.reset(std::aligned_alloc(kPage, wanted));
    check(memory != nullptr, "out of memory: a layer needs ", wanted, " bytes of scratch memory per thread");
    size = wanted;
  }
  return memory.get();
}

}  // namespace sbnet
