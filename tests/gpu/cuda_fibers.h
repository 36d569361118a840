// Threads of a block that wait for each other, on one thread of the CPU: each is a context of its own, which goes on to the
// next one at a barrier or a warp exchange. Blocks run one after the other, so that a static array is a shared one.
//
// A context is entered once by setcontext, and gone on with by longjmp: swapcontext asks the kernel for the signal mask each
// time. Few headers: they are most of what there is to compile.
//
// With TG_BACKWARDS the last thread goes first: who reads what another writes without a barrier between them finds it in one
// of the two orders, and does not in the other.
//
// Every thread of a block must reach the same barriers, and every lane of a warp the same exchanges, as on a GPU; a thread
// that waits for one which has ended stops the test.
#pragma once
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <ucontext.h>

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
  ucontext_t start;
  jmp_buf here;
  char* stack;
  bool begun, ended;
};

constexpr unsigned int kMost = 1024;  // threads of a block
static jmp_buf scheduler;
static Fiber all[kMost];
static Warp warps[kMost / kWarp];
static Meeting the_block;
static void (*body)(void*);
static void* given_to_body;
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
  while (meeting.round == round)
    if (!_setjmp(all[me].here)) _longjmp(scheduler, 1);
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
  body(given_to_body);
  all[threadIdx.x].ended = true;
  _longjmp(scheduler, 1);
}

// A thread's turn, until it waits or ends.
inline void turn(Fiber& fiber) {
  if (_setjmp(scheduler)) return;
  if (fiber.begun) _longjmp(fiber.here, 1);
  fiber.begun = true;
  setcontext(&fiber.start);
}

// A block of so many threads, each of which calls `f`.
template <class F>
void run(unsigned int threads, F f) {
  body = [](void* given) { (*(F*)given)(); };
  given_to_body = &f;
  the_block = {threads, 0, 0};
  for (unsigned int first = 0; first < threads; first += kWarp) {
    const unsigned int left = threads - first;
    warps[first / kWarp] = Warp();
    warps[first / kWarp].members = left < kWarp ? left : kWarp;
  }
  for (unsigned int t = 0; t < threads; ++t) {
    Fiber& fiber = all[t];
    fiber.begun = fiber.ended = false;
    if (!fiber.stack) fiber.stack = (char*)malloc(kStack);
    getcontext(&fiber.start);
    fiber.start.uc_stack.ss_sp = fiber.stack;
    fiber.start.uc_stack.ss_size = kStack;
    fiber.start.uc_link = nullptr;
    makecontext(&fiber.start, begin, 0);
  }
  idle = 0;
  for (unsigned int left = threads; left;) {
    ++idle;
    for (unsigned int i = 0; i < threads; ++i) {
#ifdef TG_BACKWARDS
      const unsigned int t = threads - 1 - i;
#else
      const unsigned int t = i;
#endif
      if (all[t].ended) continue;
      threadIdx.x = t;
      turn(all[t]);
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
