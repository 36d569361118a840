// erfinv, lgamma, digamma and polygamma: computed in double, rounded once.
#include <cmath>
#include <limits>

#include "formula_kernels.h"

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

// Hurwitz zeta of order s at x by Euler and Maclaurin; recurrence upward first.
double hurwitz(int s, double x) {
  if (std::isnan(x) || x == -kInf) return kNan;
  if (x == kInf) return 0;
  if (x <= 0 && x == std::floor(x)) return kInf;
  constexpr double bernoulli[] = {1.0 / 6,        -1.0 / 30, 1.0 / 42,         -1.0 / 30,      5.0 / 66,
                                  -691.0 / 2730, 7.0 / 6,   -3617.0 / 510, 43867.0 / 798, -174611.0 / 330};
  double total = 0, z = x;
  for (int steps = 0; z < 12 && steps < 10012; ++steps, z += 1) total += std::pow(z, -s);
  double tail = std::pow(z, 1 - s) / (s - 1) + 0.5 * std::pow(z, -s);
  double factor = s, power = std::pow(z, -s - 1), factorial = 2;
  for (int k = 1; k <= 10; ++k) {
    tail += bernoulli[k - 1] / factorial * factor * power;
    factor *= static_cast<double>(s + 2 * k - 1) * (s + 2 * k);
    factorial *= static_cast<double>(2 * k + 1) * (2 * k + 2);
    power /= z * z;
  }
  return total + tail;
}

// psi^(n)(x) = (-1)^(n+1) n! zeta(n + 1, x)
double polygamma(double order, double x) {
  if (order == 0) return digamma(x);
  const int n = static_cast<int>(order);
  double factorial = 1;
  for (int k = 2; k <= n; ++k) factorial *= k;
  return (n % 2 ? 1.0 : -1.0) * factorial * hurwitz(n + 1, x);
}

struct Erfinv { template <class T> static T of(T x) { return static_cast<T>(erfinv(x)); } };
struct Lgamma { template <class T> static T of(T x) { return static_cast<T>(lgamma(x)); } };
struct Digamma { template <class T> static T of(T x) { return static_cast<T>(digamma(x)); } };
struct Polygamma { template <class T> static T of(T n, T x) { return static_cast<T>(polygamma(n, x)); } };

template <class T>
void add_both(KernelTable& table) {
  add1<Lgamma, T, T>(table, "lgamma");
  add1<Digamma, T, T>(table, "digamma");
  add2<Polygamma, T, T>(table, "polygamma");
}

}  // namespace

void add_special(KernelTable& table) {
  add_both<float>(table);
  add_both<double>(table);
  add1<Erfinv, double, double>(table, "erfinv");
}

}  // namespace formula
}  // namespace tg
