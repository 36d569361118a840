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

}  // namespace

void blas_load(const char* path) {
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library) throw std::runtime_error(std::string("can't load OpenBLAS: ") + dlerror());
  sgemm = symbol<Sgemm>(library, "scipy_cblas_sgemm");
  dgemm = symbol<Dgemm>(library, "scipy_cblas_dgemm");
  cgemm = symbol<Xgemm>(library, "scipy_cblas_cgemm");
  zgemm = symbol<Xgemm>(library, "scipy_cblas_zgemm");
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

}  // namespace tg
