#include "rows.h"

#include <algorithm>
#include <bit>

#include "blocks.h"

namespace sbnet {
namespace {

constexpr int64_t kBits = 64;

// Sets bits [begin, end) of a row of words.
void set_bits(uint64_t* words, int64_t begin, int64_t end) {
  for (int64_t word = begin / kBits; word * kBits < end; ++word) {
    const int64_t low = std::max(begin - word * kBits, int64_t{0}), high = std::min(end - word * kBits, kBits);
    const uint64_t ones = high - low == kBits ? ~uint64_t{0} : ((uint64_t{1} << (high - low)) - 1) << low;
    words[word] |= ones;
  }
}

// Appends the runs of ones of a row of words; the first of their pixels has the number `next`.
void append_runs(const uint64_t* words, int64_t count, int32_t& next, std::vector<Run>& runs) {
  bool inside = false;
  for (int64_t word = 0; word < count; ++word) {
    // Where the row changes between zeros and ones, seen from a word whose bits are flipped while inside a run.
    uint64_t bits = inside ? ~words[word] : words[word];
    while (bits != 0) {
      const int bit = std::countr_zero(bits);
      const auto column = static_cast<int32_t>(word * kBits + bit);
      if (inside) {
        runs.back().end = column;
        next += runs.back().size();
      } else {
        runs.push_back({column, column, next});
      }
      inside = !inside;
      bits = ~bits & (~uint64_t{0} << bit);
    }
  }
}

// How many of `count` tiles lie side by side, from left to right, as they do in raster order.
int64_t neighbours(const int32_t* first, int64_t count) {
  int64_t tiles = 1;
  for (const int32_t* next = first + 3; tiles < count; ++tiles, next += 3)
    if (next[2] != first[2] + tiles || next[1] != first[1] || next[0] != first[0]) break;
  return tiles;
}

}  // namespace

bool pixels_of_tiles(const int32_t* indices, int64_t count, Extent map, int64_t tile_height, int64_t tile_width,
                     RowList& active) {
  // one bit per pixel, with a zero word after each row that ends its last run
  const int64_t rows = map.images * map.height, words = map.width / kBits + 1;
  const Extent tiles{map.images, divide_up(map.height, tile_height), divide_up(map.width, tile_width)};
  thread_local std::vector<uint64_t> bits;
  bits.assign(rows * words, 0);
  for (int64_t i = 0, together; i < count; i += together) {
    const int32_t* const tile = indices + 3 * i;
    together = neighbours(tile, count - i);
    if (tile[0] < 0 || tile[0] >= tiles.images || tile[1] < 0 || tile[1] >= tiles.height || tile[2] < 0 ||
        tile[2] + together > tiles.width)
      return false;
    const int64_t left = tile[2] * tile_width, right = std::min(left + together * tile_width, map.width);
    const int64_t top = tile[1] * tile_height, bottom = std::min(top + tile_height, map.height);
    for (int64_t y = top; y < bottom; ++y) set_bits(bits.data() + (tile[0] * map.height + y) * words, left, right);
  }

  active.runs.clear();
  active.start.assign(1, 0);
  int32_t number = 0;
  for (int64_t row = 0; row < rows; ++row) {
    append_runs(bits.data() + row * words, words, number, active.runs);
    active.start.push_back(static_cast<int32_t>(active.runs.size()));
  }
  return true;
}

void pixels_beneath(const Rows& active, Extent output, Extent input, int64_t stride, RowList& needed) {
  needed.runs.clear();
  needed.start.assign(1, 0);
  for (int64_t image = 0; image < input.images; ++image)
    for (int64_t y = 0; y < input.height; ++y) {
      // the runs of up to three output rows whose windows reach this row
      const int64_t first = std::max<int64_t>(0, (y - 1 + stride - 1) / stride);
      const int64_t last = std::min(output.height - 1, (y + 1) / stride);
      const Run *next[3], *end[3];
      const int64_t sources = std::max<int64_t>(0, last - first + 1);
      for (int64_t s = 0; s < sources; ++s) {
        next[s] = active.begin(image * output.height + first + s);
        end[s] = active.end(image * output.height + first + s);
      }
      // merge them from left to right
      const auto row_begin = static_cast<int64_t>(needed.runs.size());
      for (;;) {
        int64_t leftmost = -1;
        for (int64_t s = 0; s < sources; ++s)
          if (next[s] < end[s] && (leftmost < 0 || next[s]->begin < next[leftmost]->begin)) leftmost = s;
        if (leftmost < 0) break;
        const Run run = *next[leftmost]++;
        const auto begin = static_cast<int32_t>(std::max<int64_t>(0, stride * run.begin - 1));
        const auto stop = static_cast<int32_t>(std::min(input.width, stride * (run.end - 1) + 2));
        if (static_cast<int64_t>(needed.runs.size()) > row_begin && begin <= needed.runs.back().end)
          needed.runs.back().end = std::max(needed.runs.back().end, stop);
        else
          needed.runs.push_back({begin, stop, 0});
      }
      needed.start.push_back(static_cast<int32_t>(needed.runs.size()));
    }
}

std::vector<Band> split(const Rows& active, int64_t rows, int64_t parts) {
  const int64_t total = count_pixels(active, 0, rows);
  std::vector<Band> bands;
  int64_t begin = 0, done = 0;
  for (int64_t part = 1; part <= parts && begin < rows; ++part) {
    int64_t end = begin;
    for (; end < rows && (part == parts || done * parts < total * part); ++end)
      done += count_pixels(active, end, end + 1);
    if (end > begin) bands.push_back({begin, end, {}, {}});
    begin = end;
  }
  return bands;
}

}  // namespace sbnet
