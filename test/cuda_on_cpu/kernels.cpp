// All kernels in one program, for the sanitizers: kernels [schedule]. Every buffer ends where its contents end. What
// comes out must not depend on the schedule, so it prints a number that stands for all results.
#include <cmath>
#include <cstdio>
#include <cstdlib>
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
#include <cuda/unit.h>
#include <cuda/voxel_conv.h>
#include <cuda/voxelize.h>

using namespace sbnet;
using namespace sbnet::cuda;

namespace {

std::mt19937 random_numbers(1);
uint64_t all_results = 0;

template <typename T>
std::vector<T> draw(int64_t count, int below) {
  std::vector<T> numbers(static_cast<size_t>(count));
  for (T& number : numbers) number = static_cast<T>(random_numbers() % static_cast<unsigned>(below));
  return numbers;
}

template <typename T>
void add_result(const std::vector<T>& numbers) {
  for (const T& number : numbers) all_results = (all_results ^ static_cast<uint64_t>(number)) * 1099511628211u;
}

std::vector<int32_t> active_blocks() {
  const Pooling pooling{2, 33, 41, 17, 21, {3, 2, -1}, {2, 2, -1}, 0.9, false};
  const auto mask = draw<float>(2 * 33 * 41, 3);
  const auto parts = static_cast<size_t>(pooling.parts());
  std::vector<uint32_t> bits(parts * kPart / 32);
  std::vector<int32_t> counts(parts);
  std::vector<int64_t> start(parts + 1);
  find_active(Element::kFloat, mask.data(), pooling, bits.data(), counts.data(), nullptr);
  sum_counts(counts.data(), pooling.parts(), start.data(), nullptr);
  std::vector<int32_t> indices(static_cast<size_t>(3 * start[parts]));
  list_active(pooling, bits.data(), start.data(), indices.data(), nullptr);
  add_result(indices);
  return indices;
}

// Two maps of one mask, with room for some of the pixels of the second.
void numbered_pixels() {
  const auto mask = draw<uint8_t>(2 * 41 * 300, 2);
  std::vector<Word> words[2];
  std::vector<int32_t> counts[2], neighbours[2];
  std::vector<int64_t> flat[2];
  std::vector<Scanned> maps;
  const int64_t heights[2] = {41, 21}, widths[2] = {300, 150}, room[2] = {2 * 41 * 300, 1000};
  for (int m = 0; m < 2; ++m) {
    Index index{nullptr, 2, heights[m], widths[m], room[m]};
    words[m].resize(static_cast<size_t>(index.size()));
    index.words = words[m].data();
    counts[m].resize(2);
    flat[m].resize(static_cast<size_t>(room[m]));
    neighbours[m].resize(static_cast<size_t>(9 * room[m]));
    maps.push_back({words[m].data(), index, counts[m].data(), flat[m].data(), neighbours[m].data()});
  }
  find_tiles(mask.data(), 41, 300, maps, {{1, 2, 1}, {1, 1, 2}}, nullptr);
  number_words(maps, nullptr);
  list_pixels(maps, nullptr);
  for (int m = 0; m < 2; ++m) {
    add_result(counts[m]);
    add_result(flat[m]);
    neighbours[m].resize(static_cast<size_t>(counts[m][0]));
    add_result(neighbours[m]);
  }
}

void grown_mask() {
  const Raster size{3, 80};
  std::vector<uint8_t> mask;
  for (const int number : draw<int>(size.rows * size.columns, 40)) mask.push_back(number == 0);
  std::vector<uint32_t> bits(static_cast<size_t>(size.rows * size.words())), distances(mask.size());
  find_distances(mask.data(), size, 50, bits.data(), distances.data(), nullptr);
  add_result(distances);
  lay_runs(distances.data(), size, {2, 1}, mask.data(), nullptr);
  add_result(mask);
}

// Points, their ground, the cells of the high ones, and the voxels of all, with room for some.
void points_in_cells() {
  const int64_t count = 256, room = 100;
  const auto numbers = draw<float>(4 * count, 40);
  const Cloud cloud{numbers.data(), count, 4, 1};
  const CellGrid grid{{3, 40, 0, 30}, 1, 30, 37};
  std::vector<int32_t> cells(count), ranks(count), counts(kCells + 1), start(kCells), low(kCells);
  std::vector<uint16_t> levels(count);
  std::vector<float> level(kCells + 1);
  const Ground ground{cells.data(), ranks.data(), levels.data(), counts.data(), start.data(), low.data(), level.data()};
  find_ground(cloud, grid.range, ground, nullptr);
  add_result(low);
  std::vector<uint8_t> raster(30 * 37);
  mark_between(cloud, ground, {10, 20}, grid, raster.data(), nullptr);
  add_result(raster);

  std::vector<Word> words(30 * 2);
  std::vector<int32_t> number_of_cells(2);
  std::vector<Counter> bits(room), points(1);
  std::vector<CellSum> sums(room);
  std::vector<float> mean(room);
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
  const auto counts = draw<int32_t>(600, 257);
  std::vector<int64_t> start(counts.size() + 1);
  sum_counts(counts.data(), 600, start.data(), nullptr);
  add_result(start);
}

// Overlapping, dilated blocks, some of them across each border: gathered, written and added.
void blocks_there_and_back(const std::vector<int32_t>& indices) {
  const auto count = static_cast<int64_t>(indices.size() / 3);
  const Placed placed{indices.data(), count, {3, 2, -1, 2}, {5, 2, -1, 1}, 2, 4, 36, 43};
  const Layout image{36 * 43 * 4, 1, 43 * 4, 4}, block{3 * 5 * 4, 1, 5 * 4, 4};
  const auto x = draw<float>(2 * 36 * 43 * 4, 100);
  const auto pixels = static_cast<size_t>(count * 15);
  std::vector<float> blocks(pixels * 4), written(x), added(x);
  gather(4, placed, x.data(), image, blocks.data(), block, true, nullptr);
  add_result(blocks);
  std::vector<Link> first(2 * 36 * 43), next(pixels);
  for (size_t i = 0; i < blocks.size(); ++i) blocks[i] += static_cast<float>(i);
  link_pixels(placed, first.data(), next.data(), nullptr);
  write_pixels(4, placed, first.data(), next.data(), blocks.data(), block, written.data(), image, nullptr);
  add_pixels(Element::kFloat, placed, first.data(), next.data(), blocks.data(), block, added.data(), image, nullptr);
  add_result(written);
  add_result(added);
}

// Several rounds of candidates; more pairs of them near each other than a warp has lanes.
void boxes_of_a_crowd() {
  constexpr int64_t kRows = 300, kLimit = 80;
  std::vector<float> rows(kRows * (1 + kBox));
  for (float& value : rows) value = static_cast<float>(random_numbers() % 1000) / 500 - 1;
  const auto flat = draw<int64_t>(kRows, 12 * 12);
  const Classes classes{{threshold_of(0.4)}, {0}};
  const Outputs outputs{rows.data(), flat.data(), kRows, 1, {12, 0, 0, 0.8}};
  std::vector<Candidate> found(kRows);
  int32_t count;
  find_candidates(outputs, classes, found.data(), &count, nullptr);

  std::vector<Circle> circles(kRows), kept_circles(kLimit);
  std::vector<Footprint> footprints(kRows);
  std::vector<Voter> voters(kRows);
  std::vector<int32_t> owners(kRows), ranks(kLimit);
  const Ranking ranking{&count, circles.data(), footprints.data(), voters.data(), owners.data()};
  int64_t number;
  const Kept kept{ranks.data(), kept_circles.data(), &number};
  rank_candidates(outputs, classes, found.data(), ranking, nullptr);
  suppress(ranking, 0.1, kLimit, kept, nullptr);
  std::vector<float> boxes(7 * kLimit), scores(kLimit);
  std::vector<int64_t> labels(kLimit);
  vote(ranking, kept, kLimit, boxes.data(), scores.data(), labels.data(), nullptr);
  for (float& value : boxes) value = std::fabs(value) * 1e6f;
  add_result(boxes);
  add_result(std::vector<int64_t>{count, number});
}

// A map of 15 x 20 pixels, half of which are stored.
struct HalfAMap {
  std::vector<Word> words;
  std::vector<int32_t> count, neighbours;
  std::vector<int64_t> flat;
  Pixels pixels{{nullptr, 1, 15, 20, 0}, nullptr, nullptr, nullptr};

