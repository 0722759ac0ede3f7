// From the network's outputs to boxes: greedy non-maximum suppression of rotated rectangles on the ground. How many
// candidates there are only the device knows. They are found in an order of chance; from their ranks on nothing is.
#include "detect.h"

#include "device.h"

namespace sbnet::cuda {
namespace {

// Candidates that one round of `suppress` decides, a thread for each; and bits for as many, in words.
constexpr int kRound = kThreads, kWarps = kThreads / kWarp, kWordBits = 64;
static_assert(kRound == kRoundWords * kWordBits);
constexpr int32_t kUndecided = INT32_MAX;
constexpr int kResidentWithPolygons = 2;  // 128 registers

__device__ __forceinline__ uint32_t lanes_before(int lane) { return (1u << lane) - 1; }

// A thread for each row.
__global__ void __launch_bounds__(kThreads, kResident) find_kernel(const Outputs outputs, const Classes classes,
                                                                   Candidate* found, int32_t* count) {
  for (int64_t row = thread_of_grid(); row < outputs.count; row += threads_of_grid()) {
    if (outputs.flat[row] < 0) continue;
    const float* const logits = outputs.rows + row * (outputs.classes + kBox);
    const Candidate best = best_class(logits, classes.thresholds, outputs.classes, row);
    if (best.label >= 0) found[atomicAdd(count, 1)] = best;
  }
}

// A warp for each candidate counts those that are better.
__global__ void __launch_bounds__(kThreads, kResident) rank_kernel(const Outputs outputs, const Classes classes,
                                                                   const Candidate* found, const Ranking ranking) {
  const int64_t count = *ranking.count;
  const int lane = lane_of_warp();
  for (int64_t i = thread_of_grid() / kWarp; i < count; i += threads_of_grid() / kWarp) {
    const Candidate mine = found[i];
    int better = 0;
    for (int64_t j = lane; j < count; j += kWarp) better += found[j].is_better_than(mine);
    const int64_t rank = __reduce_add_sync(~0u, better);
    if (lane > 0) continue;
    const float* const output = outputs.rows + mine.row * (outputs.classes + kBox) + outputs.classes;
    const Said said = decode(output, outputs.flat[mine.row], outputs.place);
    const Footprint footprint = footprint_of(said.box);
    const auto radius = static_cast<float>(footprint.radius);
    ranking.circles[rank] = {said.box[0], said.box[1], radius, classes.groups[mine.label]};
    ranking.footprints[rank] = footprint;
    ranking.voters[rank] = {said, mine.score, mine.label};
  }
}

// --- suppression

// Whether two boxes are of a group and their circles may meet. No is sure, whatever is rounded.
__device__ __forceinline__ bool may_overlap(const Circle& a, const Circle& b) {
  const float x = a.x - b.x, y = a.y - b.y, reach = a.radius + b.radius;
  return a.group == b.group && !(x * x + y * y > reach * reach * 1.00001f + 1e-30f);
}

// A warp for 32 candidates of a round that may be better than one of it: which of them it overlaps. Most frames have a
// single round, and all their pairs are compared side by side.
__global__ void __launch_bounds__(kThreads, kResidentWithPolygons) overlap_kernel(const Ranking ranking, double iou) {
  constexpr int kParts = kRound / kWarp;
  const int64_t count = *ranking.count;
  auto* const words = reinterpret_cast<uint32_t*>(ranking.overlaps);
  for (int64_t item = warp_of_grid(); item < count * kParts; item += warps_of_grid()) {
    const int64_t mine = item / kParts, better = mine / kRound * kRound + item % kParts * kWarp + lane_of_warp();
    const bool overlaps = better < mine && may_overlap(ranking.circles[mine], ranking.circles[better]) &&
                          overlap(ranking.footprints[better], ranking.footprints[mine]) > iou;
    const uint32_t bits = __ballot_sync(~0u, overlaps);
    if (lane_of_warp() == 0) words[item] = bits;
  }
}

// A candidate of the round, and a kept box.
struct Pair {
  int32_t candidate, box;
};

// What the threads of `suppress` share.
struct Round {
  Pair* pairs;      // of each warp those that wait for an exact look
  int32_t* owners;  // of each candidate the first kept box of an earlier round that it overlaps
  Bits* overlaps;   // [kRound, kRoundWords]: those of the round that are better and that it overlaps
  int64_t* kept;    // how many boxes are kept after this round

