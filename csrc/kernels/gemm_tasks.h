// Work cut by the kernel itself into tasks of its own size, handed out one by one.
#pragma once

#include <utility>

#include "../core/parallel.h"

namespace tg {

inline Index divide_up(Index n, Index by) { return (n + by - 1) / by; }
inline Index round_up(Index n, Index to) { return divide_up(n, to) * to; }

// f(task) for every task in [0, count).
template <class F>
void for_each_task(Index count, F&& f) {
  parallel_for(count, 1, [&](Index first, Index last) {
    for (Index task = first; task < last; ++task) f(task);
  });
}

}  // namespace tg
