// The inner loop of a matrix product, and copies of its operands in the order in which the loop reads them:
//
//   c[r][:] (+)= sum_k a[r][k] * b[k][:]      R rows, V vectors of columns, all sums in registers
//
// b is packed: V vectors for each k, one after the other, so that it streams; only where few rows would use the copy is it
// read in place. a is read where it lies if its rows are contiguous (R streams of scalars, each line serving many steps
// of k), else packed: R scalars for each k.
//
// Ladder, one Zen 3 core whose peak is 98 GFLOP/s, (1024, 384) by (384, 384): OpenBLAS 85, a always packed 89, a in
// place 91.
#pragma once

#include <algorithm>
#include <cstring>

#include "../core/transpose.h"
#include "gemm.h"

namespace tg::tile {

using lanes::Lanes;
using lanes::load;
using lanes::store;
using lanes::Vec;

// kRows x kVectors sums, kVectors of b and one of a fill the registers: 15 of 16, 27 or 28 of 32.
#if defined(__AVX512F__)
constexpr int kRows = 12, kVectors = 2;
#elif defined(__aarch64__)
constexpr int kRows = 8, kVectors = 3;
#else
constexpr int kRows = 6, kVectors = 2;
#endif

template <class T>
constexpr int kColumns = kVectors * Lanes<T>::count;

template <class T, int R>
struct InPlace {
  const T* row[R];
  InPlace(const T* a, Index stride) {
    for (int r = 0; r < R; ++r) row[r] = a + r * stride;
  }
  T at(int r, Index k) const { return row[r][k]; }
};
template <class T, int R>
struct Packed {
  const T* panel;
  Packed(const T* a, Index) : panel(a) {}
  T at(int r, Index k) const { return panel[k * R + r]; }
};

// Copies count < 2 * Piece elements by pieces of fixed size: a call of memcpy would cost more than its bytes.
template <int Piece, class T>
inline void copy_few(const T* from, Index count, T* to) {
  if (count & Piece) {
    std::memcpy(to, from, Piece * sizeof(T));
    from += Piece, to += Piece;
  }
  if constexpr (Piece > 1) copy_few<Piece / 2>(from, count, to);
}
// The largest piece of a copy of fewer than n elements.
constexpr int piece_of(int n) { return n <= 2 ? 1 : 2 * piece_of((n + 1) / 2); }

// Where the sums of a tile go, and what is added to them. `columns` may be fewer than the vectors hold.
template <class T>
struct Target {
  T* c;
  Index ldc, columns;
  const T* add;  // null for nothing; the bias (add_step 0), or c itself
  Index add_step;
};

template <class T, int R, int V, class A>
void run(Index k, const T* first, Index stride, const T* b, Index b_step, const Target<T>& t) {
  constexpr int L = Lanes<T>::count;
  const A a(first, stride);
  Vec<T> sum[R][V] = {};
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) __builtin_prefetch(t.c + r * t.ldc, 1);
#pragma GCC unroll 4
  for (Index i = 0; i < k; ++i, b += b_step) {
    Vec<T> bv[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) bv[v] = load(b + v * L);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const Vec<T> x = a.at(r, i) - Vec<T>{};  // minus zero: a broadcast the compiler sees through
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sum[r][v] += x * bv[v];
    }
  }
  // What the sums are added to comes last: begun with, it would make one long sum of all stretches of k, with ten times
  // the error.
  const bool whole = t.columns == V * L;
  T edge[R * V * L];  // a tile of few columns ends here
  if (t.add) {
    const T* from = t.add;
    Index step = t.add_step;
    if (!whole) {
      std::fill_n(edge, R * V * L, T(0));
      for (int r = 0; r < R; ++r) copy_few<piece_of(V * L)>(from + r * step, t.columns, edge + r * V * L);
      from = edge, step = V * L;
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sum[r][v] += load(from + r * step + v * L);
  }
  T* to = whole ? t.c : edge;
  const Index step = whole ? t.ldc : V * L;
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) store(to + r * step + v * L, sum[r][v]);
  if (!whole)
    for (int r = 0; r < R; ++r) copy_few<piece_of(V * L)>(edge + r * V * L, t.columns, t.c + r * t.ldc);
}

// The largest tile height that `rows` fills: kRows, then powers of two.
inline int height(Index rows) {
  if (rows >= kRows) return kRows;
  return rows >= 8 ? 8 : rows >= 4 ? 4 : rows >= 2 ? 2 : 1;
}

// f(std::integral_constant<int, R>{}) for a height R.
template <class F>
void visit_height(int rows, F&& f) {
  if (rows == kRows) return f(std::integral_constant<int, kRows>{});
  if constexpr (kRows > 8)
    if (rows == 8) return f(std::integral_constant<int, 8>{});
  if (rows == 4) return f(std::integral_constant<int, 4>{});
  if (rows == 2) return f(std::integral_constant<int, 2>{});
  f(std::integral_constant<int, 1>{});
}

