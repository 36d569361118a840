// A value becomes an unsigned key that orders like it (floats: flip the sign bit, or all bits of a negative; every NaN
// becomes the largest key), inverted for a descending sort. Keys carry their position, so ties keep their order.
// Short lines: merge sort of (key, position). Long lines: radix sort from the lowest byte up, skipping bytes that all
// keys share. Lines are dealt to threads; a single line is sorted by one.
#include "sort.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "../core/parallel.h"

namespace tg {
namespace {

constexpr Index kPiece = 8192;       // elements per task
constexpr Index kRadixFrom = 512;    // shorter lines are merge sorted

template <size_t Size>
struct KeyOf;
template <>
struct KeyOf<1> { using Type = uint8_t; };
template <>
struct KeyOf<2> { using Type = uint16_t; };
template <>
struct KeyOf<4> { using Type = uint32_t; };
template <>
struct KeyOf<8> { using Type = uint64_t; };

template <class T>
using Key = typename KeyOf<sizeof(T)>::Type;

template <class T>
inline Key<T> key_of(T x) {
  using K = Key<T>;
  constexpr K top = K(1) << (8 * sizeof(T) - 1);
  if constexpr (std::is_floating_point_v<T>) {
    if (x != x) return K(~K(0));
    if (x == 0) return top;  // -0 and 0 are equal
    K bits;
    std::memcpy(&bits, &x, sizeof(x));
    return bits & top ? K(~bits) : K(bits | top);
  } else if constexpr (std::is_signed_v<T>) {
    return K(K(x) ^ top);
  } else {
    return K(x);
  }
}

template <class T>
struct Entry {
  Key<T> key;
  uint32_t at;
};

template <class T>
bool before(const Entry<T>& a, const Entry<T>& b) {
  return a.key < b.key || (a.key == b.key && a.at < b.at);
}

template <class T>
void insertion_sort(Entry<T>* e, Index n) {
  for (Index i = 1; i < n; ++i) {
    const Entry<T> x = e[i];
    Index j = i;
    for (; j > 0 && x.key < e[j - 1].key; --j) e[j] = e[j - 1];
    e[j] = x;
  }
}

// Sorts `e`, using `spare` of the same length; returns where the result lies.
template <class T>
Entry<T>* radix_sort(Entry<T>* e, Entry<T>* spare, Index n) {
  constexpr int bytes = int(sizeof(T));
  std::vector<uint32_t> counts(size_t(bytes) * 256, 0);
  for (Index i = 0; i < n; ++i)
    for (int b = 0; b < bytes; ++b) ++counts[size_t(b) * 256 + size_t((e[i].key >> (8 * b)) & 255)];
  for (int b = 0; b < bytes; ++b) {
    uint32_t* count = &counts[size_t(b) * 256];
    if (count[(e[0].key >> (8 * b)) & 255] == uint32_t(n)) continue;
    uint32_t start = 0;
    for (int d = 0; d < 256; ++d) {
      const uint32_t c = count[d];
      count[d] = start;
      start += c;
    }
    for (Index i = 0; i < n; ++i) spare[count[(e[i].key >> (8 * b)) & 255]++] = e[i];
    std::swap(e, spare);
  }
  return e;
}

template <class T>
struct LineScratch {
  explicit LineScratch(Index n) : entries(size_t(n)), spare(size_t(n)) {}
  std::vector<Entry<T>> entries, spare;
};

template <class T>
const Entry<T>* sort_line(LineScratch<T>& s, Index n) {
  if (n <= 32) {
    insertion_sort(s.entries.data(), n);
    return s.entries.data();
  }
  if (n < kRadixFrom) {
    std::sort(s.entries.begin(), s.entries.begin() + n, before<T>);  // positions make it stable
    return s.entries.data();
  }
  return radix_sort(s.entries.data(), s.spare.data(), n);
}

template <class T, class Line>
void over_lines(const LineShape& s, Line line) {
  const Index lines = s.outer * s.inner;
  parallel_for(lines, std::max<Index>(1, kPiece / std::max<Index>(1, s.length)), [&](Index first, Index last) {
    LineScratch<T> scratch(s.length);
    for (Index l = first; l < last; ++l) line(scratch, l / s.inner, l % s.inner);
  });
}

template <class T>
void fill_entries(LineScratch<T>& scratch, const T* x, Index n, Index stride, bool invert) {
  const Key<T> flip = invert ? Key<T>(~Key<T>(0)) : Key<T>(0);
  for (Index i = 0; i < n; ++i) scratch.entries[size_t(i)] = {Key<T>(key_of(x[i * stride]) ^ flip), uint32_t(i)};
}

}  // namespace

template <class T>
void sort_lines(const LineShape& s, bool descending, const T* x, T* values, int64_t* indices) {
  over_lines<T>(s, [&](LineScratch<T>& scratch, Index o, Index i) {
    const Index base = o * s.length * s.inner + i;
    fill_entries(scratch, x + base, s.length, s.inner, descending);
    const Entry<T>* e = sort_line(scratch, s.length);
    for (Index k = 0; k < s.length; ++k) {
      values[base + k * s.inner] = x[base + Index(e[k].at) * s.inner];
      if (indices) indices[base + k * s.inner] = int64_t(e[k].at);
    }
  });
}

template <class T>
void topk_lines(const LineShape& s, Index k, bool largest, const T* x, T* values, int64_t* indices) {
  if (k == 0) return;
  over_lines<T>(s, [&](LineScratch<T>& scratch, Index o, Index i) {
    const Index base = o * s.length * s.inner + i;
    auto& e = scratch.entries;
    if (k * 8 <= s.length && k <= 128) {
      // Few of many: a heap of the best k, whose worst turns most values away at one comparison.
      const Key<T> flip = largest ? Key<T>(~Key<T>(0)) : Key<T>(0);
      for (Index j = 0; j < k; ++j) e[size_t(j)] = {Key<T>(key_of(x[base + j * s.inner]) ^ flip), uint32_t(j)};
      std::make_heap(e.begin(), e.begin() + k, before<T>);
      for (Index j = k; j < s.length; ++j) {
        const Key<T> key = Key<T>(key_of(x[base + j * s.inner]) ^ flip);
        if (key >= e[0].key) continue;
        std::pop_heap(e.begin(), e.begin() + k, before<T>);
        e[size_t(k - 1)] = {key, uint32_t(j)};
        std::push_heap(e.begin(), e.begin() + k, before<T>);
      }
      std::sort_heap(e.begin(), e.begin() + k, before<T>);
    } else {
      fill_entries(scratch, x + base, s.length, s.inner, largest);
      if (k < s.length) std::nth_element(e.begin(), e.begin() + (k - 1), e.begin() + s.length, before<T>);
      std::sort(e.begin(), e.begin() + k, before<T>);
    }
    const Index to = o * k * s.inner + i;
    for (Index j = 0; j < k; ++j) {
      values[to + j * s.inner] = x[base + Index(e[size_t(j)].at) * s.inner];
      indices[to + j * s.inner] = int64_t(e[size_t(j)].at);
    }
  });
}

template void sort_lines(const LineShape&, bool, const float*, float*, int64_t*);
template void topk_lines(const LineShape&, Index, bool, const float*, float*, int64_t*);
template void sort_lines(const LineShape&, bool, const double*, double*, int64_t*);
template void topk_lines(const LineShape&, Index, bool, const double*, double*, int64_t*);
template void sort_lines(const LineShape&, bool, const int64_t*, int64_t*, int64_t*);
template void topk_lines(const LineShape&, Index, bool, const int64_t*, int64_t*, int64_t*);
template void sort_lines(const LineShape&, bool, const int32_t*, int32_t*, int64_t*);
template void topk_lines(const LineShape&, Index, bool, const int32_t*, int32_t*, int64_t*);
template void sort_lines(const LineShape&, bool, const uint8_t*, uint8_t*, int64_t*);
template void topk_lines(const LineShape&, Index, bool, const uint8_t*, uint8_t*, int64_t*);
template void sort_lines(const LineShape&, bool, const int8_t*, int8_t*, int64_t*);
template void topk_lines(const LineShape&, Index, bool, const int8_t*, int8_t*, int64_t*);
template void sort_lines(const LineShape&, bool, const int16_t*, int16_t*, int64_t*);
template void topk_lines(const LineShape&, Index, bool, const int16_t*, int16_t*, int64_t*);

}  // namespace tg
