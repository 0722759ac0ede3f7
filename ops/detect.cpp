// From the network's outputs to boxes: greedy non-maximum suppression of rotated rectangles on the ground.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "check.h"

namespace sbnet {
namespace {

struct Point {
  double x, y;
};

// On which side of the line from a to b a point lies, times its distance and the line's length; left is positive.
double side(Point a, Point b, Point p) { return (b.x - a.x) * (p.y - a.y) - (b.y - a.y) * (p.x - a.x); }

// A footprint: corners counter-clockwise, area, and the radius of the circle around it.
struct Footprint {
  double x, y, area, radius;
  std::array<Point, 4> corners;
};

// box: cx, cy, cz, length, width, height, yaw.
Footprint footprint_of(const float* box) {
  const double length = box[3], width = box[4], cosine = std::cos(double{box[6]}), sine = std::sin(double{box[6]});
  Footprint f{box[0], box[1], length * width, std::hypot(length, width) / 2, {}};
  constexpr double signs[4][2] = {{0.5, 0.5}, {-0.5, 0.5}, {-0.5, -0.5}, {0.5, -0.5}};
  for (int i = 0; i < 4; ++i) {
    const double along = signs[i][0] * length, across = signs[i][1] * width;
    f.corners[i] = {cosine * along - sine * across, sine * along + cosine * across};
  }
  return f;
}

// Area of the intersection: the first footprint is cut by the four edges of the other (Sutherland, Hodgman 1974).
double intersection(const Footprint& a, const Footprint& b) {
  // Coordinates relative to a keep the arithmetic exact far from the origin.
  std::array<Point, 4> edge = b.corners;
  for (Point& p : edge) p = {p.x + (b.x - a.x), p.y + (b.y - a.y)};
  // A cut adds one corner at most; to a sliver that rounding has bent, up to half as many again: 4, 6, 9, 13, 19.
  std::array<Point, 19> shape, cut;
  int corners = 4;
  std::copy(a.corners.begin(), a.corners.end(), shape.begin());
  for (int e = 0; e < 4 && corners > 0; ++e) {
    const Point from = edge[e], to = edge[(e + 1) % 4];
    int kept = 0;
    for (int i = 0; i < corners; ++i) {
      const Point p = shape[i], q = shape[(i + 1) % corners];
      const double sp = side(from, to, p), sq = side(from, to, q);
      if (sp >= 0) cut[kept++] = p;
      if ((sp > 0 && sq < 0) || (sp < 0 && sq > 0)) {
        const double t = sp / (sp - sq);
        cut[kept++] = {p.x + t * (q.x - p.x), p.y + t * (q.y - p.y)};
      }
    }
    corners = kept;
    std::copy_n(cut.begin(), kept, shape.begin());
  }
  double twice = 0;
  for (int i = 0; i < corners; ++i) {
    const Point p = shape[i], q = shape[(i + 1) % corners];
    twice += p.x * q.y - q.x * p.y;
  }
  return std::max(twice / 2, 0.0);
}

// Intersection over union.
double overlap(const Footprint& a, const Footprint& b) {
  if (std::hypot(a.x - b.x, a.y - b.y) >= a.radius + b.radius) return 0;
  const double shared = intersection(a, b), all = a.area + b.area - shared;
  return all > 0 ? shared / all : 0;
}

// What the boxes around the best one of an object say together: sums of their weighted values.
struct Votes {
  double weight = 0, place[6] = {}, axis[2] = {}, heading[2] = {};

  // `box` as of `decode`, and the cosine and sine that the pixel gave: the longer, the surer.
  void add(const float* box, float cosine, float sine, double w) {
    weight += w;
    for (int i = 0; i < 6; ++i) place[i] += w * box[i];
    axis[0] += w * std::cos(2 * double{box[6]}), axis[1] += w * std::sin(2 * double{box[6]});
    heading[0] += w * cosine, heading[1] += w * sine;
  }

