// Elementary functions of f32 and f64: vectorized where core/pack_math.h, simd.h and simd_float.h have them, else the C
// library's, one by one.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>
#include <limits>

#include "../core/one_copy.h"
#include "../core/pack_math.h"
#include "../core/simd_float.h"
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
TG_LANE(SinhLane, sinh)
TG_LANE(CoshLane, cosh)
TG_LANE(Log, log)
TG_LANE(Log2Lane, log2)
TG_LANE(Log10Lane, log10)
TG_LANE(Log1p, log1p)
TG_LANE(AsinhLane, asinh)
TG_LANE(AcoshLane, acosh)
TG_LANE(AtanhLane, atanh)
TG_LANE(ErfLane, erf)
TG_LANE(ErfcLane, erfc)
TG_LANE(ErfinvLane, erfinv)
TG_LANE(SinLane, sin)
TG_LANE(CosLane, cos)
TG_LANE(TanLane, tan)
TG_LANE(AsinLane, asin)
TG_LANE(AcosLane, acos)
TG_LANE(AtanLane, atan)
TG_LIBM(Exp2, exp2)
TG_LIBM(Log2, log2)
TG_LIBM(Log10, log10)
TG_LIBM(Sin, sin)
TG_LIBM(Cos, cos)
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

// Packs of float (four vectors: fewer leave the core waiting, more don't fit the registers); of double, plain loops.
#define TG_PACK(Name, function)                                                                    \
  struct Name {                                                                                    \
    template <int N> static pack::Pack<N> of(const pack::Pack<N>& x) { return pack::function(x); } \
  };
#if defined(__FMA__)
TG_PACK(ExpPack, exp)
#endif
TG_PACK(SigmoidPack, sigmoid)
TG_PACK(TanhPack, tanh)
TG_PACK(SoftplusPack, softplus)
TG_PACK(NormalCdfPack, normal_cdf)
TG_PACK(GeluSlopePack, gelu_slope)
TG_PACK(GeluTanhPack, gelu_tanh)
TG_PACK(GeluTanhSlopePack, gelu_tanh_slope)
// A function of x and its derivative, of which one exponential serves both.
#define TG_TWINS(Name, Both)                                                                              \
  struct Name {                                                                                           \
    template <int N>                                                                                      \
    static void of(const pack::Pack<N>& x, pack::Pack<N>& value, pack::Pack<N>& slope) {                  \
      const pack::Both<N> both(x);                                                                        \
      value = both.value(), slope = both.slope();                                                         \
    }                                                                                                     \
  };
TG_TWINS(NormalTwins, Normal)
TG_TWINS(TanhGeluTwins, TanhGelu)
struct Softplus {
  static double of(double x) { return (x < 0.0 ? 0.0 : x) + lane::log1p(lane::exp(-std::fabs(x))); }
};
struct NormalCdf {
  static double of(double x) { return 0.5 * std::erfc(x * -0.70710678118654752); }
};
struct GeluSlope {
  static double of(double x) {
    const double size = std::fabs(x) < 40.0 ? std::fabs(x) : 40.0;  // beyond, all is 0 or 1
    return NormalCdf::of(x) + std::copysign(size, x) * (0.39894228040143268 * lane::exp(-0.5 * size * size));
  }
};
constexpr double kTanhLinear = 1.5957691216057308, kTanhCubic = 0.07135481627260025;  // sqrt(8 / pi), and 0.044715 of it
struct GeluTanh {
  static double of(double x) { return x * lane::sigmoid(x * (kTanhLinear + kTanhCubic * (x * x))); }
};
struct GeluTanhSlope {
  static double of(double x) {
    const double a = x < -30.0 ? -30.0 : x > 30.0 ? 30.0 : x, square = a * a;  // beyond, all is 0 or 1
    const double u = a * (kTanhLinear + kTanhCubic * square), s = lane::sigmoid(u);
    return s * (1.0 + lane::sigmoid(-u) * (a * (kTanhLinear + 3 * kTanhCubic * square)));
  }
};

