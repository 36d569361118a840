// The few CUDA names that the package's sources use, for a C++ compiler: so that kernels can be run, thread after thread,
// on a machine without a GPU. Where threads wait for each other (TG_FIBERS) cuda_fibers.h lets them.
#pragma once
#include <math.h>
#include <string.h>

#include <utility>

#define __device__
#define __global__
#define __constant__ static const
#define __forceinline__ inline
#define __launch_bounds__(...)

struct Position {
  unsigned int x;
};
static Position blockIdx, threadIdx, blockDim, gridDim;

inline float __int_as_float(int bits) {
  float x;
  memcpy(&x, &bits, 4);
  return x;
}
inline long long __double_as_longlong(double x) {
  long long bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}
inline double __longlong_as_double(long long bits) {
  double x;
  memcpy(&x, &bits, 8);
  return x;
}
inline float __fmul_rn(float a, float b) { return a * b; }  // products and sums are not joined: -ffp-contract=off
inline double __dmul_rn(double a, double b) { return a * b; }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double normcdf(double x) { return 0.5 * erfc(x * -0.70710678118654752); }
inline float normcdff(float x) { return (float)normcdf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }

struct __half {
  _Float16 value;
};
inline float __half2float(__half h) { return (float)h.value; }
inline __half __float2half_rn(float x) { return {(_Float16)x}; }

struct __nv_bfloat16 {
  unsigned short bits;
};
inline float __bfloat162float(__nv_bfloat16 h) { return __int_as_float((int)((unsigned int)h.bits << 16)); }
inline __nv_bfloat16 __float2bfloat16_rn(float x) {
  unsigned int bits;
  memcpy(&bits, &x, 4);
  if (x != x) return {0x7fff};
  return {(unsigned short)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}

// Threads take turns, and only where they wait for each other: nothing comes between.
inline unsigned int atomicAdd(unsigned int* at, unsigned int x) { return std::exchange(*at, *at + x); }
inline int atomicMax(int* at, int x) { return std::exchange(*at, *at > x ? *at : x); }
inline int atomicMin(int* at, int x) { return std::exchange(*at, *at < x ? *at : x); }
inline int __ffs(unsigned int x) { return __builtin_ffs((int)x); }
inline int __popc(unsigned int x) { return __builtin_popcount(x); }

struct __half2 {
  __half x, y;
};
struct __nv_bfloat162 {
  __nv_bfloat16 x, y;
};
inline __half2 __floats2half2_rn(float x, float y) { return {__float2half_rn(x), __float2half_rn(y)}; }
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) { return {__float2bfloat16_rn(x), __float2bfloat16_rn(y)}; }

#ifdef TG_FIBERS
#include "cuda_fibers.h"
#ifndef TG_WITHOUT_TENSOR_CORES
#include "cuda_tensor_cores.h"
#endif
#endif

template <class... A, size_t... I>
void run_all(void (*kernel)(A...), unsigned int grid, unsigned int block, void** args, std::index_sequence<I...>) {
  gridDim.x = grid;
  blockDim.x = block;
  for (blockIdx.x = 0; blockIdx.x < grid; ++blockIdx.x) {
#ifdef TG_FIBERS
    fibers::run(block, [&] { kernel(*(A*)args[I]...); });
#else
    for (threadIdx.x = 0; threadIdx.x < block; ++threadIdx.x) kernel(*(A*)args[I]...);
#endif
  }
}

template <class... A>
void run_all(void (*kernel)(A...), unsigned int grid, unsigned int block, void** args) {
  run_all(kernel, grid, block, args, std::index_sequence_for<A...>());
}
