// Rows of a by a part of b whose panels are packed, or read in place: what a task of any product does, panel by panel, and
// per panel down its rows.
#pragma once

#include <algorithm>

#include "gemm.h"
#include "gemm_tasks.h"
#include "gemm_tile.h"

namespace tg {

using lanes::Lanes;
using tile::kColumns;
using tile::kRows;

// Terms of a panel: with the rows of a tile it fits L1. Panels of 128 cost a step of gpt 3 % and mlp's 4 %; what keeps
// errors small is tile::kSummed.
constexpr Index kDepth = 256;
constexpr Index kLargeStripe = Index(1) << 18;  // elements of b beyond one core's L2
constexpr Index kSetStep = 4096;                 // bytes between lines of one set of an L1
constexpr Index kWide = 256;                     // columns from which a copy of rows so far apart pays
constexpr Index kShort = 64;                     // terms of sums that are made faster than c is fetched, where its rows are
constexpr Index kManyPanels = 8;                 // so long: they are written one after the other, not panel by panel
constexpr Index kFewRows = 8;                    // a copy of b pays from more rows on,
constexpr Index kTiny = 640;                     // and where it has more elements (512 of 16 x 16: 0.84 of the time)

// A part of b: `depth` terms of `columns` columns, packed; or, where b's rows are contiguous and few rows of a would use the
// copy, or its panels are few and tiles high (a panel's lines are then taken from L2 once for a tile, which costs less),
// only its last columns, and the others read in place. Two Zen 4 cores, AVX-512, gradients of (512, 512) by (512, 128),
// (64, 1024) by (1024, 128), (20000, 128) by (128, 128): 1.03, 1.1 to 1.6 and 1.0 to 1.2 times as fast; beside more of b
// than an L2 holds and 256 columns 0.96 to 1.07.
//
// Where b's rows follow each other without gaps, vectors may reach from the last columns into the next row: these are
// copied for the last stretch of terms only (`loose`).
template <class T>
struct Stripe {
  Matrix<T> b;
  Index j0, columns, k0, depth;
  bool in_place, loose;
  T* packed;

  Stripe(const Gemm<T>& g, Index entry, Index j0, Index columns, Index k0, Index depth)
      : b(g.right(entry)), j0(j0), columns(columns), k0(k0), depth(depth),
        in_place(g.b.col == 1 && (g.m <= kFewRows || g.k * g.n <= kTiny || few_panels(g))),
        loose(in_place && b.row == columns && copied() > 0 && reach() <= columns), packed(nullptr) {
    b.data += k0 * b.row + j0 * b.col;
  }
  static bool few_panels(const Gemm<T>& g) {
    const Index panels = divide_up(g.n, kColumns<T>);
    const bool near = g.b.row <= 16 * kColumns<T>;
    return kRows >= 12 && near && (panels <= 4 || (panels <= 8 && g.k * g.n < kLargeStripe));
  }
  Index panels() const { return divide_up(columns, kColumns<T>); }
  Index step() const { return divide_up(depth, divide_up(depth, kDepth)); }
  // Panels of which there is a copy, the first of them, and elements it takes.
  Index first_copied() const { return in_place ? columns / kColumns<T> + (columns % kColumns<T> == Lanes<T>::count) : 0; }
  Index copied() const { return panels() - first_copied(); }
  Index size() const { return copied() * kColumns<T> * depth; }
  // Elements that the vectors of the last panel hold beyond its columns.
  Index reach() const {
    const Index valid = columns % kColumns<T>;
    return (valid <= Lanes<T>::count ? Lanes<T>::count : kColumns<T>) - valid;
  }
  bool is_copied(Index k, Index panel) const { return panel >= first_copied() && !(loose && k + step() < depth); }