struct Tan {
  template <class T> static T of(T x) { return T(std::tan(double(x))); }  // tanf errs by up to 1.4 ulp where x is large
};
struct Atan2 {
  static float of(float a, float b) { return lane::atan2(a, b); }
  static double of(double a, double b) { return std::atan2(a, b); }
};
// Of floats the squares are exact in double, and none overflows.
struct Hypot {
  static float of(float a, float b) {
    const double x = a, y = b;
    const float length = static_cast<float>(std::sqrt(lane::fma_(x, x, y * y)));
    return (std::fabs(a) == lane::kInfF) | (std::fabs(b) == lane::kInfF) ? lane::kInfF : length;
  }
  static double of(double a, double b) { return std::hypot(a, b); }
};
// 1 - x^2 with one rounding
struct OneMinusSquare {
  static double of(double x) { return lane::fma_(-x, x, 1.0); }
  static float of(float x) {
#if defined(__FMA__) || defined(__aarch64__)
    return lane::fma_(-x, x, 1.0f);
#else
    return static_cast<float>(1.0 - static_cast<double>(x) * x);
#endif
  }
};
// The rest of a / b by the quotient, computed in double (of floats no step rounds): the quotient is off by one at most as
// long as its digits fit, which the loop asks of the whole block. 1e4 floats: 150 to 10 us.
struct Fmod {
  template <class T> static constexpr double kMost = sizeof(T) == 4 ? 0x1p28 : 0x1p51;
  template <class T> static double quotient(T a, T b) { return std::fabs(double(a)) / std::fabs(double(b)); }
  template <class T> static bool plain(T a, T b) {
    return (quotient(a, b) < kMost<T>) & (std::fabs(b) <= std::numeric_limits<T>::max());
  }
  template <class T> static T of(T a, T b) {
    const double x = std::fabs(double(a)), y = std::fabs(double(b));
    double rest = lane::fma_(-std::floor(quotient(a, b)), y, x);
    rest = rest < 0 ? rest + y : rest;
    rest = rest >= y ? rest - y : rest;
    return std::copysign(T(rest), a);
  }
};
#if defined(__FMA__) || defined(__aarch64__)
constexpr bool kFused = true;
#else
constexpr bool kFused = false;
#endif
template <class T>
void fmod_loop(void* to, const void* a, const void* b, const void*, Index n) {
  const T *x = static_cast<const T*>(a), *y = static_cast<const T*>(b);
  T* r = static_cast<T*>(to);
  int rare = sizeof(T) == 8 && !kFused;  // the product of a double's quotient and divisor would round
  for (Index i = 0; i < n; ++i) rare |= !Fmod::plain(x[i], y[i]);
  if (!rare) return loop2<0, Fmod, T, T, T>(to, a, b, nullptr, n);
  for (Index i = 0; i < n; ++i) r[i] = std::fmod(x[i], y[i]);
}
struct Pow {
  static float of(float a, float b) { return lane::pow(a, b); }
  static double of(double a, double b) { return std::pow(a, b); }
};

// Of a block of zeros, which are their own, nothing is computed: it is all that elu, selu and celu ask for where their
// arguments are positive (400k of them: a third of the time). The first number that is none ends the search.
template <class T>
void expm1_loop(void* to, const void* a, const void*, const void*, Index n) {
  using Word = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  constexpr Index together = 2 * lanes::Lanes<T>::count;
  const T* x = static_cast<const T*>(a);
  Word some = 0;
  Index i = 0;
  for (; i + together <= n && !some; i += together)
    for (Index j = 0; j < together; ++j) some |= lane::bits<Word>(x[i + j]) << 1;
  for (; i < n && !some; ++i) some = lane::bits<Word>(x[i]) << 1;
  if (some) loop1<Expm1, T, T>(to, a, nullptr, nullptr, n);
  else std::memmove(to, a, size_t(n) * sizeof(T));
}

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

// A product costs nothing beside these functions, which wait for no array either: of silu and gelu of 1M floats a loop for it
// took a sixth of the time.
template <class F>  // one for each way that it is called would be three times the code
TG_ONE_COPY void pack_times(void* to, const void* a, const float* y, Index n, Index step) {
  pack::map<F, 4>(static_cast<float*>(to), static_cast<const float*>(a), n, y, step);
}
template <class F>
void packs(void* to, const void* a, const void*, const void*, Index n) {
  pack_times<F>(to, a, nullptr, n, 0);
}
template <class F>
void packs_times(void* to, const void* a, const void* b, const void*, Index n) {
  pack_times<F>(to, a, static_cast<const float*>(b), n, 1);
}
template <class F>
void packs_times_one(void* to, const void* a, const void* b, const void*, Index n) {
  alignas(64) float all[4 * pack::kLanes];
  std::fill(std::begin(all), std::end(all), *static_cast<const float*>(b));
  pack_times<F>(to, a, all, n, 0);
}

