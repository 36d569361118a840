// Columns are halved until few are left, which are eliminated one by one; what the left half has done to the right is a
// triangular system and a product of matrices, of which all threads take a part. So small matrices see plain loops alone,
// and large ones BLAS's products. Parts depend on the shape alone, and so do the bits.
#include "lu.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include "../core/blas.h"
#include "../core/lanes.h"
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
      T* __restrict below = a + i * lda;
      const T factor = below[j] /= pivot;
      for (Index k = j + 1; k < n; ++k) below[k] -= factor * row[k];
    }
  }
  return info;
}

// V lanes' columns at a time, whose sums stay in registers. `Lane`: a vector of T, or T.
template <class Lane, int V, class T>
Index substitute_few(bool lower, Index n, Index first, Index columns, const T* a, Index lda, T* b, Index ldb) {
  constexpr Index width = V * Index(sizeof(Lane) / sizeof(T));
  for (; first + width <= columns; first += width)
    for (Index step = 0; step < n; ++step) {
      const Index i = lower ? step : n - 1 - step, end = lower ? i : n;
      T* to = b + i * ldb + first;
      Lane sum[V];
      std::memcpy(sum, to, sizeof(sum));
      for (Index k = lower ? 0 : i + 1; k < end; ++k) {
        Lane from[V];
        std::memcpy(from, b + k * ldb + first, sizeof(from));
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sum[v] -= a[i * lda + k] * from[v];
      }
#pragma GCC unroll 4
      for (int v = 0; v < V && !lower; ++v) sum[v] /= a[i * lda + i];
      std::memcpy(to, sum, sizeof(sum));
    }
  return first;
}

// The x of a x = b (n, columns) in place of b, by groups of columns. Of lower triangles the diagonal counts as 1.
template <class T>
void substitute(bool lower, Index n, Index columns, const T* a, Index lda, T* b, Index ldb) {
  const Index groups = (columns + kColumns - 1) / kColumns;
  parallel_for(groups, std::max<Index>(1, kWork / (n * n * std::min(columns, kColumns))), [&](Index first, Index last) {
    first *= kColumns;
    last = std::min(last * kColumns, columns);
    if (n > kSmall) return blas_trsm(true, {lower, false, lower}, n, last - first, a, lda, b + first, ldb);
    first = substitute_few<lanes::Vec<T>, 4>(lower, n, first, last, a, lda, b, ldb);
    first = substitute_few<lanes::Vec<T>, 1>(lower, n, first, last, a, lda, b, ldb);
    substitute_few<T, 1>(lower, n, first, last, a, lda, b, ldb);
  });
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
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  constexpr Bits exponent = (Bits(1) << (sizeof(T) * 8 - 1)) - (Bits(1) << (std::numeric_limits<T>::digits - 1));
  Bits carried = 0;  // into the sign by one more: all bits of an exponent were set
  for (Index i = 0; i < n; ++i) {
    Bits bits;
    std::memcpy(&bits, x + i, sizeof(T));
    carried |= (bits & exponent) + (exponent & -exponent);
  }
  return !(carried >> (sizeof(T) * 8 - 1));
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
void lu_determinant(Index batch, Index n, T* a, T* y, T* size) {
  for_each_matrix(batch, n * n * n, n, [&](Index k, std::int32_t* pivots) {
    T* matrix = a + k * n * n;
    const bool singular = factorize(n, n, matrix, n, pivots) != 0;
    T sum = 0, product = 1;
    // The exponent apart: products of some of the factors may be too large or small where that of all is not.
    long exponent = 0;
    for (Index j = 0; j < n; ++j) {
      const T pivot = matrix[j * (n + 1)];
      if (pivots[j] != j + 1) product = -product;
      if (size) {
        if (pivot < 0) product = -product;
        sum += std::log(std::abs(pivot));
        continue;
      }
      product *= pivot;
      int scale = 0;
      if (std::isfinite(product)) product = std::frexp(product, &scale);
      exponent += scale;
    }
    constexpr long most = 1 << 14;  // beyond all floats
    y[k] = singular ? T(0) : std::ldexp(product, int(std::clamp(exponent, -most, most)));
    if (size) size[k] = singular ? -std::numeric_limits<T>::infinity() : sum;
  });
}

template void lu_factor(Index, Index, Index, float*, std::int32_t*, std::int32_t*);
template void lu_factor(Index, Index, Index, double*, std::int32_t*, std::int32_t*);
template void lu_solve(Index, Index, Index, float*, float*, std::int32_t*);
template void lu_solve(Index, Index, Index, double*, double*, std::int32_t*);
template void lu_inverse(Index, Index, float*, float*, std::int32_t*);
template void lu_inverse(Index, Index, double*, double*, std::int32_t*);
template void lu_determinant(Index, Index, float*, float*, float*);
template void lu_determinant(Index, Index, double*, double*, double*);

}  // namespace tg
