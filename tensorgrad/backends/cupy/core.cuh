// Scalar arithmetic of the formulas on bool, i64, f32 and f64: what a printed kernel calls.
//
// Every primitive is an overload set `tg::name`, so that a kernel is printed without knowing the types again. Only what
// NVRTC has built in is used, and nothing else than C++17: the tests compile the same text for the CPU, where the few
// CUDA names are supplied by a shim. Integer arithmetic is done unsigned, where overflow wraps instead of being undefined.
#pragma once

#define TG_FN __device__ __forceinline__

namespace tg {

typedef long long i64;
typedef unsigned long long u64;

template <class T, int N>
struct alignas(sizeof(T) * N) pack {  // N elements moved by one load or store
  T v[N];
};

TG_FN float infinity(float) { return __int_as_float(0x7f800000); }
TG_FN double infinity(double) { return __longlong_as_double(0x7ff0000000000000LL); }
TG_FN float quiet_nan(float) { return __int_as_float(0x7fffffff); }
TG_FN double quiet_nan(double) { return __longlong_as_double(0x7ff8000000000000LL); }

// ---- conversions: float to integer truncates; what does not fit becomes the smallest integer, as on x86

TG_FN bool to_bool(bool x) { return x; }
TG_FN bool to_bool(i64 x) { return x != 0; }
TG_FN bool to_bool(float x) { return x != 0.0f; }
TG_FN bool to_bool(double x) { return x != 0.0; }
TG_FN i64 to_i64(bool x) { return x; }
TG_FN i64 to_i64(i64 x) { return x; }
TG_FN i64 to_i64(double x) {
  const bool fits = x >= -9223372036854775808.0 && x < 9223372036854775808.0;
  return fits ? (i64)x : (i64)0x8000000000000000ULL;
}
TG_FN i64 to_i64(float x) {
  const bool fits = x >= -9223372036854775808.0f && x < 9223372036854775808.0f;
  return fits ? (i64)x : (i64)0x8000000000000000ULL;
}
TG_FN float to_f32(bool x) { return x ? 1.0f : 0.0f; }
TG_FN float to_f32(i64 x) { return (float)x; }
TG_FN float to_f32(float x) { return x; }
TG_FN float to_f32(double x) { return (float)x; }
TG_FN double to_f64(bool x) { return x ? 1.0 : 0.0; }
TG_FN double to_f64(i64 x) { return (double)x; }
TG_FN double to_f64(float x) { return x; }
TG_FN double to_f64(double x) { return x; }

TG_FN i64 wrap_int8(i64 x) { return (signed char)(unsigned char)x; }
TG_FN i64 wrap_uint8(i64 x) { return (unsigned char)x; }
TG_FN i64 wrap_int16(i64 x) { return (short)(unsigned short)x; }
TG_FN i64 wrap_int32(i64 x) { return (int)(unsigned int)x; }
TG_FN i64 wrap_int64(i64 x) { return x; }

// ---- arithmetic

template <class T> TG_FN T add(T a, T b) { return a + b; }
template <class T> TG_FN T sub(T a, T b) { return a - b; }
template <class T> TG_FN T mul(T a, T b) { return a * b; }
template <class T> TG_FN T div(T a, T b) { return a / b; }
template <class T> TG_FN T neg(T a) { return -a; }
TG_FN i64 add(i64 a, i64 b) { return (i64)((u64)a + (u64)b); }
TG_FN i64 sub(i64 a, i64 b) { return (i64)((u64)a - (u64)b); }
TG_FN i64 mul(i64 a, i64 b) { return (i64)((u64)a * (u64)b); }
TG_FN i64 neg(i64 a) { return (i64)(0 - (u64)a); }
TG_FN i64 abs(i64 a) { return a < 0 ? neg(a) : a; }
TG_FN float abs(float a) { return fabsf(a); }
TG_FN double abs(double a) { return ::fabs(a); }

// x / 0 is 0 and the smallest integer over -1 wraps: no trap on any machine
TG_FN i64 idiv(i64 a, i64 b) { return b == 0 ? 0 : b == -1 ? neg(a) : a / b; }
TG_FN i64 fmod(i64 a, i64 b) { return b == 0 || b == -1 ? 0 : a % b; }
TG_FN float fmod(float a, float b) { return fmodf(a, b); }
TG_FN double fmod(double a, double b) { return ::fmod(a, b); }

TG_FN i64 pow(i64 base, i64 exponent) {
  if (exponent < 0) return base == 1 ? 1 : base == -1 ? (exponent & 1 ? -1 : 1) : 0;
  u64 result = 1, square = (u64)base;
  for (u64 left = (u64)exponent; left; left >>= 1) {
    if (left & 1) result *= square;
    square *= square;
  }
  return (i64)result;
}
TG_FN float pow(float a, float b) { return powf(a, b); }
TG_FN double pow(double a, double b) { return ::pow(a, b); }

// a NaN on either side is the result
template <class T> TG_FN T min(T a, T b) { return a < b || a != a ? a : b; }
template <class T> TG_FN T max(T a, T b) { return a > b || a != a ? a : b; }

template <class T> TG_FN bool eq(T a, T b) { return a == b; }
template <class T> TG_FN bool ne(T a, T b) { return a != b; }
template <class T> TG_FN bool lt(T a, T b) { return a < b; }
template <class T> TG_FN bool le(T a, T b) { return a <= b; }
template <class T> TG_FN bool gt(T a, T b) { return a > b; }
template <class T> TG_FN bool ge(T a, T b) { return a >= b; }
template <class T> TG_FN T where(bool condition, T a, T b) { return condition ? a : b; }

TG_FN bool and_(bool a, bool b) { return a && b; }
TG_FN bool or_(bool a, bool b) { return a || b; }
TG_FN bool xor_(bool a, bool b) { return a != b; }
TG_FN bool not_(bool a) { return !a; }
TG_FN i64 and_(i64 a, i64 b) { return a & b; }
TG_FN i64 or_(i64 a, i64 b) { return a | b; }
TG_FN i64 xor_(i64 a, i64 b) { return a ^ b; }
TG_FN i64 not_(i64 a) { return ~a; }
// a shift by 64 or more (or by less than none) moves every bit out
TG_FN i64 shl(i64 a, i64 by) { return (u64)by > 63 ? 0 : (i64)((u64)a << by); }
TG_FN i64 shr(i64 a, i64 by) { return (u64)by > 63 ? (a < 0 ? -1 : 0) : a >> by; }

TG_FN i64 sign(i64 x) { return (x > 0) - (x < 0); }
template <class T> TG_FN T sign(T x) { return x != x ? x : (T)((x > 0) - (x < 0)); }
template <class T> TG_FN bool isnan(T x) { return x != x; }
template <class T> TG_FN bool isinf(T x) { return abs(x) == infinity(x); }
template <class T> TG_FN bool isfinite(T x) { return abs(x) < infinity(x); }

// ---- elementary functions

#define TG_UNARY(name)                              \
  TG_FN float name(float x) { return ::name##f(x); } \
  TG_FN double name(double x) { return ::name(x); }
TG_UNARY(exp) TG_UNARY(exp2) TG_UNARY(expm1) TG_UNARY(log) TG_UNARY(log2) TG_UNARY(log10) TG_UNARY(log1p)
TG_UNARY(sqrt) TG_UNARY(rsqrt) TG_UNARY(sin) TG_UNARY(cos) TG_UNARY(tan) TG_UNARY(asin) TG_UNARY(acos) TG_UNARY(atan)
TG_UNARY(sinh) TG_UNARY(cosh) TG_UNARY(tanh) TG_UNARY(asinh) TG_UNARY(acosh) TG_UNARY(atanh)
TG_UNARY(erf) TG_UNARY(erfc) TG_UNARY(floor) TG_UNARY(ceil) TG_UNARY(trunc)
#undef TG_UNARY
TG_FN float round(float x) { return rintf(x); }  // to even, as NumPy and PyTorch do
TG_FN double round(double x) { return ::rint(x); }
TG_FN float atan2(float y, float x) { return atan2f(y, x); }
TG_FN double atan2(double y, double x) { return ::atan2(y, x); }
TG_FN float hypot(float x, float y) { return hypotf(x, y); }
TG_FN double hypot(double x, double y) { return ::hypot(x, y); }
TG_FN float copysign(float x, float s) { return copysignf(x, s); }
TG_FN double copysign(double x, double s) { return ::copysign(x, s); }

// exp is only taken of what is not positive, so it can't overflow
template <class T> TG_FN T sigmoid(T x) {
  const T e = exp(-abs(x)), s = 1 / (1 + e);
  return x != x ? x : x >= 0 ? s : e * s;
}
TG_FN float one_minus_square(float x) { return fmaf(-x, x, 1.0f); }
TG_FN double one_minus_square(double x) { return ::fma(-x, x, 1.0); }
template <class T> TG_FN T softplus(T x) { return (x < 0 ? (T)0 : x) + log1p(exp(-abs(x))); }
TG_FN float normal_cdf(float x) { return normcdff(x); }
TG_FN double normal_cdf(double x) { return ::normcdf(x); }
template <class T> TG_FN T gelu_slope(T x) {
  const T limit = 40, inside = x < -limit ? -limit : x > limit ? limit : x;  // beyond, all is 0 or 1
  return normal_cdf(x) + inside * ((T)0.39894228040143268 * exp((T)-0.5 * inside * inside));
}
template <class T> TG_FN T gelu_tanh(T x) { return x * sigmoid(x * ((T)1.5957691216057308 + (T)0.07135481627260025 * (x * x))); }
template <class T> TG_FN T gelu_tanh_slope(T x) {
  const T limit = 30, inside = x < -limit ? -limit : x > limit ? limit : x, square = inside * inside;  // beyond, all is 0 or 1
  const T u = inside * ((T)1.5957691216057308 + (T)0.07135481627260025 * square);
  return sigmoid(u) * (1 + sigmoid(-u) * (inside * ((T)1.5957691216057308 + (T)0.21406444881780076 * square)));
}

}  // namespace tg
