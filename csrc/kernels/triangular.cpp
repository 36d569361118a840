// Substitution is BLAS's, a group of columns for each task. Cholesky factors are LAPACK's of blocks on the diagonal; what is
// below a block is divided by it and taken from the columns behind, tile by tile, by all threads. Groups and blocks depend on
// the shape alone, and so do the bits.
#include "triangular.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "../core/parallel.h"

namespace tg {
namespace {

constexpr Index kColumns = 64;     // of b, for a task
constexpr Index kBlock = 192;      // rows and columns of a block on the diagonal, and of a tile
constexpr Index kWork = 1 << 16;   // multiplications worth a task

// Column by column: where a pivot is not positive its square root, and what it divides, say so.
template <class T>
void by_columns(Index n, T* y) {
  for (Index j = 0; j < n; ++j) {
    T* row = y + j * n;
    T pivot = row[j];
    for (Index k = 0; k < j; ++k) pivot -= row[k] * row[k];
    row[j] = std::sqrt(pivot);
    for (Index i = j + 1; i < n; ++i) {
      T* below = y + i * n;
      T value = below[j];
      for (Index k = 0; k < j; ++k) value -= below[k] * row[k];
      below[j] = value / row[j];
    }
  }
}

template <class T>
Index factorize(Index n, T* y) {
  for (Index at = 0; at < n; at += kBlock) {
    const Index size = std::min(kBlock, n - at), behind = at + size, tiles = (n - behind + kBlock - 1) / kBlock;
    T* corner = y + at * n + at;
    if (const Index info = blas_potrf(size, corner, n)) return at + info;
    parallel_for(tiles, 1, [&](Index first, Index last) {
      for (Index t = first; t < last; ++t) {
        const Index row = behind + t * kBlock;
        blas_trsm(false, {true, true, false}, std::min(kBlock, n - row), size, corner, n, y + row * n + at, n);
      }
    });
    parallel_for(tiles * tiles, 1, [&](Index first, Index last) {
      for (Index t = first; t < last; ++t) {
        if (t % tiles > t / tiles) continue;  // above the diagonal
        const Index row = behind + t / tiles * kBlock, column = behind + t % tiles * kBlock;
        blas_gemm(false, true, std::min(kBlock, n - row), std::min(kBlock, n - column), size, T(-1), y + row * n + at, n,
                  y + column * n + at, n, T(1), y + row * n + column, n);
      }
    });
  }
  for (Index j = 0; j < n; ++j)
    if (!(y[j * n + j] > 0)) return j + 1;  // NaN passes for a positive pivot
  return 0;
}

template <class T>
void transpose_lower(Index n, const T* from, T* to) {  // zeros elsewhere
  for (Index i = 0; i < n; ++i)
    for (Index j = 0; j < n; ++j) to[i * n + j] = j < i ? T(0) : from[j * n + i];
}

}  // namespace

template <class T>
void solve_triangular(Triangle t, Index batch, Index n, Index columns, const T* a, const T* b, T* x) {
  if (batch * n * columns == 0) return;
  if (x != b) std::memcpy(x, b, std::size_t(batch * n * columns) * sizeof(T));
  const Index groups = (columns + kColumns - 1) / kColumns;
  const Index many = std::max<Index>(1, kWork / (n * n * std::min(columns, kColumns)));
  parallel_for(batch * groups, many, [&](Index first, Index last) {
    for (Index k = first; k < last; ++k) {
      const Index matrix = k / groups, column = k % groups * kColumns;
      blas_trsm(true, t, n, std::min(kColumns, columns - column), a + matrix * n * n, n, x + matrix * n * columns + column,
                columns);
    }
  });
}

template <class T>
void cholesky(bool upper, Index batch, Index n, const T* a, T* y, std::int32_t* info) {
  if (n == 0) return std::fill(info, info + batch, 0);
  parallel_for(batch, std::max<Index>(1, kWork * 3 / (n * n * n)), [&](Index first, Index last) {
    std::vector<T> turned(upper ? std::size_t(n * n) : 0);
    for (Index k = first; k < last; ++k) {
      const T* from = a + k * n * n;
      T *to = y + k * n * n, *lower = upper ? turned.data() : to;
      const auto fill = [&] {
        for (Index i = 0; i < n; ++i)
          for (Index j = 0; j < n; ++j) lower[i * n + j] = j > i ? T(0) : upper ? from[j * n + i] : from[i * n + j];
      };
      fill();
      info[k] = std::int32_t(factorize(n, lower));
      if (info[k]) {
        fill();
        by_columns(n, lower);
      } else if (n > kBlock) {
        for (Index i = 0; i < n; ++i) std::fill(lower + i * n + i + 1, lower + (i + 1) * n, T(0));
      }
      if (upper) transpose_lower(n, lower, to);
    }
  });
}

template void solve_triangular(Triangle, Index, Index, Index, const float*, const float*, float*);
template void solve_triangular(Triangle, Index, Index, Index, const double*, const double*, double*);
template void cholesky(bool, Index, Index, const float*, float*, std::int32_t*);
template void cholesky(bool, Index, Index, const double*, double*, std::int32_t*);

}  // namespace tg