  // Means of place and size; headings that differ by half a turn agree on the axis, then outvote each other.
  void result(float* box) const {
    for (int i = 0; i < 6; ++i) box[i] = static_cast<float>(place[i] / weight);
    const double along = std::atan2(axis[1], axis[0]) / 2, cosine = std::cos(along), sine = std::sin(along);
    const double way = heading[0] * cosine + heading[1] * sine < 0 ? -1 : 1;
    box[6] = static_cast<float>(std::atan2(way * sine, way * cosine));
  }
};

// A box that stays.
struct Kept {
  Footprint footprint;
  int64_t group;
  Votes votes;
};

// A pixel above its threshold.
struct Candidate {
  float score;
  int32_t row, label;
};

// Outputs of a pixel behind the logits: log size, dx, dy, z, cosine and sine of the yaw.
constexpr int64_t kBox = 8;

// The class of each pixel with the highest score of those above their thresholds; pixels without one are left out.
void find(const float* rows, int64_t count, int64_t classes, const std::vector<double>& thresholds,
          std::vector<Candidate>& found) {
  // Few pixels come near a threshold: the others are seen by their logits.
  std::vector<float> least;
  for (const double t : thresholds) least.push_back(static_cast<float>(std::log(t / (1 - t)) - 1e-3));
  found.clear();
  for (int64_t row = 0; row < count; ++row, rows += classes + kBox) {
    Candidate best{0, static_cast<int32_t>(row), -1};
    for (int64_t label = 0; label < classes; ++label) {
      if (!(rows[label] >= least[label])) continue;
      const float score = 1.0f / (1.0f + std::exp(-rows[label]));
      if (score > static_cast<float>(thresholds[label]) && score > best.score) best = {score, best.row, static_cast<int32_t>(label)};
    }
    if (best.label >= 0) found.push_back(best);
  }
}

// The box of a pixel's outputs; `x` and `y` are the pixel's centre.
void decode(const float* output, double x, double y, float* box) {
  const float values[7] = {static_cast<float>(x + output[3]), static_cast<float>(y + output[4]), output[5],
                           std::exp(output[0]), std::exp(output[1]), std::exp(output[2]),
                           std::atan2(output[7], output[6])};
  std::copy_n(values, 7, box);
}

// rows float32 [P, classes + 8], flat int64 [P] (row * width + column of each pixel), place x_min, y_min and side of a
// pixel -> boxes float32 [limit, 7], scores float32 [limit], classes int64 [limit], best first, and their number: each
// box that overlaps no better one of its group by more than `iou`, as the mean of it and of those that go for it,
// weighted by score and the fourth power of the overlap: neighbours, which overlap little, have no say.
std::tuple<Tensor, Tensor, Tensor, Tensor> detect(const Tensor& rows, const Tensor& flat, int64_t width,
                                                  std::vector<double> place, std::vector<double> thresholds,
                                                  std::vector<int64_t> groups, double iou, int64_t limit) {
  constexpr const char* op = "detect";
  const auto classes = static_cast<int64_t>(thresholds.size());
  check(rows.dim() == 2 && rows.size(1) == classes + kBox && rows.scalar_type() == ScalarType::Float &&
            rows.is_contiguous() && rows.size(0) <= kHighest,
        op, ": rows must be contiguous float32 [P, ", classes + kBox, "], got ", describe(rows));
  check(flat.dim() == 1 && flat.size(0) == rows.size(0) && flat.scalar_type() == ScalarType::Long && flat.is_contiguous(),
        op, ": flat must be contiguous int64 [", rows.size(0), "], got ", describe(flat));
  check(classes >= 1 && groups.size() == thresholds.size(), op, ": groups must be ", classes, ", one for each class");
  check(place.size() == 3 && width >= 1, op, ": place must be x_min, y_min and the side of a pixel, width positive");
  check(limit >= 0 && limit <= kHighest, op, ": limit must be 0 or more, got ", limit);

  const float* const data = rows.const_data_ptr<float>();
  const int64_t* const position = flat.const_data_ptr<int64_t>();
  thread_local std::vector<Candidate> candidates;
  find(data, rows.size(0), classes, thresholds, candidates);
  std::sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) {
    return a.score > b.score || (a.score == b.score && a.row < b.row);
  });

  Tensor boxes = torch::stable::new_zeros(rows, {limit, 7}), scores = torch::stable::new_zeros(rows, {limit});
  Tensor labels = torch::stable::new_zeros(flat, {limit}), number = torch::stable::new_zeros(flat, {});
  float* box = boxes.mutable_data_ptr<float>();
  std::vector<Kept> kept;
  for (const Candidate& one : candidates) {
    const double x = place[0] + (static_cast<double>(position[one.row] % width) + 0.5) * place[2];
    const double y = place[1] + (static_cast<double>(position[one.row] / width) + 0.5) * place[2];
    const float* const output = data + one.row * (classes + kBox) + classes;
    float values[7];
    decode(output, x, y, values);
    const Footprint footprint = footprint_of(values);
    // The first better box that it overlaps has its vote; where there is none it stays itself.
    double shared = 1;
    auto owner = std::find_if(kept.begin(), kept.end(), [&](const Kept& better) {
      return better.group == groups[one.label] && (shared = overlap(better.footprint, footprint)) > iou;
    });
    if (owner == kept.end()) {
      const auto count = static_cast<int64_t>(kept.size());
      if (count == limit) continue;
      scores.mutable_data_ptr<float>()[count] = one.score;
      labels.mutable_data_ptr<int64_t>()[count] = one.label;
      owner = kept.insert(owner, Kept{footprint, groups[one.label], {}});
      shared = 1;
    }
    // What is not finite would spoil the mean.
    const auto finite = [](float value) { return std::isfinite(value); };
    if (owner->votes.weight > 0 && !(std::all_of(values, values + 7, finite) && finite(output[6]) && finite(output[7])))
      continue;
    const double near = shared * shared;
    owner->votes.add(values, output[6], output[7], one.score * near * near);
  }
  for (const Kept& one : kept) {
    one.votes.result(box);
    box += 7;
  }
  *number.mutable_data_ptr<int64_t>() = static_cast<int64_t>(kept.size());
  return {boxes, scores, labels, number};
}

}  // namespace
}  // namespace sbnet

STABLE_TORCH_LIBRARY_IMPL(sbnet, CPU, m) { m.impl("detect", TORCH_BOX(&sbnet::detect)); }
