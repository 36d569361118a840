// Rows of a table, added up by groups: bags of words, and what a graph's edges bring from their sources to their targets.
// Who adds by an index in any order reads and writes a place of the result for each row. Brought together first, a group's
// sum stays in registers, and is written once; groups are tasks, and each adds its rows in their order.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

#include "../core/lanes.h"
#include "index.h"
#include "index_deal.h"

namespace tg {
namespace {

constexpr Index kPiece = 16384;  // elements per task
constexpr Index kAhead = 8;      // rows that are fetched before they are read
constexpr Index kNearTable = 262144;  // bytes that a cache holds

inline void prefetch(const void* row, Index bytes) {
  for (Index k = 0; k < std::min<Index>(bytes, 512); k += 64) __builtin_prefetch(static_cast<const char*>(row) + k);
}

// `count` neighbouring vectors (or single columns, where V is T) of a group's sum.
template <class V, int count, bool weighted, class T>
void sum_columns(const RowSums<T>& s, Index begin, Index end, Index head, Index column, Index at) {
  constexpr Index lanes = sizeof(V) / sizeof(T);
  const Index row = s.heads * s.width;
  const auto read = [](const T* from) {
    V v;
    std::memcpy(&v, from, sizeof(V));
    return v;
  };
  V sums[count] = {};
  if (s.base)
    for (int v = 0; v < count; ++v) sums[v] = read(s.base + at + column + v * lanes);
  for (Index m = begin; m < end; ++m) {
    if (m + kAhead < s.count) prefetch(s.x + s.index[m + kAhead] * row + column, count * Index(sizeof(V)));
    const T* from = s.x + s.index[m] * row + column;
    if constexpr (weighted) {
      const T weight = s.weights[s.positions[m] * s.heads + head];
      for (int v = 0; v < count; ++v) sums[v] += lanes::rounded(V(read(from + v * lanes) * weight));
    } else {
      for (int v = 0; v < count; ++v) sums[v] += read(from + v * lanes);
    }
  }
  if (s.mean && end - begin > 1)
    for (int v = 0; v < count; ++v) sums[v] /= T(end - begin);
  for (int v = 0; v < count; ++v) std::memcpy(s.y + at + column + v * lanes, &sums[v], sizeof(V));
}

// Sums of single numbers, of which a small table is near.
template <bool weighted, class T>
void sum_singles(const RowSums<T>& s, Index begin, Index end, Index bag, bool far) {
  T sum = s.base ? s.base[bag] : T(0);
  for (Index m = begin; m < end; ++m) {
    if (far && m + kAhead < s.count) __builtin_prefetch(s.x + s.index[m + kAhead]);
    const T x = s.x[s.index[m]];
    sum += weighted ? lanes::rounded(T(x * s.weights[s.positions[m]])) : x;
  }
  s.y[bag] = s.mean && end - begin > 1 ? sum / T(end - begin) : sum;
}

// The last columns, too few for another vector, are computed with some of those before them once more.
template <bool weighted, class T>
void sum_head(const RowSums<T>& s, Index begin, Index end, Index head, Index at) {
  using V = lanes::Vec<T>;
  constexpr Index lanes = lanes::Lanes<T>::count;
  const Index first = head * s.width, last = first + s.width;
  Index j = first;
  for (; j + 8 * lanes <= last; j += 8 * lanes) sum_columns<V, 8, weighted>(s, begin, end, head, j, at);
  for (; j + 2 * lanes <= last; j += 2 * lanes) sum_columns<V, 2, weighted>(s, begin, end, head, j, at);
  if (s.width >= lanes)
    for (; j < last; j += lanes) sum_columns<V, 1, weighted>(s, begin, end, head, std::min(j, last - lanes), at);
  for (; j < last; ++j) sum_columns<T, 1, weighted>(s, begin, end, head, j, at);
}

}  // namespace

template <class T>
bool sum_rows(const RowSums<T>& s) {
  if (!all_within(s.index, s.count, s.length) || (s.weights && !all_within(s.positions, s.count, s.weighed))) return false;
  const Index row = s.heads * s.width, work = std::max<Index>(1, s.count / std::max<Index>(1, s.bags)) * row;
  const bool far = s.length * Index(sizeof(T)) > kNearTable;
  std::atomic<bool> within{true};
  parallel_for(s.bags, std::max<Index>(1, kPiece / std::max<Index>(1, work)), [&](Index first, Index last) {
    for (Index b = first; b < last; ++b) {
      const Index begin = s.ends[b], end = s.ends[b + 1];
      if (begin < 0 || begin > end || end > s.count) {
        within = false;
        return;
      }
      if (row == 1) {
        if (s.weights) sum_singles<true>(s, begin, end, b, far);
        else sum_singles<false>(s, begin, end, b, far);
        continue;
      }
      for (Index head = 0; head < s.heads; ++head) {
        if (s.weights) sum_head<true>(s, begin, end, head, b * row);
        else sum_head<false>(s, begin, end, head, b * row);
      }
    }
  });
  return within;
}

template bool sum_rows(const RowSums<float>&);
template bool sum_rows(const RowSums<double>&);

// Counted by stretches of the positions, each with a table of its own, which then says where its positions go. A table of
// small numbers stays in the first level cache.
template <class Count>
static void group_counted(Index count, Index groups, const int64_t* target, const int64_t* source, int64_t* rows,
                          int64_t* ends, int64_t* positions) {
  const Index stretches = std::clamp<Index>(count / std::max<Index>(kDealFrom / 2, groups), 1, 16);
  const Index length = (count + stretches - 1) / stretches;
  Scratch<Count> next(stretches * groups);
  const auto each = [&](auto visit) {
    parallel_for(stretches, 1, [&](Index first, Index last) {
      for (Index t = first; t < last; ++t) visit(next.data() + t * groups, t * length, std::min(count, (t + 1) * length));
    });
  };
  each([&](Count* own, Index first, Index last) {
    std::fill(own, own + groups, Count(0));
    for (Index m = first; m < last; ++m) ++own[target[m]];
  });
  Count total = 0;
  for (Index g = 0; g < groups; ++g) {
    ends[g] = Index(total);
    for (Index t = 0; t < stretches; ++t) total += std::exchange(next[t * groups + g], total);
  }
  ends[groups] = Index(total);
  each([&](Count* own, Index first, Index last) {
    for (Index m = first; m < last; ++m) {
      const Index to = Index(own[target[m]]++);
      rows[to] = source ? source[m] : m;
      if (positions) positions[to] = m;
    }
  });
}

void group_rows(Index count, Index groups, const int64_t* target, const int64_t* source, int64_t* rows, int64_t* ends,
                int64_t* positions) {
  if (count <= Index(UINT32_MAX)) group_counted<uint32_t>(count, groups, target, source, rows, ends, positions);
  else group_counted<uint64_t>(count, groups, target, source, rows, ends, positions);
}

void count_rows(Index n, Index length, const int64_t* index, int64_t* y) {
  for (Index m = 0; m < n; ++m) y[m] = index[m] + (index[m] >> 63 & length);
}

}  // namespace tg
