// Rows: the extreme of each block of 1,024 by vectors; only a block that improves is searched for the position.
// Columns: values and positions of a tile side by side, compared lane by lane. Short rows of floats are columns, turned: row by
// row each search ends in a branch that is mispredicted (104,857 rows of 10 take a ninth of the time).
#include "reduce_arg.h"

#include <algorithm>
#include <vector>

#include "../core/parallel.h"
#include "beside.h"
#include "reduce_lanes.h"

namespace tg {
namespace {

constexpr Index kPiece = 65536, kBlock = 1024, kTile = 64;
constexpr Index kShortRow = 32;  // a tile of them stays in L1

template <bool Largest, class T>
inline bool beats(T candidate, T best) {
  const bool better = Largest ? candidate > best : candidate < best;
  return better || (candidate != candidate && best == best);
}

template <class T>
struct Best {
  T value;
  Index at;
};

template <bool Largest, class T>
Best<T> scan_row(const T* x, Index first, Index last) {
  Best<T> best{x[first], first};
  for (Index i = first; i < last; i += kBlock) {
    const Index n = std::min(kBlock, last - i);
    const T m = extreme_run<(Largest ? 1 : -1)>(x + i, n);
    if (!beats<Largest>(m, best.value)) continue;
    best.value = m;
    best.at = i;
    if (m != m)
      while (x[best.at] == x[best.at]) ++best.at;
    else
      while (x[best.at] != m) ++best.at;
  }
  return best;
}

// The extremes of n columns whose rows are `stride` apart. At is as wide as T where rows can be counted in it.
template <bool Largest, class At, class T>
[[gnu::noinline]] void scan_columns(const T* x, Index stride, Index length, Index n, T* best, At* at) {
  std::copy(x, x + n, best);
  std::fill(at, at + n, At(0));
  for (Index r = 1; r < length; ++r) {
    const T* row = x + r * stride;
    const At here = At(r);
    for (Index j = 0; j < n; ++j) {
      const bool take = beats<Largest>(row[j], best[j]);
      best[j] = take ? row[j] : best[j];
      at[j] = take ? here : at[j];
    }
  }
}

using ScanFloats = void (*)(const float* x, Index stride, Index length, Index n, float* best, std::int32_t* at);

// Once for the largest and the smallest.
void short_rows(ScanFloats scan, Index rows, Index length, const float* x, float* values, int64_t* indices) {
  parallel_for((rows + kTile - 1) / kTile, kPiece / 4 / (kTile * length), [=](Index first, Index last) {
    alignas(64) float room[kShortRow * kTile], best[kTile];
    std::int32_t at[kTile];
    for (Index r = first * kTile; r < std::min(last * kTile, rows); r += kTile) {
      const Index n = std::min(kTile, rows - r);
      turn_beside<false, float>(x + r * length, (rows - r) * length, room, kTile, n, length, 1);
      scan(room, kTile, length, n, best, at);
      if (values) std::copy(best, best + n, values + r);
      std::copy(at, at + n, indices + r);
    }
  });
}

template <bool Largest, class T>
void arg_all(Index outer, Index length, Index inner, const T* x, T* values, int64_t* indices) {
  const auto put = [&](Index o, const Best<T>& b) {
    if (values) values[o] = b.value;
    indices[o] = b.at;
  };
  if constexpr (std::is_same_v<T, float>) {
    if (inner == 1 && length <= kShortRow)
      return short_rows(scan_columns<Largest, std::int32_t, float>, outer, length, x, values, indices);
  }
  if (inner == 1) {
    const Index pieces = (length + kPiece - 1) / kPiece;
    if (pieces == 1) {
      parallel_for(outer, std::max<Index>(1, kPiece / length), [&](Index first, Index last) {
        for (Index o = first; o < last; ++o) put(o, scan_row<Largest>(x + o * length, 0, length));
      });
      return;
    }
    std::vector<Best<T>> parts(size_t(outer * pieces));
    parallel_for(outer * pieces, 1, [&](Index first, Index last) {
      for (Index t = first; t < last; ++t) {
        const Index begin = t % pieces * kPiece;
        parts[size_t(t)] = scan_row<Largest>(x + t / pieces * length, begin, std::min(length, begin + kPiece));
      }
    });
    for (Index o = 0; o < outer; ++o) {
      Best<T> best = parts[size_t(o * pieces)];
      for (Index p = 1; p < pieces; ++p)
        if (beats<Largest>(parts[size_t(o * pieces + p)].value, best.value)) best = parts[size_t(o * pieces + p)];
      put(o, best);
    }
    return;
  }
  const Index tiles = (inner + kTile - 1) / kTile;
  const Index group = std::max<Index>(1, kPiece / (std::min(kTile, inner) * length));
  parallel_for(outer * tiles, group, [&](Index first, Index last) {
    for (Index t = first; t < last; ++t) {
      const Index o = t / tiles, column = t % tiles * kTile, n = std::min(kTile, inner - column);
      T best[kTile];
      Index at[kTile];
      scan_columns<Largest>(x + o * length * inner + column, inner, length, n, best, at);
      for (Index j = 0; j < n; ++j) put(o * inner + column + j, {best[j], at[j]});
    }
  });
}

}  // namespace

template <class T>
void arg_extreme(bool largest, Index outer, Index length, Index inner, const T* x, T* values, int64_t* indices) {
  if (largest) arg_all<true>(outer, length, inner, x, values, indices);
  else arg_all<false>(outer, length, inner, x, values, indices);
}

template void arg_extreme(bool, Index, Index, Index, const float*, float*, int64_t*);
template void arg_extreme(bool, Index, Index, Index, const double*, double*, int64_t*);
template void arg_extreme(bool, Index, Index, Index, const int64_t*, int64_t*, int64_t*);

}  // namespace tg
