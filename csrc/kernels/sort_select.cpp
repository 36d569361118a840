// Part of an order: the best k, or the element at one place.
//
// Few of many: a heap of the best k (up to 16: in order; 5 of rows of 100: 42 to 23 us), whose worst turns most blocks of
// values away at one comparison; a long line in pieces, whose best meet in a last selection. One place of a long line: a
// sample brackets it; one pass counts what lies below the bracket and keeps what lies within, a few percent, among which
// the place is selected. Should it lie outside (or the line be short) all of the line is selected from.
#include <vector>

#include "sort_lines.h"

namespace tg {
namespace {

constexpr Index kPiece = 65536;
constexpr Index kHeap = 128;     // up to here, and up to an eighth of the line, a heap beats selecting and sorting
constexpr Index kSorted = 16;     // so few are kept in order instead, by insertion
constexpr Index kBlock = 64;      // keys made and compared at once
constexpr Index kSample = 16384;
constexpr Index kNarrow = 128;     // so few are selected from as they are
constexpr Index kReach = 256;    // places in the sample; 4 standard deviations of a place in the middle

// The best k of x[first, last), in order, into e.
template <class T>
void heap_best(const T* x, Index first, Index last, Index k, Key<T> flip, Entry<T>* e) {
  const bool sorted = k <= kSorted;
  // Of equal keys the earlier one stays ahead: those that come are inserted behind them.
  const auto insert = [e](Index j, Entry<T> come) {
    for (; j > 0 && come.key < e[j - 1].key; --j) e[j] = e[j - 1];
    e[j] = come;
  };
  for (Index j = 0; j < k; ++j) {
    const Entry<T> come{Key<T>(key_of(x[first + j]) ^ flip), uint32_t(first + j)};
    if (sorted) insert(j, come);
    else e[j] = come;
  }
  if (!sorted) std::make_heap(e, e + k, before<T>);
  Key<T> worst = e[sorted ? k - 1 : 0].key;
  Key<T> keys[kBlock];
  for (Index i = first + k; i < last; i += kBlock) {
    const Index n = std::min(kBlock, last - i);
    Key<T> best = Key<T>(~Key<T>(0));
    for (Index j = 0; j < n; ++j) {
      keys[j] = Key<T>(key_of(x[i + j]) ^ flip);
      best = std::min(best, keys[j]);
    }
    if (best >= worst) continue;
    for (Index j = 0; j < n; ++j) {
      if (keys[j] >= worst) continue;
      if (sorted) {
        insert(k - 1, {keys[j], uint32_t(i + j)});
        worst = e[k - 1].key;
        continue;
      }
      std::pop_heap(e, e + k, before<T>);
      e[k - 1] = {keys[j], uint32_t(i + j)};
      std::push_heap(e, e + k, before<T>);
      worst = e[0].key;
    }
  }
  if (!sorted) std::sort_heap(e, e + k, before<T>);
}

template <class T>
void put(const Entry<T>* e, Index k, const T* x, T* values, int64_t* indices) {
  for (Index j = 0; j < k; ++j) {
    values[j] = x[e[j].at];
    indices[j] = int64_t(e[j].at);
  }
}

// Pieces of [0, n) as (first, last); the last one takes what is left over, so that none is shorter than kPiece.
inline Index piece_end(Index p, Index pieces, Index n) { return p + 1 == pieces ? n : (p + 1) * kPiece; }

template <class T>
void topk_long(Index n, Index k, bool largest, const T* x, T* values, int64_t* indices) {
  const Key<T> flip = flip_of<T>(largest);
  const Index pieces = n / kPiece;
  Scratch<Entry<T>> found(pieces * k);
  parallel_for(pieces, 1, [&](Index first, Index last) {
    for (Index p = first; p < last; ++p)
      heap_best(x, p * kPiece, piece_end(p, pieces, n), k, flip, found.data() + p * k);
  });
  std::partial_sort(found.data(), found.data() + k, found.data() + pieces * k, before<T>);
  put(found.data(), k, x, values, indices);
}

template <class T>
void topk_rows(Index rows, Index length, Index k, bool largest, const T* x, T* values, int64_t* indices) {
  const bool few = k * 8 <= length && k <= kHeap;
  if (length >= 2 * kPiece) {
    Scratch<T> sorted(few ? 0 : length);
    Scratch<int64_t> at(few ? 0 : length);
    for (Index r = 0; r < rows; ++r) {
      if (few) {
        topk_long(length, k, largest, x + r * length, values + r * k, indices + r * k);
        continue;
      }
      sort_long(length, largest, x + r * length, sorted.data(), at.data());
      std::copy(sorted.data(), sorted.data() + k, values + r * k);
      std::copy(at.data(), at.data() + k, indices + r * k);
    }
    return;
  }
  const Key<T> flip = flip_of<T>(largest);
  over_lines<T>(rows, length, [&](LineScratch<T>& scratch, Index r) {
    const T* from = x + r * length;
    Entry<T>* e = scratch.entries.data();
    if (few) {
      heap_best(from, 0, length, k, flip, e);
    } else {
      scratch.fill(from, length, flip);
      put(sort_line(scratch, length), k, from, values + r * k, indices + r * k);
      return;
    }
    put(e, k, from, values + r * k, indices + r * k);
  });
}

// ---- one place ------------------------------------------------------------------------------------------------------

template <class T>
inline bool is_nan(Key<T> key) {
  return std::is_floating_point_v<T> && key == Key<T>(~Key<T>(0));
}

// The place asked for among n entries of which `nans` are NaN; their first is at the place after all numbers.
inline Index place_of(Middle which, Index k, Index n, Index nans) {
  if (which == Middle::kth) return k;
  if (which == Middle::median) return nans ? n - nans : (n - 1) / 2;
  return std::max<Index>(n - nans - 1, 0) / 2;
}

template <class T>
Entry<T> at_place(Entry<T>* e, Index n, Index place) {
  std::nth_element(e, e + place, e + n, before<T>);
  return e[place];
}

// Narrows the line down by the highest digit in which its keys differ, until few are left.
template <class T>
Entry<T> select_short(LineScratch<T>& scratch, Index n, Middle which, Index k, const T* x) {
  using K = Key<T>;
  Entry<T>* e = scratch.entries.data();
  if (which == Middle::kth && k < kSorted && k * 8 < n) {
    heap_best(x, 0, n, k + 1, K(0), e);
    return e[k];
  }
  if (n <= kNarrow) {
    scratch.fill(x, n, K(0));
    Index nans = 0;
    for (Index i = 0; i < n; ++i) nans += is_nan<T>(e[i].key);
    return at_place(e, n, place_of(which, k, n, nans));
  }
  K* keys = reinterpret_cast<K*>(scratch.spare.data());
  K differ = 0;
  Index nans = 0;
  for (Index i = 0; i < n; ++i) {
    keys[i] = key_of(x[i]);
    differ = K(differ | (keys[i] ^ keys[0]));
    nans += is_nan<T>(keys[i]);
  }
  Index place = place_of(which, k, n, nans);
  uint32_t* counts = scratch.counts.data();
  // the digit that holds the place: `digit_of(i)` of n; place becomes the place among its keys
  const auto find = [&](Index count, int width, auto digit_of) {
    std::fill(counts, counts + (Index(1) << width), 0u);
    for (Index i = 0; i < count; ++i) ++counts[digit_of(i)];
    Index d = 0;
    while (place >= Index(counts[d])) place -= Index(counts[d++]);
    return K(d);
  };
  const int most = n < kWideFrom ? 8 : kDigitBits;
  int top = differ ? 64 - __builtin_clzll(uint64_t(differ)) : 1, width = std::min(top, most);
  K mask = K((uint64_t(1) << width) - 1);
  K digit = find(n, width, [&](Index i) { return (keys[i] >> (top - width)) & mask; });
  Index kept = 0;
  for (Index i = 0; i < n; ++i)
    if (((keys[i] >> (top - width)) & mask) == digit) e[kept++] = {keys[i], uint32_t(i)};
  while (kept > kNarrow && (top -= width) > 0) {
    width = std::min(top, most);
    mask = K((uint64_t(1) << width) - 1);
    digit = find(kept, width, [&](Index i) { return (e[i].key >> (top - width)) & mask; });
    const Index before_it = kept;
    kept = 0;
    for (Index i = 0; i < before_it; ++i)
      if (((e[i].key >> (top - width)) & mask) == digit) e[kept++] = e[i];
  }
  return kept > kNarrow ? e[place] : at_place(e, kept, place);  // equal keys are in order
}

template <class T>
Entry<T> select_long(Index n, Middle which, Index k, const T* x) {
  using K = Key<T>;
  const Index pieces = n / kPiece;
  Index nans = 0;
  if (std::is_floating_point_v<T> && which != Middle::kth) {
    std::vector<Index> count(size_t(pieces), 0);
    parallel_for(pieces, 1, [&](Index first, Index last) {
      for (Index p = first; p < last; ++p)
        for (Index i = p * kPiece; i < piece_end(p, pieces, n); ++i) count[size_t(p)] += x[i] != x[i];
    });
    for (Index c : count) nans += c;
  }
  const Index place = place_of(which, k, n, nans);
  Scratch<K> sample(kSample);
  for (Index i = 0; i < kSample; ++i) sample[i] = key_of(x[i * (n / kSample)]);
  std::sort(sample.data(), sample.data() + kSample);
  const Index middle = Index(double(place) / double(n) * double(kSample));
  const K low = middle < kReach ? K(0) : sample[middle - kReach];
  const K high = middle + kReach >= kSample ? K(~K(0)) : sample[middle + kReach];
  std::vector<Index> below(size_t(pieces), 0), within(size_t(pieces) + 1, 0);
  parallel_for(pieces, 1, [&](Index first, Index last) {
    for (Index p = first; p < last; ++p) {
      Index less = 0, up_to = 0;
      for (Index i = p * kPiece; i < piece_end(p, pieces, n); ++i) {
        const K key = key_of(x[i]);
        less += key < low;
        up_to += key <= high;
      }
      below[size_t(p)] = less;
      within[size_t(p) + 1] = up_to - less;
    }
  });
  Index less = 0;
  for (Index p = 0; p < pieces; ++p) {
    less += below[size_t(p)];
    within[size_t(p) + 1] += within[size_t(p)];
  }
  const Index kept = within[size_t(pieces)];
  if (place < less || place >= less + kept) {
    LineScratch<T> scratch(n);
    scratch.fill(x, n, K(0));
    return at_place(scratch.entries.data(), n, place);
  }
  Scratch<Entry<T>> entries(kept);
  parallel_for(pieces, 1, [&](Index first, Index last) {
    for (Index p = first; p < last; ++p) {
      Entry<T>* to = entries.data() + within[size_t(p)];
      for (Index i = p * kPiece; i < piece_end(p, pieces, n); ++i) {
        const K key = key_of(x[i]);
        if (key >= low && key <= high) *to++ = {key, uint32_t(i)};
      }
    }
  });
  return at_place(entries.data(), kept, place - less);
}

template <class T>
void select_rows(Index rows, Index length, Middle which, Index k, const T* x, T* values, int64_t* indices) {
  const auto write = [&](Index r, const Entry<T>& e) {
    values[r] = x[r * length + Index(e.at)];
    indices[r] = int64_t(e.at);
  };
  if (length >= 2 * kPiece) {
    for (Index r = 0; r < rows; ++r) write(r, select_long(length, which, k, x + r * length));
    return;
  }
  over_lines<T>(rows, length, [&](LineScratch<T>& scratch, Index r) {
    write(r, select_short(scratch, length, which, k, x + r * length));
  });
}

// The lines along memory.
template <class T>
const T* along(const LineShape& s, const T* x, std::optional<Scratch<T>>& copy) {
  if (s.inner == 1) return x;
  copy.emplace(s.outer * s.length * s.inner);
  swap_axes(s.outer, s.length, s.inner, x, copy->data());
  return copy->data();
}

}  // namespace

template <class T>
void topk_lines(const LineShape& s, Index k, bool largest, const T* x, T* values, int64_t* indices) {
  if (k == 0) return;
  if (s.inner == 1) return topk_rows(s.outer, s.length, k, largest, x, values, indices);
  std::optional<Scratch<T>> copy;
  const Index n = s.outer * k * s.inner;
  Scratch<T> best(n);
  Scratch<int64_t> at(n);
  topk_rows(s.outer * s.inner, s.length, k, largest, along(s, x, copy), best.data(), at.data());
  swap_axes(s.outer, s.inner, k, best.data(), values);
  swap_axes(s.outer, s.inner, k, at.data(), indices);
}

template <class T>
void select_lines(const LineShape& s, Middle which, Index k, const T* x, T* values, int64_t* indices) {
  std::optional<Scratch<T>> copy;
  select_rows(s.outer * s.inner, s.length, which, k, along(s, x, copy), values, indices);
}

#define TG_SELECT_OF(T)                                                                  \
  template void topk_lines(const LineShape&, Index, bool, const T*, T*, int64_t*);       \
  template void select_lines(const LineShape&, Middle, Index, const T*, T*, int64_t*);
TG_SELECT_OF(float)
TG_SELECT_OF(double)
TG_SELECT_OF(int64_t)
TG_SELECT_OF(int32_t)
TG_SELECT_OF(int16_t)
TG_SELECT_OF(int8_t)
TG_SELECT_OF(uint8_t)

}  // namespace tg
