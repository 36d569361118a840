// Complex numbers. Products are spelled out: std::complex's own go through a library call for infinities.
#if defined(__clang__)
#pragma clang fp contract(off)
#else
#pragma GCC optimize("fp-contract=off")  // z * conj(z) must come out real
#endif
#include <cmath>
#include <complex>
#include <limits>

#include "formula_kernels.h"

namespace tg {
namespace formula {
namespace {

template <class C>
using Real = typename C::value_type;

template <class C>
inline C times(C a, C b) {
  return C(a.real() * b.real() - a.imag() * b.imag(), a.real() * b.imag() + a.imag() * b.real());
}

// Smith 1962: scaled by the larger part, so that |b|^2 neither overflows nor vanishes.
template <class C>
inline C over(C a, C b) {
  const Real<C> x = std::fabs(b.real()), y = std::fabs(b.imag());
  if (x >= y) {
    if (x == 0 && y == 0) return C(a.real() / x, a.imag() / x);
    const Real<C> ratio = b.imag() / b.real(), scale = Real<C>(1) / (b.real() + b.imag() * ratio);
    return C((a.real() + a.imag() * ratio) * scale, (a.imag() - a.real() * ratio) * scale);
  }
  const Real<C> ratio = b.real() / b.imag(), scale = Real<C>(1) / (b.imag() + b.real() * ratio);
  return C((a.real() * ratio + a.imag()) * scale, (a.imag() * ratio - a.real()) * scale);
}

// Small whole powers by repeated squaring, which is exact where the general formula is not.
template <class C>
C power(C a, C b) {
  using R = Real<C>;
  const R nan = std::numeric_limits<R>::quiet_NaN();
  if (b.real() == 0 && b.imag() == 0) return C(1);
  if (a.real() == 0 && a.imag() == 0) return b.real() > 0 ? C(0) : C(nan, nan);
  if (b.imag() == 0 && std::fabs(b.real()) <= 100 && b.real() == std::trunc(b.real())) {
    C base = a, result(1);
    for (int left = static_cast<int>(std::fabs(b.real())); left; left >>= 1) {
      if (left & 1) result = times(result, base);
      base = times(base, base);
    }
    return b.real() < 0 ? over(C(1), result) : result;
  }
  return std::pow(a, b);
}

struct Add { template <class C> static C of(C a, C b) { return C(a.real() + b.real(), a.imag() + b.imag()); } };
struct Sub { template <class C> static C of(C a, C b) { return C(a.real() - b.real(), a.imag() - b.imag()); } };
struct Mul { template <class C> static C of(C a, C b) { return times(a, b); } };
struct Div { template <class C> static C of(C a, C b) { return over(a, b); } };
struct Pow { template <class C> static C of(C a, C b) { return power(a, b); } };
struct Neg { template <class C> static C of(C a) { return C(-a.real(), -a.imag()); } };
struct Conj { template <class C> static C of(C a) { return C(a.real(), -a.imag()); } };
struct Abs { template <class C> static Real<C> of(C a) { return std::hypot(a.real(), a.imag()); } };
struct Re { template <class C> static Real<C> of(C a) { return a.real(); } };
struct Im { template <class C> static Real<C> of(C a) { return a.imag(); } };
struct Angle { template <class C> static Real<C> of(C a) { return std::atan2(a.imag(), a.real()); } };
struct Eq { template <class C> static Truth of(C a, C b) { return (a.real() == b.real()) & (a.imag() == b.imag()); } };
struct Ne { template <class C> static Truth of(C a, C b) { return (a.real() != b.real()) | (a.imag() != b.imag()); } };
struct Make { template <class T> static std::complex<T> of(T re, T im) { return std::complex<T>(re, im); } };
struct Where { template <class C> static C of(Truth condition, C a, C b) { return condition ? a : b; } };
struct IsNan { template <class C> static Truth of(C a) { return std::isnan(a.real()) | std::isnan(a.imag()); } };
struct IsInf { template <class C> static Truth of(C a) { return std::isinf(a.real()) | std::isinf(a.imag()); } };
struct IsFinite { template <class C> static Truth of(C a) { return std::isfinite(a.real()) & std::isfinite(a.imag()); } };
struct Sigmoid { template <class C> static C of(C a) { return over(C(1), C(1) + std::exp(-a)); } };
struct Rsqrt { template <class C> static C of(C a) { return over(C(1), std::sqrt(a)); } };
struct Log2 {
  template <class C> static C of(C a) { return std::log(a) * Real<C>(1.44269504088896340736); }
};

#define TG_COMPLEX(Name, function) \
  struct Name { template <class C> static C of(C a) { return std::function(a); } };
TG_COMPLEX(Exp, exp)
TG_COMPLEX(Log, log)
TG_COMPLEX(Log10, log10)
TG_COMPLEX(Sqrt, sqrt)
TG_COMPLEX(Sin, sin)
TG_COMPLEX(Cos, cos)
TG_COMPLEX(Tan, tan)
TG_COMPLEX(Asin, asin)
TG_COMPLEX(Acos, acos)
TG_COMPLEX(Atan, atan)
TG_COMPLEX(Sinh, sinh)
TG_COMPLEX(Cosh, cosh)
TG_COMPLEX(Tanh, tanh)
TG_COMPLEX(Asinh, asinh)
TG_COMPLEX(Acosh, acosh)
TG_COMPLEX(Atanh, atanh)

template <class T>
void add_both(KernelTable& table) {
  using C = std::complex<T>;
  add2_masks<Add, C, C>(table, "add");
  add2_masks<Sub, C, C>(table, "sub");
  add2_masks<Mul, C, C>(table, "mul");
  add2<Div, C, C>(table, "div");
  add2<Pow, C, C>(table, "pow");
  add2<Eq, Truth, C>(table, "eq");
  add2<Ne, Truth, C>(table, "ne");
  add2<Make, C, T>(table, "complex");
  add1<Neg, C, C>(table, "neg");
  add1<Conj, C, C>(table, "conj");
  add1<Abs, T, C>(table, "abs");
  add1<Re, T, C>(table, "real");
  add1<Im, T, C>(table, "imag");
  add1<Angle, T, C>(table, "angle");
  add1<IsNan, Truth, C>(table, "isnan");
  add1<IsInf, Truth, C>(table, "isinf");
  add1<IsFinite, Truth, C>(table, "isfinite");
  add1<Sigmoid, C, C>(table, "sigmoid");
  add1<Rsqrt, C, C>(table, "rsqrt");
  add1<Exp, C, C>(table, "exp");
  add1<Log, C, C>(table, "log");
  add1<Log2, C, C>(table, "log2");
  add1<Log10, C, C>(table, "log10");
  add1<Sqrt, C, C>(table, "sqrt");
  add1<Sin, C, C>(table, "sin");
  add1<Cos, C, C>(table, "cos");
  add1<Tan, C, C>(table, "tan");
  add1<Asin, C, C>(table, "asin");
  add1<Acos, C, C>(table, "acos");
  add1<Atan, C, C>(table, "atan");
  add1<Sinh, C, C>(table, "sinh");
  add1<Cosh, C, C>(table, "cosh");
  add1<Tanh, C, C>(table, "tanh");
  add1<Asinh, C, C>(table, "asinh");
  add1<Acosh, C, C>(table, "acosh");
  add1<Atanh, C, C>(table, "atanh");
  Kernel& k = table[kernel_key("where", TypeFor<C>::value)];
  k.operands = 3;
  k.by_mask[0] = loop3<0, Where, C, Truth, C, C>;
}

}  // namespace

void add_complex(KernelTable& table) {
  add_both<float>(table);
  add_both<double>(table);
}

}  // namespace formula
}  // namespace tg
