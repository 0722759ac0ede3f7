// From the network's outputs to boxes: greedy non-maximum suppression of rotated rectangles on the ground.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>

#include "boxes.h"
#include "detect_arguments.h"

namespace sbnet {
namespace {

// A box that stays.
struct Kept {
  Footprint footprint;
  int64_t group;
  float yaw;
  double votes[kVotes];
};

// Candidates of the rows that are pixels, best first.
void find(const float* rows, const int64_t* flat, int64_t count, const std::vector<Threshold>& thresholds,
          std::vector<Candidate>& found) {
  const auto classes = static_cast<int64_t>(thresholds.size());
  found.clear();
  for (int64_t row = 0; row < count; ++row, rows += classes + kBox) {
    if (flat[row] < 0) continue;
    const Candidate best = best_class(rows, thresholds.data(), classes, row);
    if (best.label >= 0) found.push_back(best);
  }
  std::sort(found.begin(), found.end(), [](const Candidate& a, const Candidate& b) { return a.is_better_than(b); });
}

// What the candidates say. It must go through memory: between a sum in float64 and its use in float64 g++ 12 leaves out
// the rounding to float32 where it vectorizes.
void decode_all(const float* rows, const int64_t* flat, int64_t classes, const Place& place,
                const std::vector<Candidate>& candidates, std::vector<Said>& said) {
  said.clear();
  for (const Candidate& one : candidates)
    said.push_back(decode(rows + one.row * (classes + kBox) + classes, flat[one.row], place));
}

// rows float32 [P, classes + 8], flat int64 [P] (row * width + column of each pixel, negative where there is none),
// place x_min, y_min and side of a pixel -> boxes float32 [limit, 7], scores float32 [limit], classes int64 [limit],
// best first, and their number: each box that overlaps no better one of its group by more than `iou`, as the mean of it
// and of those that go for it, weighted by score and the fourth power of the overlap: neighbours, which overlap little,
// have no say.
std::tuple<Tensor, Tensor, Tensor, Tensor> detect(const Tensor& rows, const Tensor& flat, int64_t width,
                                                  std::vector<double> place, std::vector<double> thresholds,
                                                  std::vector<int64_t> groups, double iou, int64_t limit) {
  check_detect(rows, flat, width, place, thresholds, groups, iou, limit);
  const auto classes = static_cast<int64_t>(thresholds.size());
  const float* const data = rows.const_data_ptr<float>();
  const int64_t* const position = flat.const_data_ptr<int64_t>();
  std::vector<Threshold> least;
  for (const double threshold : thresholds) least.push_back(threshold_of(threshold));
  thread_local std::vector<Candidate> candidates;
  thread_local std::vector<Said> all_said;
  find(data, position, rows.size(0), least, candidates);
  decode_all(data, position, classes, {width, place[0], place[1], place[2]}, candidates, all_said);

  Tensor boxes = torch::stable::new_zeros(rows, {limit, 7}), scores = torch::stable::new_zeros(rows, {limit});
  Tensor labels = torch::stable::new_zeros(flat, {limit}), number = torch::stable::new_zeros(flat, {});
  std::vector<Kept> kept;
  for (size_t rank = 0; rank < candidates.size(); ++rank) {
    const Candidate& one = candidates[rank];
    const Said& said = all_said[rank];
    const Footprint footprint = footprint_of(said.box);
    // The first better box that it overlaps has its vote; where there is none it stays itself.
    double shared = 1;
    auto owner = std::find_if(kept.begin(), kept.end(), [&](const Kept& better) {
      return better.group == groups[one.label] && (shared = overlap(better.footprint, footprint)) > iou;
    });
    const bool stays = owner == kept.end();
    if (stays) {
      const auto count = static_cast<int64_t>(kept.size());
      if (count == limit) continue;
      scores.mutable_data_ptr<float>()[count] = one.score;
      labels.mutable_data_ptr<int64_t>()[count] = one.label;
      owner = kept.insert(owner, Kept{footprint, groups[one.label], said.box[6], {}});
      shared = 1;
    }
    // What is not finite would spoil the mean.
    if (!stays && !said.is_finite()) continue;
    double vote[kVotes];
    vote_of(said, one.score, shared, vote);
    for (int i = 0; i < kVotes; ++i) owner->votes[i] += vote[i];
  }
  float* box = boxes.mutable_data_ptr<float>();
  for (const Kept& one : kept) {
    agree(one.votes, one.yaw, box);
    box += 7;
  }
  *number.mutable_data_ptr<int64_t>() = static_cast<int64_t>(kept.size());
  return {boxes, scores, labels, number};
}

}  // namespace
}  // namespace sbnet

STABLE_TORCH_LIBRARY_IMPL(sbnet, CPU, m) { m.impl("detect", TORCH_BOX(&sbnet::detect)); }