  __host__ __device__ explicit Round(Arena& arena)
      : pairs(arena.take<Pair>(kWarps * 2 * kWarp)),
        owners(arena.take<int32_t>(kRound)),
        overlaps(arena.take<Bits>(kRound * kRoundWords)),
        kept(arena.take<int64_t>(1)) {}
};

// Compares the candidates from `first` on with the boxes of earlier rounds. Few pairs are near each other: a warp
// collects these until there is one for each lane.
__device__ void compare(const Ranking& ranking, int64_t first, int size, const Kept& kept, int64_t boxes, double iou,
                        const Round& round) {
  const int lane = lane_of_warp(), mine = static_cast<int>(threadIdx.x);
  Pair* const pairs = round.pairs + threadIdx.x / kWarp * 2 * kWarp;
  const auto look = [&](Pair pair) {
    const Footprint& better = ranking.footprints[kept.ranks[pair.box]];
    if (overlap(better, ranking.footprints[first + pair.candidate]) > iou)
      atomicMin(round.owners + pair.candidate, pair.box);
  };
  const Circle circle = ranking.circles[first + (mine < size ? mine : 0)];
  int waiting = 0;
  bool more = boxes > 0;
  for (int32_t box = 0; more; ++box) {
    more = box < boxes;
    const bool near = more && mine < size && may_overlap(circle, kept.circles[box]);
    const uint32_t lanes = __ballot_sync(~0u, near);
    if (near) pairs[waiting + __popc(lanes & lanes_before(lane))] = {mine, box};
    waiting += __popc(lanes);
    if (more && waiting < kWarp) continue;
    const int ready = waiting < kWarp ? waiting : kWarp;
    waiting -= ready;
    __syncwarp();  // pairs are written
    if (lane < ready) look(pairs[waiting + lane]);
    __syncwarp();  // and read, before others take their place
  }
}

// In order: a candidate that overlaps a box is that one's; another is kept while there is room.
__device__ int64_t decide(const Ranking& ranking, int64_t first, int size, const Kept& kept, int64_t boxes,
                          int64_t limit, const Round& round) {
  Bits stay[kRoundWords] = {};
  int64_t count = boxes;
  for (int i = 0; i < size; ++i) {
    int32_t owner = round.owners[i];
    int64_t before = boxes;
#pragma unroll
    for (int word = 0; word < kRoundWords; ++word) {
      const Bits better = round.overlaps[i * kRoundWords + word] & stay[word];
      if (owner == kUndecided && better)
        owner = static_cast<int32_t>(before + __popcll(stay[word] & ((better & (~better + 1)) - 1)));
      before += __popcll(stay[word]);
    }
    if (owner == kUndecided && count < limit) {
#pragma unroll
      for (int word = 0; word < kRoundWords; ++word)
        if (i / kWordBits == word) stay[word] |= Bits{1} << i % kWordBits;
      owner = static_cast<int32_t>(count);
      kept.ranks[count] = static_cast<int32_t>(first + i);
      kept.circles[count++] = ranking.circles[first + i];
    }
    ranking.owners[first + i] = owner == kUndecided ? kNobody : owner;
  }
  return count;
}

// One block of the grid for all candidates, kRound of them at a time.
__global__ void __launch_bounds__(kThreads, kResidentWithPolygons)
    suppress_kernel(const Ranking ranking, double iou, int64_t limit, const Kept kept) {
  Arena arena(shared_memory());
  const Round round(arena);
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t count = *ranking.count;
  int64_t boxes = 0;
  for (int64_t first = 0; first < count; first += kRound) {
    const auto size = static_cast<int>(smaller(count - first, kRound));
    round.owners[thread] = kUndecided;
    for (int word = thread; word < size * kRoundWords; word += kThreads)
      round.overlaps[word] = ranking.overlaps[first * kRoundWords + word];
    __syncthreads();
    compare(ranking, first, size, kept, boxes, iou, round);
    __syncthreads();
    if (thread == 0) *round.kept = decide(ranking, first, size, kept, boxes, limit, round);
    __syncthreads();
    boxes = *round.kept;
  }
  if (thread == 0) *kept.count = boxes;
}

// --- votes

// Sums what the candidates of a box say, in their order: lane i < kVotes has sum i. `votes` is room for a warp's.
__device__ double sum_votes(const Ranking& ranking, int64_t box, int64_t best, double* votes) {
  const int64_t count = *ranking.count;
  const int lane = lane_of_warp();
  double sum = 0;
  for (int64_t first = best; first < count; first += kWarp) {
    const int64_t i = first + lane;
    // What is not finite would spoil the mean; the best one stays what it is.
    const bool votes_here = i < count && ranking.owners[i] == box && (i == best || ranking.voters[i].said.is_finite());
    const uint32_t lanes = __ballot_sync(~0u, votes_here);
    if (!lanes) continue;
    if (votes_here) {
      const double shared = i == best ? 1 : overlap(ranking.footprints[best], ranking.footprints[i]);
      vote_of(ranking.voters[i].said, ranking.voters[i].score, shared, votes + lane * kVotes);
    }
    __syncwarp();  // votes are written
    for (int voter = 0; voter < kWarp && lane < kVotes; ++voter)
      if (lanes >> voter & 1) sum += votes[voter * kVotes + lane];
    __syncwarp();  // and read, before others take their place
  }
  return sum;
}

// A warp for each box.
__global__ void __launch_bounds__(kThreads, kResidentWithPolygons)
    vote_kernel(const Ranking ranking, const Kept kept, int64_t limit, float* boxes, float* scores, int64_t* labels) {
  const int lane = lane_of_warp();
  double* const votes = Arena(shared_memory()).take<double>(kThreads * kVotes) + threadIdx.x / kWarp * kWarp * kVotes;
  for (int64_t box = thread_of_grid() / kWarp; box < limit; box += threads_of_grid() / kWarp) {
    if (box >= *kept.count) {
      if (lane < 7) boxes[7 * box + lane] = 0;
      if (lane == 0) scores[box] = 0;
      if (lane == 0) labels[box] = 0;
      continue;
    }
    const int64_t best = kept.ranks[box];
    const double sum = sum_votes(ranking, box, best, votes);
    if (lane < kVotes) votes[lane] = sum;
    __syncwarp();  // sums are written
    if (lane == 0) {
      const Voter& voter = ranking.voters[best];
      agree(votes, voter.said.box[6], boxes + 7 * box);
      scores[box] = voter.score;
      labels[box] = voter.label;
    }
    __syncwarp();  // and read, before votes take their place
  }
}

}  // namespace

void find_candidates(const Outputs& outputs, const Classes& classes, Candidate* found, int32_t* count, Stream stream) {
  fill_bytes(count, 0, sizeof *count, stream);
  launch("find candidates", find_kernel, outputs.count, kThreads, 0, stream, outputs, classes, found, count);
}

void rank_candidates(const Outputs& outputs, const Classes& classes, const Candidate* found, const Ranking& ranking,
                     Stream stream) {
  launch("rank candidates", rank_kernel, outputs.count, kWarps, 0, stream, outputs, classes, found, ranking);
}

void suppress(const Ranking& ranking, int64_t most, double iou, int64_t limit, const Kept& kept, Stream stream) {
  // More candidates than a few rounds are rare: then warps come round.
  launch("compare boxes", overlap_kernel, smaller(most, 4 * kRound) * (kRound / kWarp), kWarps, 0, stream, ranking, iou);
  Arena arena(nullptr);
  const Round round(arena);
  launch("suppress boxes", suppress_kernel, 1, 1, arena.bytes(), stream, ranking, iou, limit, kept);
}

void vote(const Ranking& ranking, const Kept& kept, int64_t limit, float* boxes, float* scores, int64_t* labels,
          Stream stream) {
  Arena arena(nullptr);
  arena.take<double>(kThreads * kVotes);
  launch("vote on boxes", vote_kernel, limit, kWarps, arena.bytes(), stream, ranking, kept, limit, boxes, scores,
         labels);
}

}  // namespace sbnet::cuda
