// exp on vectors, for the shifted exponentials of softmax, logsumexp and cross-entropy.
//
// exp(x) = 2^k exp(r), k = round(x / ln 2), |r| <= ln 2 / 2, exp(r) by its Taylor polynomial with the last coefficients
// adjusted; 2^k is put together from bits. Float keeps subnormal results; double flushes below 1e-307. NaN stays NaN. The
// largest has been taken from arguments: floats are to be below 70, of which 2^k needs no two factors.
#pragma once

#include "reduce_lanes.h"

namespace tg {

// The larger of x and low, x where it is NaN.
inline Wide<float>::Vector at_least(Wide<float>::Vector x, Wide<float>::Vector low) {
#if defined(__AVX512F__)
  return Wide<float>::Vector(_mm512_maskz_max_ps(__mmask16(-1), __m512(low), __m512(x)));  // without a mask GCC 12 warns
#elif defined(__AVX__)
  return Wide<float>::Vector(_mm256_max_ps(__m256(low), __m256(x)));
#else
  return x < low ? low : x;
#endif
}

// N vectors side by side, step by step: one exponential is a chain of 15 operations, and a core looks ahead over less than
// two of them where they stand one after the other.
template <int N>
inline void exp_each(Wide<float>::Vector (&x)[N]) {
  using V = Wide<float>::Vector;
  using I = Wide<float>::Mask;
  constexpr int up = 26;  // 2^(k + up) is a normal number for every k, even where 2^k is none
  constexpr float round = 12582912.0f + 127 + up;  // 1.5 * 2^23: low bits are the rounded quotient, as an exponent
  const V low = Wide<float>::fill(-104.0f);
  V t[N], p[N];
  const auto each = [](auto step) {
    for (int i = 0; i < N; ++i) step(i);
  };
  each([&](int i) { x[i] = at_least(x[i], low); });
  each([&](int i) { t[i] = x[i] * 1.44269504088896341f + round; });
  each([&](int i) { p[i] = t[i] - round; });
  each([&](int i) { x[i] = x[i] - p[i] * 0.693359375f; });
  each([&](int i) { x[i] = x[i] + p[i] * 2.12194440e-4f; });
  each([&](int i) { p[i] = x[i] * 1.9875691500e-4f + 1.3981999507e-3f; });
  each([&](int i) { p[i] = p[i] * x[i] + 8.3334519073e-3f; });
  each([&](int i) { p[i] = p[i] * x[i] + 4.1665795894e-2f; });
  each([&](int i) { p[i] = p[i] * x[i] + 1.6666665459e-1f; });
  each([&](int i) { p[i] = p[i] * x[i] + 5.0000001201e-1f; });
  each([&](int i) { p[i] = p[i] * (x[i] * x[i]) + x[i] + 1.0f; });
  each([&](int i) { x[i] = p[i] * (V)((I)t[i] << 23) * (1.0f / (1 << up)); });
}

inline Wide<float>::Vector exp_wide(Wide<float>::Vector x) {
  Wide<float>::Vector one[1] = {x};
  exp_each(one);
  return one[0];
}

inline Wide<double>::Vector exp_wide(Wide<double>::Vector x) {
  using V = Wide<double>::Vector;
  using I = Wide<double>::Mask;
  const V low = Wide<double>::fill(-707.0), high = Wide<double>::fill(709.0);
  const I tiny = x < low, huge = x > Wide<double>::fill(709.782712893384);
  x = x < low ? low : x;
  const V shift = x > high ? Wide<double>::fill(1.0) : Wide<double>::fill(0.0);
  const V y = x > Wide<double>::fill(710.0) ? Wide<double>::fill(700.0) : x - shift;
  const V t = y * 1.4426950408889634074 + 6755399441055744.0;
  const V k = t - 6755399441055744.0;
  V r = y - k * 6.93147180369123816490e-01;
  r = r - k * 1.90821492927058770002e-10;
  V p = r * (1.0 / 6227020800.0) + 1.0 / 479001600.0;
  p = p * r + 1.0 / 39916800.0;
  p = p * r + 1.0 / 3628800.0;
  p = p * r + 1.0 / 362880.0;
  p = p * r + 1.0 / 40320.0;
  p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
  p = p * r + 0.5;
  p = p * (r * r) + r + 1.0;
  const I n = (I)t - 0x4338000000000000LL;
  V e = p * (V)((n + 1023) << 52);
  e = shift > Wide<double>::fill(0.0) ? e * 2.71828182845904523536 : e;
  e = tiny ? Wide<double>::fill(0.0) : e;
  return huge ? Wide<double>::fill(std::numeric_limits<double>::infinity()) : e;
}

template <int N>
inline void exp_each(Wide<double>::Vector (&x)[N]) {
  for (auto& one : x) one = exp_wide(one);
}

// One value by the same arithmetic, so that a tail has the bits a full vector would give it.
template <class T>
inline T exp_one(T x) {
  return exp_wide(Wide<T>::fill(x))[0];
}

// The sum of exp(x - shift); with Keep, y becomes exp(x - shift). y may not be x: the end of a run is read twice.
template <bool Keep, class T>
inline T exp_and_sum(T* y, const T* x, Index n, T shift) {
  using W = Wide<T>;
  constexpr int side = 4;
  const auto s = W::fill(shift);
  typename W::Vector sum[side] = {};
  const auto keep = [&](Index at, typename W::Vector e) {
    if constexpr (Keep) W::store(y + at, e);
  };
  Index i = 0;
  for (; i + side * W::lanes <= n; i += side * W::lanes) {
    typename W::Vector e[side];
    for (int k = 0; k < side; ++k) e[k] = W::load(x + i + k * W::lanes) - s;
    exp_each(e);
    for (int k = 0; k < side; ++k) {
      keep(i + k * W::lanes, e[k]);
      sum[k] += e[k];
    }
  }
  if (n >= W::lanes) {
    for (; i + W::lanes <= n; i += W::lanes) {
      const auto e = exp_wide(W::load(x + i) - s);
      keep(i, e);
      sum[0] += e;
    }
    if (i < n) {
      const auto e = exp_wide(W::load(x + n - W::lanes) - s);
      keep(n - W::lanes, e);
      sum[1] += last_lanes<T>(e, n - i);
    }
    return sum_lanes((sum[0] + sum[1]) + (sum[2] + sum[3]));
  }
  for (; i < n; i += W::lanes) {
    const Index left = n - i < W::lanes ? n - i : W::lanes;
    alignas(64) T pad[W::lanes];
    for (Index l = 0; l < W::lanes; ++l) pad[l] = l < left ? x[i + l] : -std::numeric_limits<T>::infinity();
    const auto e = exp_wide(W::load(pad) - s);
    if constexpr (Keep) {
      W::store(pad, e);
      for (Index l = 0; l < left; ++l) y[i + l] = pad[l];
    }
    sum[0] += e;
  }
  return sum_lanes(sum[0]);
}

template <class T>
inline T sum_exp(const T* x, Index n, T shift) {
  return exp_and_sum<false>(static_cast<T*>(nullptr), x, n, shift);
}

template <class T>
inline T exp_run(T* y, const T* x, Index n, T shift) {
  return exp_and_sum<true>(y, x, n, shift);
}

// Runs of any length: blocks in T, blocks added in double.
template <class T>
inline double exp_long(T* y, const T* x, Index n, T shift) {
  double total = 0;
  for (Index i = 0; i < n; i += kSumBlock) total += exp_run(y + i, x + i, n - i < kSumBlock ? n - i : kSumBlock, shift);
  return total;
}

template <class T>
inline double sum_exp_long(const T* x, Index n, T shift) {
  double total = 0;
  for (Index i = 0; i < n; i += kSumBlock) total += sum_exp(x + i, n - i < kSumBlock ? n - i : kSumBlock, shift);
  return total;
}

}  // namespace tg
