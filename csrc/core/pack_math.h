// Exponentials of float, and what is made of one: in float, with a second float where the first one's digits end.
//
// exp(x) = 2^(k / 8) exp(r), k = round(8 x / ln 2), |r| <= ln 2 / 16. ln 2 / 8 is split so that k times its first part, and x
// minus that, are exact. The eight powers of two are a table in a register (or two), each a sum of two floats, H + L:
//   2^(j / 8) exp(r) = H + (L + H (r + r^2 P(r)))
// in which all but the last sum is rounded at a sixteenth of the result's size: no high and low parts, and P of degree 2.
// All polynomials are minimax fits (Remez) of our own, to 2^-28 or better.
//
// Ladder, ns for an element in the first-level cache of a Zen 3 core: exp by way of double 0.80, without the table (r in two
// floats and a tail of degree 5) 0.58, this 0.46; sigmoid 0.95 and 0.65. normal_cdf takes 0.96, gelu_slope and softplus 1.1,
// gelu_tanh 0.9 and its slope 1.1. From smaller functions, six loops and eight, these two take 0.85 and 1.2 where all is in cache,
// but 1.2 and 1.6 where it is not; of the 0.9, 0.12 are for the digits of exp's argument.
//
// Largest errors over all floats, in ulp, PyTorch's beside them: tanh 0.81 (1.0), sigmoid 1.35 (2.5, and worse left of -88),
// softplus 1.39 (1.5), normal_cdf 5.8 left of zero and 3.3 right of it (its gelu: 9.9 and 7.2, and no digits left of -4),
// gelu_tanh 6.1 left of zero and 2.1 right of it (1.7 right of it, and no digits left of -4; without the exponential's second
// float 205). exp itself 0.56, with sixteen powers: with eight it would be at 0.58, and 0.72 where it is subnormal.
#pragma once

#include "pack.h"
#include "simd_float.h"

namespace tg::pack {

constexpr float kRoot8[] = {1.0f, 1.09050775f, 1.18920708f, 1.29683959f, 1.41421354f, 1.54221082f, 1.68179286f, 1.8340081f};
constexpr float kRoot8Rest[] = {0.0f,           -1.30775399e-08f, 3.79763527e-08f,  -4.01899953e-08f,
                                2.4203235e-08f, 8.07090483e-09f,  -2.47553267e-08f, -1.1239278e-08f};

#if defined(__AVX512F__)
constexpr __mmask16 kAll = 0xffff;  // the forms without a mask read an undefined vector, of which GCC 12 warns
#endif

// table[index & 7]
TG_ALWAYS_INLINE Float look_up(const float (&table)[8], Int index) {
#if defined(__AVX512F__)
  const __m256 eight = _mm256_loadu_ps(table);
  return (Float)_mm512_maskz_permutexvar_ps(kAll, (__m512i)index, _mm512_insertf32x8(_mm512_castps256_ps512(eight), eight, 1));
#elif defined(__AVX2__)
  return (Float)_mm256_permutevar8x32_ps(_mm256_loadu_ps(table), (__m256i)index);
#else
  Float found;
  for (int i = 0; i < kLanes; ++i) found[i] = table[index[i] & 7];
  return found;
#endif
}

#if defined(__FMA__)
// The sixteen powers, and table[index & 15].
constexpr float kRoot16[] = {1.0f,       1.0442737f, 1.0905077f, 1.1387886f, 1.1892071f, 1.2418578f, 1.2968396f, 1.3542556f,
                             1.4142135f, 1.4768262f, 1.5422108f, 1.6104903f, 1.6817929f, 1.7562522f, 1.8340081f, 1.9152066f};
constexpr float kRoot16Rest[] = {0.0f,            4.83347e-08f,    -1.307754e-08f, 5.3862223e-08f, 3.7976353e-08f,  4.496838e-08f,
                                 -4.0189995e-08f, -1.0123349e-08f, 2.4203235e-08f, -4.500899e-08f, 8.070905e-09f,   9.836217e-09f,
                                 -2.4755327e-08f, -9.23577e-09f,   -1.1239278e-08f, 9.845328e-09f};
TG_ALWAYS_INLINE Float look_up(const float (&table)[16], Int index) {
#if defined(__AVX512F__)
  return (Float)_mm512_maskz_permutexvar_ps(kAll, (__m512i)index, _mm512_loadu_ps(table));
#else
  const __m256 low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), (__m256i)index);
  const __m256 high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table + 8), (__m256i)index);
  return (Float)_mm256_blendv_ps(low, high, (__m256)(index << 28));
