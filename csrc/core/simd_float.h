// Elementary functions of float by way of double, like those of simd.h in vector code.
//
// A double's 29 spare bits make everything but the approximation itself exact enough to forget: one-step reductions, no
// sums of high and low parts, no special treatment of subnormal results. So these cost what the float versions did, at
// half the lanes and half the instructions, with 0.55 ulp at most instead of 1 to 2.3. The polynomials' relative errors are below 2^-28, of those that others build on below 2^-30; all are
// minimax fits of our own.
//
// The functions that end in `d` take and give doubles, in the range that float arguments can reach.
#pragma once

#include "simd.h"

namespace tg {
namespace lane {

// ---- exponentials -------------------------------------------------------------------------------------------------

// Adding this rounds to an integer k and leaves k + 1023, the exponent of 2^k, in the low bits.
constexpr double kRoundToExponent = kRoundD + 1023;
inline double power_of_rounded(double t) { return bits<double>(bits<std::uint64_t>(t) << 52); }

inline double exp_d(double x) {
  const double t = fma_(x, 1.4426950408889634, kRoundToExponent), k = t - kRoundToExponent;
  const double r = fma_(k, -0.6931471805599453, x);
  const double p = horner(r, 1.0000000005546195, 1.0000000363446717, 0.49999992074881205, 0.16666420072263868,
                          0.041668226236030156, 0.0083748240410586611, 0.0013836833125766648);
  return p * power_of_rounded(t);
}

inline double expm1_d(double x) {
  const double t = fma_(x, 1.4426950408889634, kRoundToExponent), k = t - kRoundToExponent;
  const double r = fma_(k, -0.6931471805599453, x);
  const double p = horner(r, 0.50000000441728487, 0.16666666370606406, 0.04166636088754197, 0.0083333893281194275,
                          0.0013940628920850321, 0.00019845902917263559);
  const double s = power_of_rounded(t);
  return fma_(s, fma_(p, r * r, r), s - 1.0);
}

inline double exp2_d(double x) {
  const double t = x + kRoundToExponent, r = x - (t - kRoundToExponent);
  const double p = horner(r, 0.69314718070453485, 0.24022651066565143, 0.055504103659816208, 0.0096180381315754092,
                          0.0013333935063239155, 0.00015466756448373475, 1.519615478362546e-05);
  return fma_(p, r, 1.0) * power_of_rounded(t);
}

// x with its size limited, as integers: the selects of floats would be taken apart behind the conversion to double, at
// ten instructions. NaN becomes the limit; `or_nan` brings it back.
inline float limited(float x, float limit) {
  const std::uint32_t given = bits<std::uint32_t>(x), size = given & 0x7fffffffu, most = bits<std::uint32_t>(limit);
  return bits<float>((size < most ? size : most) | (given & 0x80000000u));
}
inline float or_nan(float x, double y) { return x != x ? x : static_cast<float>(y); }

inline float exp(float x) { return or_nan(x, exp_d(limited(x, 104.0f))); }
inline float exp2(float x) { return or_nan(x, exp2_d(limited(x, 151.0f))); }
inline float expm1(float x) {
  const float y = or_nan(x, expm1_d(limited(x, 89.0f)));
  return x == 0.0f ? x : y;
}

inline float sigmoid(float x) { return or_nan(x, 1.0 / (1.0 + exp_d(limited(-x, 104.0f)))); }

inline float tanh(float x) {
  const double e = expm1_d(2.0 * limited(x, 10.0f));
  const float y = or_nan(x, e / (e + 2.0));
  return x == 0.0f ? x : y;
}

inline float sinh(float x) {
  const double e = expm1_d(limited(std::fabs(x), 90.0f));
  return or_nan(x, std::copysign(static_cast<float>(0.5 * (e + e / (e + 1.0))), x));
}
inline float cosh(float x) {
  const double e = expm1_d(limited(std::fabs(x), 90.0f)) + 1.0;
  return or_nan(x, 0.5 * e + 0.5 / e);
}

// ---- logarithms ---------------------------------------------------------------------------------------------------

// x = 2^k (1 + f) with 1 + f in [sqrt 1/2, sqrt 2), for finite normal x > 0
inline void split_d(double x, double& k, double& f) {
  const std::uint64_t shifted = bits<std::uint64_t>(x) + (0x3ff0000000000000ULL - 0x3fe6a09e667f3bcdULL);
  k = bits<double>((shifted >> 52) | 0x4330000000000000ULL) - (4503599627370496.0 + 1023.0);
  f = bits<double>((shifted & 0xfffffffffffffULL) + 0x3fe6a09e667f3bcdULL) - 1.0;
}
inline double log1p_part(double f) {
  const double p = horner(f, -0.49999999753489976, 0.333333108117917, -0.25000025709317519, 0.20002219991687695,
                          -0.16667688679318673, 0.14217680710906841, -0.12407343196997098, 0.11900961181637212,
                          -0.11676024213946179, 0.067250159092969802);
  return fma_(p, f * f, f);
}
inline double log_d(double x) {
  double k, f;
  split_d(x, k, f);
  return fma_(k, 0.6931471805599453, log1p_part(f));
}
// To 2^-44, relative: pow multiplies it by up to 2^7 bits of exponent.
inline double log2_d(double x) {
  double k, f;
  split_d(x, k, f);
  const double s = f / (2.0 + f), z = s * s;
  const double p = horner(z, 0.33333333337930787, 0.19999997799441965, 0.14286055908817771, 0.11088034400826496,
                          0.097929977878219457);
  return fma_(s * fma_(p, z, 1.0), 2.8853900817779268, k);
}

inline float log1p(float x) {
  const double wide = x, u = 1.0 + wide;
  double k, f;
  split_d(u, k, f);
  f = k == 0.0 ? wide : f;  // where 1 + x needs no scaling, x has the digits that the sum loses
  const float y = log_edges(static_cast<float>(u), static_cast<float>(fma_(k, 0.6931471805599453, log1p_part(f))));
  return x == 0.0f ? x : y;
}
inline float log2(float x) {
  double k, f;
  split_d(x, k, f);
  return log_edges(x, static_cast<float>(fma_(log1p_part(f), 1.4426950408889634, k)));
}
inline float log10(float x) {
  double k, f;
  split_d(x, k, f);
  return log_edges(x, static_cast<float>(fma_(log1p_part(f), 0.43429448190325182, k * 0.30102999566398120)));
}

inline float asinh(float x) {
  const float size = std::fabs(x);
  const double a = size, whole = log_d(a + std::sqrt(fma_(a, a, 1.0)));
  const double y = a < 1e-3 ? a * fma_(a * a, -0.16666666666666666, 1.0) : whole;
  return size < kInfF ? std::copysign(static_cast<float>(y), x) : x;
}
inline float acosh(float x) {
  const double d = static_cast<double>(x) - 1.0;
  const float y = static_cast<float>(log_d(1.0 + (d + std::sqrt(d * (d + 2.0)))));
  const float finite = x == kInfF ? x : y;
  return x >= 1.0f ? finite : kNanF;
}
inline float atanh(float x) {
  const float size = std::fabs(x);
  const double a = size, whole = 0.5 * log_d((1.0 + a) / (1.0 - a));
  const double y = a < 1e-3 ? a * fma_(a * a, 0.33333333333333331, 1.0) : whole;
  const float inside = std::copysign(size == 1.0f ? kInfF : static_cast<float>(y), x);
  return size <= 1.0f ? inside : kNanF;
}

// ---- trigonometric ------------------------------------------------------------------------------------------------

// Up to here the reductions are good to float's last digit (k below 2^20 and a first part of pi of 33 bits make their
// product exact); beyond, the C library takes over.
constexpr float kTrigLimit = 1.0e6f;

inline double flip(double x, std::uint64_t sign_bit) { return bits<double>(bits<std::uint64_t>(x) ^ sign_bit); }

// sin r on |r| <= pi / 2
inline double sin_d(double r) {
  const double z = r * r;
  const double p = horner(z, -0.16666666626098658, 0.0083333311064865065, -0.00019840867933332325,
                          2.7525370145888409e-06, -2.3888655393247492e-08);
  return r * fma_(z, p, 1.0);
}
inline float sin(float x) {
  const double wide = x, t = fma_(wide, 0.31830988618379069, kRoundD), k = t - kRoundD;
  const double r = fma_(k, -1.2154201012e-10, fma_(k, -3.1415926534682512, wide));
  return static_cast<float>(flip(sin_d(r), bits<std::uint64_t>(t) << 63));
}
// The nearest odd multiple of pi / 2 below: cos x = -(-1)^k sin(x - (k + 1/2) pi)
inline float cos(float x) {
  const double wide = x, t = fma_(wide, 0.31830988618379069, -0.5) + kRoundD, k = (t - kRoundD) + 0.5;
  const double r = fma_(k, -1.2154201012e-10, fma_(k, -3.1415926534682512, wide));
  return static_cast<float>(flip(sin_d(r), ~bits<std::uint64_t>(t) << 63));
}
inline float tan(float x) {
  const double wide = x, t = fma_(wide, 0.6366197723675814, kRoundD), k = t - kRoundD;
  const double r = fma_(k, -6.077100506506192e-11, fma_(k, -1.5707963267341256, wide)), z = r * r;
  const double s = r * fma_(z, horner(z, -0.16666666640771932, 0.008333329302056788, -0.0001983931139433603,
                                      2.7181134018013246e-06), 1.0);
  const double c = fma_(z, horner(z, -0.49999999999488659, 0.04166666655331349, -0.0013888880653514068,
                                  2.4798959502365563e-05, -2.7174701167524518e-07), 1.0);
  const std::uint64_t q = bits<std::uint64_t>(t);
  const bool odd = (q & 1) != 0;
  return static_cast<float>(flip((odd ? c : s) / (odd ? s : c), q << 63));
}

// atan t on [0, 1]
inline double atan_d(double t) {
  const double z = t * t;
  const double p = horner(z, -0.3333332689925248, 0.19999671111888762, -0.14279832906497844, 0.11058222731720822,
                          -0.08811087827432168, 0.067415890979631771, -0.044689828937005585, 0.022539771360501119,
                          -0.0073179115686310397, 0.0011137797736073271);
  return t * fma_(z, p, 1.0);
}
inline float atan(float x) {
  const double a = std::fabs(x);
  const bool large = a > 1.0;
  const double y = atan_d((large ? 1.0 : a) / (large ? a : 1.0));
  return std::copysign(static_cast<float>(large ? 1.5707963267948966 - y : y), x);
}
inline float atan2(float y, float x) {
  const double a = std::fabs(y), b = std::fabs(x);
  const bool steep = a > b;
  const double low = steep ? b : a, high = steep ? a : b;
  // 0 / 0 is 0, and two infinities meet at 45 degrees
  double t = low / (high == 0.0 ? 1.0 : high);
  t = low == kInfD ? 1.0 : t;
  double r = atan_d(t);
  r = steep ? 1.5707963267948966 - r : r;
  r = bits<std::int64_t>(static_cast<double>(x)) < 0 ? 3.1415926535897931 - r : r;
  const float angle = std::copysign(static_cast<float>(r), y);
  return ((x != x) | (y != y)) ? x + y : angle;
}

// asin s - s, over s, as a function of z = s^2 <= 1/4
inline double asin_part(double z) {
  return z * horner(z, 0.16666659991276864, 0.075005041852662407, 0.044516954975924776, 0.031807720422664602,
                    0.014438596591825552, 0.037516462362520653);
}
// asin s for the s that |x| is reduced to: itself up to 1/2, beyond sqrt((1 - |x|) / 2), half of acos |x|'s sine
inline double asin_reduced(double a) {
  const double z = a > 0.5 ? 0.5 - 0.5 * a : a * a, s = a > 0.5 ? std::sqrt(z) : a;
  return s * (asin_part(z) + 1.0);
}
inline float asin(float x) {
  const double a = std::fabs(x), r = asin_reduced(a);
  return std::copysign(static_cast<float>(a > 0.5 ? 1.5707963267948966 - 2.0 * r : r), x);
}
inline float acos(float x) {
  const double a = std::fabs(x), r = asin_reduced(a), wide = x;
  const double near = wide < 0.0 ? 3.1415926535897931 - 2.0 * r : 2.0 * r;
  const double middle = wide < 0.0 ? 1.5707963267948966 + r : 1.5707963267948966 - r;
  return static_cast<float>(a > 0.5 ? near : middle);
}

// ---- error functions ----------------------------------------------------------------------------------------------

inline float erf(float x) {
  const double y = limited(x, 3.95f), z = y * y;
  const double p = horner(z, 1.1283791692339082, 0.18517007271316649, 0.054274540047596506, 0.003843363541603364,
                          0.00037792171078534706, 4.6400132042377084e-06, -1.2964975471160185e-08);
  const double q = horner(z, 1.0, 0.49743611338580329, 0.11391109939660644, 0.015443653500192141,
                          0.0013040405525398247, 6.2688488701776211e-05);
  return or_nan(x, y * p / q);
}

// exp(-x^2) erfcx(|x|): the square of a float is exact in double
inline float erfc(float x) {
  const double a = limited(std::fabs(x), 10.2f);
  const double p = horner(a, 0.9999999999192648, 1.4342092691728503, 1.0006246817285605, 0.40238599745394993,
                          0.092828124763334158, 0.010016982454822279);
  const double q = horner(a, 1.0, 2.5625884253267923, 2.8921963141720233, 1.8555423735126697, 0.7221107074338956,
                          0.16453248573979951, 0.017754662009954916);
  const double y = exp_d(-(a * a)) * p / q, wide = x;
  return or_nan(x, wide < 0.0 ? 2.0 - y : y);
}

// x P(w) / Q(w) with w = -ln(1 - x^2)
inline float erfinv(float x) {
  const double y = x, w = -log_d((1.0 - y) * (1.0 + y));
  const double p = horner(w, 0.88622692498463773, 0.29051003846105167, 0.054752461083874882, 0.0069116529463447481,
                          0.00054249227939949019, 1.8243042581095894e-05, -5.0682174496402086e-07);
  const double q = horner(w, 1.0, 0.066006078930926762, 0.031469165613039495, 0.0013350435677037715,
                          0.00017089912529057717, -1.6928341716131999e-06, -3.066889216676748e-08);
  const float inside = static_cast<float>(y * p / q), size = std::fabs(x);
  return size < 1.0f ? inside : size == 1.0f ? std::copysign(kInfF, x) : kNanF;
}

// ---- powers -------------------------------------------------------------------------------------------------------

inline float pow(float x, float y) {
  const float a = std::fabs(x);
  double exponent = static_cast<double>(y) * log2_d(static_cast<double>(a));
  exponent = exponent < -160.0 ? -160.0 : exponent;
  exponent = exponent > 140.0 ? 140.0 : exponent;
  const float half = 0.5f * y, size = std::fabs(y);
  float r = static_cast<float>(exp2_d(exponent));
  // what the logarithm of 0 and of infinity is, and an infinite exponent
  const bool grows = (a > 1.0f) == (y > 0.0f);
  r = ((a == 0.0f) | (a == kInfF) | (size == kInfF)) ? (grows ? kInfF : 0.0f) : r;
  const bool whole = std::trunc(y) == y, odd = whole & (std::trunc(half) != half) & (size < kInfF);
  const bool negative = bits<std::int32_t>(x) < 0;
  r = (negative & odd) ? -r : r;
  r = ((x < 0.0f) & (a < kInfF) & !whole) ? kNanF : r;
  r = ((x != x) | (y != y)) ? x + y : r;
  r = ((x == 1.0f) | (y == 0.0f)) ? 1.0f : r;
  return ((x == -1.0f) & (size == kInfF)) ? 1.0f : r;
}

}  // namespace lane
}  // namespace tg
