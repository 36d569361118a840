// Row-major matrix products on ONE thread, from the OpenBLAS of the package scipy-openblas32; safe to call from several
// threads at once. Splitting over threads is ours: one pool serves every kernel, and the split depends on shapes alone.
//
// The library is loaded at run time from where its Python package says it is, so a wheel needs no search path.
#pragma once

#include "dtype.h"

namespace tg {

// c (m, n) = alpha op(a) (m, k) op(b) (k, n) + beta c. Sizes must fit in an int.
void blas_gemm(bool ta, bool tb, Index m, Index n, Index k, float alpha, const float* a, Index lda, const float* b,
               Index ldb, float beta, float* c, Index ldc);
void blas_gemm(bool ta, bool tb, Index m, Index n, Index k, double alpha, const double* a, Index lda, const double* b,
               Index ldb, double beta, double* c, Index ldc);
void blas_gemm(bool ta, bool tb, Index m, Index n, Index k, c64 alpha, const c64* a, Index lda, const c64* b, Index ldb,
               c64 beta, c64* c, Index ldc);
void blas_gemm(bool ta, bool tb, Index m, Index n, Index k, c128 alpha, const c128* a, Index lda, const c128* b,
               Index ldb, c128 beta, c128* c, Index ldc);

// The x of x a = b, or of a x = b with `left`, in place of b (m, n), for triangular a. Only the triangle that is named is read.
struct Triangle {
  bool lower, transposed, unit;
};
void blas_trsm(bool left, Triangle t, Index m, Index n, const float* a, Index lda, float* b, Index ldb);
void blas_trsm(bool left, Triangle t, Index m, Index n, const double* a, Index lda, double* b, Index ldb);
// The lower triangle of a (n, n), symmetric, becomes that of its Cholesky factor; the order of the first minor that is not
// positive, or 0.
Index blas_potrf(Index n, float* a, Index lda);
Index blas_potrf(Index n, double* a, Index lda);

// Loads the library. Throws std::runtime_error with the reason if it can't be had.
void blas_load(const char* path);
const char* blas_config();

}  // namespace tg
