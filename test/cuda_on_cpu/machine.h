// A grid of CUDA threads as fibers. They switch only where threads wait for each other, in an order drawn from a seed.
#pragma once

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "fibers.h"

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};

namespace cuda_on_cpu {

constexpr unsigned kWarp = 32;
constexpr size_t kMostShared = size_t{227} << 10;

// Where in the source threads wait: those that wait together must be at one place.
struct Site {
  const char* file;
  int line;
  static Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }
  bool operator==(const Site& other) const { return line == other.line && !std::strcmp(file, other.file); }
};

struct Block;
struct Warp;

struct Thread {
  Fiber fiber;
  Block* block = nullptr;
  Warp* warp = nullptr;
  dim3 index;
  unsigned lane = 0;
  bool done = false;
  Site site{"", 0};
  uint32_t in = 0, out = 0;  // exchanged in operations of a warp, or of a block
  uint32_t factors[6];       // of a product of matrices: a lane's share
  float sums[4];
};

// An operation of a warp that some of its lanes have reached.
struct Meeting {
  uint32_t mask = 0, arrived = 0;
  Site site{"", 0};
  char* sync = nullptr;
};

struct Warp {
  Thread* lanes[kWarp] = {};
  std::vector<Meeting> meetings;
  unsigned opened = 0;
  char sync[8] = {};  // addresses that the order of __syncwarp hangs on
};

struct Block {
  dim3 index;
  std::vector<Thread*> threads;
  std::vector<Warp> warps;
  unsigned live = 0, arrived = 0, phase = 0;
  Site site{"", 0};
  char sync[2] = {};  // the same of __syncthreads
  char* shared = nullptr;
  size_t shared_bytes = 0;
};

// The machine: one grid at a time.
struct Machine {
  uint64_t random = 1;
  unsigned resident = 2;  // blocks that run at the same time
  Thread main;
  Thread *current = &main, *previous = nullptr;
  std::vector<std::unique_ptr<Thread>> pool;
  std::vector<Thread*> idle, ready;
  dim3 grid, block;
  const std::function<void()>* kernel = nullptr;
  char sync_start = 0, sync_end = 0;

  uint32_t draw(uint32_t below) {
    random ^= random << 13;
    random ^= random >> 7;
    random ^= random << 17;
    return static_cast<uint32_t>((random >> 32) * below >> 32);
  }
};

inline Machine& machine() {
  static Machine one;
  return one;
}

inline void seed(uint64_t value) { machine().random = value * 0x9E3779B97F4A7C15u | 1; }

[[noreturn]] inline void fail(const char* what, Site site, Site other = {"", 0}) {
  const Thread& me = *machine().current;
  std::fprintf(stderr, "cuda_on_cpu: %s\n  at %s:%d", what, site.file, site.line);
  if (other.line) std::fprintf(stderr, "\n  and %s:%d", other.file, other.line);
  if (me.block)
    std::fprintf(stderr, "\n  block (%u, %u, %u) thread (%u, %u, %u)", me.block->index.x, me.block->index.y,
                 me.block->index.z, me.index.x, me.index.y, me.index.z);
  std::fprintf(stderr, "\n");
  std::abort();
}

// --- who runs

__attribute__((no_sanitize("thread"))) inline void switch_to(Thread* to) {
  Machine& m = machine();
  Thread* const from = m.current;
  m.previous = from;
  m.current = to;
  Fiber::exchange(from->fiber, to->fiber, from->done);
}

// The host runs again when no thread can.
inline Thread* next_ready() {
  Machine& m = machine();
  if (m.ready.empty()) return &m.main;
  std::swap(m.ready[m.draw(static_cast<uint32_t>(m.ready.size()))], m.ready.back());
  Thread* const next = m.ready.back();
  m.ready.pop_back();
  return next;
}

// The current thread waits until it is put among those that are ready.
inline void wait(Site site) {
  Thread& me = *machine().current;
  me.site = site;
  switch_to(next_ready());
}

// --- barriers

inline void release_barrier(Block& block) {
  block.arrived = 0;
  ++block.phase;
  uint32_t count = 0;
  for (const Thread* thread : block.threads) count += thread->done ? 0 : thread->in;
  for (Thread* thread : block.threads) {
    if (thread->done) continue;
    thread->out = count;
    if (thread != machine().current) machine().ready.push_back(thread);
  }
}

// __syncthreads, for all threads of the block that have not ended; returns how many gave `predicate`.
inline int block_barrier(bool predicate, Site site) {
  const Quiet quiet;
  Thread& me = *machine().current;
  Block& block = *me.block;
  if (block.arrived > 0 && !(block.site == site))
    fail("threads of a block wait at different barriers", site, block.site);
  block.site = site;
  me.in = predicate;
  char* const sync = &block.sync[block.phase % 2];
  happens_before(sync);
  if (++block.arrived == block.live)
    release_barrier(block);
  else
    wait(site);
  happens_after(sync);
  return static_cast<int>(me.out);
}

// The lanes of `mask` meet; the last one calls act(warp) for all. Orders memory only where CUDA says so.
template <typename Act>
void meet(uint32_t mask, Site site, bool orders, Act act) {
  const Quiet quiet;
  Thread& me = *machine().current;
  Warp& warp = *me.warp;
  if (!(mask >> me.lane & 1)) fail("a lane is not in the mask of its own warp operation", site);
  size_t number = 0;
  while (number < warp.meetings.size() && !(warp.meetings[number].mask & mask)) ++number;
  if (number == warp.meetings.size())
    warp.meetings.push_back({mask, 0, site, &warp.sync[warp.opened++ % sizeof warp.sync]});
  Meeting& meeting = warp.meetings[number];
  if (meeting.mask != mask) fail("lanes of a warp operation give different masks", site, meeting.site);
  if (!(meeting.site == site)) fail("lanes of a warp are at different warp operations", site, meeting.site);
  char* const sync = meeting.sync;
  if (orders) happens_before(sync);
  meeting.arrived |= 1u << me.lane;
  if (meeting.arrived == mask) {
    act(warp);
    meeting = warp.meetings.back();
    warp.meetings.pop_back();
    for (unsigned lane = 0; lane < kWarp; ++lane)
      if ((mask >> lane & 1) && lane != me.lane) machine().ready.push_back(warp.lanes[lane]);
  } else {
    wait(site);
  }
  if (orders) happens_after(sync);
}

