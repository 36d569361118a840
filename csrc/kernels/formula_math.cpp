// Elementary functions of f32 and f64: vectorized where core/simd.h has them, else the C library's, one by one.
#include <cmath>

#include "../core/simd.h"
#include "formula_kernels.h"

namespace tg {
namespace formula {
namespace {

#define TG_LANE(Name, function) \
  struct Name { template <class T> static T of(T x) { return lane::function(x); } };
#define TG_LIBM(Name, function) \
  struct Name { template <class T> static T of(T x) { return std::function(x); } };

TG_LANE(Exp, exp)
TG_LANE(Exp2Lane, exp2)
TG_LANE(Expm1, expm1)
TG_LANE(Sigmoid, sigmoid)
TG_LANE(Tanh, tanh)
TG_LANE(Log, log)
TG_LANE(Log2Lane, log2)
TG_LANE(Log10Lane, log10)
TG_LANE(Log1p, log1p)
TG_LANE(ErfLane, erf)
TG_LANE(SinLane, sin)
TG_LANE(CosLane, cos)
TG_LIBM(Exp2, exp2)
TG_LIBM(Log2, log2)
TG_LIBM(Log10, log10)
TG_LIBM(Sin, sin)
TG_LIBM(Cos, cos)
TG_LIBM(Tan, tan)
TG_LIBM(Asin, asin)
TG_LIBM(Acos, acos)
TG_LIBM(Atan, atan)
TG_LIBM(Sinh, sinh)
TG_LIBM(Cosh, cosh)
TG_LIBM(Asinh, asinh)
TG_LIBM(Acosh, acosh)
TG_LIBM(Atanh, atanh)
TG_LIBM(Erf, erf)
TG_LIBM(Erfc, erfc)

struct Atan2 { template <class T> static T of(T a, T b) { return std::atan2(a, b); } };
struct Fmod { template <class T> static T of(T a, T b) { return std::fmod(a, b); } };
struct Pow { static double of(double a, double b) { return std::pow(a, b); } };
struct PowLane { static float of(float a, float b) { return lane::pow(a, b); } };

// Vectorized if no argument of the block is beyond what the reduction can take. An element's bits depend on itself
// alone: the small ones of a mixed block take the same arithmetic, one by one.
template <class Small, class Large>
void trigonometric(void* to, const void* a, const void*, const void*, Index n) {
  const float* x = static_cast<const float*>(a);
  float* r = static_cast<float*>(to);
  int large = 0;
  for (Index i = 0; i < n; ++i) large |= std::fabs(x[i]) > lane::kTrigLimit;
  if (!large) return loop1<Small, float, float>(to, a, nullptr, nullptr, n);
  for (Index i = 0; i < n; ++i) r[i] = std::fabs(x[i]) > lane::kTrigLimit ? Large::of(x[i]) : Small::of(x[i]);
}

template <class T>
void add_both(KernelTable& table) {
  add1<Exp, T, T>(table, "exp");
  add1<Expm1, T, T>(table, "expm1");
  add1<Sigmoid, T, T>(table, "sigmoid");
  add1<Tanh, T, T>(table, "tanh");
  add1<Log, T, T>(table, "log");
  add1<Log1p, T, T>(table, "log1p");
  add1<Tan, T, T>(table, "tan");
  add1<Asin, T, T>(table, "asin");
  add1<Acos, T, T>(table, "acos");
  add1<Atan, T, T>(table, "atan");
  add1<Sinh, T, T>(table, "sinh");
  add1<Cosh, T, T>(table, "cosh");
  add1<Asinh, T, T>(table, "asinh");
  add1<Acosh, T, T>(table, "acosh");
  add1<Atanh, T, T>(table, "atanh");
  add1<Erfc, T, T>(table, "erfc");
  add2<Atan2, T, T>(table, "atan2");
  add2<Fmod, T, T>(table, "fmod");
}

}  // namespace

void add_math(KernelTable& table) {
  add_both<float>(table);
  add_both<double>(table);
  add1<Exp2Lane, float, float>(table, "exp2");
  add1<Log2Lane, float, float>(table, "log2");
  add1<Log10Lane, float, float>(table, "log10");
  add1<ErfLane, float, float>(table, "erf");
  add1<SinLane, float, float>(table, "sin");
  add1<CosLane, float, float>(table, "cos");
  table[kernel_key("sin", Type::F32)].by_mask[0] = trigonometric<SinLane, Sin>;
  table[kernel_key("cos", Type::F32)].by_mask[0] = trigonometric<CosLane, Cos>;
  add1<Exp2, double, double>(table, "exp2");
  add1<Log2, double, double>(table, "log2");
  add1<Log10, double, double>(table, "log10");
  add1<Erf, double, double>(table, "erf");
  add1<Sin, double, double>(table, "sin");
  add1<Cos, double, double>(table, "cos");
  add2<PowLane, float, float>(table, "pow");
  add2<Pow, double, double>(table, "pow");
}

}  // namespace formula
}  // namespace tg
