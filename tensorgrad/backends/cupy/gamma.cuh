// The incomplete gamma integrals P and Q in double precision; the expansions are those of backends/numpy/gamma.py.
//
// float goes through double: these are rare, and their loops end when double has converged.
#pragma once

namespace tg {

TG_FN double log_gamma_1p(double a) {
  if (::fabs(a) >= 0.2) return ::lgamma(1.0 + a);
  const double series[20] = {  // zeta(k) (-1)^k / k from k = 2
      0.8224670334241132, -0.40068563438653143, 0.27058080842778454, -0.20738555102867398, 0.1695571769974082,
      -0.1440498967688461, 0.1255096695247613, -0.11133426586956469, 0.1000994575127818, -0.09095401714582904,
      0.08335384054610899, -0.0769325164113522, 0.07143294629536134, -0.0666687058824205, 0.06250095514121304,
      -0.05882397865868458, 0.055555767627403614, -0.052631679379616665, 0.05000004769810169,
      -0.04761907033251073};
  double sum = 0.0;
  for (int k = 19; k >= 0; --k) sum = (sum + series[k]) * a;
  return (sum - 0.5772156649015329) * a;
}

// log(1 + m) - m without the cancellation near zero
TG_FN double log1p_minus(double m) {
  if (::fabs(m) >= 0.1) return ::log1p(m) - m;
  double sum = 0.0;
  for (int k = 17; k > 1; --k) sum = (k % 2 ? 1.0 : -1.0) / k + m * sum;
  return sum * m * m;
}

// x^a exp(-x) / gamma(a); for large a through the distance of x from a, relative to a
TG_FN double gamma_density(double a, double x) {
  if (a < 10.0) return ::exp(a * ::log(x) - x - ::lgamma(a));
  const double stirling[7] = {
      0.08333333333333333, -0.002777777777777778, 0.0007936507936507937, -0.0005952380952380953,
      0.0008417508417508417, -0.0019175269175269176, 0.00641025641025641};
  const double inverse = 1.0 / a;
  double sum = 0.0;
  for (int k = 6; k >= 0; --k) sum = sum * inverse * inverse + stirling[k];
  return ::exp(a * log1p_minus((x - a) / a) - sum * inverse) * ::sqrt(a / 6.283185307179586);
}

TG_FN double gamma_series(double a, double x) {  // P (DLMF 8.11.4)
  double term = 1.0, sum = 1.0, r = a;
  for (int n = 0; n < 2000 && term > sum * 1e-17; ++n) {
    r += 1.0;
    term *= x / r;
    sum += term;
  }
  return sum * gamma_density(a, x) / a;
}

TG_FN double gamma_fraction(double a, double x) {  // Q (DLMF 8.9.2), with Lentz' recurrence
  const double tiny = 1e-300;
  double b = x + 1.0 - a, c = 1.0 / tiny, d = 1.0 / (b == 0.0 ? tiny : b), h = d;
  for (int i = 1; i < 2000; ++i) {
    const double an = -i * (i - a);
    b += 2.0;
    d = an * d + b;
    d = 1.0 / (::fabs(d) < tiny ? tiny : d);
    c = b + an / c;
    if (::fabs(c) < tiny) c = tiny;
    const double change = d * c;
    h *= change;
    if (::fabs(change - 1.0) <= 1e-16) break;
  }
  return h * gamma_density(a, x);
}

TG_FN double gamma_small_upper(double a, double x) {  // Q for x about 1 or less (DLMF 8.7.3)
  double term = 1.0, sum = 0.0;
  for (int n = 1; n < 2000; ++n) {
    term *= -x / n;
    const double part = term / (a + n);
    sum += part;
    if (::fabs(part) <= ::fabs(sum) * 1e-17) break;
  }
  const double log_x = ::log(x);
  return -::expm1(a * log_x - log_gamma_1p(a)) - ::exp(a * log_x - ::lgamma(a)) * sum;
}

// The part of the integral on x's side of a, for large a and x near it, over the deviations that hold it.
TG_FN double gamma_tail(double a, double x, bool above) {
  const double nodes[20] = {
      0.038772417506050816, 0.11608407067525521, 0.1926975807013711, 0.2681521850072537, 0.3419940908257585,
      0.413779204371605, 0.4830758016861787, 0.5494671250951282, 0.6125538896679802, 0.6719566846141796,
      0.7273182551899271, 0.7783056514265194, 0.8246122308333117, 0.8659595032122595, 0.9020988069688742,
      0.9328128082786765, 0.9579168192137917, 0.9772599499837743, 0.990726238699457, 0.9982377097105591};
  const double weights[20] = {
      0.07750594797842451, 0.07703981816424763, 0.07611036190062598, 0.07472316905796794, 0.07288658239580377,
      0.07061164739128656, 0.06791204581523368, 0.06480401345660076, 0.061306242492928834, 0.05743976909939129,
      0.0532278469839367, 0.04869580763507193, 0.04387090818567321, 0.03878216797447219, 0.03346019528254789,
      0.027937006980023434, 0.022245849194166653, 0.016421058381906828, 0.010498284531153814,
      0.004521277098536349};
  const double deviation = ::sqrt(a);
  const double upper = ::fmax(a + 12.0 * deviation, x + 8.0 * deviation);
  const double lower = ::fmax(0.0, ::fmin(a - 8.0 * deviation, x - 6.0 * deviation));
  const double end = above ? upper : lower;
  double sum = 0.0;
  for (int k = 0; k < 20; ++k) {
    for (int side = -1; side <= 1; side += 2) {
      const double t = x + (end - x) * (0.5 * (side * nodes[k] + 1.0));
      if (t > 0.0) sum += weights[k] * gamma_density(a, t) / t;
    }
  }
  return ::fabs(end - x) * 0.5 * sum;
}

TG_FN double incomplete_gamma(double a, double x, bool want_upper) {
  const double far = infinity(x);
  if (!(a >= 0.0 && x >= 0.0) || (a == 0.0 && x == 0.0) || (a == far && x == far)) return quiet_nan(x);
  if (a == 0.0 || x == far) return want_upper ? 0.0 : 1.0;
  if (x == 0.0 || a == far) return want_upper ? 1.0 : 0.0;
  if (a >= 150.0 && ::fabs(x - a) < 0.3 * a) {
    const bool above = x > a - 1.0;
    const double tail = gamma_tail(a, x, above);
    return above == want_upper ? tail : 1.0 - tail;
  }
  if (x <= 1.1 && (x <= 0.5 ? -0.4 / ::log(x) >= a : x * 1.1 >= a)) {
    return want_upper ? gamma_small_upper(a, x) : gamma_series(a, x);
  }
  if (x > 1.1 && x >= a) {
    const double q = gamma_fraction(a, x);
    return want_upper ? q : 1.0 - q;
  }
  const double p = gamma_series(a, x);
  return want_upper ? 1.0 - p : p;
}

TG_FN double igamma(double a, double x) { return incomplete_gamma(a, x, false); }
TG_FN float igamma(float a, float x) { return (float)incomplete_gamma((double)a, (double)x, false); }
TG_FN double igammac(double a, double x) { return incomplete_gamma(a, x, true); }
TG_FN float igammac(float a, float x) { return (float)incomplete_gamma((double)a, (double)x, true); }

}  // namespace tg
