// All kernels in one program, for the sanitizers, on the CPU and on a GPU: kernels [schedule]. Every buffer ends where its
// contents end. What comes out must not depend on the schedule, so it prints a number for the results of each part. All
// but those of boxes are the same on a GPU.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <random>
#include <vector>

#include <cuda/detect.h>
#include <cuda/device.h>
#include <cuda/dilate.h>
#include <cuda/gather.h>
#include <cuda/occupancy.h>
#include <cuda/pack_weights.h>
#include <cuda/reduce_mask.h>
#include <cuda/scan.h>
#include <cuda/scatter.h>
#include <cuda/shadow.h>
#include <cuda/unit.h>
#include <cuda/voxel_conv.h>
#include <cuda/voxelize.h>

#include "buffer.h"

using namespace sbnet;
using namespace sbnet::cuda;

namespace {

std::mt19937 random_numbers(1);
uint64_t results = 0;

template <typename T>
Buffer<T> draw(int64_t count, int below) {
  std::vector<T> numbers(static_cast<size_t>(count));
  for (T& number : numbers) number = static_cast<T>(random_numbers() % static_cast<unsigned>(below));
  return Buffer<T>(std::move(numbers));
}

template <typename T>
void add_result(Buffer<T>& numbers) {
  for (const T& number : numbers.host()) results = (results ^ static_cast<uint64_t>(number)) * 1099511628211u;
}

void print_results(const char* part) {
  std::printf("%s %016llx\n", part, static_cast<unsigned long long>(results));
  results = 0;
}

Buffer<int32_t> active_blocks() {
  const Pooling pooling{2, 33, 41, 17, 21, {3, 2, -1}, {2, 2, -1}, 0.9, false};
  auto mask = draw<float>(2 * 33 * 41, 3);
  const auto parts = static_cast<size_t>(pooling.parts());
  Buffer<uint32_t> bits(parts * kPart / 32);
  Buffer<int32_t> counts(parts);
  Buffer<int64_t> start(parts + 1);
  find_active(Element::kFloat, mask.data(), pooling, bits.data(), counts.data(), nullptr);
  sum_counts(counts.data(), pooling.parts(), start.data(), nullptr);
  Buffer<int32_t> indices(static_cast<size_t>(3 * start.host()[parts]));
  list_active(pooling, bits.data(), start.data(), indices.data(), nullptr);
  add_result(indices);
  return indices;
}

// Two maps of one mask, with room for some of the pixels of the second.
void numbered_pixels() {
  auto mask = draw<uint8_t>(2 * 41 * 300, 2);
  Buffer<Word> words[2];
  Buffer<int32_t> counts[2], neighbours[2];
  Buffer<int64_t> flat[2];
  std::vector<Scanned> maps;
  const int64_t heights[2] = {41, 21}, widths[2] = {300, 150}, room[2] = {2 * 41 * 300, 1000};
  for (int m = 0; m < 2; ++m) {
    Index index{nullptr, 2, heights[m], widths[m], room[m]};
    words[m] = Buffer<Word>(static_cast<size_t>(index.size()));
    index.words = words[m].data();
    counts[m] = Buffer<int32_t>(2);
    flat[m] = Buffer<int64_t>(static_cast<size_t>(room[m]));
    neighbours[m] = Buffer<int32_t>(static_cast<size_t>(9 * room[m]));
    maps.push_back({words[m].data(), index, counts[m].data(), flat[m].data(), neighbours[m].data()});
  }
  find_tiles(mask.data(), 41, 300, maps, {{1, 2, 1}, {1, 1, 2}}, nullptr);
  number_words(maps, nullptr);
  list_pixels(maps, nullptr);
  for (int m = 0; m < 2; ++m) {
    add_result(counts[m]);
    add_result(flat[m]);
    neighbours[m].host().resize(static_cast<size_t>(counts[m].host()[0]));
    add_result(neighbours[m]);
  }
}

void grown_mask() {
  const Raster size{3, 80};
  auto mask = draw<uint8_t>(size.rows * size.columns, 40);
  for (uint8_t& cell : mask.host()) cell = cell == 0;
  Buffer<uint32_t> bits(static_cast<size_t>(size.rows * size.words())), distances(mask.size());
  find_distances(mask.data(), size, 50, bits.data(), distances.data(), nullptr);
  add_result(distances);
  lay_runs(distances.data(), size, {2, 1}, mask.data(), nullptr);
  add_result(mask);
}

void shaded_mask() {
  const Lines lines{{3, -20}, 30, 40, 60};
  auto mask = draw<uint8_t>(lines.rows * lines.columns, 40);
  for (uint8_t& cell : mask.host()) cell = cell == 0;
  Buffer<uint8_t> result(mask.size());
  cast_lines(lines, mask.data(), result.data(), nullptr);
  add_result(result);
}

// Points, their ground, the cells of the high ones, and the voxels of all, with room for some.
void points_in_cells() {
  const int64_t count = 256, room = 100;
  auto numbers = draw<float>(4 * count, 40);
  const Cloud cloud{numbers.data(), count, 4, 1};
  const CellGrid grid{{3, 40, 0, 30}, 1, 30, 37};
  Buffer<int32_t> cells(count), ranks(count), counts(kCells + 1), start(kCells), low(kCells);
  Buffer<uint16_t> levels(count);
  Buffer<float> level(kCells + 1);
  const Ground ground{cells.data(), ranks.data(), levels.data(), counts.data(), start.data(), low.data(), level.data()};
  find_ground(cloud, grid.range, ground, nullptr);
  add_result(low);
  Buffer<uint8_t> raster(30 * 37);
  mark_between(cloud, ground, {10, 20}, grid, raster.data(), nullptr);
  add_result(raster);

  Buffer<Word> words(30 * 2);
  Buffer<int32_t> number_of_cells(2);
  Buffer<Counter> bits(room), points(1);
  Buffer<CellSum> sums(room);
  Buffer<float> mean(room);
  const Scanned map{words.data(), {words.data(), 1, 30, 37, room}, number_of_cells.data(), nullptr, nullptr};
  const VoxelGrid voxels{grid, 0, -1, 31, 1, 30};
  mark_cells(cloud, voxels, map, points.data(), nullptr);
  number_words({map}, nullptr);
  fill_cells(cloud, voxels, map, sums.data(), bits.data(), mean.data(), nullptr);
  add_result(points);
  add_result(bits);
  add_result(mean);
}

// More counts than are summed in one round.
void sum_of_many() {
  auto counts = draw<int32_t>(600, 257);
  Buffer<int64_t> start(counts.size() + 1);
  sum_counts(counts.data(), 600, start.data(), nullptr);
  add_result(start);
}

// Overlapping, dilated blocks, some of them across each border: gathered, written and added.
void blocks_there_and_back(Buffer<int32_t> indices) {
  const auto count = static_cast<int64_t>(indices.size() / 3);
  const Placed placed{indices.data(), count, {3, 2, -1, 2}, {5, 2, -1, 1}, 2, 4, 36, 43};
  const Layout image{36 * 43 * 4, 1, 43 * 4, 4}, block{3 * 5 * 4, 1, 5 * 4, 4};
  auto x = draw<float>(2 * 36 * 43 * 4, 100);
  const auto pixels = static_cast<size_t>(count * 15);
  Buffer<float> blocks(pixels * 4), written(x.host()), added(x.host());
  gather(4, placed, x.data(), image, blocks.data(), block, true, nullptr);
  add_result(blocks);
  Buffer<Link> first(2 * 36 * 43), next(pixels);
  for (size_t i = 0; i < blocks.size(); ++i) blocks.host()[i] += static_cast<float>(i);
  link_pixels(placed, first.data(), next.data(), nullptr);
  write_pixels(4, placed, first.data(), next.data(), blocks.data(), block, written.data(), image, nullptr);
  add_pixels(Element::kFloat, placed, first.data(), next.data(), blocks.data(), block, added.data(), image, nullptr);
  add_result(written);
  add_result(added);
}

// Several rounds of candidates; more pairs of them near each other than a warp has lanes.
void boxes_of_a_crowd() {
  constexpr int64_t kRows = 400, kLimit = 80;
  Buffer<float> rows(kRows * (1 + kBox));
  for (float& value : rows.host()) value = static_cast<float>(random_numbers() % 1000) / 500 - 1;
  auto flat = draw<int64_t>(kRows, 12 * 12);
  const Classes classes{{threshold_of(0.3)}, {0}};
  const Outputs outputs{rows.data(), flat.data(), kRows, 1, {12, 0, 0, 0.8}};
  Buffer<Candidate> found(kRows);
  Buffer<int32_t> count(1);
  find_candidates(outputs, classes, found.data(), count.data(), nullptr);

  Buffer<Circle> circles(kRows), kept_circles(kLimit);
  Buffer<Footprint> footprints(kRows);
  Buffer<Voter> voters(kRows);
  Buffer<Bits> overlaps(kRows * kRoundWords);
  Buffer<int32_t> owners(kRows), ranks(kLimit);
  const Ranking ranking{count.data(),  circles.data(),  footprints.data(),
                        voters.data(), overlaps.data(), owners.data()};
  Buffer<int64_t> number(1);
  const Kept kept{ranks.data(), kept_circles.data(), number.data()};
  rank_candidates(outputs, classes, found.data(), ranking, nullptr);
  suppress(ranking, kRows, 0.1, kLimit, kept, nullptr);
  Buffer<float> boxes(7 * kLimit), scores(kLimit);
  Buffer<int64_t> labels(kLimit);
  vote(ranking, kept, kLimit, boxes.data(), scores.data(), labels.data(), nullptr);
  for (float& value : boxes.host()) value = std::fabs(value) * 1e6f;
  add_result(boxes);
  add_result(count);
  add_result(number);
}

// A map of 15 x 20 pixels, half of which are stored.
struct HalfAMap {
  Buffer<Word> words;
  Buffer<int32_t> count, neighbours;
  Buffer<int64_t> flat;
  Pixels pixels{{nullptr, 1, 15, 20, 0}, nullptr, nullptr, nullptr};