// --- a grid from beginning to end

inline void run_thread() {
  Fiber::arrived(machine().previous->fiber);
  happens_after(&machine().sync_start);
  (*machine().kernel)();
  happens_before(&machine().sync_end);
  Thread* next;
  {
    const Quiet quiet;  // must end before the thread does
    Thread& me = *machine().current;
    Block& block = *me.block;
    me.done = true;
    --block.live;
    if (block.arrived > 0 && block.arrived == block.live) release_barrier(block);
    next = next_ready();
  }
  switch_to(next);
  __builtin_unreachable();
}

inline Thread* new_thread() {
  Machine& m = machine();
  if (m.idle.empty()) {
    m.pool.push_back(std::make_unique<Thread>());
    m.idle.push_back(m.pool.back().get());
  }
  Thread* const thread = m.idle.back();
  m.idle.pop_back();
  thread->fiber.start(run_thread, m.idle.size());
  thread->done = false;
  return thread;
}

inline dim3 unravel(unsigned number, dim3 extent) {
  return {number % extent.x, number / extent.x % extent.y, number / extent.x / extent.y};
}

// Shared memory starts as NaN in every type; behind its end nothing may be touched.
inline void start_block(Block& block, unsigned number, size_t shared_bytes) {
  Machine& m = machine();
  block.index = unravel(number, m.grid);
  block.live = m.block.x * m.block.y * m.block.z;
  block.warps.resize(block.live / kWarp);
  block.shared_bytes = shared_bytes;
  const size_t room = (shared_bytes + 127) / 128 * 128 + 128;
  block.shared = static_cast<char*>(std::aligned_alloc(128, room));
  std::memset(block.shared, 0xff, shared_bytes);
  poison(block.shared + shared_bytes, room - shared_bytes);
  for (unsigned i = 0; i < block.live; ++i) {
    Thread* const thread = new_thread();
    thread->block = &block;
    thread->warp = &block.warps[i / kWarp];
    thread->lane = i % kWarp;
    thread->warp->lanes[thread->lane] = thread;
    thread->index = unravel(i, m.block);
    block.threads.push_back(thread);
    m.ready.push_back(thread);
  }
}

inline void free_shared(Block& block) {
  unpoison(block.shared, (block.shared_bytes + 127) / 128 * 128 + 128);
  std::free(block.shared);
}

[[noreturn]] inline void report_deadlock(const std::vector<std::unique_ptr<Block>>& blocks) {
  std::fprintf(stderr, "cuda_on_cpu: threads wait for ever\n");
  for (const auto& block : blocks) {
    std::vector<std::pair<Site, int>> places;
    for (const Thread* thread : block->threads) {
      if (thread->done) continue;
      auto place = places.begin();
      while (place != places.end() && !(place->first == thread->site)) ++place;
      if (place == places.end()) place = places.insert(place, {thread->site, 0});
      ++place->second;
    }
    for (const auto& [site, count] : places)
      std::fprintf(stderr, "  block (%u, %u, %u): %d threads at %s:%d\n", block->index.x, block->index.y,
                   block->index.z, count, site.file, site.line);
  }
  std::abort();
}

// Blocks in a random order, a few at a time.
inline void run_blocks(size_t shared_bytes) {
  Machine& m = machine();
  std::vector<unsigned> order(m.grid.x * m.grid.y * m.grid.z);
  for (unsigned i = 0; i < order.size(); ++i) {
    order[i] = i;
    std::swap(order[i], order[m.draw(i + 1)]);
  }
  std::vector<std::unique_ptr<Block>> running, ended;
  for (size_t next = 0; next < order.size() || !running.empty();) {
    while (next < order.size() && running.size() < m.resident) {
      running.push_back(std::make_unique<Block>());
      start_block(*running.back(), order[next++], shared_bytes);
    }
    switch_to(next_ready());  // comes back when nothing is ready
    const size_t before = running.size();
    for (auto& block : running) {
      if (block->live) continue;
      for (Thread* thread : block->threads) {
        thread->fiber.retire();
        if (Fiber::kReusable) m.idle.push_back(thread);
      }
      ended.push_back(std::move(block));
    }
    std::erase(running, nullptr);
    if (running.size() == before) report_deadlock(running);
  }
  // not before: memory that came back would seem to be shared by blocks that know nothing of each other
  happens_after(&m.sync_end);
  for (auto& block : ended) free_shared(*block);
  if (!Fiber::kReusable) m.pool.clear();
}

inline void run_grid(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& kernel) {
  Machine& m = machine();
  const unsigned threads = block.x * block.y * block.z;
  if (threads == 0 || threads % kWarp || threads > 1024) fail("a block has whole warps, at most 1024 threads", {"", 0});
  if (shared_bytes > kMostShared) fail("more than 227 KiB of shared memory", {"", 0});
  m.grid = grid;
  m.block = block;
  m.kernel = &kernel;
  happens_before(&m.sync_start);
  const Quiet quiet;
  run_blocks(shared_bytes);
}

}  // namespace cuda_on_cpu
