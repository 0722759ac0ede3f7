// The launches of detect: candidates in any order, the same best first, who owns whom, and what they say together.
#pragma once

#include "../boxes.h"
#include "launch.h"

namespace sbnet::cuda {

constexpr int kMostClasses = 32;

// The network's outputs of some rows of pixels; those whose `flat` is negative are none.
struct Outputs {
  const float* rows;  // [count, classes + kBox]
  const int64_t* flat;
  int64_t count, classes;
  Place place;
};

// What the classes ask of a pixel, and which of them suppress each other: those of one group.
struct Classes {
  Threshold thresholds[kMostClasses];
  int32_t groups[kMostClasses];
};

// The circle around a footprint, and the group of its box: what shows of most pairs that they do not overlap.
struct alignas(16) Circle {
  float x, y, radius;
  int32_t group;
};

struct Voter {
  Said said;
  float score;
  int32_t label;
};

// Which candidates of a round are better than one of it and overlap it: a bit for each.
using Bits = unsigned long long;
constexpr int kRoundWords = 4;

// The candidates, best first.
struct Ranking {
  const int32_t* count;  // how many
  Circle* circles;
  Footprint* footprints;
  Voter* voters;
  Bits* overlaps;   // [candidates, kRoundWords]
  int32_t* owners;  // number of the box that each has a vote for, or kNobody
};

constexpr int32_t kNobody = -1;

// The candidates that become boxes.
struct Kept {
  int32_t* ranks;
  Circle* circles;
  int64_t* count;
};

// Room for as many candidates as there are rows; `count` is their number.
void find_candidates(const Outputs& outputs, const Classes& classes, Candidate* found, int32_t* count, Stream stream);

// Decodes the candidates and puts them in order, all but their owners.
void rank_candidates(const Outputs& outputs, const Classes& classes, const Candidate* found, const Ranking& ranking,
                     Stream stream);

// Greedy non-maximum suppression of at most `most` candidates: `limit` boxes stay at most.
void suppress(const Ranking& ranking, int64_t most, double iou, int64_t limit, const Kept& kept, Stream stream);

// boxes [limit, 7], scores [limit] and labels [limit] of what is kept, then zeros.
void vote(const Ranking& ranking, const Kept& kept, int64_t limit, float* boxes, float* scores, int64_t* labels,
          Stream stream);

}  // namespace sbnet::cuda