#endif
}
#endif

constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it leaves an integer in the low bits
constexpr float kRoundEighths = kRound / 8;  // and this a number of eighths

// exp(x - rest) = p 2^floor(e) for -115 <= x <= 0 and a rest that is small beside it; `rounded` is kRoundEighths + e, with
// e = k / 8.
template <int N>
struct Exponential {
  Pack<N> p, rounded;

  TG_ALWAYS_INLINE explicit Exponential(const Pack<N>& x) : Exponential(x, nullptr) {}
  TG_ALWAYS_INLINE Exponential(const Pack<N>& x, const Pack<N>* rest) {
    rounded = fma(x, 1.44269504f, kRoundEighths);
    const Pack<N> e = rounded - kRoundEighths;
    Pack<N> r = fma(e, -8 * 3.99327312e-06f, fma(e, -8 * 0.0866394042969f, x));
    if (rest) r = r - *rest;
    const Pack<N> tail = horner(r, 0.5f, 0.166680321f, 0.0416603684f);
    power(fma(tail, r * r, r));
  }

#if defined(__FMA__) || defined(__aarch64__)
  // exp(-(square + rest) / 2) by way of 2^x, whose argument takes less to reduce where a product is not rounded before the sum.
  TG_ALWAYS_INLINE static Exponential of_half(const Pack<N>& square, const Pack<N>& rest) {
    constexpr float half = -0.721347511f, half_rest = -9.62981496e-09f;  // log2(e) / 2
    Exponential made;
    made.rounded = fma(square, half, kRoundEighths);
    const Pack<N> e = kRoundEighths - made.rounded;
    const Pack<N> r = fma(rest, half, fma(square, half_rest, fma(square, half, e)));
    made.power(r * horner(r, 0.693147242f, 0.240257576f, 0.0554890484f));
    return made;
  }
#endif

  // factor exp(x - rest), for a factor from 2^-20 to 2^20 in size. First 2^64 times too large, so that subnormal
  // results come out (by two powers of two, as x > 0 would need: 1.05 to 1.1 times the time of sigmoid and gelu_tanh).
  TG_ALWAYS_INLINE Pack<N> times(const Pack<N>& factor) const { return scale(p * factor); }
  TG_ALWAYS_INLINE Pack<N> value() const { return scale(p); }

 private:
  Exponential() = default;
  // the entry of the table, and what it grows by
  TG_ALWAYS_INLINE void power(const Pack<N>& grown) {
    const Pack<N> high = each<N, Float>([&](int i) { return look_up(kRoot8, (Int)rounded.v[i]); });
    const Pack<N> low = each<N, Float>([&](int i) { return look_up(kRoot8Rest, (Int)rounded.v[i]); });
    p = high + fma(high, grown, low);
  }
  TG_ALWAYS_INLINE Pack<N> scale(const Pack<N>& p) const {
#if defined(__AVX512F__)
    const Pack<N> e = rounded - kRoundEighths;  // the instruction takes its floor
    return each<N, Float>([&](int i) { return (Float)_mm512_maskz_scalef_ps(kAll, (__m512)p.v[i], (__m512)e.v[i]); });
#else
    const Ints<N> power = (bits(rounded) << 20) & ~0x7fffff;  // floor(e) where a float has its exponent
    return p * floats(power + ((127 + 64) << 23)) * 0x1p-64f;
#endif
  }
};

