// Threads of a block that wait for each other, on one thread of the CPU: each is a context of its own, which goes on to the
// next one at a barrier or a warp exchange. Blocks run one after the other, so that a static array is a shared one.
//
// Every thread of a block must reach the same barriers, and every lane of a warp the same exchanges, as on a GPU; a thread
// that waits for one which has ended stops the test.
#pragma once
#include <stdio.h>
#include <stdlib.h>
#include <ucontext.h>

#include <functional>
#include <memory>
#include <vector>

#define __shared__ static
#define __syncthreads() fibers::wait_for(fibers::the_block)
#define __syncwarp() fibers::wait_for(fibers::my_warp())

namespace fibers {

constexpr unsigned int kWarp = 32;
constexpr size_t kStack = 256 << 10;

struct Meeting {
  unsigned int members = 0, arrived = 0;
  unsigned long round = 0;
};
struct Warp : Meeting {
  unsigned long long words[kWarp];
};
struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[kStack]};
  bool ended = false;
};

static ucontext_t scheduler;
static std::vector<Fiber> all;
static std::vector<Warp> warps;
static Meeting the_block;
static std::function<void()> body;
static unsigned long idle;  // turns in a row in which nobody got on

inline Warp& my_warp() { return warps[threadIdx.x / kWarp]; }

inline void wait_for(Meeting& meeting) {
  const unsigned long round = meeting.round;
  if (++meeting.arrived == meeting.members) {
    meeting.arrived = 0;
    ++meeting.round;
    idle = 0;
    return;
  }
  const unsigned int me = threadIdx.x;
  while (meeting.round == round) swapcontext(&all[me].context, &scheduler);
}

template <class T>
T exchange(T value, unsigned int from) {
  static_assert(sizeof(T) <= 8, "a lane passes at most 64 bits on");
  Warp& warp = my_warp();
  unsigned long long word = 0;
  memcpy(&word, &value, sizeof(T));
  warp.words[threadIdx.x % kWarp] = word;
  wait_for(warp);
  if (from < warp.members) memcpy(&value, &warp.words[from], sizeof(T));
  wait_for(warp);  // nobody overwrites what another has yet to read
  return value;
}

inline void begin() {
  body();
  all[threadIdx.x].ended = true;
  swapcontext(&all[threadIdx.x].context, &scheduler);
}

// A block of so many threads, each of which calls `f`.
inline void run(unsigned int threads, std::function<void()> f) {
  body = std::move(f);
  the_block = {threads, 0, 0};
  warps.assign((threads + kWarp - 1) / kWarp, Warp());
  for (size_t w = 0; w < warps.size(); ++w) warps[w].members = std::min(kWarp, threads - (unsigned int)w * kWarp);
  if (all.size() < threads) all.resize(threads);
  for (unsigned int t = 0; t < threads; ++t) {
    Fiber& fiber = all[t];
    fiber.ended = false;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStack;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, begin, 0);
  }
  idle = 0;
  for (unsigned int left = threads; left;) {
    ++idle;
    for (unsigned int t = 0; t < threads; ++t) {
      if (all[t].ended) continue;
      threadIdx.x = t;
      swapcontext(&scheduler, &all[t].context);
      if (all[t].ended) --left, idle = 0;
    }
    if (idle > 2) {
      fprintf(stderr, "threads of a block wait for others that have ended or wait elsewhere\n");
      abort();
    }
  }
}

}  // namespace fibers

template <class T>
T __shfl_xor_sync(unsigned int, T value, unsigned int mask) { return fibers::exchange(value, threadIdx.x % 32 ^ mask); }
template <class T>
T __shfl_down_sync(unsigned int, T value, unsigned int by) { return fibers::exchange(value, threadIdx.x % 32 + by); }
template <class T>
T __shfl_sync(unsigned int, T value, unsigned int from) { return fibers::exchange(value, from); }
inline unsigned int __ballot_sync(unsigned int, bool mine) {
  fibers::Warp& warp = fibers::my_warp();
  warp.words[threadIdx.x % 32] = mine;
  fibers::wait_for(warp);
  unsigned int all = 0;
  for (unsigned int lane = 0; lane < warp.members; ++lane) all |= (unsigned int)warp.words[lane] << lane;
  fibers::wait_for(warp);  // nobody overwrites what another has yet to read
  return all;
}
inline int __syncthreads_or(int mine) {
  static int found;
  fibers::wait_for(fibers::the_block);  // the last call's answer has been read
  found = 0;
  fibers::wait_for(fibers::the_block);
  if (mine) found = 1;
  fibers::wait_for(fibers::the_block);
  return found;
}
