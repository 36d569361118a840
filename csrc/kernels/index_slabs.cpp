// Slices along one axis: rows of a table, read by index or written to. Wide slices are cut into tiles of columns, each a task
// that goes through all of the index, as are narrow ones of a little table; others are dealt to rows (index_deal.h). Each
// row takes what is written to it in the order of the index; places of a little table that many integers are added to take it
// by stretches of the index.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <type_traits>
#include <vector>

#include "../core/copy_bytes.h"
#include "../core/lanes.h"
#include "index.h"
#include "index_combine.h"
#include "index_deal.h"

namespace tg {
namespace {

constexpr Index kPiece = 16384;  // elements per task
constexpr Index kWide = 2048;    // elements of a slice that is cut
constexpr Index kColumns = 1024;
constexpr Index kLittle = 1024;  // elements of a table that each of several threads may have
constexpr Index kAhead = 8;      // rows of a table that are fetched before they are read (embedding: half the time)

// A row's lines, of a long row the first.
inline void prefetch(const void* row, Index bytes) {
  for (Index k = 0; k < std::min<Index>(bytes, 512); k += 64) __builtin_prefetch(static_cast<const char*>(row) + k);
}

// The columns [first, last) of rows. Not inlined: what deals them to threads is compiled once for all ways to combine, and
// called for each row, the loop over columns took four times as long for rows of four elements.
template <class T>
using Rows = void (*)(Index count, Index inner, Index first, Index last, T* y, const int64_t* index, const T* src, int64_t skip);

template <class T>
Rows<T> rows_that(Combine how) {
  return with_combine<T>(how, [](auto combine) -> Rows<T> {
    return [](Index count, Index inner, Index first, Index last, T* y, const int64_t* index, const T* src, int64_t skip) {
      constexpr decltype(combine) both{};
      // a pair as one: half the time of a loop over two columns
      if constexpr (std::is_same_v<T, float> && std::is_same_v<decltype(combine), Sum>) {
        if (inner == 2) {
          typedef float Pair __attribute__((vector_size(8), aligned(4), may_alias));
          auto* to = reinterpret_cast<Pair*>(y);
          const auto* from = reinterpret_cast<const Pair*>(src);
          for (Index m = 0; m < count; ++m)
            if (index[m] != skip) to[index[m]] += from[m];
          return;
        }
      }
      for (Index m = 0; m < count; ++m) {
        if (index[m] == skip) continue;
        T* to = y + index[m] * inner;
        const T* from = src + m * inner;
        Index j = first;
        if constexpr (std::is_floating_point_v<T>) {
          constexpr Index step = lanes::Lanes<T>::count;
          for (; j + step <= last; j += step) lanes::store(to + j, both(lanes::load(to + j), lanes::load(from + j)));
        }
        for (; j < last; ++j) to[j] = both(to[j], from[j]);
      }
    };
  });
}

}  // namespace

void select_slabs(Index outer, Index length, Index count, Index bytes, const char* x, const int64_t* index, char* y) {
  if (bytes == 0 || count == 0) return;
  const Index group = std::max<Index>(1, 4 * kPiece / bytes);
  parallel_for(outer * count, group, [&](Index first, Index last) {
    const auto each = [&](auto copy) {
      for (Index t = first; t < last;) {
        const Index m = t % count, n = std::min(count - m, last - t);
        const char* from = x + t / count * length * bytes;
        char* to = y + t * bytes;
        for (Index k = 0; k < n; ++k) {
          if (bytes >= 64 && k + kAhead < n) prefetch(from + index[m + k + kAhead] * bytes, bytes);
          copy(to + k * bytes, from + index[m + k] * bytes);
        }
        t += n;
      }
    };
    switch (bytes) {
      case 4: return each([](char* to, const char* from) { std::memcpy(to, from, 4); });
      case 8: return each([](char* to, const char* from) { std::memcpy(to, from, 8); });
      case 16: return each([](char* to, const char* from) { std::memcpy(to, from, 16); });
      default: return each([&](char* to, const char* from) { copy_bytes(to, from, bytes); });
    }
  });
}

void number_slabs(int ndim, const Index* shape, const Index* strides, Index length, bool first_axis, const int64_t* from,
                  int64_t* numbers) {
  const int last = std::max(0, ndim - 1);
  const Index row = ndim ? shape[last] : 1, step = ndim ? strides[last] : 0;
  Index rows = 1;
  for (int d = 0; d < last; ++d) rows *= shape[d];
  parallel_for(rows, std::max<Index>(1, kPiece / std::max<Index>(1, row)), [&](Index first, Index end) {
    Index at[64], offset = 0, rest = first;
    for (int d = last; d-- > 0; rest /= shape[d]) offset += (at[d] = rest % shape[d]) * strides[d];
    for (Index r = first; r < end; ++r) {
      int64_t* to = numbers + r * row;
      for (Index j = 0; j < row; ++j) {
        const int64_t i = from[offset + j * step], whole = i < 0 ? i + length : i;
        to[j] = first_axis ? whole : to[j] * length + whole;
      }
      for (int d = last; d-- > 0;) {
        offset += strides[d];
        if (++at[d] < shape[d]) break;
        offset -= shape[d] * strides[d];
        at[d] = 0;
      }
    }
  });
}

void write_slabs(Index outer, Index length, Index count, Index bytes, char* y, const int64_t* index, const char* src) {
  if (bytes == 0 || count == 0) return;
  if (count > length && bytes >= 64) {
    // most are written over by later ones: 5000 rows of 128 bytes to 500 took 30 us, the last of each alone take 9
    Scratch<Index> last(length), kept(2 * length);
    std::fill_n(last.data(), length, Index(-1));
    for (Index m = 0; m < count; ++m) last[index[m]] = m;
    Index n = 0;
    for (Index row = 0; row < length; ++row)
      if (last[row] >= 0) kept[n] = row, kept[length + n++] = last[row];
    parallel_for(outer * n, std::max<Index>(1, 4 * kPiece / bytes), [&](Index first, Index end) {
      for (Index t = first; t < end; ++t) {
        const Index o = t / n, k = t % n;
        copy_bytes(y + (o * length + kept[k]) * bytes, src + (o * count + kept[length + k]) * bytes, bytes);
      }
    });
    return;
  }
  // tiles are whole lines of the cache: two threads that write to one line wait for each other
  const Index columns = bytes % 64 ? bytes : std::max<Index>(64, (bytes / 8 + 63) / 64 * 64);
  const Index tiles = (bytes + columns - 1) / columns;
  parallel_for(outer * tiles, std::max<Index>(1, 4 * kPiece / (count * columns)), [&](Index first, Index last) {
    for (Index t = first; t < last; ++t) {
      const Index o = t / tiles, column = t % tiles * columns, width = std::min(columns, bytes - column);
      char* to = y + o * length * bytes + column;
      const char* from = src + o * count * bytes + column;
      for (Index m = 0; m < count; ++m) copy_bytes(to + index[m] * bytes, from + m * bytes, width);
    }
  });
}

template <class T>
void combine_slabs(Combine how, Index outer, Index length, Index count, Index inner, T* y, const int64_t* index, const T* src,
                   int64_t skip) {
  if (outer == 0 || count == 0 || inner == 0 || length == 0) return;
  const Rows<T> rows = rows_that<T>(how);
  const Index work = count * inner;
  // Narrow rows that the caches hold are written as they come: dealing 8000 of 32 takes twice as long, 20,000 of 8 five
  // times. Tiles are lines of the cache then: two threads that write to one line wait for each other.
  constexpr Index line = 64 / Index(sizeof(T));
  const bool lined = inner % line == 0;
  const bool near = inner < (lined ? kWide / 8 : 4 * line) && length * inner * Index(sizeof(T)) <= kNear;
  const Index columns = inner >= kWide ? kColumns : near && lined ? (inner / 8 / line + 1) * line : inner;
  const Index tiles = (inner + columns - 1) / columns;
  // Stretches with tables of their own: 50,000 numbers to 64 places took 60 us one after another. Only of integers: floats
  // are added in the order of the index, with the bits that a program's sums by groups have (index_sums.cpp).
  const bool stretches = std::is_integral_v<T> && outer * inner == 1 && count >= kDealFrom && length <= kLittle;
  if (stretches && how == Combine::add && skip < 0) {
    constexpr Index kTables = 8;
    constexpr int64_t whole = 0;
    const Index stretch = (count + kTables - 1) / kTables;
    Scratch<T> tables(kTables * length);
    parallel_for(kTables, 1, [&](Index first, Index last) {
      for (Index t = first; t < last; ++t) {
        const Index begin = std::min(count, t * stretch);
        T* own = tables.data() + t * length;
        std::fill_n(own, length, T(0));
        rows(std::min(stretch, count - begin), 1, 0, 1, own, index + begin, src + begin, skip);
      }
    });
    for (Index t = 0; t < kTables; ++t) rows(1, length, 0, length, y, &whole, tables.data() + t * length, skip);
    return;
  }
  if (near || outer * tiles >= 8 || work < 2 * kPiece) {
    parallel_for(outer * tiles, std::max<Index>(1, kPiece / (count * columns)), [&](Index first, Index last) {
      for (Index t = first; t < last; ++t) {
        const Index o = t / tiles, column = t % tiles * columns;
        rows(count, inner, column, std::min(inner, column + columns), y + o * length * inner, index, src + o * count * inner,
             skip);
      }
    });
    return;
  }
  for (Index o = 0; o < outer; ++o, y += length * inner, src += count * inner) {
    const auto row = [&](Index m) { return index[m] == skip ? Index(-1) : Index(index[m]); };
    if (inner == 1 && how == Combine::add) {
      write_dealt<T, T>(
          count, length, y, row, [&](Index m) { return src[m]; }, [](T& to, const T& v) { to = T(to + v); });
      continue;
    }
    const Buckets buckets(length, std::max<Index>(1, 131072 / (inner * Index(sizeof(T)))));
    deal<Index>(count, buckets, row, [](Index m) { return m; }, [&](Index m, Index) {
      rows(1, inner, 0, inner, y, index + m, src + m * inner, skip);
    });
  }
}

IndexRange range_of(const int64_t* index, Index n) {
  const auto of = [&](Index first, Index last) {
    int64_t low = index[first], high = index[first];
    for (Index i = first + 1; i < last; ++i) {
      low = std::min(low, index[i]);
      high = std::max(high, index[i]);
    }
    return IndexRange{low, high};
  };
  const Index pieces = (n + kDealPiece - 1) / kDealPiece;
  if (pieces == 1) return of(0, n);
  std::vector<IndexRange> parts(static_cast<size_t>(pieces));
  parallel_for(pieces, 1, [&](Index first, Index last) {
    for (Index p = first; p < last; ++p) parts[size_t(p)] = of(p * kDealPiece, std::min(n, (p + 1) * kDealPiece));
  });
  IndexRange all = parts[0];
  for (const IndexRange& part : parts) all = {std::min(all.low, part.low), std::max(all.high, part.high)};
  return all;
}

bool all_within(const int64_t* index, Index n, Index limit) {
  std::atomic<bool> within{true};
  parallel_for(n, kDealPiece, [&](Index first, Index last) {
    if (!indices_within(index + first, last - first, limit)) within = false;
  });
  return within;
}

void count_values(Index n, const int64_t* x, Index bins, int64_t* y) {
  std::fill(y, y + bins, int64_t(0));
  // whole numbers may be counted in any order: tables of their own for a few stretches, which are read and added once
  const Index tables = std::min<Index>(8, n / std::max<Index>(1, 8 * bins));
  if (n < kDealFrom || (tables <= 1 && bins * Index(sizeof(int64_t)) <= kNear)) {
    for (Index i = 0; i < n; ++i) ++y[x[i]];
  } else if (tables > 1) {
    Scratch<int64_t> own(tables * bins);
    const Index stretch = (n + tables - 1) / tables;
    parallel_for(tables, 1, [&](Index first, Index last) {
      for (Index t = first; t < last; ++t) {
        int64_t* to = own.data() + t * bins;
        std::fill(to, to + bins, int64_t(0));
        for (Index i = t * stretch; i < std::min(n, (t + 1) * stretch); ++i) ++to[x[i]];
      }
    });
    parallel_for(bins, kPiece, [&](Index first, Index last) {
      for (Index t = 0; t < tables; ++t)
        for (Index b = first; b < last; ++b) y[b] += own[t * bins + b];
    });
  } else {
    const Buckets buckets(bins, 16384);
    const Index within = (Index(1) << buckets.shift) - 1;
    deal<uint32_t>(
        n, buckets, [&](Index m) { return Index(x[m]); }, [&](Index m) { return uint32_t(x[m] & within); },
        [&](uint32_t at, Index start) { ++y[start + at]; });
  }
}

template <class T>
void add_weights(Index n, const int64_t* x, Index bins, const T* weights, T* y) {
  std::fill(y, y + bins, T(0));
  write_dealt<T, T>(
      n, bins, y, [&](Index m) { return Index(x[m]); }, [&](Index m) { return weights[m]; },
      [](T& to, const T& v) { to = T(to + v); });
}

template void combine_slabs(Combine, Index, Index, Index, Index, float*, const int64_t*, const float*, int64_t);
template void combine_slabs(Combine, Index, Index, Index, Index, double*, const int64_t*, const double*, int64_t);
template void combine_slabs(Combine, Index, Index, Index, Index, uint64_t*, const int64_t*, const uint64_t*, int64_t);
template void combine_slabs(Combine, Index, Index, Index, Index, c64*, const int64_t*, const c64*, int64_t);
template void combine_slabs(Combine, Index, Index, Index, Index, c128*, const int64_t*, const c128*, int64_t);
template void add_weights(Index, const int64_t*, Index, const float*, float*);
template void add_weights(Index, const int64_t*, Index, const double*, double*);

}  // namespace tg
