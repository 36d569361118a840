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
  // [u0, u1) in blocks of `block`. Sequences do not depend on each other, so ranges of them walk through all places with
  // no barrier; where they are too few for that, and a step is long enough to share, units are dealt out step by step.
  // An element is computed alike in both, so the choice may look at the number of threads.
  template <class F>
  void for_steps(Index k0, Index k1, bool backwards, bool whole_units, Index units, Index block, F&& run) const {
    const Index batch = a.batch(), step_work = std::max<Index>(4, batch) * a.state * a.gates() * a.hidden;
    Index ranges = batch / kBlockRows;
    const bool long_steps = step_work >= kLongStep && !whole_units;
    if (ranges < 2 || (long_steps && ranges < num_threads())) {
      if (long_steps) {
        const Index blocks = divide_up(units, block), grain = divide_up(blocks, kStepTasks);
        for (Index i = k0; i < k1; ++i) {
          const Index k = backwards ? k0 + k1 - 1 - i : i;
          parallel_for(blocks, grain, [&](Index first, Index last) {
            run(k, Index(0), a.sizes[step(k)], first * block, std::min(units, last * block));
          });
        }
        return;
      }
      ranges = batch >= 4 && step_work * (k1 - k0) >= kLongWalk ? std::max<Index>(2, batch / 8) : 1;
    }
    parallel_for(ranges, 1, [&](Index range, Index) {
      const Index r0 = batch * range / ranges, r1 = batch * (range + 1) / ranges;
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