  HalfAMap() : words(15), count(2) {
    const auto mask = draw<uint8_t>(15 * 20, 2);
    Index& index = pixels.index;
    index.words = words.data();
    for (const uint8_t pixel : mask) index.capacity += pixel;
    flat.resize(static_cast<size_t>(index.capacity));
    neighbours.resize(9 * flat.size());
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
  std::vector<std::vector<uint16_t>> rows;
  std::vector<std::vector<float>> norms;

  uint16_t* numbers(size_t count) {
    auto& of = rows.emplace_back(count);
    for (uint16_t& bits : of) bits = float_to_bfloat16(static_cast<float>(random_numbers() % 3));
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
  const HalfAMap map;
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
  for (const auto& rows : parts.rows) add_result(rows);

  const auto bits = draw<int64_t>(static_cast<int64_t>(map.size()), 16);
  const auto last = draw<float>(static_cast<int64_t>(map.size()), 2), weights = draw<float>(9 * 5 * 48, 3);
  std::vector<float> sums(map.size() * 37);
  const VoxelConv voxels{map.pixels, bits.data(), last.data(), 5, 37, 48, weights.data(), parts.norm(37).scale,
                         map.pixels, sums.data()};
  convolve_voxels(Element::kFloat, voxels, nullptr);
  add_result(sums);
  std::vector<uint16_t> packed(9 * 256);
  pack_weights(type, weights.data(), 9, 15, 9, packed.data(), nullptr);
  add_result(packed);
}

}  // namespace

int main(int argc, char** argv) {
  cuda_on_cpu::seed(argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 1);
  sum_of_many();
  grown_mask();
  numbered_pixels();
  blocks_there_and_back(active_blocks());
  boxes_of_a_crowd();
  layers();
  points_in_cells();
  std::printf("%016llx\n", static_cast<unsigned long long>(all_results));
}
