// The walk over the steps that forward and backward share: which row comes before which, and how the work is cut.
#pragma once

#include <vector>

#include "../core/allocator.h"
#include "recurrent.h"
#include "recurrent_tile.h"

namespace tg {

template <class T>
class RecurrentWalk {
 public:
  explicit RecurrentWalk(const Recurrent<T>& layer) : a(layer), zeros_(std::max(layer.hidden, layer.state)) {
    std::fill_n(zeros_.data(), std::max(a.hidden, a.state), T(0));
  }

 protected:
  const Recurrent<T>& a;

  // The step at place k of the walk.
  Index step(Index k) const { return a.reverse ? a.steps() - 1 - k : k; }
  Index row(Index t, Index r) const { return a.first[t] + r; }

  // Whether sequence r has a step at place k.
  bool has(Index k, Index r) const { return k >= 0 && k < a.steps() && r < a.sizes[step(k)]; }

  const T* zeros() const { return zeros_.data(); }  // as many as a row has units

  // Sequence r's row before place k in (rows, width): of the step before, of `start` (batch, width) if there is none, of
  // zeros without a start.
  const T* before(Index k, Index r, const T* rows, Index width, const T* start) const {
    if (has(k - 1, r)) return rows + row(step(k - 1), r) * width;
    return start ? start + r * width : zeros_.data();
  }

  // run(k, r0, r1, u0, u1) for every place k in [k0, k1): rows [r0, r1) of the sequences that have a step there, and units
  // [u0, u1) in blocks of `block`. Sequences do not depend on each other, so each thread walks through all places with a
  // range of them, and no barrier. Where they are too few for that, or few beside weights that a thread's L2 does not hold,
  // and a step is long enough to share, units are dealt out step by step. An element is computed alike in both, so the
  // choice may look at the number of threads.
  //
  // LSTM forward and backward on two Zen 4 cores, rows beside units: 12 and 24 sequences of 128 units 1.23 and 1.27 times as
  // fast, 20 of 200 1.15, 16 of 256 (1 MB of weights) 1.0, 20 of 512 0.92. As many ranges as threads, beside ranges of 16
  // rows: 48 of 100 units 1.2, 64 of 300 1.07.
  template <class F>
  void for_steps(Index k0, Index k1, bool backwards, bool whole_units, Index units, Index block, F&& run) const {
    const Index batch = a.batch(), threads = num_threads(), weights = a.state * a.gates() * a.hidden;
    const Index step_work = std::max<Index>(4, batch) * weights;
    const Index least = weights <= kNearBytes / Index(sizeof(T)) ? kLeastRows : kBlockRows;
    if (step_work >= kLongStep && !whole_units && batch < least * threads) {
      const Index blocks = divide_up(units, block), grain = divide_up(blocks, kStepTasks);
      for (Index i = k0; i < k1; ++i) {
        const Index k = backwards ? k0 + k1 - 1 - i : i;
        parallel_for(blocks, grain, [&](Index first, Index last) {
          run(k, Index(0), a.sizes[step(k)], first * block, std::min(units, last * block));
        });
      }
      return;
    }
    const bool shared = batch >= 2 * kBlockRows || (batch >= kLeastRows && step_work * (k1 - k0) >= kLongWalk);
    const std::vector<Index> starts = ranges(shared ? std::min(threads, std::max<Index>(2, batch / kLeastRows)) : 1);
    parallel_for(Index(starts.size()) - 1, 1, [&](Index range, Index) {
      const Index r0 = starts[range], r1 = starts[range + 1];
      for (Index i = k0; i < k1; ++i) {
        const Index k = backwards ? k0 + k1 - 1 - i : i;
        if (has(k, r0)) run(k, r0, std::min(r1, a.sizes[step(k)]), Index(0), units);
      }
    });
  }

 private:
  static constexpr Index kLongStep = Index(1) << 19;  // multiplications; 12 us, against 3 us that a barrier takes
  static constexpr Index kLongWalk = Index(1) << 19;
  static constexpr Index kStepTasks = 8;
  static constexpr Index kLeastRows = 4;               // of a thread: fewer don't fill a tile
  static constexpr Index kNearBytes = Index(1) << 20;  // weights that a thread may read in each step for a few rows

  // Where each of `count` ranges of sequences begins, and the end: all have about as many steps to walk.
  std::vector<Index> ranges(Index count) const {
    std::vector<Index> starts;
    Index length = a.steps(), before = 0;
    for (Index r = 0; r < a.batch(); ++r) {  // the longest first
      while (before * count >= Index(starts.size()) * a.rows()) starts.push_back(r);
      while (length > 0 && a.sizes[length - 1] <= r) --length;
      before += length;
    }
    starts.resize(count + 1, a.batch());
    return starts;
  }

  Scratch<T> zeros_;
};

// Weights (n, k) or their transpose in panels, packed by all threads.
template <class T, class F>
void pack_panels(Index panels, Index k, F&& pack) {
  const Index grain = std::max<Index>(1, (Index(1) << 15) / std::max<Index>(1, k * kPanel<T>));
  parallel_for(panels, grain, [&](Index first, Index last) {
    for (Index p = first; p < last; ++p) pack(p);
  });
}

}  // namespace tg
