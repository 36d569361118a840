// Lines of up to 8 elements by counting for each how many go before it, of up to 32 by insertion, then by radix from the
// lowest digit up, a line a thread; lines beyond kLongLine on all threads (sort_long.cpp). Lines across memory are copied
// along it first, in tiles: read column by column each cache line would be fetched 16 times.
#include "sort_lines.h"

namespace tg {
namespace {

constexpr Index kRanked = 8;

// Every pair is compared, and nothing depends on how that ends but sums: a branch on random keys is mispredicted half of the
// time (32,768 rows of 2 take a quarter of the time, rows of 8 0.57).
template <class T>
void sort_ranked(const T* x, Index length, Key<T> flip, T* values, int64_t* indices) {
  Key<T> keys[kRanked];
  int rank[kRanked] = {};
  for (Index i = 0; i < length; ++i) {
    keys[i] = Key<T>(key_of(x[i]) ^ flip);
    for (Index j = 0; j < i; ++j) {
      const int after = keys[j] <= keys[i];
      rank[i] += after;
      rank[j] += 1 - after;
    }
  }
  for (Index i = 0; i < length; ++i) values[rank[i]] = x[i];
  if (indices)
    for (Index i = 0; i < length; ++i) indices[rank[i]] = i;
}

template <class T>
void sort_rows(Index rows, Index length, bool descending, const T* x, T* values, int64_t* indices) {
  if (length >= kLongLine) {
    for (Index r = 0; r < rows; ++r)
      sort_long(length, descending, x + r * length, values + r * length, indices ? indices + r * length : nullptr);
    return;
  }
  const Key<T> flip = flip_of<T>(descending);
  if constexpr (sizeof(T) >= 4) {  // small integers are rare, and not worth their code
    if (length <= kRanked)
      return parallel_for(rows, kLinesPiece / std::max<Index>(1, length), [&](Index first, Index last) {
        for (Index r = first; r < last; ++r)
          sort_ranked(x + r * length, length, flip, values + r * length, indices ? indices + r * length : nullptr);
      });
  }
  over_lines<T>(rows, length, [&](LineScratch<T>& scratch, Index r) {
    const T* from = x + r * length;
    scratch.fill(from, length, flip);
    const Entry<T>* e = sort_line(scratch, length);
    for (Index k = 0; k < length; ++k) values[r * length + k] = from[e[k].at];
    if (indices)
      for (Index k = 0; k < length; ++k) indices[r * length + k] = int64_t(e[k].at);
  });
}

}  // namespace

template <class T>
void sort_lines(const LineShape& s, bool descending, const T* x, T* values, int64_t* indices) {
  if (s.inner == 1) return sort_rows(s.outer, s.length, descending, x, values, indices);
  const Index n = s.outer * s.length * s.inner;
  Scratch<T> along(n), sorted(n);
  Scratch<int64_t> at(indices ? n : 0);
  swap_axes(s.outer, s.length, s.inner, x, along.data());
  sort_rows(s.outer * s.inner, s.length, descending, along.data(), sorted.data(), indices ? at.data() : nullptr);
  swap_axes(s.outer, s.inner, s.length, sorted.data(), values);
  if (indices) swap_axes(s.outer, s.inner, s.length, at.data(), indices);
}

template void sort_lines(const LineShape&, bool, const float*, float*, int64_t*);
template void sort_lines(const LineShape&, bool, const double*, double*, int64_t*);
template void sort_lines(const LineShape&, bool, const int64_t*, int64_t*, int64_t*);
template void sort_lines(const LineShape&, bool, const int32_t*, int32_t*, int64_t*);
template void sort_lines(const LineShape&, bool, const int16_t*, int16_t*, int64_t*);
template void sort_lines(const LineShape&, bool, const int8_t*, int8_t*, int64_t*);
template void sort_lines(const LineShape&, bool, const uint8_t*, uint8_t*, int64_t*);

}  // namespace tg
