// erfinv, lgamma, digamma, polygamma, the incomplete gamma functions and zeta: computed in double, rounded once.
#include <algorithm>
#include <cmath>
#include <limits>

#include "../core/pack_gamma.h"
#include "formula_kernels.h"
#include "gamma_integrals.h"

namespace tg {
namespace formula {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity(), kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kPi = 3.14159265358979323846;

// Giles' 2010 approximation as a start, then two Newton steps on erf (or erfc, near 1).
double erfinv(double y) {
  const double size = std::fabs(y);
  if (!(size < 1)) return size == 1 ? std::copysign(kInf, y) : kNan;
  const double w = -std::log((1 - y) * (1 + y));
  double x;
  if (w < 5) {
    constexpr double c[] = {2.81022636e-08,  3.43273939e-07, -3.5233877e-06,  -4.39150654e-06, 0.00021858087,
                            -0.00125372503, -0.00417768164, 0.246640727,     1.50140941};
    x = 0;
    for (double each : c) x = each + x * (w - 2.5);
  } else {
    constexpr double c[] = {-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773,
                            -0.0076224613,   0.00943887047,  1.00167406,    2.83297682};
    const double s = std::sqrt(w) - 3;
    x = 0;
    for (double each : c) x = each + x * s;
  }
  x *= y;
  for (int i = 0; i < 2; ++i) {
    // near 1, 1 - erf(x) = erfc(x) keeps the digits that erf(x) - y loses
    const double error = size < 0.5 ? std::erf(x) - y : std::copysign(1.0, y) * ((1 - size) - std::erfc(std::fabs(x)));
    const double step = error / (1.1283791670955126 * std::exp(-x * x));
    x -= step / (1 + x * step);
  }
  return x;
}

// Not std::lgamma, which writes the sign to a global.
double lgamma(double x) {
  if (x <= 0 && (std::isinf(x) || x == std::floor(x))) return kInf;
  int sign;
  return lgamma_r(x, &sign);
}

// Recurrence up to 10, then the asymptotic series (Abramowitz & Stegun 6.3.18); reflection below zero (6.3.7).
double digamma(double x) {
  if (std::isnan(x) || x == -kInf) return kNan;
  if (x == kInf) return kInf;
  if (x == 0) return std::copysign(kInf, -x);
  if (x < 0 && x == std::floor(x)) return kNan;
  double z = x < 0 ? 1 - x : x, total = 0;
  for (; z < 10; z += 1) total -= 1 / z;
  constexpr double b[] = {1.0 / 12, -1.0 / 120, 1.0 / 252, -1.0 / 240, 1.0 / 132, -691.0 / 32760, 1.0 / 12};
  const double inverse = 1 / (z * z);
  double series = 0;
  for (int k = 6; k >= 0; --k) series = (series + b[k]) * inverse;
  double result = total + std::log(z) - 0.5 / z - series;
  if (x < 0) result -= kPi / std::tan(kPi * (x - std::nearbyint(x)));  // tan has period 1: reducing keeps its digits
  return result;
}

struct Erfinv { static double of(double x) { return erfinv(x); } };
struct Lgamma {
  static double of(double x) { return lgamma(x); }
  static pack::Double of(pack::Double x, bool negative) { return pack::lgamma(x, negative); }
};
struct Digamma {
  static double of(double x) { return digamma(x); }
  static pack::Double of(pack::Double x, bool negative) { return pack::digamma(x, negative); }
};
template <class F>
void by_double(void* to, const void* a, const void*, const void*, Index n) {
  pack::map_by_double(static_cast<float*>(to), static_cast<const float*>(a), n,
                      [](pack::Double x, bool negative) { return F::of(x, negative); });
}

template <class F>
void add_each(KernelTable& table, const char* name) {
  add1<F, double, double>(table, name);
  Kernel& k = table[kernel_key(name, Type::F32)];
  k.operands = 1;
  k.by_mask[0] = by_double<F>;
}

// psi^(n)(x) = (-1)^(n+1) n! zeta(n + 1, x), of one n from 1 on for all x
template <class T>
void polygamma(void* to, const void* order, const void* x, const void*, Index n) {
  const double given = *static_cast<const T*>(order);
  const int m = static_cast<int>(std::min(given, 1e9));
  double factorial = std::fmod(given, 2) == 1 ? 1 : -1;
  for (int k = 2; k <= std::min(m, 171); ++k) factorial *= k;  // beyond 170! it is infinite
  pack::map_by_double(static_cast<T*>(to), static_cast<const T*>(x), n, [=](pack::Double q, bool negative) {
    return factorial * pack::zeta(m + 1, q, negative);
  });
}

struct Igamma { template <class T> static T of(T a, T x) { return static_cast<T>(igamma(a, x)); } };
struct Igammac { template <class T> static T of(T a, T x) { return static_cast<T>(igammac(a, x)); } };
struct Zeta { template <class T> static T of(T s, T q) { return static_cast<T>(zeta(s, q)); } };

template <class T>
void add_both(KernelTable& table) {
  add2<Igamma, T, T>(table, "igamma");
  add2<Igammac, T, T>(table, "igammac");
  add2<Zeta, T, T>(table, "zeta");
  Kernel& k = table[kernel_key("polygamma", TypeFor<T>::value)];
  k.operands = 2;
  k.by_mask[0] = polygamma<T>;
}

}  // namespace

void add_special(KernelTable& table) {
  add_both<float>(table);
  add_both<double>(table);
  add1<Erfinv, double, double>(table, "erfinv");
  add_each<Lgamma>(table, "lgamma");
  add_each<Digamma>(table, "digamma");
}

}  // namespace formula
}  // namespace tg
