// Memory: a task has some rows of a and some columns of b, whatever other tasks have, and walks down their terms in
// stretches. Of each stretch it packs its columns of b, panel by panel, as the instruction takes them, two terms side by
// side, and its rows of a where these don't lie so in memory; sums of all its tiles lie beside them, all in an L2. No
// thread reads what another packed. Few rows by columns that are contiguous are dot products of both as they lie.
//
// Ladder, two Zen 4 cores, GFLOP/s as floats, as pairs and PyTorch's: (512, 256) by (256, 1024) 174, 339, 306, gradients of
// it 158, 316, 316; of (64, 512) by (512, 512) 152, 278, 220; 32 times (64, 64) by (64, 64) 93, 240, 172. Microseconds of 1,
// 4 and 8 rows by (1024, 1024)': 76, 24, 91; 245, 36, 125; 315, 66, 160. Two Emerald Rapids cores, microseconds as pairs,
// by tiles and PyTorch's: (1024, 384) by (384, 1536)' 8590, 890, 510; (1536, 1024)' by (1024, 384) 8540, 1250, 880; 64 rows
// by (512, 512)' 289, 66, 87; 96 times (64, 256) by (256, 256)' 6920, 1200, 960. A virtual machine's tiles have hours with
// a quarter of their speed, beside which vectors multiply as ever: these products gain in them too. Those of float, as six
// products of parts with the same error, have 0.75 to 0.8 of their speed in them, 1.4 to 1.6 times that in others.
#include "gemm_bfloat.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "../core/allocator.h"
#include "amx_tiles.h"
#include "bfloat_pairs.h"
#include "gemm_tasks.h"