  HalfAMap() : words(15), count(2) {
    auto mask = draw<uint8_t>(15 * 20, 2);
    Index& index = pixels.index;
    index.words = words.data();
    for (const uint8_t pixel : mask.host()) index.capacity += pixel;
    flat = Buffer<int64_t>(static_cast<size_t>(index.capacity));
    neighbours = Buffer<int32_t>(9 * flat.size());
    const Scanned map{words.data(), index, count.data(), flat.data(), neighbours.data()};
    find_tiles(mask.data(), 15, 20, {map}, {{1, 1, 1}}, nullptr);
    number_words({map}, nullptr);
    list_pixels({map}, nullptr);
    pixels.flat = flat.data();
    pixels.count = count.data();
    pixels.neighbours = neighbours.data();
  }
  size_t size() const { return flat.size(); }
};

// What layers are made of: memory that lives as long as they do, and small whole numbers in it, exact in 16 bits.
struct LayerParts {
  std::deque<Buffer<uint16_t>> rows;
  std::deque<Buffer<float>> norms;

  uint16_t* numbers(size_t count) {
    constexpr uint16_t kBits[3] = {0, 0x3f80, 0x4000};  // 0, 1, 2
    auto& of = rows.emplace_back(count);
    for (uint16_t& bits : of.host()) bits = kBits[random_numbers() % 3];
    return of.data();
  }
  Rows map(size_t pixels, int channels, int before = 0) {
    return {numbers((pixels + static_cast<size_t>(before)) * static_cast<size_t>(channels)), channels, before};
  }
  Norm norm(int channels) { return {norms.emplace_back(draw<float>(2 * channels, 2)).data(), channels}; }
  Matrix matrix(int output_blocks, int input_blocks, int taps) {
    return {numbers(static_cast<size_t>(taps * input_blocks * output_blocks * 256)), input_blocks, output_blocks};
  }
};

// A convolution, the 1x1 and the unit behind it, and the 1x1 of the next one; and a convolution of voxels.
void layers() {
  HalfAMap map;
  LayerParts parts;
  const Element type = Element::kBFloat16;
  const Rows y = parts.map(map.size(), 36), narrow = parts.map(map.size(), 48, 1), next = parts.map(map.size(), 48, 1);
  const Term window{parts.map(map.size(), 20), map.pixels, Window::kNine, 1, false, parts.matrix(3, 2, 9)};
  multiply(type, {{window}, 1, {}, parts.norm(36), true, y, map.pixels}, nullptr);
  const Term beneath{y, map.pixels, Window::kOne, 1, true, parts.matrix(3, 3, 1)};
  multiply(type, {{beneath}, 1, parts.norm(36), parts.norm(40), true, narrow, map.pixels}, nullptr);
  const Term conv{narrow, map.pixels, Window::kNine, 1, true, parts.matrix(3, 3, 9)};
  const Term shortcut{y, map.pixels, Window::kOne, 1, true, {}};
  const Unit unit{conv, parts.norm(40), parts.matrix(3, 3, 1), shortcut, {}, y, map.pixels, next, parts.norm(36),
                  parts.norm(40), parts.matrix(3, 3, 1)};
  run_unit(type, unit, nullptr);
  for (auto& rows : parts.rows) add_result(rows);

  auto bits = draw<int64_t>(static_cast<int64_t>(map.size()), 16);
  auto last = draw<float>(static_cast<int64_t>(map.size()), 2), weights = draw<float>(9 * 5 * 48, 3);
  Buffer<float> sums(map.size() * 37);
  const VoxelConv voxels{map.pixels, bits.data(), last.data(), 5, 37, 48, weights.data(), parts.norm(37).scale,
                         map.pixels, sums.data()};
  convolve_voxels(Element::kFloat, voxels, nullptr);
  add_result(sums);
  Buffer<uint16_t> packed(9 * 256);
  pack_weights(type, weights.data(), 9, 15, 9, packed.data(), nullptr);
  add_result(packed);
}

}  // namespace

int main(int argc, char** argv) {
  cuda_on_cpu::seed(argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 1);
  sum_of_many();
  print_results("sums");
  grown_mask();
  shaded_mask();
  print_results("masks");
  numbered_pixels();
  print_results("pixels");
  blocks_there_and_back(active_blocks());
  print_results("blocks");
  boxes_of_a_crowd();
  print_results("boxes");
  layers();
  print_results("layers");
  points_in_cells();
  print_results("points");
}