// exp(-|x|)
template <int N>
TG_ALWAYS_INLINE Pack<N> exp_of_minus(const Pack<N>& size) {
  const Exponential<N> e(0.0f - at_most(size, 105.0f));
  return e.value();
}

#if defined(__FMA__)
constexpr float kExpUsual = 87.33f;  // up to this size neither exp(x) nor exp(-x) is subnormal or overflows

// Some of these are beyond that, or NaN: their results.
template <int N>
__attribute__((noinline)) void exp_beyond(const float* x, float* results) {
  constexpr int count = N * kLanes;
  int others = 0;
  for (int i = 0; i < count; ++i) {
    const bool usual = __builtin_fabsf(x[i]) <= kExpUsual, none = x[i] < -104.0f;  // exp(x) rounds to 0
    results[i] = usual ? results[i] : 0.0f;
    others |= !usual && !none;
  }
  if (!others) return;
  for (int i = 0; i < count; ++i) {
    const float y = lane::exp(x[i]);
    results[i] = __builtin_fabsf(x[i]) <= kExpUsual ? results[i] : y;
  }
}

template <int N>
TG_ALWAYS_INLINE bool any_beyond(const Pack<N>& x, float limit) {
#if defined(__AVX512F__)
  __mmask16 found = 0;
  for (int i = 0; i < N; ++i)
    found |= _mm512_cmp_ps_mask((__m512)((Int)x.v[i] & INT32_MAX), (__m512)(limit - Float{}), _CMP_NLE_UQ);
  return found;
#else
  Int found{};
  for (int i = 0; i < N; ++i)
    found |= (Int)_mm256_cmp_ps((__m256)((Int)x.v[i] & INT32_MAX), (__m256)(limit - Float{}), _CMP_NLE_UQ);
  return _mm256_movemask_ps((__m256)found);
#endif
}

// exp(x) = 2^(k / 16) exp(r), |r| <= ln 2 / 32, for which a polynomial of two coefficients is enough (2^-29). By way of double
// 0.46 ns for an element (Zen 4, AVX-512; AVX2 0.64), this 0.22 (0.29); with coefficients of a third 0.24 (0.37) and 0.544 ulp.
template <int N>
TG_ALWAYS_INLINE Pack<N> exp(const Pack<N>& x) {
  constexpr float round = kRound / 16;
  const Pack<N> rounded = fma(x, 1.44269504f, round), e = rounded - round;
  const Pack<N> r = fma(e, -8 * 3.99327312e-06f, fma(e, -8 * 0.0866394042969f, x));
  const Pack<N> grown = fma(horner(r, 0.50001615f, 0.16666718f), r * r, r);
  const Pack<N> high = each<N, Float>([&](int i) { return look_up(kRoot16, (Int)rounded.v[i]); });
  const Pack<N> low = each<N, Float>([&](int i) { return look_up(kRoot16Rest, (Int)rounded.v[i]); });
  const Pack<N> p = high + fma(high, grown, low);
  const Ints<N> power = (bits(rounded) << 19) & ~0x7fffff;  // floor(e) where a float has its exponent
  const Pack<N> usual = each<N, Float>([&](int i) { return (Float)((Int)p.v[i] + power.v[i]); });
  if (!__builtin_expect(any_beyond(x, kExpUsual), false)) return usual;
  float from[N * kLanes], results[N * kLanes];
  store(from, x), store(results, usual);
  exp_beyond<N>(from, results);
  return load<N>(results);
}
#endif

