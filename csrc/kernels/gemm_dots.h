// Products with few rows, or columns: dot products along k, so that the large operand is read once, in order, as it lies.
//
// Four of its rows by some of the small one's at a time, each pair summed in one vector. Long sums are cut into stretches
// whose sums are added in order.
//
// Ladder, Zen 4, AVX-512, us by panels (gemm_panels.h) and by this, one core and two: (16, 1024) by (1000, 1024)' 667 and
// 443, 345 and 224; (48, 1024) by the same 1280 and 1092, 676 and 567; (32, 784) by (300, 784)' 177 and 186, 130 and 96.
#pragma once

#include <algorithm>

#include "../core/allocator.h"
#include "../core/transpose.h"
#include "gemm.h"
#include "gemm_tasks.h"
#include "gemm_tile.h"

namespace tg {

// Many rows and few, both contiguous along k; where the product of row i and few row f goes, and what it starts from.
template <class T>
struct Dots {
  const T *many, *few;
  Index many_step, few_step, out_step, out_few_step;
};

// The sums of the elements of 4 F vectors, to[f * 4 + r]: in halves, of which two vectors fill one.
template <class T, int H, int Count>
void sum_blocks(lanes::Vec<T>* v, T* to) {
  using namespace lanes;
  constexpr int L = Lanes<T>::count;
  if constexpr (H == L) {
    for (int i = 0; i < Count; ++i) store(to + i * L, v[i]);
  } else {
    constexpr int kHalf = (Count + 1) / 2;
#pragma GCC unroll 16
    for (int i = 0; i < kHalf; ++i) {
      const Vec<T> a = v[2 * i], b = v[2 * i + 1 < Count ? 2 * i + 1 : 2 * i];
      v[i] = lanes::detail::picked<T, lanes::detail::Blocks<T, H, false>>(a, b) +
             lanes::detail::picked<T, lanes::detail::Blocks<T, H, true>>(a, b);
    }
    sum_blocks<T, H * 2, kHalf>(v, to);
  }
}
template <class T, int F>
void sum_each(const lanes::Vec<T> (&rows)[4][F], T* to) {
  using namespace lanes;
  constexpr int P = 16 / sizeof(T);  // elements of 128 bits
  const auto both = [](auto group, const Vec<T>& a, const Vec<T>& b) {
    constexpr int G = group;
    return lanes::detail::picked<T, lanes::detail::Interleave<T, G, false>>(a, b) +
           lanes::detail::picked<T, lanes::detail::Interleave<T, G, true>>(a, b);
  };
  using One = std::integral_constant<int, 1>;
  Vec<T> v[F * 4 / P];
#pragma GCC unroll 16
  for (int f = 0; f < F; ++f) {
    const Vec<T> upper = both(One{}, rows[0][f], rows[1][f]), lower = both(One{}, rows[2][f], rows[3][f]);
    if constexpr (P == 4) v[f] = both(std::integral_constant<int, 2>{}, upper, lower);
    else v[2 * f] = upper, v[2 * f + 1] = lower;
  }
  sum_blocks<T, P, F * 4 / P>(v, to);
}

// A vector's lanes from number `from` on, zeros before it.
template <class T>
lanes::Vec<T> from_lane(const lanes::Vec<T>& v, Index from) {
  typename lanes::Lanes<T>::Int place;
  for (int i = 0; i < lanes::Lanes<T>::count; ++i) place[i] = i;
  return place >= typename lanes::Lanes<T>::Word(from) ? v : lanes::Vec<T>{};
}

// The products of rows [row, row + R) and few rows [few, few + F), of terms [k0, k1); `add`ed to what is there.
template <class T, int R, int F>
void dot_rows(const Dots<T>& d, Index row, Index few, Index k0, Index k1, bool add, T* out) {
  using namespace lanes;
  constexpr int L = Lanes<T>::count;
  constexpr int kChains = R == 1 ? 4 : 1;  // a single row by one would wait for each addition (two vectors of 1e6: 1.5 times)
  Vec<T> sum[R][F] = {};
  const T *many = d.many + row * d.many_step, *others = d.few + few * d.few_step;
  Index k = k0;
  if constexpr (kChains > 1) {
    Vec<T> chain[kChains][F] = {};
    for (; k + kChains * L <= k1; k += kChains * L)
      for (int c = 0; c < kChains; ++c) {
        const Vec<T> w = load(many + k + c * L);
        for (int f = 0; f < F; ++f) chain[c][f] += w * load(others + f * d.few_step + k + c * L);
      }
    for (int f = 0; f < F; ++f) sum[0][f] = (chain[0][f] + chain[1][f]) + (chain[2][f] + chain[3][f]);
  }
  for (; k + L <= k1; k += L) {
    Vec<T> x[F];
    for (int f = 0; f < F; ++f) x[f] = load(others + f * d.few_step + k);
    for (int r = 0; r < R; ++r) {
      const Vec<T> w = load(many + r * d.many_step + k);
      for (int f = 0; f < F; ++f) sum[r][f] += w * x[f];
    }
  }
  if (k < k1)  // the last vector, without what was summed already: dots_fit() has a vector before any end
    for (int r = 0; r < R; ++r) {
      const Vec<T> w = from_lane<T>(load(many + r * d.many_step + k1 - L), L - (k1 - k));
      for (int f = 0; f < F; ++f) sum[r][f] += w * from_lane<T>(load(others + f * d.few_step + k1 - L), L - (k1 - k));
    }
  T total[F * 4 + Lanes<T>::count];
  if constexpr (R == 4) {
    sum_each<T, F>(sum, total);
  } else {
    for (int f = 0; f < F; ++f) {
      total[f * 4] = 0;
      for (int l = 0; l < L; ++l) total[f * 4] += sum[0][f][l];
    }
  }
  for (int f = 0; f < F; ++f) {
    T* to = out + row * d.out_step + (few + f) * d.out_few_step;
    if (R == 4 && d.out_step == 1) {
      for (int r = 0; r < R; ++r) to[r] = add ? to[r] + total[f * 4 + r] : total[f * 4 + r];
    } else {
      for (int r = 0; r < R; ++r) to[r * d.out_step] = add ? to[r * d.out_step] + total[f * 4 + r] : total[f * 4 + r];
    }
  }
}

// Rows of the small operand at a time: with four of the other's, as many sums as there are registers for.
constexpr int kDotsFew = tile::kRows > 6 ? 6 : 3;

// Rows [row, row + R) by all of the few, some at a time, while the next `ahead` rows are fetched.
template <class T, int R>
void dot_all(const Dots<T>& d, Index row, Index few, Index k0, Index k1, bool add, Index ahead, T* out) {
  constexpr Index kLine = 64 / sizeof(T);
  const Index lines = divide_up(k1 - k0, kLine), fetched = divide_up(ahead * lines, divide_up(few, kDotsFew));
  Index next = 0;
  auto some = [&](auto count, Index f) {
    constexpr int F = count;
    for (Index i = 0; i < fetched && next < ahead * lines; ++i, ++next)
      __builtin_prefetch(d.many + (row + R + next / lines) * d.many_step + k0 + next % lines * kLine, 0, 2);
    dot_rows<T, R, F>(d, row, f, k0, k1, add, out);
    return f + F;
  };
  Index f = 0;
  if constexpr (R == 4)
    while (few - f >= kDotsFew) f = some(std::integral_constant<int, kDotsFew>{}, f);
  if constexpr (R == 4 && kDotsFew > 4)
    if (few - f >= 4) f = some(std::integral_constant<int, 4>{}, f);
  while (few - f >= 3) f = some(std::integral_constant<int, 3>{}, f);
  if (few - f == 2) some(std::integral_constant<int, 2>{}, f);
  if (few - f == 1) some(std::integral_constant<int, 1>{}, f);
}

// Rows of the small operand, and terms, up to and from which nothing packed pays: a copy of the other's rows, turned,
// costs as much as so few multiplications, and sums of few terms cost more to add up.
constexpr Index kDotsRows = 48, kDotsTerms = 512;

template <class T>
bool dots_fit(const Gemm<T>& g) {
  if (g.a.col == 1 && g.b.row == 1 && g.k >= kDotsTerms && std::min(g.m, g.n) <= kDotsRows) return !g.symmetric;
  return g.k >= 16 && ((g.n <= 3 && g.a.col == 1) || (g.m <= 3 && g.b.row == 1));
}

template <class T>
[[gnu::noinline]] void dots(const Gemm<T>& g, Index entry) {
  constexpr Index kTask = Index(1) << 17;
  const Matrix<T> a = g.left(entry), b = g.right(entry);
  T* c = g.c + entry * g.m * g.n;
  const bool both = a.col == 1 && b.row == 1;
  const bool rows_are_many = both ? g.m >= g.n : g.n <= 3 && a.col == 1;
  const Index many = rows_are_many ? g.m : g.n, few = rows_are_many ? g.n : g.m;
  Dots<T> d;
  const Matrix<T> small = rows_are_many ? Matrix<T>{b.data, b.col, b.row} : a;  // (few, k)
  d.many = rows_are_many ? a.data : b.data;
  d.many_step = rows_are_many ? a.row : b.col;
  Scratch<T, kOnStack> copy(small.col == 1 ? 0 : few * g.k);
  d.few = small.data, d.few_step = small.row;
  if (small.col != 1) {
    for (Index f = 0; f < few; ++f)
      for (Index k = 0; k < g.k; ++k) copy[f * g.k + k] = small.data[f * small.row + k * small.col];
    d.few = copy.data(), d.few_step = g.k;
  }
  d.out_step = rows_are_many ? g.n : 1;
  d.out_few_step = rows_are_many ? 1 : g.n;
  // of more rows stay in L1 while the few pass by
  const Index stretch = few <= 3 ? Index(1) << 12 : Index(1) << 10, parts = divide_up(g.k, stretch), size = many * few;
  const Index grain = round_up(std::max<Index>(1, kTask / (few * std::min(g.k, stretch))), 4);
  const Index groups = divide_up(many, grain), shared = groups >= 8 ? 1 : parts;  // tasks that share a group's stretches
  Scratch<T> partial((shared - 1) * size);
  for_each_task(groups * shared, [&](Index task) {
    const Index first = task / shared * grain, last = std::min(many, first + grain), share = task % shared;
    T* out = share == 0 ? c : partial.data() + (share - 1) * size;
    for (Index part = shared > 1 ? share : 0; part < (shared > 1 ? share + 1 : parts); ++part) {
      const Index k0 = part * stretch, k1 = std::min(g.k, k0 + stretch);
      const bool add = shared == 1 && part > 0;
      Index row = first;
      for (; row + 4 <= last; row += 4)
        dot_all<T, 4>(d, row, few, k0, k1, add, few > 3 ? std::clamp<Index>(many - row - 4, 0, 4) : 0, out);
      for (; row < last; ++row) dot_all<T, 1>(d, row, few, k0, k1, add, 0, out);
    }
  });
  for (Index part = 1; part < shared; ++part)
    for (Index i = 0; i < size; ++i) c[i] += partial[(part - 1) * size + i];
  if (g.bias)
    for (Index i = 0; i < g.m; ++i)
      for (Index j = 0; j < g.n; ++j) c[i * g.n + j] += g.bias[j];
}

}  // namespace tg
