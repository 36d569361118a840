// The gamma function's logarithm, and the derivative of that, of float by way of a vector of double.
//
// Near their zeros, of which there is one between any two poles, a double's digits are needed: rational functions (interpolated
// at Chebyshev's points, our own fits), sines and logarithms are right to a few 2^-53, but for what adds to a logarithm.
//
// `negative` says whether an element may be: others spare what reflects it, and take the same arithmetic besides. Each multiply-add
// is spelled as fused.
//
// Largest error of lgamma and digamma over samples of all floats 0.50 ulp.
//
// Ladder, us for 1e4 floats on a Zen 4 core, PyTorch's beside them: lgamma of positive numbers, one by one by the C library, 220,
// here 37 (AVX2: 58; PyTorch 55), of both signs 540 and 48 (82; 79); digamma, by recurrence and series, 178 and 31 (44; 92),
// 208 and 38 (58; 225); trigamma of positive numbers, the powers by the C library, 1620 and 69 (96; 77).
#pragma once

#include "pack_double.h"

namespace tg::pack {

// x less the nearest integer; of |x| >= 2^51, which are integers, anything.
TG_ALWAYS_INLINE Double from_integer(Double x) { return x - ((x + 6755399441055744.0) - 6755399441055744.0); }
// sin(pi r) / pi and cos(pi r) for |r| <= 1/2
TG_ALWAYS_INLINE Double sin_pi(Double r) {
  return r * horner(r * r, 1.0, -1.6449340668481678, 0.8117424252784269, -0.19075182396433998, 0.026147845336487233,
                           -0.002346059829910968, 0.00014832827396380304, -6.7270425170826265e-06);
}
TG_ALWAYS_INLINE Double cos_pi(Double r) {
  return horner(r * r, 1.0, -4.934802200544676, 4.058712126416497, -1.335262768843447, 0.23533063012953284,
                       -0.025806888737002202, 0.0019295562724817132, -0.00010456655338748738, 4.149564353942586e-06);
}
// Zero and all integers below, infinity among them.
TG_ALWAYS_INLINE Long is_pole(Double x, Double rest) { return ((rest == 0.0) & (x <= 0.0)) | (x <= -0x1p51); }

constexpr double kInfinity = __builtin_inf();

// For z in [1, 2.25) (z - 1) (z - 2) P / Q; else Stirling's series (DLMF 5.11.1) at w, which is z or, where z < 8, z + 6, less the
// logarithm of what lies between. A number below 1 is taken to z = x + 1, a negative one to z = 1 - x:
// log |gamma(x)| = log(pi / |sin(pi x)|) - log gamma(1 - x) (DLMF 5.5.3).
TG_ALWAYS_INLINE Double lgamma(Double x, bool negative) {
  const Long below = x < 0.0, low = x < 1.0;
  const Double z = (low ? spread(1.0) : spread(0.0)) + (below ? -x : x);
  const Long near = z < 2.25, middle = (z < 8.0) & ~near;
  const Double y = near ? z : spread(1.0);  // no power of a large number
  const Double top = (y - 1.0) * (y - 2.0) * horner(y, 1.993550143069325, 12.659059133229615, 12.511288414613741,
                                                       2.12039543199725, 0.01840973751540851);
  const Double bottom = horner(y, 1.0, 13.379907665828219, 25.311115383118484, 10.301057880181753, 0.7735247940824376);
  const Double w = middle ? z + 6.0 : z;
  const Double quotient = (near ? top : spread(1.0)) / (near ? bottom : w);
  const Double series = horner(quotient * quotient, 0.083333333333333333, -0.0027777777777777778, 0.00079365079365079365,
                               -0.00059523809523809524, 0.00084175084175084175, -0.0019175269175269175);
  const Double l = log(w);
  const Double far = fused(quotient, series, fused(w, l - 1.0, fused(l, spread(-0.5), spread(0.91893853320467274))));
  const Double value = near ? quotient : far;
  Double factor = middle ? z * (z + 1.0) * ((z + 2.0) * (z + 3.0)) * ((z + 4.0) * (z + 5.0)) : low ? x : spread(1.0);
  Long pole = x == 0.0;
  if (negative) {
    const Double rest = from_integer(x), s = sin_pi(rest), size = rest < 0.0 ? -s : s;
    factor = below ? (middle ? factor : spread(1.0)) / size : factor;
    pole = is_pole(x, rest);
  }
  const Double other = log(factor);
  Double result = value - other;
  result = below ? -result : result;
  return pole ? spread(kInfinity) : result;
}

// For z in [1/2, 8) (z - zero) P / Q with the zero at 1.46...; beyond, log z - 1 / (2 z) and the asymptotic series (DLMF 5.11.2).
// psi(x) = psi(x + 1) - 1 / x (5.5.2) below 1/2, and psi(1 - x) - pi cot(pi x) (5.5.4) below 0.
TG_ALWAYS_INLINE Double digamma(Double x, bool negative) {
  const Long below = x < 0.0, low = x < 0.5;
  const Double z = (low ? spread(1.0) : spread(0.0)) + (below ? -x : x);
  const Long near = z < 8.0;
  const Double y = near ? z : spread(1.0);
  const Double top = ((y - 1.4616321449683622) - 9.549995429965697e-17) * horner(y, 14350797391.187717, 51048427704.01413, 57923601677.43036,
                                                     29663483305.152313, 7669958545.41138, 1023877815.4599566,
                                                     67821832.66811948, 1985808.604236428, 19312.415269007546,
                                                     13.547070092981414, -0.023365462031135674);
  const Double bottom = horner(y, 1.0, 20975586759.18515, 48155788316.164925, 40321751999.94246, 16158400921.752695,
                                  3363281162.2000833, 365663396.4699512, 19702298.085734162, 460660.9169298198,
                                  3344.7395440641503);
  const Double quotient = (near ? top : spread(1.0)) / (near ? bottom : z), square = quotient * quotient;
  const Double series = horner(square, 0.083333333333333333, -0.0083333333333333333, 0.003968253968253968,
                               -0.0041666666666666667, 0.0075757575757575758, -0.021092796092796093);
  const Double far = fused(-square, series, fused(quotient, spread(-0.5), log(z)));
  Double above = low ? spread(1.0) : spread(0.0), under = low ? x : spread(1.0);
  if (negative) {
    const Double rest = from_integer(x);
    above = below ? cos_pi(rest) : above;
    under = below ? sin_pi(rest) : under;
    under = is_pole(x, rest) ? spread(__builtin_nan("")) : under;
  }
  Double result = (near ? quotient : far) - above / under;
  result = x == kInfinity ? x : result;
  return x == 0.0 ? -1.0 / x : result;
}

// x^n
TG_ALWAYS_INLINE Double power(Double x, int n) {
  Double r = spread(1.0);
  for (; n; n >>= 1, x *= x)
    if (n & 1) r *= x;
  return r;
}

// The sum of (q + k)^-s over k = 0, 1, ..., for q > 0 and s > 1: twelve terms, then Euler and Maclaurin (DLMF 25.11.5).
[[gnu::noinline]] inline Double zeta_of_positive(int s, Double q) {
  constexpr double b[] = {8.333333333333333e-2,    -1.388888888888889e-3,   3.306878306878307e-5,    -8.267195767195768e-7,
                          2.08767569878681e-8,     -5.284190138687493e-10,  1.3382536530684679e-11,  -3.3896802963225827e-13};
  Double total{};
  for (int k = 0; k < 12; ++k, q += 1.0) total += power(1.0 / q, s);
  const Double inverse = 1.0 / q, square = inverse * inverse, before = power(inverse, s - 1), last = before * inverse;
  Double tail = fused(before, spread(1.0 / (s - 1)), 0.5 * last), term = double(s) * (last * inverse);
  for (int k = 0; k < 8; ++k) {
    tail = fused(term, spread(b[k]), tail);
    term *= double(s + 2 * k + 1) * double(s + 2 * k + 2) * square;
  }
  return total + tail;
}

// The same for any q. Left of 1/2 the poles on both sides of q are split off at the nearest one, so that no term cancels.
TG_ALWAYS_INLINE Double zeta(int s, Double q, bool negative) {
  const Long left = q < 0.5;
  const Double rest = negative ? from_integer(q) : q, first = power(1.0 / rest, s);
  Double result = zeta_of_positive(s, left ? 1.0 + rest : q);
  result = left ? result + first : result;
  if (negative) {
    const Double beyond = zeta_of_positive(s, 1.0 - (left ? rest : q - q)) - zeta_of_positive(s, 1.0 - (left ? q : q - q));
    result = (q < -0.5) ? result + (s % 2 ? -beyond : beyond) : result;
  }
  return is_pole(q, rest) ? spread(kInfinity) : result;
}

// to[i] = f(x[i], whether any is negative) of float or double, a vector of doubles at a time. `to` may be x.
template <class T, class F>
inline void map_by_double(T* to, const T* x, Index n, F f) {
  typedef T Part __attribute__((vector_size(sizeof(T) * kDoubles)));
  bool negative = false;
  for (Index i = 0; i < n; ++i) negative |= x[i] < T(0);
  for (Index i = 0; i < n; i += kDoubles) {
    Part part{};
    const bool whole = n - i >= kDoubles;
    const std::size_t bytes = sizeof(T) * static_cast<std::size_t>(n - i);
    if (whole) std::memcpy(&part, x + i, sizeof(part));
    else std::memcpy(&part, x + i, bytes);
    const Double wide = __builtin_convertvector(part, Double), value = f(wide, negative);
    part = __builtin_convertvector(wide == wide ? value : wide, Part);
    if (whole) std::memcpy(to + i, &part, sizeof(part));
    else std::memcpy(to + i, &part, bytes);
  }
}

}  // namespace tg::pack
