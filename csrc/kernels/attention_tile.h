// The products of attention's tiles: c (n, m) (+)= alpha a b with few rows, b's rows contiguous, everything in L1 or L2.
//
// Register tiles of 6 rows by two vectors. a is read by broadcasts through any strides, so P and its transpose, the
// queries and the gradients are all read where they lie; b is rows of v, k, q or g as they lie, or, where b is a
// transposed k or v, panels packed once per block of keys. OpenBLAS packs both sides of products as small as these (a
// third of its time); this loop reaches 90 % of the peak on them, and leaves out what causality hides row by row.
#pragma once

#include "conv_tile.h"

namespace tg::attention_tile {

constexpr int kRows = 6;
template <class T>
constexpr Index kPanel = 2 * Lanes<T>::count;  // columns of a panel

template <class T, int R, int V>
inline void tile(Index k, const T* a, Index a_row, Index a_col, const T* b, Index b_row, T* c, Index c_row, bool add,
                 T alpha) {
  constexpr int L = Lanes<T>::count;
  Vec<T> sum[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) sum[r][v] = Vec<T>{};
  for (Index i = 0; i < k; ++i, a += a_col, b += b_row) {
    Vec<T> bv[V];
    for (int v = 0; v < V; ++v) bv[v] = load(b + v * L);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Vec<T> x = a[r * a_row] - Vec<T>{};  // minus zero: a broadcast the compiler sees through
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) sum[r][v] += x * bv[v];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) {
      T* to = c + r * c_row + v * L;
      const Vec<T> y = sum[r][v] * alpha;
      store(to, add ? load(to) + y : y);
    }
}

template <class T, int V>
inline void tile_of(Index rows, Index k, const T* a, Index a_row, Index a_col, const T* b, Index b_row, T* c,
                    Index c_row, bool add, T alpha) {
  switch (rows) {
    case 1: return tile<T, 1, V>(k, a, a_row, a_col, b, b_row, c, c_row, add, alpha);
    case 2: return tile<T, 2, V>(k, a, a_row, a_col, b, b_row, c, c_row, add, alpha);
    case 3: return tile<T, 3, V>(k, a, a_row, a_col, b, b_row, c, c_row, add, alpha);
    case 4: return tile<T, 4, V>(k, a, a_row, a_col, b, b_row, c, c_row, add, alpha);
    case 5: return tile<T, 5, V>(k, a, a_row, a_col, b, b_row, c, c_row, add, alpha);
    default: return tile<T, 6, V>(k, a, a_row, a_col, b, b_row, c, c_row, add, alpha);
  }
}

// What a group of rows needs: terms [first, last) of the sum and the first `columns` of c.
struct Part {
  Index first, last, columns;
};

// m is rounded up to whole vectors, which c and b must hold. From one panel of columns to the next b goes on by b_next.
template <class T, class PartOf>
void multiply(Index n, Index m, const T* a, Index a_row, Index a_col, const T* b, Index b_row, Index b_next, T* c,
              Index c_row, bool add, T alpha, PartOf part_of) {
  constexpr Index L = Lanes<T>::count;
  for (Index j = 0; j < m; j += kPanel<T>, b += b_next) {
    const bool wide = m - j > L;
    for (Index i = 0; i < n; i += kRows) {
      const Index rows = n - i < kRows ? n - i : kRows;
      const Part part = part_of(i, rows);
      if (j >= part.columns) continue;
      const Index k = part.last > part.first ? part.last - part.first : 0;
      const T *x = a + i * a_row + part.first * a_col, *y = b + part.first * b_row;
      T* to = c + i * c_row + j;
      if (wide) tile_of<T, 2>(rows, k, x, a_row, a_col, y, b_row, to, c_row, add, alpha);
      else tile_of<T, 1>(rows, k, x, a_row, a_col, y, b_row, to, c_row, add, alpha);
    }
  }
}

// rows (n, dim) into panels: panel p holds dim rows of kPanel columns, column j being row p kPanel + j of x, or zeros.
template <class T>
void pack(const T* x, Index row, Index n, Index dim, T* to) {
  for (Index j = 0; j < n; j += kPanel<T>, to += dim * kPanel<T>)
    tile_pack<T>(x + j * row, row, dim, n - j < kPanel<T> ? n - j : kPanel<T>, to, kPanel<T>);
}

// The same rows as panels of their columns: panel p holds n rows, each the columns from p kPanel on; `width` in whole
// vectors. Heads side by side put rows at a distance of a few sets of L1, from which 128 of them push each other out.
template <class T>
void copy(const T* x, Index row, Index n, Index width, T* to) {
  for (Index j = 0; j < width; j += Lanes<T>::count) {
    T* panel = to + j / kPanel<T> * n * kPanel<T> + j % kPanel<T>;
    for (Index i = 0; i < n; ++i) store(panel + i * kPanel<T>, load(x + i * row + j));
  }
}

}  // namespace tg::attention_tile
