// detect: from the network's outputs to boxes.
#include "detect.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>

#include "../detect_arguments.h"
#include "host.h"

namespace sbnet::cuda {
namespace {

// Each group is named by its first class.
Classes classes_of(const std::vector<double>& thresholds, const std::vector<int64_t>& groups) {
  check(thresholds.size() <= kMostClasses, "detect: a GPU takes at most ", kMostClasses, " classes, got ",
        thresholds.size());
  Classes classes{};
  for (size_t i = 0; i < thresholds.size(); ++i) {
    classes.thresholds[i] = threshold_of(thresholds[i]);
    const auto first = std::find(groups.begin(), groups.end(), groups[i]);
    classes.groups[i] = static_cast<int32_t>(first - groups.begin());
  }
  return classes;
}

// As that of the CPU. The host does not wait for the device: temporary tensors have room for every row.
std::tuple<Tensor, Tensor, Tensor, Tensor> detect(const Tensor& rows, const Tensor& flat, int64_t width,
                                                  std::vector<double> place, std::vector<double> thresholds,
                                                  std::vector<int64_t> groups, double iou, int64_t limit) {
  constexpr const char* op = "detect";
  check_detect(rows, flat, width, place, thresholds, groups, iou, limit);
  const Classes classes = classes_of(thresholds, groups);
  const OnDevice device(rows);
  const int64_t count = rows.size(0), most = smaller(limit, count);
  const Outputs outputs{rows.const_data_ptr<float>(), flat.const_data_ptr<int64_t>(), count,
                        static_cast<int64_t>(thresholds.size()), {width, place[0], place[1], place[2]}};
  const Tensor boxes = torch::stable::new_empty(rows, {limit, 7}), scores = torch::stable::new_empty(rows, {limit});
  const Tensor labels = torch::stable::new_empty(flat, {limit}), number = torch::stable::new_empty(flat, {});
  Scratch scratch(op, "rows", rows);
  Candidate* const found = scratch.take<Candidate>(count);
  int32_t* const found_count = scratch.take<int32_t>(1);
  const Ranking ranking{found_count, scratch.take<Circle>(count), scratch.take<Footprint>(count),
                        scratch.take<Voter>(count), scratch.take<Bits>(count * kRoundWords),
                        scratch.take<int32_t>(count)};
  const Kept kept{scratch.take<int32_t>(most), scratch.take<Circle>(most), number.mutable_data_ptr<int64_t>()};
  find_candidates(outputs, classes, found, found_count, device.stream);
  rank_candidates(outputs, classes, found, ranking, device.stream);
  suppress(ranking, count, iou, limit, kept, device.stream);
  vote(ranking, kept, limit, boxes.mutable_data_ptr<float>(), scores.mutable_data_ptr<float>(),
       labels.mutable_data_ptr<int64_t>(), device.stream);
  return {boxes, scores, labels, number};
}

}  // namespace
}  // namespace sbnet::cuda

STABLE_TORCH_LIBRARY_IMPL(SBNET_LIBRARY, SBNET_DEVICE, m) { m.impl("detect", TORCH_BOX(&sbnet::cuda::detect)); }
