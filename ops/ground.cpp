// The ground beneath a cloud: counting sort into cells, a low percentile in each, a median over neighbours.
#include "ground.h"

#include <algorithm>
#include <array>
#include <limits>
#include <utility>
#include <vector>

#include "ground_cells.h"
#include "parallel.h"

namespace sbnet {
namespace {

constexpr int kBins = kCells + 1;  // one more: no branch tells the points that do not count apart
constexpr float kEmpty = std::numeric_limits<float>::infinity();

// The sort counts in this many parts of the cloud; its result does not depend on them.
constexpr int64_t kParts = 4;
constexpr int64_t kPointsPerThread = 1 << 13;

// A few points by columns: the compiler makes vector instructions of loops over them.
struct Columns {
  static constexpr int kMost = 512;
  float x[kMost], y[kMost], z[kMost];
};

// Cell and level of each point.
struct Places {
  std::vector<uint16_t> cells, levels;
};

void place(const Columns& points, int64_t count, const Range& within, uint16_t* __restrict cells,
           uint16_t* __restrict levels) {
  const Range range = within;
  for (int64_t i = 0; i < count; ++i)
    cells[i] = static_cast<uint16_t>(ground_cell(range, points.x[i], points.y[i], points.z[i]));
  for (int64_t i = 0; i < count; ++i) levels[i] = static_cast<uint16_t>(level_of(points.z[i]));
}

Places places_of(const Cloud& cloud, const Range& range) {
  Places places{std::vector<uint16_t>(cloud.count), std::vector<uint16_t>(cloud.count)};
  parallel_for(divide_up(cloud.count, Columns::kMost), kPointsPerThread / Columns::kMost, [&](int64_t first, int64_t last) {
    Columns points;
    for (int64_t begin = first * Columns::kMost; begin < smaller(last * Columns::kMost, cloud.count); begin += Columns::kMost) {
      const int64_t count = smaller(Columns::kMost, cloud.count - begin);
      for (int64_t i = 0; i < count; ++i) {
        points.x[i] = cloud.x(begin + i);
        points.y[i] = cloud.y(begin + i);
        points.z[i] = cloud.z(begin + i);
      }
      place(points, count, range, places.cells.data() + begin, places.levels.data() + begin);
    }
  });
  return places;
}

// Levels of the points, those of cell c at start[c] .. start[c + 1], in no particular order.
struct Sorted {
  std::vector<uint16_t> levels;
  std::vector<int32_t> start;
};

Span part_of(int64_t count, int64_t part) { return {count * part / kParts, count * (part + 1) / kParts}; }

Sorted sorted_by_cell(const Places& places) {
  const auto count = static_cast<int64_t>(places.cells.size());
  std::vector<int32_t> next(kParts * kBins);  // how many a part has in each cell, then where its next one goes
  const int64_t grain = divide_up(kPointsPerThread * kParts, count);
  parallel_for(kParts, grain, [&](int64_t first, int64_t last) {
    for (int64_t part = first; part < last; ++part) {
      int32_t* const counts = next.data() + part * kBins;
      const Span points = part_of(count, part);
      for (int64_t i = points.begin; i < points.end; ++i) ++counts[places.cells[i]];
    }
  });

  Sorted sorted{std::vector<uint16_t>(count), std::vector<int32_t>(kBins)};
  int32_t total = 0;
  for (int c = 0; c < kBins; ++c) {
    sorted.start[c] = total;
    for (int64_t part = 0; part < kParts; ++part) total += std::exchange(next[part * kBins + c], total);
  }

  parallel_for(kParts, grain, [&](int64_t first, int64_t last) {
    for (int64_t part = first; part < last; ++part) {
      int32_t* const place = next.data() + part * kBins;
      const Span points = part_of(count, part);
      for (int64_t i = points.begin; i < points.end; ++i) sorted.levels[place[places.cells[i]]++] = places.levels[i];
    }
  });
  return sorted;
}

// One cell's low percentile in metres.
float low_of(uint16_t* first, uint16_t* last) {
  uint16_t* const pick = first + points_below(last - first);
  std::nth_element(first, pick, last);
  return metres_of(*pick);
}

// Lower median of a cell and its neighbours, of those that hold points.
float smoothed(const std::vector<float>& low, int cell) {
  const int row = cell / kSide, column = cell % kSide;
  std::array<float, 9> around{};
  auto end = around.begin();
  for (int y = std::max(row - 1, 0); y <= std::min(row + 1, kSide - 1); ++y)
    for (int x = std::max(column - 1, 0); x <= std::min(column + 1, kSide - 1); ++x)
      if (low[y * kSide + x] != kEmpty) *end++ = low[y * kSide + x];
  const auto middle = around.begin() + (end - around.begin() - 1) / 2;
  std::nth_element(around.begin(), middle, end);
  return *middle;
}

}  // namespace

void heights_above_ground(const Cloud& cloud, const Range& range, float* heights) {
  if (cloud.count == 0) return;
  const Places places = places_of(cloud, range);
  Sorted sorted = sorted_by_cell(places);

  std::vector<int> occupied;
  for (int c = 0; c < kCells; ++c)
    if (sorted.start[c] < sorted.start[c + 1]) occupied.push_back(c);
  const auto cell_count = static_cast<int64_t>(occupied.size());
  const int64_t points_per_cell = divide_up(cloud.count, larger(cell_count, 1));
  std::vector<float> low(kCells, kEmpty), ground(kBins, std::numeric_limits<float>::quiet_NaN());
  parallel_for(cell_count, divide_up(kPointsPerThread, points_per_cell), [&](int64_t first, int64_t last) {
    uint16_t* const levels = sorted.levels.data();
    for (int64_t i = first; i < last; ++i)
      low[occupied[i]] = low_of(levels + sorted.start[occupied[i]], levels + sorted.start[occupied[i] + 1]);
  });
  for (const int c : occupied) ground[c] = smoothed(low, c);

  parallel_for(cloud.count, kPointsPerThread, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) heights[i] = cloud.z(i) - ground[places.cells[i]];
  });
}

}  // namespace sbnet
