// Elementary functions that the compiler can vectorize: no calls, no branches, every case by selection.
//
// They are written for one element and become vector code in the loops that use them. Each multiply-add is spelled as
// fma_: nothing is left for the compiler to contract in one copy of a loop and not in another, so an element has the
// same bits in a vector, in the tail after the last full vector and alone. Polynomials are minimax fits (Remez) over the
// reduced ranges; their relative errors are below a quarter of an ulp unless said.
//
// Double: at most 4 ulp over the whole range. Of float only the logarithm is here, at most 0.9 ulp; for the others see
// simd_float.h.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "dtype.h"

namespace tg {
namespace lane {

#if defined(__FMA__) || defined(__aarch64__)
inline float fma_(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline double fma_(double a, double b, double c) { return __builtin_fma(a, b, c); }
#else
inline float fma_(float a, float b, float c) { return a * b + c; }
inline double fma_(double a, double b, double c) { return a * b + c; }
#endif

template <class To, class From>
inline To bits(From x) {
  static_assert(sizeof(To) == sizeof(From), "bits: sizes differ");
  To y;
  std::memcpy(&y, &x, sizeof(To));
  return y;
}

constexpr float kInfF = std::numeric_limits<float>::infinity(), kNanF = std::numeric_limits<float>::quiet_NaN();
constexpr double kInfD = std::numeric_limits<double>::infinity(), kNanD = std::numeric_limits<double>::quiet_NaN();

// c0 + c1 x + c2 x^2 + ..., innermost last.
template <class T>
inline T horner(T, T c) {
  return c;
}
template <class T, class... More>
inline T horner(T x, T c, More... more) {
  return fma_(horner(x, more...), x, c);
}

// Adding 1.5 * 2^23 (2^52) rounds to an integer, which the low bits of the sum then hold.
constexpr float kRoundF = 12582912.0f;
constexpr double kRoundD = 6755399441055744.0;
constexpr std::int32_t kRoundBitsF = 0x4B400000;
constexpr std::int64_t kRoundBitsD = 0x4338000000000000LL;

// 2^n for the exponents of normal numbers.
inline float power_of_two(std::int32_t n) { return bits<float>((n + 127) << 23); }
inline double power_of_two(std::int64_t n) { return bits<double>((n + 1023) << 52); }

// ---- exponentials -------------------------------------------------------------------------------------------------

// (e^r - 1 - r) / r^2 on |r| <= ln 2 / 2
inline float exp_tail(float r) {
  return horner(r, 0.5f, 0.166666657f, 0.0416663587f, 0.00833339058f, 0.0013940722f, 0.000198455789f);
}
inline double exp_tail(double r) {
  return horner(r, 0.5, 0.16666666666666677, 0.041666666666666505, 0.0083333333333216082, 0.0013888888888962912,
                0.00019841269886207332, 2.4801587171819316e-05, 2.7557244104781522e-06, 2.7557402960103788e-07,
                2.5109081201792374e-08, 2.0875322608862747e-09);
}

// p 2^n in two factors, so that subnormal results and the largest ones come out. |n| <= 2 * 126.
inline double scale(double p, std::int64_t n) {
  const std::int64_t half = static_cast<std::int64_t>(static_cast<std::uint64_t>(n + 4096) >> 1) - 2048;
  return p * power_of_two(half) * power_of_two(n - half);
}

inline double exp(double x) {
  double y = x < -746.0 ? -746.0 : x;
  y = y > 710.0 ? 710.0 : y;
  const double t = fma_(y, 1.4426950408889634, kRoundD);
  const double k = t - kRoundD;
  double r = fma_(k, -0.6931471803691238, y);
  r = fma_(k, -1.9082149292705877e-10, r);
  const double p = fma_(exp_tail(r), r * r, r) + 1.0;
  const double e = scale(p, bits<std::int64_t>(t) - kRoundBitsD);
  return x != x ? x : e;
}

inline double expm1(double x) {
  double y = x < -40.0 ? -40.0 : x;
  y = y > 710.0 ? 710.0 : y;
  const double t = fma_(y, 1.4426950408889634, kRoundD);
  const double k = t - kRoundD;
  double r = fma_(k, -0.6931471803691238, y);
  r = fma_(k, -1.9082149292705877e-10, r);
  const double e = fma_(exp_tail(r), r * r, r);
  const double s = power_of_two(bits<std::int64_t>(t) - kRoundBitsD - 1);
  const double grown = fma_(s, e, s - 0.5) * 2.0;
  const double small = k == 0.0 ? e : grown;
  const double signed_zero = x == 0.0 ? x : small;
  return x != x ? x : signed_zero;
}

inline double sigmoid(double x) {
  const double e = exp(-std::fabs(x));
  return (x >= 0.0 ? 1.0 : e) / (1.0 + e);
}

inline double tanh(double x) {
  const double a = std::fabs(x);
  const double e = expm1(2.0 * (a > 22.0 ? 22.0 : a));
  const double result = std::copysign(e / (e + 2.0), x);
  return x != x ? x : result;
}

// ---- logarithms ---------------------------------------------------------------------------------------------------

// x = 2^k (1 + f) with 1 + f in [sqrt 1/2, sqrt 2), for finite x > 0
inline void split(float x, float& k, float& f) {
  const bool tiny = x < 1.17549435e-38f;
  const std::uint32_t shifted = bits<std::uint32_t>(tiny ? x * 8388608.0f : x) + (0x3f800000u - 0x3f3504f3u);
  k = static_cast<float>(static_cast<std::int32_t>(shifted >> 23) - (tiny ? 127 + 23 : 127));
  f = bits<float>((shifted & 0x7fffffu) + 0x3f3504f3u) - 1.0f;
}
inline void split(double x, double& k, double& f) {
  const bool tiny = x < 2.2250738585072014e-308;
  const std::uint64_t from = bits<std::uint64_t>(tiny ? x * 18014398509481984.0 : x);
  const std::uint64_t shifted = from + (0x3ff0000000000000ULL - 0x3fe6a09e667f3bcdULL);
  const std::uint64_t exponent = (shifted >> 52) + static_cast<std::uint64_t>(kRoundBitsD);
  k = bits<double>(exponent) - (tiny ? kRoundD + (1023 + 54) : kRoundD + 1023);
  f = bits<double>((shifted & 0xfffffffffffffULL) + 0x3fe6a09e667f3bcdULL) - 1.0;
}

// ln(1 + f) = high + low, high = f
inline float log_low(float f) {
  const float p = horner(f, 0.333333135f, -0.250000089f, 0.200021327f, -0.166680068f, 0.142192438f, -0.124051273f,
                         0.118902013f, -0.116797045f, 0.0674691275f);
  return f * f * fma_(p, f, -0.5f);
}
inline double log_low(double f) {
  const double s = f / (2.0 + f), z = s * s, half = 0.5 * f * f;
  const double p = z * horner(z, 0.66666666666666663, 0.40000000000006314, 0.28571428569064128, 0.2222222265019565,
                              0.18181775384337753, 0.15387103421129758, 0.13249825058106415, 0.13254055456386588);
  return fma_(s, half + p, -half);
}

// What log is at the ends of its domain and outside, for any base > 1.
template <class T>
inline T log_edges(T x, T y) {
  constexpr T inf = std::numeric_limits<T>::infinity(), nan = std::numeric_limits<T>::quiet_NaN();
  T r = x == inf ? inf : y;
  r = x == T(0) ? -inf : r;
  return x >= T(0) ? r : nan;  // NaN compares false
}

inline float log(float x) {
  float k, f;
  split(x, k, f);
  const float low = fma_(k, 1.42860677e-6f, log_low(f));
  return log_edges(x, fma_(k, 0.693145752f, f + low));
}
inline double log(double x) {
  double k, f;
  split(x, k, f);
  const double low = fma_(k, 1.9082149292705877e-10, log_low(f));
  return log_edges(x, fma_(k, 0.6931471803691238, f + low));
}

inline double log1p(double x) {
  const double u = 1.0 + x;
  double k, f;
  split(u, k, f);
  // what 1 + x lost in rounding, at the scale of f; where u needs no scaling x itself is f
  const double lost = u > 2.0 ? 1.0 - (u - x) : x - (u - 1.0);
  f = k == 0.0 ? x : f;
  const double correction = k == 0.0 ? 0.0 : lost / u;
  const double low = fma_(k, 1.9082149292705877e-10, log_low(f) + correction);
  const double y = fma_(k, 0.6931471803691238, f + low);
  const double r = log_edges(u, y);
  return x == 0.0 ? x : r;
}

}  // namespace lane
}  // namespace tg