  T* copy(Index k, Index panel) const {  // k a multiple of step()
    return packed + (k * copied() + (panel - first_copied()) * std::min(step(), depth - k)) * kColumns<T>;
  }
  // Panels [first, last) of the stretch that begins with term k.
  void pack(Index k, Index first, Index last) const {
    constexpr Index N = kColumns<T>;
    const Index terms = std::min(step(), depth - k);
    if (!is_copied(k, last - 1)) return;
    for (Index panel = std::max(first, first_copied()); panel < last;) {
      const Index j = panel * N, valid = std::min(N, columns - j);
      const Matrix<T> from{b.data + k * b.row + j * b.col, b.row, b.col};
      const Index whole = b.col == 1 ? std::min<Index>({4, last - panel, (columns - j) / N}) : 0;
      if (whole > 0) tile::pack_panels(from, terms, whole, copy(k, panel));
      else tile::pack_columns(from, terms, valid, copy(k, panel));
      panel += std::max<Index>(1, whole);
    }
  }
  void pack() const {
    for (Index k = 0; k < depth; k += step()) pack(k, 0, panels());
  }
  // The tasks that share this work: of one stretch, up to four panels.
  Index packed_at_once() const { return std::clamp<Index>(panels() / 4, 1, 4); }
  Index groups() const { return divide_up(panels(), packed_at_once()); }
  Index packs() const { return groups() * divide_up(depth, step()); }
  void pack(Index task) const {
    const Index first = task % groups() * packed_at_once();
    pack(task / groups() * step(), first, std::min(panels(), first + packed_at_once()));
  }
};

// Whether tiles read a where it lies, by its rows or by its columns (ByTerms). The latter take a new line of an L2 at every
// term, once for each panel, which for few panels costs less than a copy that is made before all tasks or by each, where
// tiles are high: they use most of a line, and later. Speed of gradients of weights, in place by copied, two Zen 4 cores:
// AVX-512 (512, 128)' (512, 512) 1.15, (512, 512)' (512, 128) 0.95 alone but 1.05 in a step of gpt-micro, beside 1024
// columns 0.98; AVX2 1.0, 0.94, 0.85.
//
// Rows that lie a multiple of 4096 bytes apart share one set of an L1, which keeps fewer lines than a high tile has rows:
// a copy pays where it serves many panels (the same processor, 256, 512, 1024 columns: 1.02 to 1.04, 1.05, 1.08). Where
// elements are operands (gemm_embedded.h) it pays beside that: Emerald Rapids, us in place and copied, two busy cores,
// (2048, 384) by (384, 768)' 8158 and 7200, (1024, 384) by (384, 1536)' 8726 and 8118, beside 384 columns the same;
// (1024, 256)' of 2048 terms 8948 and 7274, (1024, 1536)' by (1024, 384) 7813 and 7177, beside 128 columns 0.86 to 0.99. Not
// rows that are asked for by who reads them: all would be made before (a step of gpt 1.05 times as long).
template <class T>
bool in_place(const Gemm<T>& g) {
  constexpr bool kHigh = kRows >= 12;
  constexpr bool kCopies = kHigh && kRows < Lanes<T>::count;  // by squares: others would be copied element by element
  const bool embedded = kCopies && tile::embedded::kPays;
  if (g.a.col == 1) {
    const bool pays = g.n >= kWide && g.a.row * Index(sizeof(T)) % kSetStep == 0;
    return !(kCopies && g.m >= kRows && (pays || (embedded && g.n >= 2 * kWide && !g.needed)));
  }
  if (g.a.row == 1 && g.n <= kColumns<T>) return true;
  return (kHigh && g.a.row == 1 && g.n <= (embedded ? 4 : 16) * kColumns<T> && g.m >= 4 * kRows);
}

// Whether tasks sum the rows of a that they read.
template <class T>
bool tasks_sum(const Gemm<T>& g) { return g.row_sums && g.a.col != 1 && in_place(g); }

// Rows of a that can't be read in place: all of them, packed before for the stripe's terms, or room to pack a task's; and
// whether who multiplies them sums them too.
template <class T>
struct Rows {
  T* packed;
  bool all, sums = false;
};

// Columns of b, which are contiguous and `step` apart, that are fetched to an L2 while others are multiplied: each in turn,
// by lines.
template <class T>
struct Ahead {
  const T* column = nullptr;
  Index step = 0, columns = 0, lines = 0, line = 0;

