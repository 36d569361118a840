// A vector of double to calculate with where float's digits do not do. Each multiply-add is spelled as fused: see pack.h.
#pragma once

#include "pack.h"

namespace tg::pack {

using Double = Vec<double>;
using Long = lanes::Lanes<double>::Int;
constexpr int kDoubles = lanes::Lanes<double>::count;
typedef std::uint64_t Bits __attribute__((vector_size(lanes::kVectorBytes)));

TG_ALWAYS_INLINE Double fused(Double a, Double b, Double c) {
#if defined(__AVX512F__)
  return (Double)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif defined(__FMA__)
  return (Double)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#elif defined(__aarch64__)
  return (Double)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
#else
  return lanes::rounded(a * b) + c;
#endif
}
TG_ALWAYS_INLINE Double spread(double x) { return x - Double{}; }
TG_ALWAYS_INLINE Double horner(Double, double c) { return spread(c); }
template <class... More>
TG_ALWAYS_INLINE Double horner(Double x, double c, More... more) {
  return fused(horner(x, more...), x, spread(c));
}

// Of normal numbers, to 2^-52 or so; of others anything.
TG_ALWAYS_INLINE Double log(Double x) {
  const Bits shifted = (Bits)x + (0x3ff0000000000000ULL - 0x3fe6a09e667f3bcdULL);
  const Double k = (Double)((shifted >> 52) | 0x4330000000000000ULL) - (4503599627370496.0 + 1023.0);
  const Double f = (Double)((shifted & 0xfffffffffffffULL) + 0x3fe6a09e667f3bcdULL) - 1.0;
  const Double s = f / (2.0 + f), z = s * s, half = 0.5 * f * f;
  const Double p = horner(z, 0.66666666666666663, 0.40000000000006314, 0.28571428569064128, 0.2222222265019565,
                          0.18181775384337753, 0.15387103421129758, 0.13249825058106415, 0.13254055456386588);
  const Double low = fused(s, fused(z, p, half), -half);
  return fused(k, spread(0.6931471803691238), f + fused(k, spread(1.9082149292705877e-10), low));
}

}  // namespace tg::pack