namespace tg {

#ifdef TG_BFLOAT_PAIRS
namespace {

using namespace pairs;

constexpr Index kLeast = Index(1) << 13;  // multiplications that are worth a product of this kind
constexpr Index kSetStep = 2048;          // bytes: two such rows of twelve share a set of an L1
constexpr Index kApart = 32;              // elements between rows of a copy, so that theirs do not

const Word* words(const bfloat16* data) { return reinterpret_cast<const Word*>(data); }

// What multiplies: tiles of twelve rows in vector registers, or of 32 rows and whole lines of terms in those of AMX.
struct Kind {
  bool lines;            // whether a tile uses up the lines of rows that it reads
  Index tall, terms;     // of a tile: rows, and a number of terms that theirs is a multiple of
  Index stretch;         // terms at most: a panel of them fills an L1, or leaves room in it for rows
  Index rows, panels;    // of a task, at most
  Index task;            // multiplications that are worth a task
  Index few;             // rows up to which dot products are faster, where both factors' terms are contiguous
  Index half() const { return round_up(tall, 16) * 16; }  // floats of the sums of a half of a tile's columns, rows of 16
  Index tile() const { return 2 * half(); }
};
constexpr Kind kVectors{false, kTall, 2, 512, 252, 8, Index(1) << 21, 16};
constexpr Kind kTiles{true, 32, 32, 384, 512, 8, Index(1) << 23, 8};
const Kind& kind() { return amx::in_use() ? kTiles : kVectors; }

#ifdef TG_AMX
// As multiply_pairs(): 32 rows by the panel's 32 columns, of `steps` times 32 terms.
void multiply_tiles(const Word* a, Index stride, Index steps, const Word* b, bool add, float* sums) {
  using namespace amx;
  constexpr Index kSums = kTile / sizeof(float), kPairs = 2 * kWide * sizeof(Word);
  stride *= sizeof(Word);
  if (add) load<0>(sums), load<1>(sums + 2 * kSums), load<2>(sums + kSums), load<3>(sums + 3 * kSums);
  else zero<0>(), zero<1>(), zero<2>(), zero<3>();
  const char* rows = reinterpret_cast<const char*>(a);
  for (; steps > 0; --steps, rows += 64, b += 16 * 2 * kWide) {
    load<4>(rows, stride), load<6>(b, kPairs), load<7>(b + kWide, kPairs), load<5>(rows + 16 * stride, stride);
    multiply<0, 4, 6>(), multiply<1, 4, 7>(), multiply<2, 5, 6>(), multiply<3, 5, 7>();
  }
  store<0>(sums), store<1>(sums + 2 * kSums), store<2>(sums + kSums), store<3>(sums + 3 * kSums);
}
#endif

// How a product is cut into tasks.
struct Cut {
  Index tall, wide, row_blocks, column_blocks;  // rows and panels of a task
  Index tasks() const { return row_blocks * column_blocks; }
};

// Whether tiles read a's rows where they lie.
bool in_place(const Gemm<bfloat16>& g) {
  const Kind& of = kind();
  return g.a.col == 1 && g.k % of.terms == 0 && g.m >= of.tall && (of.lines || g.a.row * Index(sizeof(Word)) % kSetStep != 0);
}

Cut cut_product(const Gemm<bfloat16>& g, Index wanted) {
  const Index panels = divide_up(g.n, kWide);
  Cut cut;
  cut.row_blocks = divide_up(g.m, kind().rows), cut.column_blocks = divide_up(panels, kind().panels);
  while (cut.tasks() < wanted) {  // the longer side of a task is cut first
    const Index rows = divide_up(g.m, cut.row_blocks), columns = divide_up(panels, cut.column_blocks) * kWide;
    if (rows < 2 * kind().tall && columns < 2 * kWide) break;
    const bool rows_pass = kind().lines && in_place(g) && columns >= 4 * kWide;  // they cost less than copies of columns
    ++((rows > columns && !rows_pass) || columns < 2 * kWide ? cut.row_blocks : cut.column_blocks);
  }
  cut.tall = round_up(divide_up(g.m, cut.row_blocks), kind().tall), cut.row_blocks = divide_up(g.m, cut.tall);
  cut.wide = divide_up(panels, cut.column_blocks), cut.column_blocks = divide_up(panels, cut.wide);
  return cut;
}

// A copy of `rows` rows of `terms` terms of a, `stride` apart; zeros make terms and rows those of whole tiles.
void pack_rows(const Word* a, const Matrix<bfloat16>& as, Index rows, Index terms, Index stride, Word* to) {
  const Index all = round_up(rows, kind().tall), padded = round_up(terms, kind().terms);
  if (as.col == 1) {
    for (Index r = 0; r < all; ++r, to += stride) {
      const Index copied = r < rows ? terms : 0;
      std::memcpy(to, a + r * as.row, copied * sizeof(Word));
      std::fill(to + copied, to + padded, Word(0));
    }
    return;
  }
  const Index pairs = padded / 2;
  for (Index i = 0; i < all; i += 16) {
    alignas(64) Word square[16][2 * kWide];  // pairs of up to sixteen rows, in the first half of each row
    for (Index k = 0; k < pairs; k += 16) {
      const Index count = std::min<Index>(16, pairs - k);
      pack_pairs(a + i * as.row + 2 * k * as.col, as.col, as.row, std::min<Index>(32, terms - 2 * k), rows - i, square[0]);
      float turned[16][16] = {};
      for (Index r = 0; r < count; ++r) std::memcpy(turned[r], square[r], sizeof turned[r]);
      transpose(turned);
      for (Index r = 0; r < std::min<Index>(16, all - i); ++r)
        _mm512_mask_storeu_ps(to + (i + r) * stride + 2 * k, first(count), lanes::load(turned[r]));
    }
  }
}

// sums[r] += the sums of `pairs` pairs of each of the packed rows.
__attribute__((target("avx512bf16"))) void sum_rows(const Word* rows, Index count, Index stride, Index pairs, float* sums) {
  const __m512bh ones = (__m512bh)_mm512_set1_epi16(0x3f80);
  for (Index r = 0; r < count; ++r, rows += stride) {
    __m512 sum = _mm512_setzero_ps();
    for (Index k = 0; k < pairs; k += 16)
      sum = _mm512_dpbf16_ps(sum, (__m512bh)_mm512_maskz_loadu_epi32(first(pairs - k), rows + 2 * k), ones);
    float lane[16], total = 0;
    _mm512_storeu_ps(lane, sum);
    for (float of : lane) total += of;
    sums[r] += total;
  }
}

// The sums of a tile, whose first row is `row`, are rounded and stored, `skip` rows of them another tile's.
__attribute__((target("avx512bf16"))) void finish(const Gemm<bfloat16>& g, Word* c, Index row, Index skip, Index rows,
                                                  Index j, const float* sums) {
  c += row * g.n;
  for (Index half = 0; half < 2; ++half, j += 16, sums += kind().half()) {
    const __mmask16 mask = first(g.n - j);
    if (!mask) return;
    const Floats bias = g.bias ? Floats(load(words(g.bias) + j, mask) << 16) : Floats{};
    for (Index r = skip; r < rows; ++r) {
      const Floats sum = lanes::load(sums + r * 16) + (g.row_bias ? bias + float(g.row_bias[row + r]) : bias);
      _mm256_mask_storeu_epi16(c + r * g.n + j, mask, (__m256i)_mm512_cvtneps_pbh(sum));
    }
  }
}

// Which rows and panels a task has.
struct Part {
  Index i0, i1, first_panel, last_panel;
  Part(const Gemm<bfloat16>& g, const Cut& cut, Index task)
      : i0(task / cut.column_blocks * cut.tall), i1(std::min(g.m, i0 + cut.tall)),
        first_panel(task % cut.column_blocks * cut.wide), last_panel(std::min(divide_up(g.n, kWide), first_panel + cut.wide)) {}
  Index rows() const { return i1 - i0; }
  Index tiles() const { return divide_up(rows(), kind().tall); }
  Index size() const { return tiles() * (last_panel - first_panel) * kind().tile(); }  // floats of all tiles' sums
};

Index stretches_of(const Gemm<bfloat16>& g) { return divide_up(g.k, kind().stretch); }
Index step_of(const Gemm<bfloat16>& g) { return round_up(divide_up(g.k, stretches_of(g)), kind().terms); }

// The sums of a task's tiles over stretches [first, last), those of all entries one behind the other; and, unless it is null,
// of its rows, added to what is there.
void sum_stretches(const Gemm<bfloat16>& g, const Part& part, Index first, Index last, float* sums, float* row_sum) {
  const auto [i0, i1, first_panel, last_panel] = part;
  const Kind& of = kind();
  const Index rows = part.rows(), tiles = part.tiles(), step = step_of(g), each = divide_up(g.k, step);
  const bool packs = !in_place(g);
  const Index stride = packs ? round_up(step, 64) + kApart : g.a.row;
  Scratch<Word> panel(round_up(step, 32) * kWide), packed(packs ? tiles * of.tall * stride : 0);
  std::optional<amx::Tiles> in_use;
  if (of.lines) in_use.emplace();
  for (Index stretch = first; stretch < last; ++stretch) {
    const Matrix<bfloat16> a = g.left(stretch / each), b = g.right(stretch / each);
    const Index k = stretch % each * step, terms = std::min(step, g.k - k), count = divide_up(terms, 2);
    const Word* from = words(a.data) + i0 * a.row + k * a.col;
    if (packs) pack_rows(from, a, rows, terms, stride, packed.data()), from = packed.data();
    if (row_sum) sum_rows(from, rows, stride, count, row_sum);
    float* tile = sums;
    for (Index at = first_panel; at < last_panel; ++at) {
      for (Index half = 0; half < 2; ++half) {
        const Index j = at * kWide + half * 16;
        pack_pairs(words(b.data) + k * b.row + j * b.col, b.row, b.col, terms, g.n - j, panel.data() + half * kWide);
      }
      for (Index i = 0; i < rows; i += of.tall, tile += of.tile()) {
        // of rows read in place the last tile has rows of the one before
        const Index row = packs ? i : std::min(i0 + i, g.m - of.tall) - i0;
#ifdef TG_AMX
        if (of.lines) {
          multiply_tiles(from + row * stride, stride, divide_up(terms, 32), panel.data(), stretch > first, tile);
          continue;
        }
#endif
        multiply_pairs(from + row * stride, stride, count, panel.data(), stretch > first, tile);
      }
    }
  }
}

void store(const Gemm<bfloat16>& g, Index entry, const Part& part, const float* tile) {
  Word* c = reinterpret_cast<Word*>(g.c) + entry * g.m * g.n;
  const bool packs = !in_place(g);
  for (Index at = part.first_panel; at < part.last_panel; ++at)
    for (Index i = part.i0; i < part.i1; i += kind().tall, tile += kind().tile()) {
      const Index row = packs ? i : std::min(i, g.m - kind().tall);
      finish(g, c, row, i - row, std::min(kind().tall, g.m - row), at * kWide, tile);
    }
}

void run_task(const Gemm<bfloat16>& g, Index entry, const Part& part) {
  const bool sums_rows = g.row_sums && part.first_panel == 0;
  const Index rows = part.rows(), each = divide_up(g.k, step_of(g));
  Scratch<float> sums(part.size()), row_sum(sums_rows ? rows : 0);
  if (sums_rows) std::fill_n(row_sum.data(), rows, 0.0f);
  sum_stretches(g, part, entry * each, (entry + 1) * each, sums.data(), sums_rows ? row_sum.data() : nullptr);
  store(g, entry, part, sums.data());
  for (Index r = 0; r < rows && sums_rows; ++r) g.row_sums[part.i0 + r] = bfloat16(row_sum[r]);
}

// Few rows by columns that are contiguous: dot products of both as they lie.
bool dots_fit(const Gemm<bfloat16>& g) {
  return g.m <= kind().few && g.a.col == 1 && g.b.row == 1 && g.b.col != 1 && !g.row_sums && !g.row_bias;
}

// R rows from i on by 16 / R columns from j on: sixteen sums in registers.
template <int R>
__attribute__((target("avx512bf16"))) void dots(const Gemm<bfloat16>& g, Index entry, Index i, Index j) {
  constexpr int C = 16 / R;
  const Word *a = words(g.left(entry).data) + i * g.a.row, *columns[C];
  for (Index c = 0; c < C; ++c) columns[c] = words(g.right(entry).data) + std::min(j + c, g.n - 1) * g.b.col;
  __m512 sum[R][C] = {};
  for (Index k = 0; k < g.k; k += 32) {
    const __mmask32 some = g.k - k >= 32 ? ~__mmask32(0) : (__mmask32(1) << (g.k - k)) - 1;
    __m512bh x[R];
#pragma GCC unroll 4
    for (Index r = 0; r < R; ++r) x[r] = (__m512bh)_mm512_maskz_loadu_epi16(some, a + r * g.a.row + k);
#pragma GCC unroll 16
    for (Index c = 0; c < C; ++c) {
      const __m512bh y = (__m512bh)_mm512_maskz_loadu_epi16(some, columns[c] + k);
#pragma GCC unroll 4
      for (Index r = 0; r < R; ++r) sum[r][c] = _mm512_dpbf16_ps(sum[r][c], x[r], y);
    }
  }
  float square[16][16];
#pragma GCC unroll 16
  for (Index at = 0; at < 16; ++at) _mm512_storeu_ps(square[at], sum[at / C][at % C]);
  transpose(square);
  Floats total{};
  for (Index at = 0; at < 16; ++at) total += lanes::load(square[at]);
  lanes::store(square[0], total);
  bfloat16* to = g.c + (entry * g.m + i) * g.n + j;
  for (Index r = 0; r < R; ++r)
    for (Index c = 0; c < std::min<Index>(C, g.n - j); ++c)
      to[r * g.n + c] = bfloat16(square[0][r * C + c] + (g.bias ? float(g.bias[j + c]) : 0.0f));
}

// Columns [16 block, 16 block + 16), all rows.
void run_dots(const Gemm<bfloat16>& g, Index entry, Index block) {
  const Index end = std::min(g.n, block * 16 + 16);
  for (Index i = 0; i < g.m;) {
    const Index rows = g.m - i >= 4 ? 4 : g.m - i >= 2 ? 2 : 1;
    for (Index j = block * 16; j < end; j += 16 / rows)
      rows == 4 ? dots<4>(g, entry, i, j) : rows == 2 ? dots<2>(g, entry, i, j) : dots<1>(g, entry, i, j);
    i += rows;
  }
}

}  // namespace

bool bfloat_gemm_takes(Index m, Index n, Index k, bool dots) {
  return has_bfloat_pairs() && n >= 16 && m * n * k >= kLeast;
}

void bfloat_gemm(const Gemm<bfloat16>& g) {
  if (g.batch == 0) return;
  if (dots_fit(g)) {
    const Index blocks = divide_up(g.n, 16), grain = std::max<Index>(1, kVectors.task / 8 / (16 * g.m * g.k));
    return parallel_for(g.batch * blocks, grain, [&](Index first_block, Index last) {
      for (Index block = first_block; block < last; ++block) run_dots(g, block / blocks, block % blocks);
    });
  }
  const Cut cut = cut_product(g, divide_up(std::clamp<Index>(g.batch * g.m * g.n * g.k / kind().task, 1, 16), g.batch));
  const Index grain = std::max<Index>(1, kind().task / 8 / std::max<Index>(1, g.m * g.n * g.k / cut.tasks()));
  parallel_for(g.batch * cut.tasks(), grain, [&](Index first_task, Index last) {
    for (Index task = first_task; task < last; ++task) run_task(g, task / cut.tasks(), {g, cut, task % cut.tasks()});
  });
}

// Stretches are dealt out too, by shape alone, and what came of them is added in their order.
void bfloat_gemm_sum(const Gemm<bfloat16>& g) {
  const Cut cut = cut_product(g, 1);
  const Index stretches = g.batch * divide_up(g.k, step_of(g)), tasks = cut.tasks();
  const Index shares = std::clamp<Index>(g.batch * g.m * g.n * g.k / kind().task / tasks, 1, std::min<Index>(16, stretches));
  const Index size = Part(g, cut, 0).size();
  Scratch<float> sums(tasks * shares * size);
  for_each_task(tasks * shares, [&](Index at) {
    const Index share = at % shares;
    sum_stretches(g, {g, cut, at / shares}, stretches * share / shares, stretches * (share + 1) / shares,
                  sums.data() + at * size, nullptr);
  });
  for_each_task(tasks, [&](Index task) {
    float* all = sums.data() + task * shares * size;
    const Part part(g, cut, task);
    for (Index share = 1; share < shares; ++share)
      for (Index i = 0; i < part.size(); ++i) all[i] += all[share * size + i];
    store(g, 0, part, all);
  });
}

#else

bool bfloat_gemm_takes(Index, Index, Index, bool) { return false; }
void bfloat_gemm(const Gemm<bfloat16>&) {}
void bfloat_gemm_sum(const Gemm<bfloat16>&) {}

#endif

}  // namespace tg
