// gather and scatter split over the axes other than dim, along which no two threads write one element. Where these make
// too few tasks, gather splits dim as well, and scatter deals its writes to places (index_deal.h). Every element takes
// what is written to it in the order of the index: the same bits for any number of threads.
#include "index.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "index_deal.h"

namespace tg {
namespace {

constexpr Index kPiece = 16384;  // elements per task
constexpr Index kTile = 256;     // elements of the axes after dim per task

constexpr Index kLine = 4096;    // elements along dim per task where the others make few

// Walks index in parallel: visit(position in index, position in data without dim, stride of dim, position in source).
// Axes after dim are flattened; their data positions follow an odometer. `split`: dim may be cut among tasks.
template <class Visit>
void walk(const GatherShape& s, bool split, Visit visit) {
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
  const Index most = split && before * tiles < 16 ? std::max<Index>(kPiece / std::min(kTile, after), kLine) : length;
  const Index cuts = (length + most - 1) / most;
  const Index group = std::max<Index>(1, kPiece / (std::min(kTile, after) * std::min(most, length)));
  parallel_for(before * tiles * cuts, group, [&](Index first, Index last) {
    Index data_at[kTile], source_at[kTile];
    for (Index u = first; u < last; ++u) {
      const Index t = u / cuts, from = u % cuts * most, to = std::min(length, from + most);
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
        for (Index r = from; r < to; ++r) visit(b * length + r, data_base, Index(1), source_base + r);
        continue;
      }
      for (Index r = from; r < to; ++r) {
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

Index product(const Index* shape, int from, int to) {
  Index n = 1;
  for (int k = from; k < to; ++k) n *= shape[k];
  return n;
}

// write(y[place], src[position]) for every index.
template <class T, class Write>
void scatter_all(const GatherShape& s, T* y, const int64_t* index, const T* src, Write write) {
  const Index length = s.ndim ? s.index[s.dim] : 1, n = product(s.index, 0, s.ndim);
  const Index after = product(s.index, s.dim + 1, s.ndim);
  const bool few_tasks = n / std::max<Index>(1, length) / std::min(kTile, std::max<Index>(1, after)) < 4;
  const Index places = product(s.data, 0, s.ndim);
  if (!few_tasks || n < kDealFrom || places * Index(sizeof(T)) <= kNear) {
    walk(s, false, [&](Index at, Index data, Index step, Index source) { write(y[data + index[at] * step], src[source]); });
    return;
  }
  if (s.ndim <= 1) {
    write_dealt<T, T>(n, places, y, [&](Index m) { return index[m]; }, [&](Index m) { return src[m]; }, write);
    return;
  }
  Scratch<Index> place(n), source(n);
  walk(s, true, [&](Index at, Index data, Index step, Index from) {
    place[at] = data + index[at] * step;
    source[at] = from;
  });
  write_dealt<T, T>(n, places, y, [&](Index m) { return place[m]; }, [&](Index m) { return src[source[m]]; }, write);
}

// NaN wins.
template <bool Largest, class T>
inline T extreme(T a, T b) {
  if constexpr (std::is_same_v<T, uint64_t>) {
    return T(Largest ? std::max(int64_t(a), int64_t(b)) : std::min(int64_t(a), int64_t(b)));
  } else {
    return (Largest ? b > a : b < a) || b != b ? b : a;
  }
}

}  // namespace

void gather_items(const GatherShape& s, Index itemsize, const char* x, const int64_t* index, char* y) {
  with_item(itemsize, [&](auto item) {
    using I = decltype(item);
    const I* from = reinterpret_cast<const I*>(x);
    I* to = reinterpret_cast<I*>(y);
    walk(s, true, [&](Index at, Index data, Index step, Index) { to[at] = from[data + index[at] * step]; });
  });
}

void scatter_items(const GatherShape& s, Index itemsize, char* y, const int64_t* index, const char* src) {
  with_item(itemsize, [&](auto item) {
    using I = decltype(item);
    scatter_all(s, reinterpret_cast<I*>(y), index, reinterpret_cast<const I*>(src), [](I& to, const I& v) { to = v; });
  });
}

template <class T>
void scatter_combine(Combine how, const GatherShape& s, T* y, const int64_t* index, const T* src) {
  if (how == Combine::add) return scatter_all(s, y, index, src, [](T& to, const T& v) { to = T(to + v); });
  if constexpr (!std::is_same_v<T, c64> && !std::is_same_v<T, c128>) {
    if (how == Combine::multiply) return scatter_all(s, y, index, src, [](T& to, const T& v) { to = T(to * v); });
    if (how == Combine::largest)
      return scatter_all(s, y, index, src, [](T& to, const T& v) { to = extreme<true>(to, v); });
    scatter_all(s, y, index, src, [](T& to, const T& v) { to = extreme<false>(to, v); });
  }
}

template void scatter_combine(Combine, const GatherShape&, float*, const int64_t*, const float*);
template void scatter_combine(Combine, const GatherShape&, double*, const int64_t*, const double*);
template void scatter_combine(Combine, const GatherShape&, uint64_t*, const int64_t*, const uint64_t*);
template void scatter_combine(Combine, const GatherShape&, c64*, const int64_t*, const c64*);
template void scatter_combine(Combine, const GatherShape&, c128*, const int64_t*, const c128*);

}  // namespace tg
