#include "rows.h"

#include <algorithm>
#include <cstring>

#include "blocks.h"

namespace sbnet {

int64_t next_active(const uint8_t* tiles, int64_t x, int64_t width) {
  uint64_t eight;
  for (; x + 8 <= width; x += 8) {
    std::memcpy(&eight, tiles + x, sizeof eight);
    if (eight) break;
  }
  while (x < width && !tiles[x]) ++x;
  return x;
}

void pixels_of_tiles(const uint8_t* active, Extent tiles, Extent map, int64_t tile_height, int64_t tile_width,
                     RowList& pixels) {
  pixels.runs.clear();
  pixels.start.assign(1, 0);
  int32_t number = 0;
  for (int64_t row = 0; row < tiles.images * tiles.height; ++row, active += tiles.width) {
    // tiles side by side are one run in each of their rows of pixels
    const auto first = static_cast<int64_t>(pixels.runs.size());
    for (int64_t x = next_active(active, 0, tiles.width), end; x < tiles.width; x = next_active(active, end, tiles.width)) {
      for (end = x + 1; end < tiles.width && active[end];) ++end;
      const auto begin = static_cast<int32_t>(x * tile_width);
      pixels.runs.push_back({begin, static_cast<int32_t>(std::min(end * tile_width, map.width)), number});
      number += pixels.runs.back().size();
    }
    const int64_t count = static_cast<int64_t>(pixels.runs.size()) - first, top = row % tiles.height * tile_height;
    pixels.start.push_back(static_cast<int32_t>(pixels.runs.size()));
    for (int64_t y = top + 1; y < std::min(top + tile_height, map.height); ++y) {
      for (int64_t i = 0; i < count; ++i) {
        const Run above = pixels.runs[first + i];
        pixels.runs.push_back({above.begin, above.end, number});
        number += above.size();
      }
      pixels.start.push_back(static_cast<int32_t>(pixels.runs.size()));
    }
  }
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
