// Memory: x lies with its shorter side as rows, G and F beside it, each row an even number of elements, the last of which is
// zero where it is one too many. A task has 32 columns of the right factor, which it packs as the instruction takes them,
// two terms side by side, and up to 252 rows of the left one, read in place. Tiles of 12 by 32 are summed in registers over
// up to 1,024 terms. Of symmetric results what lies above the diagonal is written as columns of tiles below it.
//
// Ladder, two Zen 4 cores, ms a step of (128, 128) and (1024, 1024): in float 0.43 and 119; pairs of bfloat16, packed for
// all threads before 0.51 and 66, by tasks 0.25 and 59 (half as many loops to wait for). PyTorch's, the same day: 0.64 and 83.
#include "optim_bfloat.h"

#include <algorithm>
#include <cstring>

#include "../core/allocator.h"
#include "bfloat_pairs.h"
#include "gemm_tasks.h"

namespace tg {

#ifdef TG_BFLOAT_PAIRS
namespace {

using namespace pairs;

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

// Pairs of terms [k, k + pairs) of columns j to j + 32 of b.
void pack(const Product& p, Index j, Index k, Index pairs, Word* to) {
  const Index terms = std::min(2 * pairs, p.k - 2 * k), row = p.across ? 1 : p.b.ld, col = p.across ? p.b.ld : 1;
  for (Index half = 0; half < 2; ++half, j += 16, to += kWide)
    pack_pairs(p.b.data + 2 * k * row + j * col, row, col, terms, p.n - j, to);
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
    Scratch<Word> packed(round_up(step, 16) * 2 * kWide);
    Scratch<float> sums(divide_up(i1 - i0, kTall) * 2 * 16 * 16);
    const auto each = [&](auto use) {
      float* tile = sums.data();
      for (Index i = i0; i < i1; i += kTall, tile += 2 * 16 * 16) use(std::min(i, p.m - kTall), i, tile);
    };
    for (Index k = 0; k < pairs; k += step) {
      const Index count = std::min(step, pairs - k);
      pack(p, j, k, count, packed.data());
      each([&](Index row, Index, float* tile) { multiply_pairs(p.a.at(row, 2 * k), p.a.ld, count, packed.data(), k > 0, tile); });
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
  if (!has_bfloat_pairs() || std::min(height, width) < kLeast) return false;
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