// A tile of `rows` rows (a height()); a in place with rows `stride` apart, or packed; b's rows `b_step` apart.
template <class T>
void run(int rows, Index k, const T* a, Index stride, bool in_place, const T* b, Index b_step, const Target<T>& t) {
  visit_height(rows, [&](auto height) {
    constexpr int R = height, L = Lanes<T>::count;
    if (t.columns > L) {
      if (in_place) run<T, R, kVectors, InPlace<T, R>>(k, a, stride, b, b_step, t);
      else run<T, R, kVectors, Packed<T, R>>(k, a, stride, b, b_step, t);
    } else {
      if (in_place) run<T, R, 1, InPlace<T, R>>(k, a, stride, b, b_step, t);
      else run<T, R, 1, Packed<T, R>>(k, a, stride, b, b_step, t);
    }
  });
}

// Columns of b (k, valid) as one panel: to[k][kColumns], zero from `valid` on.
template <class T>
void pack_columns(const Matrix<T>& b, Index k, Index valid, T* to) {
  constexpr Index L = Lanes<T>::count, N = kColumns<T>;
  Index i = 0;
  if (b.col == 1 && valid == N) {
    for (; i < k; ++i)
#pragma GCC unroll 4
      for (Index v = 0; v < N; v += L) store(to + i * N + v, load(b.data + i * b.row + v));
  } else if (b.row == 1 && valid == N) {
    for (; i + L <= k; i += L)
      for (Index v = 0; v < N; v += L) {
        Vec<T> r[L];
#pragma GCC unroll 16
        for (Index j = 0; j < L; ++j) r[j] = load(b.data + (v + j) * b.col + i);
        lanes::transpose<T>(r);
#pragma GCC unroll 16
        for (Index j = 0; j < L; ++j) store(to + (i + j) * N + v, r[j]);
      }
  }
  for (; i < k; ++i) {
    if (b.col == 1) copy_few<piece_of(2 * N)>(b.data + i * b.row, valid, to + i * N);
    else
      for (Index j = 0; j < valid; ++j) to[i * N + j] = b.data[i * b.row + j * b.col];
    std::fill_n(to + i * N + valid, N - valid, T(0));
  }
}

// Rows of a (rows, k) as panels of height() rows: to[panel][k][height]. A stretch of k for all panels before the next
// stretch: where rows lie side by side, the lines read for one panel serve the next. A short stretch: at a distance of
// 4 KB its lines share eight places in L1. ns an element at distances of 2.3, 3 and 4 KB: 32 terms, six elements each
// 0.31, 0.86, 0.86; a whole vector, of which the next term overwrites the end, 0.23, 0.67, 0.83; so, 4 terms 0.22, 0.35,
// 0.56. From memory every term is a page of its own, which no hardware fetches ahead: 1.2, with kAhead 0.7.
template <class T>
void pack_rows(const Matrix<T>& a, Index rows, Index k, T* to) {
  constexpr Index kStretch = 4, kAhead = 8, L = Lanes<T>::count;
  for (Index k0 = 0; k0 < k; k0 += kStretch) {
    const Index k1 = std::min(k, k0 + kStretch);
    if (a.row == 1)
      for (Index j = k0; j < std::min(k1, k - kAhead); ++j)
        for (Index i = 0; i < rows; i += 64 / sizeof(T)) __builtin_prefetch(a.data + (j + kAhead) * a.col + i);
    for (Index i = 0; i < rows;) {
      const int tall = height(rows - i);
      visit_height(tall, [&](auto height) {
        constexpr int R = height;
        const T* from = a.data + i * a.row;
        T* panel = to + i * k;
        const bool spill = R < L && 2 * R >= L && i + L <= rows;
        if (a.row == 1 && spill && k1 < k)
          for (Index j = k0; j < k1; ++j) store(panel + j * R, load(from + j * a.col));
        else if (a.row == 1)
          for (Index j = k0; j < k1; ++j) std::memcpy(panel + j * R, from + j * a.col, R * sizeof(T));
        else
          for (Index j = k0; j < k1; ++j)
            for (int r = 0; r < R; ++r) panel[j * R + r] = from[r * a.row + j * a.col];
      });
      i += tall;
    }
  }
}

// to[i] (+)= the sum of row i of what pack_rows made, in one sum a lane.
template <class T>
void sum_rows(const T* packed, Index rows, Index k, T* to, bool add) {
  constexpr Index L = Lanes<T>::count;
  for (Index i = 0; i < rows;) {
    const int tall = height(rows - i);
    visit_height(tall, [&](auto height) {
      constexpr int R = height;
      const T* panel = packed + i * k;
      Vec<T> lanes_of[R] = {};
      Index j = 0;
      for (; j + L <= k; j += L)
#pragma GCC unroll 16
        for (int v = 0; v < R; ++v) lanes_of[v] += load(panel + j * R + v * L);
      T lane[R * L], sum[R] = {};
      for (int v = 0; v < R; ++v) store(lane + v * L, lanes_of[v]);
      for (Index at = 0; at < R * L; ++at) sum[at % R] += lane[at];
      for (; j < k; ++j)
        for (int r = 0; r < R; ++r) sum[r] += panel[j * R + r];
      for (int r = 0; r < R; ++r) to[i + r] = add ? to[i + r] + sum[r] : sum[r];
    });
    i += tall;
  }
}

}  // namespace tg::tile
