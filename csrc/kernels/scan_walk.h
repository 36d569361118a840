// How scans go through an array: lines along the axis are shared out, four of them in step, since each element waits for
// the one before it; where other axes follow, tiles of 64 neighbouring lines, so that whole cache lines are read.
#pragma once

#include <algorithm>

#include "../core/parallel.h"

namespace tg {

constexpr Index kScanPiece = 32768, kScanTile = 64;

// take_row(states, r, at, n): n neighbouring lines' elements r, from `at` on in the arrays; a State, copied from `start`,
// for each. The loop over them is the caller's, who lets the compiler see that it can go in vectors.
template <class State, class TakeRow>
void walk_columns(Index outer, Index length, Index inner, State start, TakeRow take_row) {
  const Index tiles = (inner + kScanTile - 1) / kScanTile;
  const Index group = std::max<Index>(1, kScanPiece / std::max<Index>(1, std::min(kScanTile, inner) * length));
  parallel_for(outer * tiles, group, [&](Index first, Index last) {
    for (Index t = first; t < last; ++t) {
      const Index column = t % tiles * kScanTile, n = std::min(kScanTile, inner - column);
      State states[kScanTile];
      std::fill(states, states + n, start);
      for (Index r = 0; r < length; ++r) take_row(states, r, (t / tiles * length + r) * inner + column, n);
    }
  });
}

// take(state, r, at) for every element.
template <class State, class Take>
void walk_lines(Index outer, Index length, Index inner, Take take) {
  if (inner != 1) {
    walk_columns(outer, length, inner, State(), [&](State* states, Index r, Index at, Index n) {
      for (Index j = 0; j < n; ++j) take(states[j], r, at + j);
    });
    return;
  }
  parallel_for(outer, std::max<Index>(4, kScanPiece / std::max<Index>(1, length) / 4 * 4), [&](Index first, Index last) {
    Index o = first;
    for (; o + 4 <= last; o += 4) {
      State a, b, c, d;
      for (Index r = 0, at = o * length; r < length; ++r, ++at) {
        take(a, r, at);
        take(b, r, at + length);
        take(c, r, at + 2 * length);
        take(d, r, at + 3 * length);
      }
    }
    for (; o < last; ++o) {
      State state;
      for (Index r = 0; r < length; ++r) take(state, r, o * length + r);
    }
  });
}

}  // namespace tg
