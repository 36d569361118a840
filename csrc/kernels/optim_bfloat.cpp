// Memory: x lies with its shorter side as rows, G and F beside it, each row an even number of elements, the last of which is
// zero where it is one too many. A task has 32 columns of the right factor, which it packs as the instruction takes them,
// two terms side by side, and up to 252 rows of the left one, read in place. Tiles of 12 by 32 are summed in registers over
// up to 1,024 terms. Of symmetric results what lies above the diagonal is written as columns of tiles below it.
//
// Ladder, two Zen 4 cores, ms a step of (128, 128) and (1024, 1024): in float 0.43 and 119; pairs of bfloat16, packed for
// all threads before 0.51 and 66, by tasks 0.25 and 59 (half as many loops to wait for). PyTorch's, the same day: 0.64 and 83.
#include "optim_bfloat.h"

#if defined(__AVX512F__) && defined(__x86_64__)
#define TG_BFLOAT_PAIRS 1
#include <immintrin.h>
#endif

#include <algorithm>
#include <cstring>

#include "../core/allocator.h"
#include "../core/transpose.h"
#include "gemm_tasks.h"

namespace tg {

#ifdef TG_BFLOAT_PAIRS
namespace {

using Word = std::uint16_t;
constexpr Index kTall = 12, kWide = 32;  // 24 sums, two vectors of the right factor and one of the left fill 27 of 32 registers
constexpr Index kPairs = 512;            // terms by two that are packed at once: they stay in L2 while rows pass by
constexpr Index kRows = 252;             // of a task
constexpr Index kLeast = 24;             // elements of a side
constexpr Index kPiece = 16384;          // elements that a thread copies at once

// A matrix with rows `ld` elements apart.
struct Words {
  Word* data;
  Index ld;
  Word* at(Index i, Index j) const { return data + i * ld + j; }
};

inline __mmask16 first(Index count) { return __mmask16(count >= 16 ? 0xffff : count <= 0 ? 0 : (1 << count) - 1); }

inline Bits load(const Word* from, __mmask16 mask) {
  return Bits(_mm512_maskz_cvtepu16_epi32(0xffff, _mm256_maskz_loadu_epi16(mask, from)));
}
inline void store(Word* to, __mmask16 mask, Bits x) {
  _mm256_mask_storeu_epi16(to, mask, _mm512_maskz_cvtepi32_epi16(0xffff, __m512i(x)));
}

[[gnu::noinline]] void transpose(float rows[16][16]) {
  Floats r[16];
#pragma GCC unroll 16
  for (Index i = 0; i < 16; ++i) r[i] = lanes::load(rows[i]);
  lanes::transpose<float>(r);
#pragma GCC unroll 16
  for (Index i = 0; i < 16; ++i) lanes::store(rows[i], r[i]);
}

// c = nearest(by other + times a b), where `other` may be null. b lies in memory as it is, or across.
struct Product {
  Index m, n, k;
  Words a, b, c, other;
  float by, times;
  bool across, symmetric;
  Index pairs() const { return divide_up(k, 2); }
};

// The sums of half a tile, from row i and column j: scaled, added to, rounded and stored.
void finish(const Product& p, Index i, Index skip, Index j, float* sums) {
  auto* rows = reinterpret_cast<float(*)[16]>(sums);
  for (Index r = skip; r < kTall; ++r) {
    const __mmask16 mask = first(std::min(p.n, p.symmetric ? i + r + 1 : p.n) - j);
    Floats x = lanes::rounded(Floats(p.times * lanes::load(rows[r])));
    if (p.other.data) x = lanes::rounded(Floats(p.by * Floats(load(p.other.at(i + r, j), mask) << 16))) + x;
    x = nearest(x);
    lanes::store(rows[r], x);
    store(p.c.at(i + r, j), mask, Bits(x) >> 16);
  }
  if (!p.symmetric) return;
  transpose(rows);
  for (Index r = 0; r < 16 && j + r < p.n; ++r)  // of rows below its own
    store(p.c.at(j + r, i), first(kTall) & ~first(std::max(skip, j + r + 1 - i)), Bits(lanes::load(rows[r])) >> 16);
}

// Rows i to i + 12 by `pairs` terms of a panel, from pair k on, are added to `sums`; or begin them.
__attribute__((target("avx512bf16"))) void multiply(const Product& p, Index i, Index k, Index pairs, const Word* b, float* sums) {
  const Word* base[kTall / 3];
  for (Index r = 0; r < kTall / 3; ++r) base[r] = p.a.at(i + 3 * r, 2 * k);
  const Index stride = p.a.ld;
  __m512 sum[kTall][2];
#pragma GCC unroll 12
  for (Index r = 0; r < kTall; ++r)
#pragma GCC unroll 2
    for (Index v = 0; v < 2; ++v) sum[r][v] = k ? _mm512_load_ps(sums + (v * 16 + r) * 16) : _mm512_setzero_ps();
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

// Pairs of terms [k, k + pairs) of columns j to j + 32 of b.
void pack(const Product& p, Index j, Index k, Index pairs, Word* to) {
  for (Index half = 0; half < 2; ++half, j += 16, to += kWide) {
    if (!p.across) {
      const __mmask16 mask = first(p.n - j);
      for (Index r = 0; r < pairs; ++r) {
        const Index i = 2 * (k + r);
        const Bits one = load(p.b.at(i, j), mask), two = i + 1 < p.k ? load(p.b.at(i + 1, j), mask) : Bits{};
        _mm512_store_si512(to + r * 2 * kWide, __m512i(one | two << 16));
      }
      continue;
    }
    for (Index at = 0; at < pairs; at += 16) {
      float rows[16][16] = {};
      for (Index r = 0; r < std::min<Index>(16, p.n - j); ++r)
        lanes::store(rows[r], Floats(_mm512_maskz_loadu_ps(first(pairs - at), p.b.at(j + r, 2 * (k + at)))));
      transpose(rows);
      for (Index r = 0; r < std::min<Index>(16, pairs - at); ++r) std::memcpy(to + (at + r) * 2 * kWide, rows[r], sizeof rows[r]);
    }
  }
}

// A task has a panel of columns, which it packs, and some rows.
void run(const Product& p) {
  const Index blocks = divide_up(p.m, kRows), tall = round_up(divide_up(p.m, blocks), kTall);
  const Index panels = divide_up(p.n, kWide), pairs = p.pairs(), step = divide_up(pairs, divide_up(pairs, kPairs));
  for_each_task(panels * blocks, [&](Index task) {
    Index panel = task / blocks;
    if (p.symmetric) panel = panel % 2 ? panels - 1 - panel / 2 : panel / 2;  // long and short ones in turn
    const Index j = panel * kWide, i1 = std::min(p.m, (task % blocks + 1) * tall);
    Index i0 = task % blocks * tall;
    if (p.symmetric) i0 += std::max<Index>(0, j - i0) / kTall * kTall;
    if (i0 >= i1) return;
    Scratch<Word> packed(step * 2 * kWide);
    Scratch<float> sums(divide_up(i1 - i0, kTall) * 2 * 16 * 16);
    const auto each = [&](auto use) {
      float* tile = sums.data();
      for (Index i = i0; i < i1; i += kTall, tile += 2 * 16 * 16) use(std::min(i, p.m - kTall), i, tile);
    };
    for (Index k = 0; k < pairs; k += step) {
      const Index count = std::min(step, pairs - k);
      pack(p, j, k, count, packed.data());
      each([&](Index row, Index, float* tile) { multiply(p, row, k, count, packed.data(), tile); });
    }
    each([&](Index row, Index i, float* tile) {  // rows before i are another tile's
      finish(p, row, i - row, j, tile);
      finish(p, row, i - row, j + 16, tile + 16 * 16);
    });
  });
}

// x (height, width) to and from y, which lies across where `turned`; by squares of 16.
void move(float* x, Index height, Index width, Words y, bool turned, bool back) {
  const Index grain = std::max<Index>(1, kPiece / (16 * width)), across = divide_up(width, 16);
  parallel_for(divide_up(height, 16) * across, grain * across, [&](Index first_square, Index last) {
    for (Index s = first_square; s < last; ++s) {
      const Index i = s / across * 16, j = s % across * 16;
      const bool read_across = turned && back;  // whether rows of what is read are columns of x
      Index rows = read_across ? width - j : height - i, columns = read_across ? height - i : width - j;
      const auto at = [&](Index r) { return turned ? y.at(j + r, i) : y.at(i + r, j); };
      float square[16][16] = {};
      for (Index r = 0; r < std::min<Index>(16, rows); ++r)
        lanes::store(square[r], back ? Floats(load(at(r), first(columns)) << 16)
                                     : Floats(_mm512_maskz_loadu_ps(first(columns), x + (i + r) * width + j)));
      if (turned) {
        transpose(square);
        std::swap(rows, columns);
      }
      for (Index r = 0; r < std::min<Index>(16, rows); ++r)
        if (back) _mm512_mask_storeu_ps(x + (i + r) * width + j, first(columns), lanes::load(square[r]));
        else store(at(r), first(columns), Bits(lanes::load(square[r])) >> 16);
    }
  });
}

}  // namespace

bool bfloat_iterations(float* x, Index height, Index width, const double coefficients[3], Index steps) {
  static const bool has = __builtin_cpu_supports("avx512bf16");
  if (!has || std::min(height, width) < kLeast) return false;
  const bool turned = height > width;
  const Index side = std::min(height, width), length = std::max(height, width);
  const Index even_side = round_up(side, 2), even_length = round_up(length, 2);
  const Index of_gram = side * even_side, of_x = side * even_length;
  Scratch<Word> kept(2 * (of_x + of_gram));
  std::fill_n(kept.data(), 2 * (of_x + of_gram), Word(0));
  Words y{kept.data(), even_length}, other{y.data + of_x, even_length};
  const Words gram{other.data + of_x, even_side}, factor{gram.data + of_gram, even_side};
  const float a = float(coefficients[0]), b = float(coefficients[1]), c = float(coefficients[2]);
  move(x, height, width, y, turned, false);
  for (Index k = 0; k < steps; ++k) {
    run({side, side, length, y, y, gram, {nullptr, 0}, 0, 1, true, true});
    run({side, side, side, gram, gram, factor, gram, b, c, true, true});
    run({side, length, side, factor, y, other, y, a, 1, false, false});
    std::swap(y, other);
  }
  move(x, height, width, y, turned, true);
  return true;
}

#else

bool bfloat_iterations(float*, Index, Index, const double*, Index) { return false; }

#endif

}  // namespace tg