// tanh(a) = N / D of a = k ln 2 / 2 + h: with t = tanh(h) and S = 2^-k, N = (1 - S) + (1 + S) t and D = (1 + S) + (1 - S) t.
// Where k is zero that is t. Else what the two sums and the division lose is known, and the quotient gets it back. h lies
// between -0.124 and 0.224, so that from k = 1 on t's last digit is behind the result's; it is exact: a and float's ln 2 / 2
// are multiples of 2^-26. k ends at 23, where 1 + S still has its digits: beyond, t is coarse, as is all that is left of it,
// and from 9.011 on the result is 1.
// h, what is lost and the quotient's rest take multiply-adds with one rounding: only for processors that have them.
//
// By way of double 1.19 ns for an element (on a machine where sigmoid takes 0.79), this 0.75.
template <int N>
TG_ALWAYS_INLINE Pack<N> tanh(const Pack<N>& x) {
  constexpr float round = kRound + 127.0f;  // the low bits are those of a power's exponent
  const Pack<N> a = abs(x), rounded = at_least(fma(a - 0.05f, -2.88539008f, round), round - 23.0f), k = rounded - round;
  const Pack<N> h = fma(k, 0.346573591f, a);
  const Pack<N> z = h * h;
  const Pack<N> t = fma(horner(z, -0.333332866f, 0.133274823f, -0.0519278832f), h * z, h);
  const Pack<N> power = floats(bits(rounded) << 23), less = 1.0f - power, more = 1.0f + power;
  const Pack<N> top = fma(more, t, less), bottom = fma(less, t, more);
  const Pack<N> top_lost = fma(more, t, less - top), bottom_lost = fma(less, t, more - bottom);
  const Pack<N> inverse = 1.0f / bottom;
  const Pack<N> quotient = top * inverse, minus = -quotient;
  const Pack<N> left = fma(minus, bottom, top) + fma(minus, bottom_lost, top_lost);
  const Pack<N> one = each<N, Float>([](int) { return 1.0f - Float{}; });
  const Pack<N> size = if_negative(9.0109129f - a, one, fma(left, inverse, quotient));
  return each<N, Float>([&](int i) { return (Float)((Int)size.v[i] | ((Int)x.v[i] & INT32_MIN)); });
}

// What the sum of 1 and e loses, and the quotient, is known: the quotient gets it back.
template <int N>
TG_ALWAYS_INLINE Pack<N> sigmoid(const Pack<N>& x) {
  const Pack<N> e = exp_of_minus(abs(x)), sum = e + 1.0f, lost = e - (sum - 1.0f), inverse = 1.0f / sum;
  const Pack<N> above = if_negative(x, e, each<N, Float>([](int) { return 1.0f - Float{}; }));
  const Pack<N> quotient = above * inverse, minus = 0.0f - quotient;
  return fma(fma(minus, lost, fma(minus, sum, above)), inverse, quotient);
}

// log(1 + exp(x)) = max(x, 0) + log(1 + e), e = exp(-|x|), log(1 + e) = 2 artanh(w / 2) with w = 2 e / (2 + e), of which the
// first term is nearly all: it gets back what the sum and the division lost.
template <int N>
TG_ALWAYS_INLINE Pack<N> softplus(const Pack<N>& x) {
  const Pack<N> e = exp_of_minus(abs(x)), twice = e + e, sum = e + 2.0f, lost = e - (sum - 2.0f), inverse = 1.0f / sum;
  const Pack<N> w = twice * inverse, minus = 0.0f - w, square = w * w;
  const Pack<N> left = fma(minus, lost, fma(minus, sum, twice));
  const Pack<N> tail = horner(square, 0.08333334f, 0.012499653f, 0.0022356715f, 0.00041856917f, 0.000118601354f);
  return at_least(x, 0.0f) + (w + fma(tail, square * w, left * inverse));
}

// Phi(-a) = exp(-a^2 / 2) M(a) with Mills' ratio M(a) / t a polynomial in t = 1 / (1 + 0.3 a). The digits that a^2 loses go
// into the exponential's second float. Of M(a) - a / sqrt(2 pi) the value is that of x Phi(x) differentiated.
template <int N>
struct Normal {
  Pack<N> x, a, ratio;
  Exponential<N> e;

