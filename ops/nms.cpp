// Greedy non-maximum suppression of rotated rectangles on the ground.
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

bool overlap(const Footprint& a, const Footprint& b, double iou) {
  if (std::hypot(a.x - b.x, a.y - b.y) >= a.radius + b.radius) return 0 > iou;
  const double shared = intersection(a, b), all = a.area + b.area - shared;
  return (all > 0 ? shared / all : 0) > iou;
}

// boxes float32 [M, 7], best first -> int64 numbers of those kept, at most `limit`: each that overlaps none kept before
// it by more than `iou`.
Tensor rotated_nms(const Tensor& boxes, double iou, int64_t limit) {
  constexpr const char* op = "rotated_nms";
  check(boxes.dim() == 2 && boxes.size(1) == 7 && boxes.scalar_type() == ScalarType::Float && boxes.is_contiguous(), op,
        ": boxes must be contiguous float32 [M, 7], got ", describe(boxes));
  check(limit >= 0, op, ": limit must be 0 or more, got ", limit);
  const float* const data = boxes.const_data_ptr<float>();
  std::vector<Footprint> kept;
  std::vector<int64_t> numbers;
  for (int64_t i = 0; i < boxes.size(0) && static_cast<int64_t>(kept.size()) < limit; ++i) {
    const Footprint one = footprint_of(data + 7 * i);
    if (std::any_of(kept.begin(), kept.end(), [&](const Footprint& better) { return overlap(better, one, iou); }))
      continue;
    kept.push_back(one);
    numbers.push_back(i);
  }
  Tensor result = torch::stable::new_empty(boxes, {static_cast<int64_t>(numbers.size())}, ScalarType::Long);
  std::copy(numbers.begin(), numbers.end(), result.mutable_data_ptr<int64_t>());
  return result;
}

}  // namespace
}  // namespace sbnet

STABLE_TORCH_LIBRARY_FRAGMENT(sbnet, m) { m.def("rotated_nms(Tensor boxes, float iou, int limit) -> Tensor"); }

STABLE_TORCH_LIBRARY_IMPL(sbnet, CPU, m) { m.impl("rotated_nms", TORCH_BOX(&sbnet::rotated_nms)); }
