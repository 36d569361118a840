// Tiles of bfloat16 as AVX-512 BF16 multiplies them: pairs of neighbouring terms, both of whose products one instruction adds
// to a float. To it what is below 2^-126 is zero.
#pragma once

#include <algorithm>
#include <cstring>

#include "../core/dtype.h"
#include "../core/transpose.h"

namespace tg {

using Floats = lanes::Vec<float>;
typedef std::uint32_t Bits __attribute__((vector_size(lanes::kVectorBytes)));

// The bfloat16 that is nearest, as a float.
inline float nearest(float x) { return float(bfloat16(x)); }
inline Floats nearest(Floats x) {
  const Bits bits = Bits(x), even = (bits >> 16) & 1u;
  const Floats rounded = Floats((bits + 0x7fffu + even) & 0xffff0000u);
  return x == x ? rounded : x;
}

}  // namespace tg

#if defined(__AVX512F__) && defined(__x86_64__)
#define TG_BFLOAT_PAIRS 1

#include <immintrin.h>

namespace tg::pairs {

using Word = std::uint16_t;
constexpr Index kTall = 12, kWide = 32;  // 24 sums, two vectors of the right factor and one of the left fill 27 of 32 registers

inline bool has_bfloat_pairs() {
  static const bool has = __builtin_cpu_supports("avx512bf16");
  return has;
}

inline __mmask16 first(Index count) { return __mmask16(count >= 16 ? 0xffff : count <= 0 ? 0 : (1 << count) - 1); }

inline Bits load(const Word* from, __mmask16 mask) {
  return Bits(_mm512_maskz_cvtepu16_epi32(0xffff, _mm256_maskz_loadu_epi16(mask, from)));
}
inline void store(Word* to, __mmask16 mask, Bits x) {
  _mm256_mask_storeu_epi16(to, mask, _mm512_maskz_cvtepi32_epi16(0xffff, __m512i(x)));
}

[[gnu::noinline]] inline void transpose(float rows[16][16]) {
  Floats r[16];
#pragma GCC unroll 16
  for (Index i = 0; i < 16; ++i) r[i] = lanes::load(rows[i]);
  lanes::transpose<float>(r);
#pragma GCC unroll 16
  for (Index i = 0; i < 16; ++i) lanes::store(rows[i], r[i]);
}

// kTall rows of the left factor, `stride` elements apart, by `pairs` pairs of terms of a panel of kWide columns are added to
// `sums`, two halves of rows of 16; or begin them.
__attribute__((target("avx512bf16"))) inline void multiply_pairs(const Word* a, Index stride, Index pairs, const Word* b,
                                                                 bool add, float* sums) {
  const Word* base[kTall / 3];
  for (Index r = 0; r < kTall / 3; ++r) base[r] = a + 3 * r * stride;
  __m512 sum[kTall][2];
#pragma GCC unroll 12
  for (Index r = 0; r < kTall; ++r)
#pragma GCC unroll 2
    for (Index v = 0; v < 2; ++v) sum[r][v] = add ? _mm512_load_ps(sums + (v * 16 + r) * 16) : _mm512_setzero_ps();
  for (Index left = pairs; left > 0; --left, b += 2 * kWide) {
    const __m512bh b0 = (__m512bh)_mm512_load_si512(b), b1 = (__m512bh)_mm512_load_si512(b + kWide);
#pragma GCC unroll 12
    for (Index r = 0; r < kTall; ++r) {
      int two;
      std::memcpy(&two, base[r / 3] + r % 3 * stride, 4);
      const __m512bh x = (__m512bh)_mm512_set1_epi32(two);
      sum[r][0] = _mm512_dpbf16_ps(sum[r][0], x, b0);
      sum[r][1] = _mm512_dpbf16_ps(sum[r][1], x, b1);
    }
#pragma GCC unroll 4
    for (Index r = 0; r < kTall / 3; ++r) {
      base[r] += 2;
      asm("" : "+r"(base[r]));  // or the compiler makes a pointer for each row again
    }
  }
#pragma GCC unroll 12
  for (Index r = 0; r < kTall; ++r)
#pragma GCC unroll 2
    for (Index v = 0; v < 2; ++v) _mm512_store_ps(sums + (v * 16 + r) * 16, sum[r][v]);
}

// Pairs of `terms` terms of `columns` of b's columns, at most 16, 2 kWide elements apart; zeros beside them and behind them, up
// to a multiple of 16 pairs. Its rows or its
// columns are contiguous; rows `row` and columns `col` apart.
inline void pack_pairs(const Word* b, Index row, Index col, Index terms, Index columns, Word* to) {
  const __mmask16 mask = first(columns);
  if (col == 1) {
    Index k = 0;
    for (; k + 2 <= terms; k += 2, b += 2 * row, to += 2 * kWide)
      _mm512_store_si512(to, __m512i(load(b, mask) | load(b + row, mask) << 16));
    if (k < terms) _mm512_store_si512(to, __m512i(load(b, mask))), k += 2, to += 2 * kWide;
    for (; k % 32 != 0; k += 2, to += 2 * kWide) _mm512_store_si512(to, _mm512_setzero_si512());
    return;
  }
  for (Index k = 0; k < terms; k += 32) {
    const Index left = std::min<Index>(32, terms - k);
    const __mmask32 some = left == 32 ? ~__mmask32(0) : (__mmask32(1) << left) - 1;
    Floats r[16];
#pragma GCC unroll 16
    for (Index i = 0; i < 16; ++i)
      r[i] = Floats(_mm512_maskz_loadu_epi16(i < columns ? some : 0, b + (i < columns ? i : 0) * col + k));
    lanes::transpose<float>(r);
#pragma GCC unroll 16
    for (Index i = 0; i < 16; ++i, to += 2 * kWide) _mm512_store_si512(to, __m512i(r[i]));
  }
}

}  // namespace tg::pairs

#endif