  TG_ALWAYS_INLINE explicit Normal(const Pack<N>& x) : x(x), a(at_most(abs(x), 15.0f)), e(of_half_square(a)) {
    const Pack<N> t = 1.0f / fma(a, 0.3f, 1.0f);
    ratio = t * horner(t, 0.119686693f, 0.119571812f, 0.110235415f, 0.0783896819f, 0.0961567312f, -0.079423286f,
                       0.191784278f, -0.2282134f, 0.11243552f, -0.0206234511f);
  }
  TG_ALWAYS_INLINE Pack<N> value() const { return of(ratio); }
  TG_ALWAYS_INLINE Pack<N> slope() const { return of(fma(a, -0.398942292f, ratio)); }

 private:
  TG_ALWAYS_INLINE Pack<N> of(const Pack<N>& ratio) const {
    const Pack<N> left = e.times(ratio);
    return if_negative(x, left, 1.0f - left);
  }
  TG_ALWAYS_INLINE static Exponential<N> of_half_square(const Pack<N>& a) {
#if defined(__FMA__) || defined(__aarch64__)
    const Pack<N> square = a * a;
    return Exponential<N>::of_half(square, fma(a, a, -square));
#else
    const Pack<N> high = floats(bits(a) & ~0xfff), square = high * high, rest = (a + high) * (a - high) * 0.5f;
    return Exponential<N>(square * -0.5f, &rest);
#endif
  }
};

template <int N>
TG_ALWAYS_INLINE Pack<N> normal_cdf(const Pack<N>& x) { return Normal<N>(x).value(); }
// The derivative of x Phi(x): Phi(x) + x phi(x)
template <int N>
TG_ALWAYS_INLINE Pack<N> gelu_slope(const Pack<N>& x) { return Normal<N>(x).slope(); }

// x s with s = sigmoid(u), u = c x + d x^3, c = sqrt(8 / pi), d = 0.044715 c, which is (1 + tanh(u / 2)) / 2: the tanh
// approximation of x Phi(x). With e = exp(-|u|), s is e / (1 + e) left of zero and 1 / (1 + e) right of it, and s (1 - s) is
// e / (1 + e)^2 on both sides. The derivative is s + x u' s (1 - s). From |x| = 11 on e is zero. The digits that u loses
// go into the exponential's second float; c is 20 bits and a rest, so that c - p is exact.
template <int N>
struct TanhGelu {
  static constexpr float c = 1.5957698822021484f, c_rest = -7.605964356116601e-07f, d = 0.07135481387376785f,
                         d_rest = 2.3988324659995897e-09f;
  Pack<N> x, a, square, e, sum, top;

  TG_ALWAYS_INLINE explicit TanhGelu(const Pack<N>& x) : x(x), a(at_most(abs(x), 11.0f)), square(a * a) {
    const Pack<N> p = fma(square, d, c), u = a * p;
    const Pack<N> lost = fma(square, d, c - p) + fma(fma(a, a, 0.0f - square), d, fma(square, d_rest, c_rest));
    const Pack<N> rest = fma(a, lost, fma(a, p, 0.0f - u));
    const Exponential<N> of_size(0.0f - u, &rest);
    e = of_size.value(), sum = e + 1.0f;
    top = if_negative(x, e, each<N, Float>([](int) { return 1.0f - Float{}; }));
  }
  TG_ALWAYS_INLINE Pack<N> value() const { return x * (top / sum); }
  TG_ALWAYS_INLINE Pack<N> slope() const {
    const Pack<N> slope = if_negative(x, 0.0f - a, a) * fma(square, 3 * d, c + c_rest);
    return fma(slope, e, top * sum) / (sum * sum);
  }
};

template <int N>
TG_ALWAYS_INLINE Pack<N> gelu_tanh(const Pack<N>& x) { return TanhGelu<N>(x).value(); }
template <int N>
TG_ALWAYS_INLINE Pack<N> gelu_tanh_slope(const Pack<N>& x) { return TanhGelu<N>(x).slope(); }

}  // namespace tg::pack
