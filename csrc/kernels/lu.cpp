// Columns are halved until few are left, which are eliminated one by one; what the left half has done to the right is a
// triangular system and a product of matrices, of which all threads take a part. So small matrices see plain loops alone,
// and large ones BLAS's products. Parts depend on the shape alone, and so do the bits.
#include "lu.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "../core/blas.h"
#include "../core/parallel.h"

namespace tg {
namespace {

constexpr Index kFew = 16;        // columns that are eliminated one by one
constexpr Index kSmall = 16;      // rows below which substitution is a loop
constexpr Index kColumns = 64;    // of a triangular system, for a task
constexpr Index kRows = 128;      // of a product, for a task
constexpr Index kWork = 1 << 16;  // multiplications worth a task

template <class T>
void exchange(Index count, const std::int32_t* pivots, Index columns, T* a, Index lda) {
  for (Index j = 0; j < count; ++j)
    if (pivots[j] != j + 1) std::swap_ranges(a + j * lda, a + j * lda + columns, a + (pivots[j] - 1) * lda);
}

// NaN counts as largest.
template <class T>
Index largest(Index m, const T* column, Index lda) {
  Index at = 0;
  T most = std::abs(column[0]);
  for (Index i = 1; i < m && most == most; ++i) {
    const T value = std::abs(column[i * lda]);
    if (!(value <= most)) {
      most = value;
      at = i;
    }
  }
  return at;
}

template <class T>
Index eliminate(Index m, Index n, T* a, Index lda, std::int32_t* pivots) {  // n <= m
  Index info = 0;
  for (Index j = 0; j < n; ++j) {
    T* row = a + j * lda;
    const Index at = j + largest(m - j, row + j, lda);
    pivots[j] = std::int32_t(at + 1);
    if (at != j) std::swap_ranges(row, row + n, a + at * lda);
    const T pivot = row[j];
    if (pivot == 0) {  // and so is what is below
      if (!info) info = j + 1;
      continue;
    }
    for (Index i = j + 1; i < m; ++i) {
      T* below = a + i * lda;
      const T factor = below[j] /= pivot;
      for (Index k = j + 1; k < n; ++k) below[k] -= factor * row[k];
    }
  }
  return info;
}

// The x of a x = b (n, columns) in place of b, by groups of columns.
template <class T>
void substitute(bool lower, Index n, Index columns, const T* a, Index lda, T* b, Index ldb) {
  if (n > kSmall) {
    const Index groups = (columns + kColumns - 1) / kColumns;
    parallel_for(groups, std::max<Index>(1, kWork / (n * n * std::min(columns, kColumns))), [&](Index first, Index last) {
      const Index from = first * kColumns, to = std::min(last * kColumns, columns);
      blas_trsm(true, {lower, false, lower}, n, to - from, a, lda, b + from, ldb);
    });
    return;
  }
  for (Index step = 0; step < n; ++step) {
    const Index i = lower ? step : n - 1 - step;
    T* row = b + i * ldb;
    for (Index k = lower ? 0 : i + 1; k < (lower ? i : n); ++k) {
      const T factor = a[i * lda + k];
      for (Index c = 0; c < columns; ++c) row[c] -= factor * b[k * ldb + c];
    }
    if (lower) continue;
    const T pivot = a[i * lda + i];
    for (Index c = 0; c < columns; ++c) row[c] /= pivot;
  }
}

template <class T>
Index factorize(Index m, Index n, T* a, Index lda, std::int32_t* pivots) {
  if (n <= std::min(m, kFew)) return eliminate(m, n, a, lda, pivots);
  const Index left = n > m ? m : (n / 2 + 7) / 8 * 8, right = n - left, behind = m - left;
  Index info = factorize(m, left, a, lda, pivots);
  T *top = a + left, *below = a + left * lda, *corner = below + left;
  exchange(left, pivots, right, top, lda);
  substitute(true, left, right, a, lda, top, lda);
  if (!behind) return info;
  const Index rows = std::max(kRows, kWork / (left * right));
  parallel_for((behind + rows - 1) / rows, 1, [&](Index first, Index last) {
    const Index from = first * rows, count = std::min(last * rows, behind) - from;
    blas_gemm(false, false, count, right, left, T(-1), below + from * lda, lda, top, lda, T(1), corner + from * lda, lda);
  });
  const Index further = factorize(behind, right, corner, lda, pivots + left);
  exchange(right, pivots + left, left, below, lda);
  for (Index j = left; j < n; ++j) pivots[j] += std::int32_t(left);
  return info ? info : further ? further + left : 0;
}

template <class T>
bool all_finite(Index n, const T* x) {
  bool finite = true;
  for (Index i = 0; i < n; ++i) finite &= std::abs(x[i]) <= std::numeric_limits<T>::max();
  return finite;
}

// f(number, pivots) for each matrix, `count` pivots each.
template <class F>
void for_each_matrix(Index batch, Index work, Index count, F f) {
  parallel_for(batch, std::max<Index>(1, kWork / std::max<Index>(work, 1)), [&](Index first, Index last) {
    std::int32_t few[kFew];
    std::vector<std::int32_t> many(count > kFew ? std::size_t(count) : 0);
    for (Index k = first; k < last; ++k) f(k, count > kFew ? many.data() : few);
  });
}

template <class T>
Index solve(Index n, Index columns, T* a, T* b, std::int32_t* pivots) {
  const bool finite = all_finite(n * n, a) && all_finite(n * columns, b);
  const Index info = factorize(n, n, a, n, pivots);
  exchange(n, pivots, columns, b, columns);
  substitute(true, n, columns, a, n, b, columns);
  substitute(false, n, columns, a, n, b, columns);
  return info ? info : finite && !all_finite(n * columns, b) ? n : 0;
}

// f(number, diagonal's product's sign or 0, first element of the diagonal) for each matrix.
template <class T, class F>
void for_each_diagonal(Index batch, Index n, T* a, F f) {
  for_each_matrix(batch, n * n * n, n, [&](Index k, std::int32_t* pivots) {
    T* matrix = a + k * n * n;
    T sign = factorize(n, n, matrix, n, pivots) ? T(0) : T(1);
    for (Index j = 0; j < n; ++j)
      if ((pivots[j] != j + 1) != (matrix[j * (n + 1)] < 0)) sign = -sign;
    f(k, sign, matrix);
  });
}

}  // namespace

template <class T>
void lu_factor(Index batch, Index m, Index n, T* a, std::int32_t* pivots, std::int32_t* info) {
  const Index count = std::min(m, n);
  parallel_for(batch, std::max<Index>(1, kWork / std::max<Index>(m * n * count, 1)), [&](Index first, Index last) {
    for (Index k = first; k < last; ++k)
      info[k] = count ? std::int32_t(factorize(m, n, a + k * m * n, n, pivots + k * count)) : 0;
  });
}

template <class T>
void lu_solve(Index batch, Index n, Index columns, T* a, T* b, std::int32_t* info) {
  if (n * columns == 0) return std::fill(info, info + batch, 0);
  for_each_matrix(batch, n * n * (n + columns), n, [&](Index k, std::int32_t* pivots) {
    info[k] = std::int32_t(solve(n, columns, a + k * n * n, b + k * n * columns, pivots));
  });
}

template <class T>
void lu_inverse(Index batch, Index n, T* a, T* x, std::int32_t* info) {
  std::fill(x, x + batch * n * n, T(0));
  for (Index k = 0; k < batch; ++k)
    for (Index i = 0; i < n; ++i) x[(k * n + i) * n + i] = 1;
  lu_solve(batch, n, n, a, x, info);
}

template <class T>
void lu_determinant(Index batch, Index n, T* a, T* y) {
  for_each_diagonal(batch, n, a, [&](Index k, T sign, const T* matrix) {
    // The exponent apart: products of some of the factors may be too large or small where that of all is not.
    if (sign == 0) {
      y[k] = 0;
      return;
    }
    T product = sign;
    long exponent = 0;
    for (Index j = 0; j < n; ++j) {
      product *= std::abs(matrix[j * (n + 1)]);
      int scale = 0;
      if (std::isfinite(product)) product = std::frexp(product, &scale);
      exponent += scale;
    }
    constexpr long most = 1 << 14;  // beyond all floats
    y[k] = std::ldexp(product, int(std::clamp(exponent, -most, most)));
  });
}

template <class T>
void lu_logarithm(Index batch, Index n, T* a, T* sign, T* size) {
  for_each_diagonal(batch, n, a, [&](Index k, T of, const T* matrix) {
    sign[k] = of == 0 ? T(0) : of;  // no -0
    T sum = 0;
    for (Index j = 0; j < n && of != 0; ++j) sum += std::log(std::abs(matrix[j * (n + 1)]));
    size[k] = of == 0 ? -std::numeric_limits<T>::infinity() : sum;
  });
}

template void lu_factor(Index, Index, Index, float*, std::int32_t*, std::int32_t*);
template void lu_factor(Index, Index, Index, double*, std::int32_t*, std::int32_t*);
template void lu_solve(Index, Index, Index, float*, float*, std::int32_t*);
template void lu_solve(Index, Index, Index, double*, double*, std::int32_t*);
template void lu_inverse(Index, Index, float*, float*, std::int32_t*);
template void lu_inverse(Index, Index, double*, double*, std::int32_t*);
template void lu_determinant(Index, Index, float*, float*);
template void lu_determinant(Index, Index, double*, double*);
template void lu_logarithm(Index, Index, float*, float*, float*);
template void lu_logarithm(Index, Index, double*, double*, double*);

}  // namespace tg