  Ahead() = default;
  Ahead(const Matrix<T>& b, Index columns, Index terms)
      : column(b.data), step(b.col), columns(columns), lines(divide_up(terms * Index(sizeof(T)), 64)) {}
  void fetch(Index count) {
    for (; count > 0 && columns > 0; --count) {
      __builtin_prefetch(column + line * Index(64 / sizeof(T)), 0, 2);
      if (++line == lines) line = 0, column += step, --columns;
    }
  }
};

// Terms of sums up to which many panels are multiplied by a tile's rows, not rows by a panel. Intel cores gain of a whole
// panel's still (Emerald Rapids, two cores, (1024, 384) by (384, 1536)' and (384, 1152)' 1.02 to 1.04, all products of gpt
// 1.01); others were not measured beyond kShort.
template <class T>
Index most_by_tile_rows() { return tile::embedded::kPays && std::is_same_v<T, float> ? kDepth : kShort; }

// Rows [i0, i1) of c by panels [first, last) of a stripe: panel by panel, which L1 keeps; or, of few terms, a tile's rows of
// c from end to end, as memory likes to be written (gradients of (2048, 2048) weights, 4, 16, 64 examples, two Zen 4 cores:
// 1.7, 1.2, 1.1 times as fast, (512, 512) of 16 and 64 1.2 and 1.0).
template <class T>
void multiply(const Gemm<T>& g, const Matrix<T>& a, T* c, const Stripe<T>& s, Index i0, Index i1, Index first,
              Index last, Rows<T> room, Ahead<T> ahead = {}) {
  const bool a_in_place = in_place(g), by_rows = a_in_place && a.col == 1;
  for (Index k = 0; k < s.depth; k += s.step()) {
    const Index depth = std::min(s.step(), s.depth - k);
    const T* rows = a.data + i0 * a.row + (s.k0 + k) * a.col;
    const T* packed = room.all ? room.packed + k * g.m + i0 * depth : room.packed;
    if (!a_in_place && !room.all) tile::pack_rows(Matrix<T>{rows, a.row, a.col}, i1 - i0, depth, room.packed);
    const bool begins = s.k0 + k == 0;
    const Index fetched = divide_up(ahead.columns * ahead.lines, (last - first) * divide_up(i1 - i0, kRows));
    // Tiles of rows [i, i + tall), one of the panels.
    auto run = [&](Index panel, Index i, int tall, Index columns) {
      const Index j = s.j0 + panel * kColumns<T>;
      const bool copied = s.is_copied(k, panel);
      const T* b = copied ? s.copy(k, panel) : s.b.data + k * s.b.row + panel * kColumns<T>;
      tile::Target<T> target{c + i * g.n + j, g.n, columns, nullptr, 0};
      if (begins && g.bias) target.add = g.bias + j;
      if (!begins) target.add = target.c, target.add_step = g.n;
      const T* top = a_in_place ? rows + (i - i0) * a.row : packed + (i - i0) * depth;
      ahead.fetch(fetched);
      tile::run(tall, depth, top, by_rows ? a.row : a_in_place ? a.col : tall, by_rows, b, copied ? kColumns<T> : s.b.row, target);
    };
    auto width = [&](Index panel) { return std::min<Index>(kColumns<T>, s.columns - panel * kColumns<T>); };
    const bool by_tile_rows = depth <= most_by_tile_rows<T>() && last - first >= kManyPanels && !g.symmetric;
    if (by_tile_rows) {
      for (Index i = i0; i < i1;) {
        const int tall = tile::height(i1 - i);
        for (Index panel = first; panel < last; ++panel) run(panel, i, tall, width(panel));
        i += tall;
      }
    }
    for (Index panel = by_tile_rows ? last : first; panel < last; ++panel) {
      Index i = i0, columns = width(panel);
      if (g.symmetric) {  // rows whose diagonal is to the right; and no column behind that of the last
        const Index j = s.j0 + panel * kColumns<T>;
        if (j >= i1) break;
        columns = std::min(columns, i1 - j);
        i += std::max<Index>(0, j - i0) / kRows * kRows;
      }
      while (i < i1) {
        const int tall = tile::height(i1 - i);
        run(panel, i, tall, columns);
        i += tall;
      }
    }
    // after the products, which fetched them
    if (room.sums && s.j0 + first == 0) tile::sum_columns(rows, a.col, i1 - i0, depth, g.row_sums + i0, !begins);
  }
}

}  // namespace tg
