// Functions of two numbers around the gamma function, in double.
#pragma once

namespace tg {

// The regularized incomplete gamma functions: the lower one, P(a, x), and the upper one, Q = 1 - P.
double igamma(double a, double x);
double igammac(double a, double x);
// Hurwitz' zeta function, the sum of (q + k)^-s over k = 0, 1, ...
double zeta(double s, double q);

}  // namespace tg
