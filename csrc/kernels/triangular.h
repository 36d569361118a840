// Triangular matrices: systems of equations, and Cholesky factors.
#pragma once

#include "../core/blas.h"

namespace tg {

// x becomes the solution of a x = b, for `batch` matrices a (n, n), each one behind the other, and b (n, columns).
template <class T>
void solve_triangular(Triangle t, Index batch, Index n, Index columns, const T* a, const T* b, T* x);

// y becomes the lower triangular factors of `batch` symmetric matrices (n, n), of which the lower triangle is read, with
// zeros above; or with `upper` the transposed of that, of the upper triangle. info: for each 0, or the order of the first
// leading minor that is not positive: from there on its factor is what the square roots of such pivots make of it.
template <class T>
void cholesky(bool upper, Index batch, Index n, const T* a, T* y, std::int32_t* info);

}  // namespace tg
