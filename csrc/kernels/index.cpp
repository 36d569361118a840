// No two threads ever write one element, and every element takes its additions in the order of the index: sums have the
// same bits for any number of threads. gather and scatter split over the axes other than dim; add_slabs deals rows of
// the target into buckets first, so that each bucket belongs to one task.
#include "index.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "../core/parallel.h"

namespace tg {
namespace {

constexpr Index kPiece = 16384;  // elements per task
constexpr Index kTile = 256;     // elements of the axes after dim per task

// Walks index in parallel: visit(position in index, position in data without dim, stride of dim, position in source).
// Axes after dim are flattened; their data positions follow an odometer.
template <class Visit>
void walk(const GatherShape& s, Visit visit) {
  const Index length = s.ndim ? s.index[s.dim] : 1;
  Index before = 1, after = 1, data_inner = 1, source_inner = 1;
  for (int k = 0; k < s.dim; ++k) before *= s.index[k];
  for (int k = s.dim + 1; k < s.ndim; ++k) {
    after *= s.index[k];
    data_inner *= s.data[k];
    source_inner *= s.source[k];
  }
  const Index data_length = s.ndim ? s.data[s.dim] : 1, source_length = s.ndim ? s.source[s.dim] : 1;
  if (before == 0 || after == 0 || length == 0) return;
  bool same_inner = true;  // one run serves where the trailing axes agree
  for (int k = s.dim + 1; k < s.ndim; ++k) same_inner = same_inner && s.index[k] == s.data[k] && s.index[k] == s.source[k];
  const Index tiles = (after + kTile - 1) / kTile;
  const Index group = std::max<Index>(1, kPiece / (std::min(kTile, after) * length));
  parallel_for(before * tiles, group, [&](Index first, Index last) {
    Index data_at[kTile], source_at[kTile];
    for (Index t = first; t < last; ++t) {
      const Index b = t / tiles, column = t % tiles * kTile, n = std::min(kTile, after - column);
      Index rest = b, data_outer = 0, source_outer = 0, data_step = 1, source_step = 1;
      for (int k = s.dim - 1; k >= 0; --k) {
        const Index at = rest % s.index[k];
        rest /= s.index[k];
        data_outer += at * data_step;
        source_outer += at * source_step;
        data_step *= s.data[k];
        source_step *= s.source[k];
      }
      for (Index j = 0; j < n; ++j) {
        if (same_inner) {
          data_at[j] = source_at[j] = column + j;
          continue;
        }
        Index left = column + j, d = 0, q = 0, ds = 1, qs = 1;
        for (int k = s.ndim - 1; k > s.dim; --k) {
          const Index at = left % s.index[k];
          left /= s.index[k];
          d += at * ds;
          q += at * qs;
          ds *= s.data[k];
          qs *= s.source[k];
        }
        data_at[j] = d;
        source_at[j] = q;
      }
      const Index data_base = data_outer * data_length * data_inner;
      const Index source_base = source_outer * source_length * source_inner;
      if (s.dim + 1 == s.ndim) {  // nothing comes after dim
        for (Index r = 0; r < length; ++r) visit(b * length + r, data_base, Index(1), source_base + r);
        continue;
      }
      for (Index r = 0; r < length; ++r) {
        const Index at = (b * length + r) * after + column;
        for (Index j = 0; j < n; ++j)
          visit(at + j, data_base + data_at[j], data_inner, source_base + r * source_inner + source_at[j]);
      }
    }
  });
}

template <class Use>
void with_item(Index itemsize, Use use) {
  struct Pair {
    uint64_t a, b;
  };
  switch (itemsize) {
    case 1: return use(uint8_t{});
    case 2: return use(uint16_t{});
    case 4: return use(uint32_t{});
    case 8: return use(uint64_t{});
    default: return use(Pair{});
  }
}

}  // namespace

void gather_items(const GatherShape& s, Index itemsize, const char* x, const int64_t* index, char* y) {
  with_item(itemsize, [&](auto item) {
    using I = decltype(item);
    const I* from = reinterpret_cast<const I*>(x);
    I* to = reinterpret_cast<I*>(y);
    walk(s, [&](Index at, Index data, Index step, Index) { to[at] = from[data + index[at] * step]; });
  });
}

void scatter_items(const GatherShape& s, Index itemsize, char* y, const int64_t* index, const char* src) {
  with_item(itemsize, [&](auto item) {
    using I = decltype(item);
    const I* from = reinterpret_cast<const I*>(src);
    I* to = reinterpret_cast<I*>(y);
    walk(s, [&](Index at, Index data, Index step, Index source) { to[data + index[at] * step] = from[source]; });
  });
}

template <class T>
void scatter_add(const GatherShape& s, T* y, const int64_t* index, const T* src) {
  walk(s, [&](Index at, Index data, Index step, Index source) {
    T& to = y[data + index[at] * step];
    to = T(to + src[source]);
  });
}

void select_slabs(Index outer, Index length, Index count, Index bytes, const char* x, const int64_t* index, char* y) {
  if (bytes == 0 || count == 0) return;
  const Index group = std::max<Index>(1, 4 * kPiece / bytes);
  parallel_for(outer * count, group, [&](Index first, Index last) {
    const auto each = [&](auto copy) {
      for (Index t = first; t < last;) {
        const Index m = t % count, n = std::min(count - m, last - t);
        const char* from = x + t / count * length * bytes;
        char* to = y + t * bytes;
        for (Index k = 0; k < n; ++k) copy(to + k * bytes, from + index[m + k] * bytes);
        t += n;
      }
    };
    switch (bytes) {
      case 4: return each([](char* to, const char* from) { std::memcpy(to, from, 4); });
      case 8: return each([](char* to, const char* from) { std::memcpy(to, from, 8); });
      default: return each([&](char* to, const char* from) { std::memcpy(to, from, size_t(bytes)); });
    }
  });
}

template <class T>
void add_slabs(Index outer, Index length, Index count, Index inner, T* y, const int64_t* index, const T* src,
               int64_t skip) {
  if (outer == 0 || count == 0 || inner == 0 || length == 0) return;
  const auto add = [&](Index o, Index m) {
    T* to = y + (o * length + index[m]) * inner;
    const T* from = src + (o * count + m) * inner;
    for (Index j = 0; j < inner; ++j) to[j] = T(to[j] + from[j]);
  };
  const Index work = count * inner;
  if (outer > 1 || work < 2 * kPiece) {
    parallel_for(outer, std::max<Index>(1, kPiece / work), [&](Index first, Index last) {
      for (Index o = first; o < last; ++o)
        for (Index m = 0; m < count; ++m)
          if (index[m] != skip) add(o, m);
    });
    return;
  }
  // Buckets of neighbouring rows, each with the positions of the index that fall into it, in order.
  const Index buckets = std::min<Index>({length, 64, work / kPiece});
  const Index width = (length + buckets - 1) / buckets;
  std::vector<Index> start(size_t(buckets + 1), 0), order(size_t(count), 0);
  for (Index m = 0; m < count; ++m)
    if (index[m] != skip) ++start[size_t(index[m] / width + 1)];
  for (Index b = 0; b < buckets; ++b) start[size_t(b + 1)] += start[size_t(b)];
  std::vector<Index> next(start.begin(), start.end() - 1);
  for (Index m = 0; m < count; ++m)
    if (index[m] != skip) order[size_t(next[size_t(index[m] / width)]++)] = m;
  parallel_for(buckets, 1, [&](Index first, Index last) {
    for (Index k = start[size_t(first)]; k < start[size_t(last)]; ++k) add(0, order[size_t(k)]);
  });
}

IndexRange range_of(const int64_t* index, Index n) {
  int64_t low = index[0], high = index[0];
  for (Index i = 1; i < n; ++i) {
    low = std::min(low, index[i]);
    high = std::max(high, index[i]);
  }
  return {low, high};
}

template void scatter_add(const GatherShape&, float*, const int64_t*, const float*);
template void add_slabs(Index, Index, Index, Index, float*, const int64_t*, const float*, int64_t);
template void scatter_add(const GatherShape&, double*, const int64_t*, const double*);
template void add_slabs(Index, Index, Index, Index, double*, const int64_t*, const double*, int64_t);
template void scatter_add(const GatherShape&, uint64_t*, const int64_t*, const uint64_t*);
template void add_slabs(Index, Index, Index, Index, uint64_t*, const int64_t*, const uint64_t*, int64_t);
template void scatter_add(const GatherShape&, c64*, const int64_t*, const c64*);
template void add_slabs(Index, Index, Index, Index, c64*, const int64_t*, const c64*, int64_t);
template void scatter_add(const GatherShape&, c128*, const int64_t*, const c128*);
template void add_slabs(Index, Index, Index, Index, c128*, const int64_t*, const c128*, int64_t);

}  // namespace tg
