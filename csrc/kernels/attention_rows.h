// What attention does to one row of a tile of scores. Rows are read and written in whole vectors: n elements mean
// something, and what is behind them belongs to the tile too.
#pragma once

#include <limits>

#include "reduce_lanes.h"

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

// The first n lanes, and `rest` in the others.
template <class T>
inline Vec<T> first_lanes(Vec<T> x, Index n, T rest) {
  const auto lane = lane_numbers<T>(std::make_index_sequence<std::size_t(Lanes<T>::count)>());
  return lane < static_cast<typename Lanes<T>::Word>(n) ? x : Vec<T>{} + rest;
}

// -inf when n is 0; NaN if any is.
template <class T>
T row_max(const T* x, Index n) {
  constexpr Index L = Lanes<T>::count;
  const T none = -std::numeric_limits<T>::infinity();
  const auto pick = [](Vec<T> a, Vec<T> b) { return ((a > b) | (a != a)) ? a : b; };
  Vec<T> top = Vec<T>{} + none;
  Index i = 0;
  for (; i + L <= n; i += L) top = pick(load(x + i), top);
  if (i < n) top = pick(first_lanes(load(x + i), n - i, none), top);
  return fold_lanes<T>(top, pick);
}

// x = exp(x - shift), and zero behind it; the sum of x.
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
    const Vec<T> e = exp_lanes(first_lanes(load(x + i), n - i, -std::numeric_limits<T>::infinity()) - shift);
    store(x + i, e);
    sum += e;
  }
  return sum_lanes(sum);
}

// d = p (d - delta) scale, and zero behind it
template <class T>
void softmax_grad(const T* p, T* d, Index n, T delta, T scale) {
  constexpr Index L = Lanes<T>::count;
  Index i = 0;
  for (; i + L <= n; i += L) store(d + i, load(p + i) * (load(d + i) - delta) * scale);
  if (i < n) store(d + i, first_lanes(load(p + i) * (load(d + i) - delta) * scale, n - i, T(0)));
}

template <class T>
T dot(const T* x, const T* y, Index n) {
  constexpr Index L = Lanes<T>::count;
  Vec<T> sum{};
  Index i = 0;
  for (; i + L <= n; i += L) sum += load(x + i) * load(y + i);
  T rest = 0;
  for (; i < n; ++i) rest += x[i] * y[i];
  return sum_lanes(sum) + rest;
}

}  // namespace tg::attention_rows
