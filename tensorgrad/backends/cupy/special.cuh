// Special functions that CUDA's library does not have, or not in the form needed: erfinv, lgamma, digamma, zeta,
// polygamma; the incomplete gamma integrals are in gamma.cuh.
//
// float goes through double: these are rare, and near their roots a float recurrence has no digits left.
#pragma once

namespace tg {

// Start: Giles 2010, "Approximating the erfinv function" (single precision, relative error below 4e-7 for |x| < 1).
TG_FN double erfinv_start(double x) {
  double w = -::log1p(-x * x), p;
  if (w < 5.0) {
    w -= 2.5;
    p = 2.81022636e-08;
    p = 3.43273939e-07 + p * w;
    p = -3.5233877e-06 + p * w;
    p = -4.39150654e-06 + p * w;
    p = 0.00021858087 + p * w;
    p = -0.00125372503 + p * w;
    p = -0.00417768164 + p * w;
    p = 0.246640727 + p * w;
    p = 1.50140941 + p * w;
  } else {
    w = ::sqrt(w) - 3.0;
    p = -0.000200214257;
    p = 0.000100950558 + p * w;
    p = 0.00134934322 + p * w;
    p = -0.00367342844 + p * w;
    p = 0.00573950773 + p * w;
    p = -0.0076224613 + p * w;
    p = 0.00943887047 + p * w;
    p = 1.00167406 + p * w;
    p = 2.83297682 + p * w;
  }
  return p * x;
}

// Two Halley steps on erf(y) = x; each cubes the error. Close to 1 the residual is taken of erfc, since 1 - x is exact
// there and erf(y) - x is not.
TG_FN double erfinv(double x) {
  if (!(::fabs(x) < 1.0)) return ::fabs(x) == 1.0 ? ::copysign(infinity(x), x) : quiet_nan(x);
  const double size = ::fabs(x);
  double y = erfinv_start(size);
  for (int step = 0; step < 2; ++step) {
    const double residual = size > 0.5 ? (1.0 - size) - ::erfc(y) : ::erf(y) - size;
    const double newton = residual / (1.1283791670955126 * ::exp(-y * y));  // 2 / sqrt(pi)
    y -= newton / (1.0 + y * newton);
  }
  return ::copysign(y, x);
}
TG_FN float erfinv(float x) { return (float)erfinv((double)x); }

TG_FN double lgamma(double x) { return ::lgamma(x); }
TG_FN float lgamma(float x) { return (float)::lgamma((double)x); }

// Recurrence up to x >= 10, then the asymptotic series (DLMF 5.11.2); reflection below 0 (DLMF 5.5.4).
// At 0 the limit from the side of the zero's sign; NaN at negative integers, as PyTorch.
TG_FN double digamma(double x) {
  const double pi = 3.141592653589793;
  if (x == 0.0) return ::copysign(infinity(x), -x);
  double result = 0.0;
  if (x < 0.0) {
    if (x == ::floor(x)) return quiet_nan(x);
    const double rest = x - ::rint(x);  // tan has period pi: reduce first, where it is exact
    result = -pi / ::tan(pi * rest);
    x = 1.0 - x;
  }
  while (x < 10.0) {
    result -= 1.0 / x;
    x += 1.0;
  }
  const double z = 1.0 / (x * x);
  double series = 8.333333333333333e-2;                    //  1/12
  series = z * (-2.1092796092796094e-2 + z * series);      // -691/32760
  series = z * (7.575757575757576e-3 + series);            //  1/132
  series = z * (-4.166666666666667e-3 + series);           // -1/240
  series = z * (3.968253968253968e-3 + series);            //  1/252
  series = z * (-8.333333333333333e-3 + series);           // -1/120
  series = z * (8.333333333333333e-2 + series);            //  1/12
  return result + ::log(x) - 0.5 / x - series;
}
TG_FN float digamma(float x) { return (float)digamma((double)x); }

// Hurwitz zeta for s > 1, q > 0: twelve direct terms, then Euler-Maclaurin (DLMF 25.11.5).
TG_FN double hurwitz(double s, double q) {
  double sum = 0.0;
#pragma unroll 1  // unrolled, every pow is optimized by itself: a second of compiling for polygamma(1, x)
  for (int k = 0; k < 12; ++k) {
    sum += ::pow(q, -s);
    q += 1.0;
  }
  const double bernoulli[8] = {  // B(2k) / (2k)!
      8.333333333333333e-2, -1.388888888888889e-3, 3.306878306878307e-5, -8.267195767195768e-7,
      2.08767569878681e-8, -5.284190138687493e-10, 1.3382536530684679e-11, -3.3896802963225827e-13};
  const double power = ::pow(q, -s);
  if (power == 0.0) return sum;
  sum += q * power / (s - 1.0) + 0.5 * power;
  double term = s * power / q;
  for (int k = 0; k < 8; ++k) {
    sum += bernoulli[k] * term;
    term *= (s + 2 * k + 1) * (s + 2 * k + 2) / (q * q);
  }
  return sum;
}

// sum_k (q + k)^-s; left of 0 for integer s alone. Left of 1/2 the poles on both sides of q are split off at the nearest
// one, so that no term cancels and none is summed one by one, however far left q lies.
TG_FN double zeta(double s, double q) {
  if (s != s || q != q || s < 1.0) return quiet_nan(s);
  if (s == 1.0) return infinity(s);
  if (q <= 0.0 && q == ::floor(q)) return infinity(q);
  if (q == infinity(q)) return 0.0;
  if (q >= 0.5) return hurwitz(s, q);
  if (q < 0.0 && s != ::floor(s)) return quiet_nan(s);
  const double alternating = ::fmod(s, 2.0) == 0.0 ? 1.0 : -1.0;
  const double pole = ::rint(q), rest = q - pole;
  double sum = (rest < 0.0 ? alternating : 1.0) * ::pow(::fabs(rest), -s) + hurwitz(s, 1.0 + rest);
  if (pole != 0.0) sum += alternating * (hurwitz(s, 1.0 - rest) - hurwitz(s, 1.0 - q));
  return sum;
}
TG_FN float zeta(float s, float q) { return (float)zeta((double)s, (double)q); }

// (-1)^(n+1) n! sum_k 1/(x+k)^(n+1)
TG_FN double polygamma(double order, double x) {
  if (order == 0.0) return digamma(x);
  const double s = order + 1.0;
  return (::fmod(s, 2.0) == 0.0 ? 1.0 : -1.0) * ::exp(::lgamma(s)) * zeta(s, x);
}
TG_FN float polygamma(float order, float x) { return (float)polygamma((double)order, (double)x); }

}  // namespace tg
