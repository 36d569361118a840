// Products of a few columns by a long matrix whose rows are summed: the gradient of a weight, of many examples and few
// outputs. There is less to multiply than to read, so the long matrix is read once, in order, as it lies.
//
// Each task has a stretch of its rows, and sums of its own that stay in a near cache; they are added in the order of the
// stretches. Rows are taken a few at a time, all their columns in turn, and the next ones are fetched meanwhile, to the
// second-level cache. (6,000 rows of 784 from memory beside 10 columns, us: 32 rows at a time and fetched to the first
// level, of which a core waits for no more than some two dozen lines, 1,940; 16 rows 1,000, to the second level 840.) Rows
// longer than what a task may sum at once are done strip by strip: 1, 2, 8, 16 rows by (2048, 2048) or (4096, 1024), two
// Zen 4 cores, 1.36, 1.9, 2.3, 1.4 times as fast as in tiles.
#pragma once

#include <algorithm>

#include "../core/allocator.h"
#include "../core/parallel.h"
#include "gemm.h"
#include "gemm_tasks.h"
#include "gemm_tile.h"

namespace tg {

constexpr Index kStreamFew = 16;                   // columns beside which reading takes longer than multiplying
constexpr Index kStreamSums = Index(1) << 14;      // elements of a task's sums at once
constexpr Index kStreamFrom = Index(1) << 18;      // elements of the long matrix that no second-level cache holds
constexpr Index kStreamTerms = 16;                 // rows at a time; more where they are short
constexpr Index kStreamShort = Index(1) << 9;      // elements of so many rows
constexpr Index kStreamTask = Index(1) << 17;      // elements of a stretch
constexpr Index kStreamTasks = 32;

// Whether b is the long matrix, or a with its rows as columns; `none` is for other products.
enum class Long { none, left, right };
template <class T>
Long long_side(const Gemm<T>& g) {
  if (g.k * std::max(g.m, g.n) < kStreamFrom) return Long::none;
  if (g.b.col == 1 && g.b.row >= g.n && g.m <= kStreamFew && g.m <= g.n) return Long::right;
  if (g.a.row == 1 && g.a.col >= g.m && g.n <= kStreamFew && g.n < g.m) return Long::left;
  return Long::none;
}

// What rows [k0, k1) of the long matrix (whose rows are `columns` long) add to `sum`, (few, columns).
template <class T>
void stream_rows(const Matrix<T>& few, Index count, const Matrix<T>& rows, Index columns, Index terms, Index k0, Index k1,
                 Index all, T* sum) {
  constexpr Index N = tile::kColumns<T>;
  Scratch<T, kOnStack> packed(count * terms), edge(terms * N);
  for (Index k = k0; k < k1; k += terms) {
    const Index depth = std::min(terms, k1 - k);
    tile::pack_rows(Matrix<T>{few.data + k * few.col, few.row, few.col}, count, depth, packed.data());
    for (Index j = 0; j < columns; j += N) {
      const Index valid = std::min(N, columns - j), width = valid <= N / tile::kVectors ? N / tile::kVectors : N;
      const T* b = rows.data + k * rows.row + j;
      for (Index i = k + terms; i < std::min(k1, k + 2 * terms); ++i)
        for (Index line = 0; line < valid; line += 64 / Index(sizeof(T))) __builtin_prefetch(b + (i - k) * rows.row + line, 0, 2);
      // what lies behind a row's end is read with it, but not behind the matrix
      const bool in_place = (k + depth - 1) * rows.row + j + width <= (all - 1) * rows.row + columns;
      if (!in_place) tile::pack_columns(Matrix<T>{b, rows.row, 1}, depth, valid, edge.data());
      for (Index i = 0; i < count;) {
        const int tall = tile::height(count - i);
        T* to = sum + i * columns + j;
        tile::run(tall, depth, packed.data() + i * depth, tall, false, in_place ? b : edge.data(), in_place ? rows.row : N,
                  tile::Target<T>{to, columns, valid, k == k0 ? nullptr : to, columns});
        i += tall;
      }
    }
  }
}

template <class T>
[[gnu::noinline]] void stream(const Gemm<T>& g, Index entry, Long side) {
  const bool right = side == Long::right;
  const Matrix<T> a = g.left(entry), b = g.right(entry);
  const Matrix<T> few = right ? a : Matrix<T>{b.data, b.col, b.row}, rows = right ? b : Matrix<T>{a.data, a.col, 1};
  const Index count = right ? g.m : g.n, columns = right ? g.n : g.m;
  // of rows that are longer than so many sums, a strip at a time
  const Index strips = divide_up(count * columns, kStreamSums), width = round_up(divide_up(columns, strips), tile::kColumns<T>);
  const Index terms = std::clamp(kStreamShort / width, kStreamTerms, tile::kSummed), size = count * width;
  const Index parts = std::clamp<Index>(g.k * width / kStreamTask, 1, std::min(kStreamTasks, divide_up(g.k, terms)));
  T* c = g.c + entry * count * columns;
  const Index step = right ? g.n : 1, along = right ? 1 : g.n;
  Scratch<T> sums(parts * size);
  for (Index from = 0; from < columns; from += width) {
    const Index valid = std::min(width, columns - from);
    const Matrix<T> strip{rows.data + from, rows.row, 1};
    for_each_task(parts, [&](Index part) {
      stream_rows(few, count, strip, valid, terms, g.k * part / parts, g.k * (part + 1) / parts, g.k, sums.data() + part * size);
    });
    // of c's rows each by one thread
    const Index grain = right ? std::max<Index>(1, kStreamSums / (valid * parts)) : count;
    parallel_for(count, grain, [&](Index first, Index last) {
      for (Index i = first; i < last; ++i) {
        T* sum = sums.data() + i * valid;
        for (Index part = 1; part < parts; ++part)
          for (Index j = 0; j < valid; ++j) sum[j] += sum[part * size + j];
        for (Index j = 0; j < valid; ++j)
          c[i * step + (from + j) * along] = g.bias ? sum[j] + g.bias[right ? from + j : i] : sum[j];
      }
    });
  }
}

}  // namespace tg
