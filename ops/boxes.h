// Boxes from the network's outputs, for every device: the class of a pixel, its box, overlaps on the ground, votes.
#pragma once

#include <cmath>
#include <cstdint>

#include "blocks.h"

namespace sbnet {

// --- pixels

// Outputs of a pixel behind the logits: log size, dx, dy, z, cosine and sine of the yaw.
constexpr int64_t kBox = 8;

// A score that a pixel must exceed to be of a class. Few come near: the others are seen by their logits.
struct Threshold {
  float logit, score;
};

inline Threshold threshold_of(double score) {
  return {static_cast<float>(std::log(score / (1 - score)) - 1e-3), static_cast<float>(score)};
}

// A pixel above its threshold, or none where `label` is -1.
struct Candidate {
  float score;
  int32_t row, label;

  SBNET_BOTH bool is_better_than(const Candidate& other) const {
    return score > other.score || (score == other.score && row < other.row);
  }
};

// The class of a row of outputs with the highest score of those above their thresholds.
inline SBNET_BOTH Candidate best_class(const float* logits, const Threshold* thresholds, int64_t classes, int64_t row) {
  Candidate best{0, static_cast<int32_t>(row), -1};
  for (int64_t label = 0; label < classes; ++label) {
    if (!(logits[label] >= thresholds[label].logit)) continue;
    const float score = 1.0f / (1.0f + std::exp(-logits[label]));
    if (score > thresholds[label].score && score > best.score) best = {score, best.row, static_cast<int32_t>(label)};
  }
  return best;
}

// Where pixels lie on the ground.
struct Place {
  int64_t width;
  double x_min, y_min, step;
};

// What a pixel says of its object.
struct Said {
  float box[7];      // cx, cy, cz, length, width, height, yaw
  float heading[2];  // cosine and sine as they came: the longer, the surer

