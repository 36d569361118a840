// searchsorted halves without branches, which would be mispredicted at every step, and for four values at once, whose
// waits for memory overlap. Distinct values are counted in pieces of the sorted line: first how many begin in each piece,
// then what they are.
#include "index_search.h"

#include <algorithm>
#include <vector>

#include "../core/allocator.h"
#include "../core/parallel.h"

namespace tg {
namespace {

constexpr Index kPiece = 65536;

template <class T>
inline bool goes_before(T bound, T x, bool right) {
  // as `~(bound > x)` and `~(bound >= x)`: true where either is NaN
  return right ? !(bound > x) : !(bound >= x);
}

template <class T, bool Right, int Count>
void search_some(const T* bounds, Index length, const T* x, int64_t* y) {
  Index low[Count] = {};
  Index size = length;
  while (size > 1) {
    const Index half = size / 2;
    for (int k = 0; k < Count; ++k) low[k] += goes_before(bounds[low[k] + half - 1], x[k], Right) ? half : 0;
    size -= half;
  }
  for (int k = 0; k < Count; ++k)
    y[k] = low[k] + (length > 0 && goes_before(bounds[low[k]], x[k], Right) ? 1 : 0);
}

template <class T, bool Right>
void search_run(const T* bounds, Index length, const T* x, Index n, int64_t* y) {
  Index i = 0;
  for (; i + 4 <= n; i += 4) search_some<T, Right, 4>(bounds, length, x + i, y + i);
  for (; i < n; ++i) search_some<T, Right, 1>(bounds, length, x + i, y + i);
}

template <class T>
inline bool differs(T a, T b) {
  return a != b;  // also where one is NaN
}

}  // namespace

template <class T>
void search_sorted(Index n, Index row, const T* x, Index bounds_length, bool one_row, const T* bounds, bool right, int64_t* y) {
  const auto run = [&](Index r, Index first, Index count) {
    const T* own = bounds + (one_row ? 0 : r * bounds_length);
    if (right) search_run<T, true>(own, bounds_length, x + first, count, y + first);
    else search_run<T, false>(own, bounds_length, x + first, count, y + first);
  };
  parallel_for(n, 4096, [&](Index first, Index last) {
    while (first < last) {
      const Index end = one_row ? last : std::min(last, (first / row + 1) * row);
      run(one_row ? 0 : first / row, first, end - first);
      first = end;
    }
  });
}

template <class T>
Index count_distinct(Index n, const T* sorted, const int64_t* at, T* values, int64_t* inverse, int64_t* counts) {
  if (n == 0) return 0;
  const Index pieces = (n + kPiece - 1) / kPiece;
  std::vector<Index> begins(size_t(pieces), 0);
  const auto is_first = [&](Index i) { return i == 0 || differs(sorted[i], sorted[i - 1]); };
  parallel_for(pieces, 1, [&](Index first, Index last) {
    for (Index p = first; p < last; ++p) {
      Index count = 0;
      for (Index i = p * kPiece; i < std::min(n, (p + 1) * kPiece); ++i) count += is_first(i);
      begins[size_t(p)] = count;
    }
  });
  Index total = 0;
  for (Index& count : begins) {
    const Index here = count;
    count = total;
    total += here;
  }
  // counts hold where each value begins until all are known
  parallel_for(pieces, 1, [&](Index first, Index last) {
    for (Index p = first; p < last; ++p) {
      Index k = begins[size_t(p)] - 1;  // the value that the piece before ends with
      for (Index i = p * kPiece; i < std::min(n, (p + 1) * kPiece); ++i) {
        if (is_first(i)) {
          values[++k] = sorted[i];
          counts[k] = i;
        }
        if (inverse) inverse[at[i]] = k;
      }
    }
  });
  for (Index k = 0; k < total; ++k) counts[k] = (k + 1 < total ? counts[k + 1] : n) - counts[k];
  return total;
}

template <class T>
void count_in_bins(Index n, const T* x, Index bins, T low, T high, int64_t* counts) {
  std::fill(counts, counts + bins, int64_t(0));
  if (n == 0) return;
  const T count = T(bins), span = high - low;
  constexpr Index tables = 8;
  const auto tally = [&](Index first, Index last, int64_t* to) {
    for (Index i = first; i < last; ++i)
      if (x[i] >= low && x[i] <= high) ++to[std::min(bins - 1, Index((x[i] - low) * count / span))];
  };
  if (n < kPiece || bins > n / tables) return tally(0, n, counts);
  Scratch<int64_t> own(tables * bins);
  const Index stretch = (n + tables - 1) / tables;
  parallel_for(tables, 1, [&](Index first, Index last) {
    for (Index t = first; t < last; ++t) {
      std::fill(own.data() + t * bins, own.data() + (t + 1) * bins, int64_t(0));
      tally(t * stretch, std::min(n, (t + 1) * stretch), own.data() + t * bins);
    }
  });
  for (Index t = 0; t < tables; ++t)
    for (Index b = 0; b < bins; ++b) counts[b] += own[t * bins + b];
}

#define TG_SEARCH_OF(T)                                                                           \
  template void search_sorted(Index, Index, const T*, Index, bool, const T*, bool, int64_t*);     \
  template Index count_distinct(Index, const T*, const int64_t*, T*, int64_t*, int64_t*);
TG_SEARCH_OF(float)
TG_SEARCH_OF(double)
TG_SEARCH_OF(int64_t)
template void count_in_bins(Index, const float*, Index, float, float, int64_t*);
template void count_in_bins(Index, const double*, Index, double, double, int64_t*);

}  // namespace tg
