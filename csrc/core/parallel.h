// One thread pool for every kernel.
//
// parallel_for(n, grain, f) calls f(first, last) on stretches of exactly `grain` of [0, n) (the last may be shorter).
// The stretches depend on n and grain alone, and are handed out as threads come free: so sums kept per stretch give the
// same bits for any number of threads. Small or nested loops run on the caller. Exceptions reach the caller. A process
// may fork: the child starts with no workers and makes its own. Several user threads may call at once: one has the
// workers, the others run their loops alone.
#pragma once

#include <cstdint>
#include <type_traits>

#include "dtype.h"

namespace tg {

int num_threads();
void set_num_threads(int count);  // throws std::invalid_argument below 1
// Of a worker its number, from 1 on; 0 of every other thread. No two threads in one loop have the same.
int worker_index();

namespace detail {
using Body = void (*)(void* context, Index first, Index last);
void run_parallel(Index n, Index grain, Body body, void* context);

// One copy of the loop, for a caller alone as for threads: inlined, it would be there twice.
template <class F>
[[gnu::noinline]] static void call(void* context, Index first, Index last) {
  (*static_cast<F*>(context))(first, last);
}
}  // namespace detail

template <class F>
void parallel_for(Index n, Index grain, F&& f) {
  if (n <= 0) return;
  if (grain < 1) grain = 1;
  const detail::Body body = detail::call<std::remove_reference_t<F>>;
  void* context = const_cast<void*>(static_cast<const void*>(&f));
  if (n <= grain) body(context, 0, n);
  else detail::run_parallel(n, grain, body, context);
}

}  // namespace tg
