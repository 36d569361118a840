// Products of some dozen rows by a large matrix, turned: c' = b' a' (+ bias).
//
// A copy of b, in the order in which tiles read it, serves few rows only, and these fill no whole number of tiles: 64 rows
// take six. Turned, b's columns are the rows of tiles, which read them where they lie, and a is what is packed, by each
// thread for itself. A tile's sums are kept aside until they are complete, and then turned back. Only for high tiles:
// low ones read too many lines of b for what they multiply (AVX2 0.86 to 1.17).
//
// Speed beside products that are not turned, two Zen 4 cores, AVX-512: 64 rows by (2048, 2048)' 1.06, by (784, 256)' 1.14,
// by (128, 512)' 0.97; 20, 32, 48, 64, 96, 128 rows by (2048, 2048) or (1024, 1024) 1.3, 1.73, 1.18, 1.22, 1.16, 1.12,
// by (512, 512) -, 1.10, -, 1.0, 0.97, 0.96. 128 rows by (512, 256)' 1.07, and the optimizer after it 1.2: of weights that
// every thread copies for itself it has to fetch lines back that another has.
#pragma once

#include <algorithm>
#include <vector>

#include "../core/allocator.h"
#include "../core/parallel.h"
#include "../core/transpose.h"
#include "gemm.h"
#include "gemm_stripe.h"
#include "gemm_tasks.h"
#include "gemm_tile.h"

namespace tg {

constexpr Index kTurnedPacked = Index(1) << 18;   // elements of a, which a core's L2 holds
constexpr Index kTurnedColumns = Index(1) << 16;  // elements of b from which it pays where columns are contiguous,
constexpr Index kTurnedRows = Index(1) << 17;     // and where rows are

template <class T>
bool turn_fits(const Gemm<T>& g) {
  if (kRows < 12 || g.symmetric || g.row_sums || g.m * g.k > kTurnedPacked) return false;
  const Index panels = divide_up(g.m, kColumns<T>);
  if (g.b.col == 1) {
    const Index filled = round_up(g.m, Lanes<T>::count);
    const bool large = g.k * g.n >= 4 * kTurnedRows;
    if (8 * g.m < 5 * kColumns<T> || panels > 4 || g.k < 128) return false;
    return large ? panels == 1 || 8 * filled <= 9 * g.m : g.m == filled && panels <= 2 && g.k * g.n >= kTurnedRows;
  }
  if (g.b.row != 1 || g.m % kColumns<T> != 0 || g.k < 256 || g.k * g.n < kTurnedColumns) return false;
  // columns that share a set of an L1 are read anew for each panel of a
  const bool apart = g.b.col * Index(sizeof(T)) % kSetStep != 0;
  return panels == 2 || (apart && (panels == 3 || (panels == 4 && g.k * g.n <= kLargeStripe)));
}

// c[i][j] = from[j][i] (+ bias[j]) for `columns` columns of c, whose rows are `step` apart.
template <class T>
void turn_back(const T* from, Index rows, Index columns, const T* bias, T* c, Index step) {
  constexpr Index L = Lanes<T>::count;
  using namespace lanes;
  auto one_by_one = [&](Index i, Index j0, Index j1) {
    for (; i < rows; ++i)
      for (Index j = j0; j < j1; ++j) c[i * step + j] = from[j * rows + i] + (bias ? bias[j] : T(0));
  };
  Index j = 0;
  for (; j + L <= columns; j += L) {
    const Vec<T> more = bias ? load(bias + j) : Vec<T>{};
    Index i = 0;
    for (; i + L <= rows; i += L) {
      Vec<T> r[L];
#pragma GCC unroll 16
      for (Index v = 0; v < L; ++v) r[v] = load(from + (j + v) * rows + i);
      transpose<T>(r);
#pragma GCC unroll 16
      for (Index v = 0; v < L; ++v) store(c + (i + v) * step + j, r[v] + more);
    }
    one_by_one(i, j, j + L);
  }
  one_by_one(0, j, columns);
}

template <class T>
[[gnu::noinline]] void multiply_turned(const Gemm<T>& g, Index entry) {
  const Matrix<T> a = g.left(entry), b = g.right(entry);
  Gemm<T> t;
  t.m = g.n, t.n = g.m, t.k = g.k;
  t.a = {b.data, b.col, b.row};
  t.b = {a.data, a.col, a.row};
  Stripe<T> s(t, 0, 0, t.n, 0, t.k);
  const Index blocks = std::clamp<Index>((g.m * g.n * g.k) >> 19, 1, 48), tall = round_up(divide_up(t.m, blocks), 4 * kRows);
  const Index size = round_up(s.size(), 64);
  std::vector<unsigned char> packed_by(num_threads());  // of threads, who has packed a
  Scratch<T> copies(size * Index(packed_by.size()));
  T* c = g.c + entry * g.m * g.n;
  for_each_task(divide_up(t.m, tall), [&](Index task) {
    const Index first = task * tall, rows = std::min(tall, t.m - first);
    Stripe<T> mine = s;
    const std::size_t thread = worker_index();
    const bool has_room = thread < packed_by.size();  // not who came after they were counted
    Scratch<T> late(has_room ? 0 : size), sums(rows * t.n);
    mine.packed = has_room ? copies.data() + Index(thread) * size : late.data();
    if (!has_room || !packed_by[thread]) mine.pack();
    if (has_room) packed_by[thread] = true;
    const Matrix<T> own{t.a.data + first * t.a.row, t.a.row, t.a.col};
    multiply(t, own, sums.data(), mine, 0, rows, 0, mine.panels(), Rows<T>{nullptr, false});
    turn_back(sums.data(), t.n, rows, g.bias ? g.bias + first : nullptr, c + first, g.n);
  });
}

}  // namespace tg
