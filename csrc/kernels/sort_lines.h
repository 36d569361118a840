// What sorting and selection share: entries of a line, and lines across memory made into lines along it.
#pragma once

#include <algorithm>
#include <optional>

#include "../core/parallel.h"
#include "copy.h"
#include "sort.h"
#include "sort_keys.h"

namespace tg {

constexpr Index kLinesPiece = 8192;  // elements per task

template <class T>
struct LineScratch {
  explicit LineScratch(Index n) : entries(n), spare(n), counts(kCounters) {}
  void fill(const T* x, Index n, Key<T> flip) {
    for (Index i = 0; i < n; ++i) entries[i] = {Key<T>(key_of(x[i]) ^ flip), uint32_t(i)};
  }
  Scratch<Entry<T>> entries, spare;
  Scratch<uint32_t> counts;
};

constexpr Index kInsertion = 32;

template <class T>
const Entry<T>* sort_line(LineScratch<T>& s, Index n) {
  Entry<T>* e = s.entries.data();
  if (n > kInsertion) return radix_sort(e, s.spare.data(), n, s.counts.data());
  for (Index i = 1; i < n; ++i) {
    const Entry<T> x = e[i];
    Index j = i;
    for (; j > 0 && x.key < e[j - 1].key; --j) e[j] = e[j - 1];
    e[j] = x;
  }
  return e;
}

// line(scratch, number) for every line of `length` elements.
template <class T, class Line>
void over_lines(Index lines, Index length, Line line) {
  parallel_for(lines, std::max<Index>(1, kLinesPiece / std::max<Index>(1, length)), [&](Index first, Index last) {
    LineScratch<T> scratch(length);
    for (Index l = first; l < last; ++l) line(scratch, l);
  });
}

// to (outer, inner, length) = from (outer, length, inner).
template <class T>
void swap_axes(Index outer, Index length, Index inner, const T* from, T* to) {
  constexpr Index item = Index(sizeof(T));
  const Index shape[] = {outer, inner, length}, read[] = {length * inner * item, item, inner * item};
  const Index written[] = {length * inner * item, length * item, item};
  copy_strided(item, 3, shape, reinterpret_cast<const char*>(from), read, reinterpret_cast<char*>(to), written);
}

}  // namespace tg
