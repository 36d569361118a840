// Products with at most three rows, or columns: dot products along k, so that the large operand is read once, in order.
//
// Four of its rows by all of the small one's at a time, each pair summed in one vector. Long sums are cut into stretches
// whose sums are added in order.
#pragma once

#include <algorithm>

#include "../core/allocator.h"
#include "../core/transpose.h"
#include "gemm.h"
#include "gemm_tasks.h"

namespace tg {

// Many rows and few, both contiguous along k; where the product of row i and few row f goes, and what it starts from.
template <class T>
struct Dots {
  const T *many, *few;
  Index many_step, few_step, out_step, out_few_step;
};

// The sums of four vectors' elements, in 128 bits of each vector at a time.
template <class T>
void sum_each(const lanes::Vec<T> (&v)[4], T (&to)[4]) {
  using namespace lanes;
  constexpr int L = Lanes<T>::count, P = 16 / sizeof(T);  // elements of 128 bits
  const auto both = [](auto group, const Vec<T>& a, const Vec<T>& b) {
    constexpr int G = group;
    return lanes::detail::picked<T, lanes::detail::Interleave<T, G, false>>(a, b) +
           lanes::detail::picked<T, lanes::detail::Interleave<T, G, true>>(a, b);
  };
  using One = std::integral_constant<int, 1>;
  Vec<T> sum[2] = {both(One{}, v[0], v[1]), both(One{}, v[2], v[3])};
  if constexpr (P == 4) sum[0] = both(std::integral_constant<int, 2>{}, sum[0], sum[1]);
  alignas(64) T parts[2 * L];
  for (int i = 0; i < 4 / P; ++i) store(parts + i * L, sum[i]);
  for (int i = 0; i < 4; ++i) to[i] = parts[i / P * L + i % P];
  for (int block = P; block < L; block += P)
    for (int i = 0; i < 4; ++i) to[i] += parts[i / P * L + block + i % P];
}

// A vector's lanes from number `from` on, zeros before it.
template <class T>
lanes::Vec<T> from_lane(const lanes::Vec<T>& v, Index from) {
  typename lanes::Lanes<T>::Int place;
  for (int i = 0; i < lanes::Lanes<T>::count; ++i) place[i] = i;
  return place >= typename lanes::Lanes<T>::Word(from) ? v : lanes::Vec<T>{};
}

template <class T, int R, int F>
void dot_rows(const Dots<T>& d, Index row, Index k0, Index k1, T* out) {
  using namespace lanes;
  constexpr int L = Lanes<T>::count;
  constexpr int kChains = R == 1 ? 4 : 1;  // a single row by one would wait for each addition (two vectors of 1e6: 1.5 times)
  Vec<T> sum[R][F] = {};
  const T* many = d.many + row * d.many_step;
  Index k = k0;
  if constexpr (kChains > 1) {
    Vec<T> chain[kChains][F] = {};
    for (; k + kChains * L <= k1; k += kChains * L)
      for (int c = 0; c < kChains; ++c) {
        const Vec<T> w = load(many + k + c * L);
        for (int f = 0; f < F; ++f) chain[c][f] += w * load(d.few + f * d.few_step + k + c * L);
      }
    for (int f = 0; f < F; ++f) sum[0][f] = (chain[0][f] + chain[1][f]) + (chain[2][f] + chain[3][f]);
  }
  for (; k + L <= k1; k += L) {
    Vec<T> x[F];
    for (int f = 0; f < F; ++f) x[f] = load(d.few + f * d.few_step + k);
    for (int r = 0; r < R; ++r) {
      const Vec<T> w = load(many + r * d.many_step + k);
      for (int f = 0; f < F; ++f) sum[r][f] += w * x[f];
    }
  }
  if (k < k1)  // the last vector, without what was summed already: dots_fit() has a vector before any end
    for (int r = 0; r < R; ++r) {
      const Vec<T> w = from_lane<T>(load(many + r * d.many_step + k1 - L), L - (k1 - k));
      for (int f = 0; f < F; ++f) sum[r][f] += w * from_lane<T>(load(d.few + f * d.few_step + k1 - L), L - (k1 - k));
    }
  for (int f = 0; f < F; ++f) {
    T* to = out + row * d.out_step + f * d.out_few_step;
    if constexpr (R == 4) {
      T total[4];
      const Vec<T> rows[4] = {sum[0][f], sum[1][f], sum[2][f], sum[3][f]};
      sum_each<T>(rows, total);
      for (int r = 0; r < R; ++r) to[r * d.out_step] = total[r];
    } else {
      for (int r = 0; r < R; ++r) {
        T total = 0;
        for (int l = 0; l < L; ++l) total += sum[r][f][l];
        to[r * d.out_step] = total;
      }
    }
  }
}

template <class T>
bool dots_fit(const Gemm<T>& g) {
  return g.k >= 16 && ((g.n <= 3 && g.a.col == 1) || (g.m <= 3 && g.b.row == 1));
}

template <class T>
[[gnu::noinline]] void dots(const Gemm<T>& g, Index entry) {
  constexpr Index kStretch = Index(1) << 12, kTask = Index(1) << 17;
  const Matrix<T> a = g.left(entry), b = g.right(entry);
  T* c = g.c + entry * g.m * g.n;
  const bool rows_are_many = g.n <= 3 && a.col == 1 && (g.m > 3 || b.row != 1 || g.m >= g.n);
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
  const Index parts = divide_up(g.k, kStretch), size = many * few;
  const Index grain = round_up(std::max<Index>(1, kTask / (few * std::min(g.k, kStretch))), 4);
  Scratch<T> partial((parts - 1) * size);
  for_each_task(divide_up(many, grain) * parts, [&](Index task) {
    const Index part = task % parts, first = task / parts * grain, last = std::min(many, first + grain);
    const Index k0 = part * kStretch, k1 = std::min(g.k, k0 + kStretch);
    T* out = part == 0 ? c : partial.data() + (part - 1) * size;
    auto run = [&](auto count) {
      constexpr int F = count;
      Index row = first;
      for (; row + 4 <= last; row += 4) dot_rows<T, 4, F>(d, row, k0, k1, out);
      for (; row < last; ++row) dot_rows<T, 1, F>(d, row, k0, k1, out);
    };
    if (few == 1) run(std::integral_constant<int, 1>{});
    else if (few == 2) run(std::integral_constant<int, 2>{});
    else run(std::integral_constant<int, 3>{});
  });
  for (Index part = 1; part < parts; ++part)
    for (Index i = 0; i < size; ++i) c[i] += partial[(part - 1) * size + i];
  if (g.bias)
    for (Index i = 0; i < g.m; ++i)
      for (Index j = 0; j < g.n; ++j) c[i * g.n + j] += g.bias[j];
}

}  // namespace tg
