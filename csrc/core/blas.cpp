#include "blas.h"

#include <dlfcn.h>

#include <stdexcept>
#include <string>

namespace tg {
namespace {

constexpr int kRowMajor = 101, kNoTrans = 111, kTrans = 112;

using Sgemm = void (*)(int, int, int, int, int, int, float, const float*, int, const float*, int, float, float*, int);
using Dgemm = void (*)(int, int, int, int, int, int, double, const double*, int, const double*, int, double, double*, int);
using Xgemm = void (*)(int, int, int, int, int, int, const void*, const void*, int, const void*, int, const void*, void*, int);

using Strsm = void (*)(int, int, int, int, int, int, int, float, const float*, int, float*, int);
using Dtrsm = void (*)(int, int, int, int, int, int, int, double, const double*, int, double*, int);
// LAPACK's, by columns; Fortran passes the length of the letter last
using Spotrf = void (*)(const char*, const int*, float*, const int*, int*, std::size_t);
using Dpotrf = void (*)(const char*, const int*, double*, const int*, int*, std::size_t);

Strsm strsm = nullptr;
Dtrsm dtrsm = nullptr;
Spotrf spotrf = nullptr;
Dpotrf dpotrf = nullptr;
Sgemm sgemm = nullptr;
Dgemm dgemm = nullptr;
Xgemm cgemm = nullptr, zgemm = nullptr;
std::string config;

template <class F>
F symbol(void* library, const char* name) {
  void* found = dlsym(library, name);
  if (!found) throw std::runtime_error(std::string("the BLAS library has no symbol ") + name);
  return reinterpret_cast<F>(found);
}

int op(bool transposed) { return transposed ? kTrans : kNoTrans; }
int fit(Index n) { return static_cast<int>(n); }

constexpr int kUpper = 121, kLower = 122, kNonUnit = 131, kUnit = 132, kLeft = 141, kRight = 142;

template <class T, class Trsm>
void trsm(Trsm call, bool left, Triangle t, Index m, Index n, const T* a, Index lda, T* b, Index ldb) {
  call(kRowMajor, left ? kLeft : kRight, t.lower ? kLower : kUpper, op(t.transposed), t.unit ? kUnit : kNonUnit, fit(m),
       fit(n), T(1), a, fit(lda), b, fit(ldb));
}

// The lower triangle of rows is the upper one of columns.
template <class T, class Potrf>
Index potrf(Potrf call, Index n, T* a, Index lda) {
  const int size = fit(n), lead = fit(lda);
  int info = 0;
  call("U", &size, a, &lead, &info, 1);
  return info;
}

}  // namespace

void blas_load(const char* path) {
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library) throw std::runtime_error(std::string("can't load OpenBLAS: ") + dlerror());
  sgemm = symbol<Sgemm>(library, "scipy_cblas_sgemm");
  dgemm = symbol<Dgemm>(library, "scipy_cblas_dgemm");
  cgemm = symbol<Xgemm>(library, "scipy_cblas_cgemm");
  zgemm = symbol<Xgemm>(library, "scipy_cblas_zgemm");
  strsm = symbol<Strsm>(library, "scipy_cblas_strsm");
  dtrsm = symbol<Dtrsm>(library, "scipy_cblas_dtrsm");
  spotrf = symbol<Spotrf>(library, "scipy_spotrf_");
  dpotrf = symbol<Dpotrf>(library, "scipy_dpotrf_");
  symbol<void (*)(int)>(library, "scipy_openblas_set_num_threads")(1);
  config = symbol<char* (*)()>(library, "scipy_openblas_get_config")();
}

const char* blas_config() { return config.c_str(); }

void blas_gemm(bool ta, bool tb, Index m, Index n, Index k, float alpha, const float* a, Index lda, const float* b,
               Index ldb, float beta, float* c, Index ldc) {
  sgemm(kRowMajor, op(ta), op(tb), fit(m), fit(n), fit(k), alpha, a, fit(lda), b, fit(ldb), beta, c, fit(ldc));
}
void blas_gemm(bool ta, bool tb, Index m, Index n, Index k, double alpha, const double* a, Index lda, const double* b,
               Index ldb, double beta, double* c, Index ldc) {
  dgemm(kRowMajor, op(ta), op(tb), fit(m), fit(n), fit(k), alpha, a, fit(lda), b, fit(ldb), beta, c, fit(ldc));
}
void blas_gemm(bool ta, bool tb, Index m, Index n, Index k, c64 alpha, const c64* a, Index lda, const c64* b, Index ldb,
               c64 beta, c64* c, Index ldc) {
  cgemm(kRowMajor, op(ta), op(tb), fit(m), fit(n), fit(k), &alpha, a, fit(lda), b, fit(ldb), &beta, c, fit(ldc));
}
void blas_gemm(bool ta, bool tb, Index m, Index n, Index k, c128 alpha, const c128* a, Index lda, const c128* b,
               Index ldb, c128 beta, c128* c, Index ldc) {
  zgemm(kRowMajor, op(ta), op(tb), fit(m), fit(n), fit(k), &alpha, a, fit(lda), b, fit(ldb), &beta, c, fit(ldc));
}

void blas_trsm(bool left, Triangle t, Index m, Index n, const float* a, Index lda, float* b, Index ldb) {
  trsm(strsm, left, t, m, n, a, lda, b, ldb);
}
void blas_trsm(bool left, Triangle t, Index m, Index n, const double* a, Index lda, double* b, Index ldb) {
  trsm(dtrsm, left, t, m, n, a, lda, b, ldb);
}
Index blas_potrf(Index n, float* a, Index lda) { return potrf(spotrf, n, a, lda); }
Index blas_potrf(Index n, double* a, Index lda) { return potrf(dpotrf, n, a, lda); }

}  // namespace tg