template <class F>
void twins(void* to, const void* a, const void*, const void* also, Index n) {
  pack::map<F, 4>(static_cast<float*>(to), static_cast<float*>(const_cast<void*>(also)), static_cast<const float*>(a), n);
}

template <class F>
void add_twins(KernelTable& table, const char* first, const char* second) {
  Kernel& k = table[kernel_key(twins_name(first, second), Type::F32)];
  k.operands = 1;
  k.by_mask[0] = twins<F>;
}

template <class OfFloat, class OfDouble>
void add_packs(KernelTable& table, const char* name) {
  add1<OfDouble, double, double>(table, name);
  Kernel& k = table[kernel_key(name, Type::F32)];
  k.operands = 1;
  k.by_mask[0] = packs<OfFloat>;
  Kernel& product = table[kernel_key(times_name(name), Type::F32)];
  product.operands = 2;
  product.by_mask[0] = packs_times<OfFloat>;
  product.by_mask[2] = packs_times_one<OfFloat>;
}

template <class T>
void add_both(KernelTable& table) {
  Kernel& expm1 = table[kernel_key("expm1", TypeFor<T>::value)];
  expm1.operands = 1;
  expm1.by_mask[0] = expm1_loop<T>;
  add1<Log, T, T>(table, "log");
  add1<Log1p, T, T>(table, "log1p");
  add2<Atan2, T, T>(table, "atan2");
  add2<Hypot, T, T>(table, "hypot");
  add1<OneMinusSquare, T, T>(table, "one_minus_square");
  Kernel& rest = table[kernel_key("fmod", TypeFor<T>::value)];
  rest.operands = 2;
  rest.by_mask[0] = fmod_loop<T>;
  add2<Pow, T, T>(table, "pow");
}

template <class OfFloat, class OfDouble>
void add_each(KernelTable& table, const char* name) {
  add1<OfFloat, float, float>(table, name);
  add1<OfDouble, double, double>(table, name);
}

template <class Small, class Large>
void add_trigonometric(KernelTable& table, const char* name) {
  add_each<Small, Large>(table, name);
  table[kernel_key(name, Type::F32)].by_mask[0] = trigonometric<Small, Large>;
}

}  // namespace

void add_math(KernelTable& table) {
  add_both<float>(table);
  add_both<double>(table);
#if defined(__FMA__)
  add_packs<ExpPack, Exp>(table, "exp");
#else
  add_each<Exp, Exp>(table, "exp");
#endif
  add_packs<SigmoidPack, Sigmoid>(table, "sigmoid");
  if (kFused) add_packs<TanhPack, Tanh>(table, "tanh");
  else add_each<Tanh, Tanh>(table, "tanh");
  add_packs<SoftplusPack, Softplus>(table, "softplus");
  add_packs<NormalCdfPack, NormalCdf>(table, "normal_cdf");
  add_packs<GeluSlopePack, GeluSlope>(table, "gelu_slope");
  add_packs<GeluTanhPack, GeluTanh>(table, "gelu_tanh");
  add_packs<GeluTanhSlopePack, GeluTanhSlope>(table, "gelu_tanh_slope");
  add_twins<NormalTwins>(table, "normal_cdf", "gelu_slope");
  add_twins<TanhGeluTwins>(table, "gelu_tanh", "gelu_tanh_slope");
  add_trigonometric<SinLane, Sin>(table, "sin");
  add_trigonometric<CosLane, Cos>(table, "cos");
  add_trigonometric<TanLane, Tan>(table, "tan");
  add_each<Exp2Lane, Exp2>(table, "exp2");
  add_each<Log2Lane, Log2>(table, "log2");
  add_each<Log10Lane, Log10>(table, "log10");
  add_each<AsinLane, Asin>(table, "asin");
  add_each<AcosLane, Acos>(table, "acos");
  add_each<AtanLane, Atan>(table, "atan");
  add_each<SinhLane, Sinh>(table, "sinh");
  add_each<CoshLane, Cosh>(table, "cosh");
  add_each<AsinhLane, Asinh>(table, "asinh");
  add_each<AcoshLane, Acosh>(table, "acosh");
  add_each<AtanhLane, Atanh>(table, "atanh");
  add_each<ErfLane, Erf>(table, "erf");
  add_each<ErfcLane, Erfc>(table, "erfc");
  add1<ErfinvLane, float, float>(table, "erfinv");
}

}  // namespace formula
}  // namespace tg