  SBNET_BOTH bool is_finite() const {
    bool finite = std::isfinite(heading[0]) && std::isfinite(heading[1]);
    for (const float value : box) finite = finite && std::isfinite(value);
    return finite;
  }
};

// `output`: the kBox of the pixel at row * width + column = `flat`.
inline SBNET_BOTH Said decode(const float* output, int64_t flat, const Place& place) {
  const double x = place.x_min + (static_cast<double>(flat % place.width) + 0.5) * place.step;
  const double y = place.y_min + (static_cast<double>(flat / place.width) + 0.5) * place.step;
  return {{static_cast<float>(x + output[3]), static_cast<float>(y + output[4]), output[5], std::exp(output[0]),
           std::exp(output[1]), std::exp(output[2]), std::atan2(output[7], output[6])},
          {output[6], output[7]}};
}

// --- overlaps

struct Point {
  double x, y;
};

// A rectangle on the ground: centre, area, radius of the circle around it, and its corners, counter-clockwise, relative
// to the centre.
struct Footprint {
  double x, y, area, radius;
  Point corners[4];
};

inline SBNET_BOTH Footprint footprint_of(const float* box) {
  const double length = box[3], width = box[4], cosine = std::cos(double{box[6]}), sine = std::sin(double{box[6]});
  Footprint f{box[0], box[1], length * width, std::hypot(length, width) / 2, {}};
  for (int i = 0; i < 4; ++i) {
    const double along = (i == 0 || i == 3 ? 0.5 : -0.5) * length, across = (i < 2 ? 0.5 : -0.5) * width;
    f.corners[i] = {cosine * along - sine * across, sine * along + cosine * across};
  }
  return f;
}

// On which side of the line from a to b a point lies, times its distance and the line's length; left is positive.
inline SBNET_BOTH double side(Point a, Point b, Point p) {
  return (b.x - a.x) * (p.y - a.y) - (b.y - a.y) * (p.x - a.x);
}

// A cut adds one corner at most; to a sliver that rounding has bent, up to half as many again: 4, 6, 9, 13, 19.
constexpr int kMostCorners = 19;

// Leaves of a polygon in `cut` what lies left of the line; returns how many corners that has.
inline SBNET_BOTH int cut_off(const Point* shape, int corners, Point from, Point to, Point* cut) {
  if (corners == 0) return 0;
  // Each corner is judged once: were it on one side for one edge and on the other for the next, there would be more.
  const double first = side(from, to, shape[0]);
  double here = first;
  int kept = 0;
  for (int i = 0; i < corners; ++i) {
    const bool last = i + 1 == corners;
    const Point p = shape[i], q = shape[last ? 0 : i + 1];
    const double next = last ? first : side(from, to, q);
    if (here >= 0) cut[kept++] = p;
    if ((here > 0 && next < 0) || (here < 0 && next > 0)) {
      const double t = here / (here - next);
      cut[kept++] = {p.x + t * (q.x - p.x), p.y + t * (q.y - p.y)};
    }
    here = next;
  }
  return kept;
}

// Area of the intersection: the first footprint is cut by the four edges of the other (Sutherland, Hodgman 1974).
inline SBNET_BOTH double intersection(const Footprint& a, const Footprint& b) {
  // Coordinates relative to a keep the arithmetic exact far from the origin.
  const double x = b.x - a.x, y = b.y - a.y;
  Point shapes[2][kMostCorners];
  for (int i = 0; i < 4; ++i) shapes[0][i] = a.corners[i];
  int corners = 4;
  for (int edge = 0; edge < 4; ++edge) {
    const Point from = b.corners[edge], to = b.corners[(edge + 1) % 4];
    corners = cut_off(shapes[edge % 2], corners, {from.x + x, from.y + y}, {to.x + x, to.y + y}, shapes[1 - edge % 2]);
  }
  double twice = 0;
  for (int i = 0; i < corners; ++i) {
    const Point p = shapes[0][i], q = shapes[0][i + 1 == corners ? 0 : i + 1];
    twice += p.x * q.y - q.x * p.y;
  }
  return twice > 0 ? twice / 2 : 0;
}

// Intersection over union.
inline SBNET_BOTH double overlap(const Footprint& a, const Footprint& b) {
  if (std::hypot(a.x - b.x, a.y - b.y) >= a.radius + b.radius) return 0;
  const double shared = intersection(a, b), all = a.area + b.area - shared;
  return all > 0 ? shared / all : 0;
}

// --- votes

// What the boxes around the best one of an object say together, as sums: weight, then weighted centre and size, axis
// (twice the yaw), heading.
constexpr int kVotes = 11, kAxis = 7, kHeading = 9;

// The vote of a box that overlaps the best one by `shared`.
inline SBNET_BOTH void vote_of(const Said& said, float score, double shared, double* vote) {
  const double near = shared * shared, weight = score * near * near, twice = 2 * double{said.box[6]};
  vote[0] = weight;
  for (int i = 0; i < 6; ++i) vote[1 + i] = weight * said.box[i];
  vote[kAxis] = weight * std::cos(twice);
  vote[kAxis + 1] = weight * std::sin(twice);
  vote[kHeading] = weight * said.heading[0];
  vote[kHeading + 1] = weight * said.heading[1];
}

// Votes for axes cancel where what is left of their weight is no more than rounding: its direction means nothing.
constexpr double kCancelled = 1e-6;

// Means of centre and size; headings that differ by half a turn agree on the axis, then outvote each other. Where axes
// cancel, such as those of two headings across each other, the best box keeps its yaw.
inline SBNET_BOTH void agree(const double* votes, float best_yaw, float* box) {
  for (int i = 0; i < 6; ++i) box[i] = static_cast<float>(votes[1 + i] / votes[0]);
  const double *axis = votes + kAxis, *heading = votes + kHeading;
  const double along = std::atan2(axis[1], axis[0]) / 2, cosine = std::cos(along), sine = std::sin(along);
  const double way = heading[0] * cosine + heading[1] * sine < 0 ? -1 : 1;
  const bool cancelled = std::hypot(axis[0], axis[1]) < kCancelled * votes[0];
  box[6] = cancelled ? best_yaw : static_cast<float>(std::atan2(way * sine, way * cosine));
}

}  // namespace sbnet
