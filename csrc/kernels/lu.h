// Systems of equations, inverses and determinants, by LU factors with exchanges of rows.
#pragma once

#include "../core/dtype.h"

namespace tg {

// `batch` matrices a (m, n), one behind the other, become L (below the diagonal, on which it is 1) and U. pivots (batch,
// min(m, n)): the row that each was exchanged with, counted from 1; info: for each matrix 0, or the order of the first
// pivot that is zero. As LAPACK's getrf.
template <class T>
void lu_factor(Index batch, Index m, Index n, T* a, std::int32_t* pivots, std::int32_t* info);

// b (n, columns) becomes the x of a x = b, and a its factors. info as above; n where all that was given is finite and x
// is not.
template <class T>
void lu_solve(Index batch, Index n, Index columns, T* a, T* b, std::int32_t* info);

// x becomes the inverse of a.
template <class T>
void lu_inverse(Index batch, Index n, T* a, T* x, std::int32_t* info);

// y: the determinants; with `size` their signs, or 0, and there the logarithms of their sizes.
template <class T>
void lu_determinant(Index batch, Index n, T* a, T* y, T* size);

}  // namespace tg
