// What attention does to one row of a tile of scores.
#pragma once

#include <limits>

#include "../core/lanes.h"

namespace tg::attention_rows {

using lanes::Lanes;
using lanes::load;
using lanes::store;
using lanes::Vec;

// exp(x) = 2^n exp(r), n = round(x / ln 2), |r| <= ln(2) / 2, exp(r) by its series: 7 terms of float, 13 of double,
// largest error measured 1.05 ulp over every seventh float and 32 million doubles.
// Below the least normal number the result is 0, above 2^127 (which no score reaches: the largest is subtracted) infinity.
// NaN stays NaN.
inline Vec<float> exp_lanes(Vec<float> x) {
  using V = Vec<float>;
  using I = Lanes<float>::Int;
  const V magic = V{} + 12582912.0f;  // 1.5 * 2^23: adding it leaves n in the low bits
  const V t = x * 1.44269504088896341f + magic, n = t - magic;
  V r = x - n * 0.693145751953125f;
  r = r - n * 1.42860682030941723e-6f;
  V p = r * 1.98412698e-4f + 1.38888889e-3f;
  p = p * r + 8.33333333e-3f;
  p = p * r + 4.16666667e-2f;
  p = p * r + 1.66666667e-1f;
  p = p * r + 0.5f;
  p = p * r * r + r + 1.0f;
  const I bits = ((I)t - (I)magic + 127) << 23;
  const V y = p * (V)bits;
  return (x < -87.3365f) ? V{} : (x > 88.37f) ? V{} + std::numeric_limits<float>::infinity() : y;
}

inline Vec<double> exp_lanes(Vec<double> x) {
  using V = Vec<double>;
  using I = Lanes<double>::Int;
  const V magic = V{} + 6755399441055744.0;  // 1.5 * 2^52
  const V t = x * 1.44269504088896340736 + magic, n = t - magic;
  V r = x - n * 6.93147180369123816490e-1;
  r = r - n * 1.90821492927058770002e-10;
  V p = r * 1.6059043836821613e-10 + 2.08767569878681e-9;
  p = p * r + 2.505210838544172e-8;
  p = p * r + 2.755731922398589e-7;
  p = p * r + 2.7557319223985893e-6;
  p = p * r + 2.48015873015873e-5;
  p = p * r + 1.984126984126984e-4;
  p = p * r + 1.388888888888889e-3;
  p = p * r + 8.333333333333333e-3;
  p = p * r + 4.1666666666666664e-2;
  p = p * r + 1.6666666666666666e-1;
  p = p * r + 0.5;
  p = p * r * r + r + 1.0;
  const I bits = ((I)t - (I)magic + 1023) << 52;
  const V y = p * (V)bits;
  return (x < -708.396) ? V{} : (x > 709.43) ? V{} + std::numeric_limits<double>::infinity() : y;
}

// The last lanes of a row, filled up with `rest`.
template <class T>
inline Vec<T> load_part(const T* x, Index n, T rest) {
  alignas(64) T lane[Lanes<T>::count];
  for (Index i = 0; i < Lanes<T>::count; ++i) lane[i] = i < n ? x[i] : rest;
  return load<T>(lane);
}

// -inf when n is 0; NaN if any is.
template <class T>
T row_max(const T* x, Index n) {
  constexpr Index L = Lanes<T>::count;
  const T none = -std::numeric_limits<T>::infinity();
  Vec<T> top = Vec<T>{} + none;
  Index i = 0;
  auto take = [&](Vec<T> v) { top = ((v > top) | (v != v)) ? v : top; };
  for (; i + L <= n; i += L) take(load(x + i));
  if (i < n) take(load_part(x + i, n - i, none));
  T best = top[0];
  for (Index j = 1; j < L; ++j) best = (top[j] > best || top[j] != top[j]) ? top[j] : best;
  return best;
}

template <class T>
T sum_lanes(Vec<T> v) {
  alignas(64) T lane[Lanes<T>::count];
  store<T>(lane, v);
  for (Index width = Lanes<T>::count / 2; width > 0; width /= 2)
    for (Index j = 0; j < width; ++j) lane[j] += lane[j + width];
  return lane[0];
}

// x = exp(x - shift); the sum of x.
template <class T>
T exp_shifted(T* x, Index n, T shift) {
  constexpr Index L = Lanes<T>::count;
  Vec<T> sum{};
  Index i = 0;
  for (; i + L <= n; i += L) {
    const Vec<T> e = exp_lanes(load(x + i) - shift);
    store(x + i, e);
    sum += e;
  }
  if (i < n) {
    const Vec<T> e = exp_lanes(load_part(x + i, n - i, -std::numeric_limits<T>::infinity()) - shift);
    for (Index j = 0; j < n - i; ++j) x[i + j] = e[j];
    sum += load_part(x + i, n - i, T(0));
  }
  return sum_lanes<T>(sum);
}

// d = p (d - delta) scale
template <class T>
void softmax_grad(const T* p, T* d, Index n, T delta, T scale) {
  for (Index i = 0; i < n; ++i) d[i] = p[i] * (d[i] - delta) * scale;
}

template <class T>
T dot(const T* x, const T* y, Index n) {
  constexpr Index L = Lanes<T>::count;
  Vec<T> sum{};
  Index i = 0;
  for (; i + L <= n; i += L) sum += load(x + i) * load(y + i);
  T rest = 0;
  for (; i < n; ++i) rest += x[i] * y[i];
  return sum_lanes<T>(sum) + rest;
}

}  // namespace tg::attention_rows
