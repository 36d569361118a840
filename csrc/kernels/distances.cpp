// y = (sum |a - b|^p)^(1/p) for each row of a and each of b. Rows of b are the lanes of a vector, transposed stretch by stretch;
// a few rows of a, element by element, meet them in registers. Of the gradient rows of a are the lanes, with their g and y, and a
// few columns of b meet them. Sums are taken in stretches of 128 terms, which are then added: that keeps the digits of float32.
#include "distances.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "../core/parallel.h"
#include "../core/simd_float.h"
#include "../core/transpose.h"

namespace tg {
namespace {

using lanes::Lanes;
using lanes::load;
using lanes::Vec;

enum class Order { Zero, One, Two, Largest, Other };

constexpr Index kStretch = 128;       // terms of a sum
constexpr Index kRows = 64;           // of a, for a task
constexpr Index kColumns = 256;       // of y or of dx, for a task
constexpr int kTile = 8, kNarrow = 4;  // rows of a, columns of b, in registers
constexpr Index kWork = 1 << 17;      // differences worth a task
constexpr Index kPower = 8;           // as many does a power cost

Order order_of(double p) {
  return p == 0 ? Order::Zero : p == 1 ? Order::One : p == 2 ? Order::Two : std::isinf(p) ? Order::Largest : Order::Other;
}

Index pieces(Index n, Index size) { return (n + size - 1) / size; }

template <class T>
inline Vec<T> load_first(const T* from, Index count) {
  if (count >= Lanes<T>::count) return load(from);
  T some[Lanes<T>::count] = {};
  std::copy_n(from, count, some);
  return load(some);
}
template <class T>
inline void store_first(T* to, Vec<T> v, Index count) {
  if (count >= Lanes<T>::count) return lanes::store(to, v);
  T some[Lanes<T>::count];
  lanes::store(some, v);
  std::copy_n(some, count, to);
}

// to[c] is element c of each of the rows, and 0 in the lanes behind them.
template <class T>
[[gnu::noinline]] void pack(const T* from, Index stride, Index rows, Index columns, Vec<T>* to) {
  constexpr int L = Lanes<T>::count;
  for (Index c = 0; c < columns; c += L) {
    const Index width = std::min<Index>(L, columns - c);
    Vec<T> square[L];
    for (int i = 0; i < L; ++i) square[i] = i < rows ? load_first(from + i * stride + c, width) : Vec<T>{};
    lanes::transpose<T>(square);
    std::copy_n(square, width, to + c);
  }
}

template <class T>
inline Vec<T> size_of_each(Vec<T> x) {
  using Int = typename Lanes<T>::Int;
  return (Vec<T>)((Int)x & std::numeric_limits<typename Lanes<T>::Word>::max());
}

// 1 or -1; 0 and NaN stay.
template <class T>
inline Vec<T> sign_of(Vec<T> x) {
  using Int = typename Lanes<T>::Int;
  const Int sign = (Int)x & std::numeric_limits<typename Lanes<T>::Word>::min();
  return size_of_each<T>(x) > 0 ? (Vec<T>)(sign | (Int)(Vec<T>{} + T(1))) : x;
}

// Of what is not negative: as integers they have the same order, and NaN is above infinity.
template <class T>
inline Vec<T> larger(Vec<T> a, Vec<T> b) {
  using Int = typename Lanes<T>::Int;
  return (Int)a > (Int)b ? a : b;
}

inline float pow_of(float x, float p) { return lane::pow(x, p); }
inline double pow_of(double x, double p) { return std::pow(x, p); }

// x^p of n numbers that are not negative: products and a root where that is all.
template <class T>
[[gnu::noinline]] void power(T* x, Index n, T p) {
  constexpr int L = Lanes<T>::count;
  const T twice = std::fabs(2 * p);
  if (twice > T(16) || twice != std::trunc(twice)) {
    for (Index i = 0; i < n; ++i) x[i] = pow_of(x[i], p);
    return;
  }
  for (Index i = 0; i < n; i += L) {
    Vec<T> factor = load_first(x + i, n - i), y = Vec<T>{} + T(1);
    if (int(twice) & 1)
      for (int l = 0; l < L; ++l) y[l] = std::sqrt(factor[l]);
    for (int left = int(twice) / 2; left; left >>= 1, factor *= factor)
      if (left & 1) y *= factor;
    store_first(x + i, p < 0 ? 1 / y : y, n - i);
  }
}

template <class T, Order order>
inline Vec<T> with(Vec<T> sum, Vec<T> away) {
  if constexpr (order == Order::Zero) return sum + (away != 0 ? Vec<T>{} + T(1) : Vec<T>{});
  else if constexpr (order == Order::Two) return sum + away * away;
  else if constexpr (order == Order::Largest) return larger<T>(sum, size_of_each<T>(away));
  else return sum + size_of_each<T>(away);
}

// The sums of kTile rows of a with the panel, over a stretch.
template <class T, Order order>
struct Tile {
  T p;
  void operator()(const T* const* rows, const Vec<T>* panel, Index m, Vec<T>* sums) const {
    Vec<T> sum[kTile] = {};
    for (Index c = 0; c < m; ++c) {
      const Vec<T> other = panel[c];
#pragma GCC unroll 8
      for (int r = 0; r < kTile; ++r) sum[r] = with<T, order>(sum[r], rows[r][c] - other);
    }
    std::copy_n(sum, kTile, sums);
  }
};
template <class T>
struct Tile<T, Order::Other> {
  T p;
  void operator()(const T* const* rows, const Vec<T>* panel, Index m, Vec<T>* sums) const {
    Vec<T> powers[kStretch];
    for (int r = 0; r < kTile; ++r) {
      for (Index c = 0; c < m; ++c) powers[c] = size_of_each<T>(rows[r][c] - panel[c]);
      power(reinterpret_cast<T*>(powers), m * Lanes<T>::count, p);
      Vec<T> sum{};
      for (Index c = 0; c < m; ++c) sum += powers[c];
      sums[r] = sum;
    }
  }
};

template <class T, Order order>
void distances(const DistanceShape& s, const T* a, const T* b, T* y) {
  constexpr Index L = Lanes<T>::count;
  const Tile<T, order> tile{T(s.p)};
  const Index down = pieces(s.n, kRows), across = pieces(s.k, kColumns);
  const Index each = std::min(s.n, kRows) * std::min(s.k, kColumns) * s.m * (order == Order::Other ? kPower : 1);
  parallel_for(s.batches * down * across, std::max<Index>(1, kWork / each), [&](Index first, Index last) {
    Vec<T> panel[kStretch], sums[kTile];
    for (Index task = first; task < last; ++task) {
      const Index batch = task / (down * across), i0 = task / across % down * kRows, j0 = task % across * kColumns;
      const Index below = std::min(s.n, i0 + kRows), right = std::min(s.k, j0 + kColumns);
      const T *of = a + batch * s.n * s.m, *to = b + batch * s.k * s.m;
      T* out = y + batch * s.n * s.k;
      for (Index c = 0; c < s.m; c += kStretch) {
        const Index m = std::min(kStretch, s.m - c);
        for (Index j = j0; j < right; j += L) {
          pack(to + j * s.m + c, s.m, right - j, m, panel);
          for (Index i = i0; i < below; i += kTile) {
            const T* rows[kTile];
            for (Index r = 0; r < kTile; ++r) rows[r] = of + std::min(i + r, below - 1) * s.m + c;
            tile(rows, panel, m, sums);
            const Index count = std::min<Index>(kTile, below - i);
            if (c > 0) {
              for (Index r = 0; r < count; ++r) {
                const Vec<T> before = load_first(out + (i + r) * s.k + j, right - j);
                sums[r] = order == Order::Largest ? larger<T>(before, sums[r]) : before + sums[r];
              }
            }
            T* numbers = reinterpret_cast<T*>(sums);
            if (c + m == s.m) {
              if constexpr (order == Order::Two)
                for (Index l = 0; l < kTile * L; ++l) numbers[l] = std::sqrt(numbers[l]);
              if constexpr (order == Order::Other) power(numbers, kTile * L, T(1 / s.p));
            }
            for (Index r = 0; r < count; ++r) store_first(out + (i + r) * s.k + j, sums[r], right - j);
          }
        }
      }
    }
  });
}

// What flows through one element of a row, of `weight` through the row.
template <class T, Order order>
inline Vec<T> share_of(Vec<T> weight, Vec<T> far, Vec<T> away) {
  if constexpr (order == Order::Two) return weight * away;
  if constexpr (order == Order::Largest) weight = size_of_each<T>(away) == far ? weight : Vec<T>{};
  return weight * sign_of<T>(away);
}

// The sums of kNarrow columns of a, whose rows are lanes, over rows of b.
template <class T, Order order>
struct Slope {
  T p;
  void operator()(const Vec<T>* a, const T* const* columns, Index stride, Index k, const Vec<T>* weight, const Vec<T>* far,
                  Vec<T>* sums) const {
    Vec<T> sum[kNarrow] = {};
    for (Index j = 0; j < k; ++j) {
      const Vec<T> by = weight[j], distance = order == Order::Largest ? far[j] : by;
#pragma GCC unroll 8
      for (int c = 0; c < kNarrow; ++c) sum[c] += share_of<T, order>(by, distance, a[c] - columns[c][j * stride]);
    }
    std::copy_n(sum, kNarrow, sums);
  }
};
template <class T>
struct Slope<T, Order::Other> {
  T p;
  void operator()(const Vec<T>* a, const T* const* columns, Index stride, Index k, const Vec<T>* weight, const Vec<T>* far,
                  Vec<T>* sums) const {
    Vec<T> powers[kStretch];
    for (int c = 0; c < kNarrow; ++c) {
      for (Index j = 0; j < k; ++j) powers[j] = size_of_each<T>(a[c] - columns[c][j * stride]) / far[j];
      power(reinterpret_cast<T*>(powers), k * Lanes<T>::count, p - 1);
      Vec<T> sum{};
      for (Index j = 0; j < k; ++j) {
        const Vec<T> away = a[c] - columns[c][j * stride];
        sum += weight[j] * (away == 0 ? Vec<T>{} : powers[j]) * sign_of<T>(away);
      }
      sums[c] = sum;
    }
  }
};

template <class T, Order order>
void slopes(const DistanceShape& s, const T* g, const T* a, const T* b, const T* y, T* dx) {
  constexpr Index L = Lanes<T>::count;
  const Slope<T, order> slope{T(s.p)};
  const Index down = pieces(s.n, L), across = pieces(s.m, kColumns);
  const Index each = std::min(s.n, L) * std::min(s.m, kColumns) * s.k * (order == Order::Other ? kPower : 1);
  parallel_for(s.batches * down * across, std::max<Index>(1, kWork / each), [&](Index first, Index last) {
    Vec<T> lines[kColumns + kNarrow], totals[kColumns + kNarrow], weight[kStretch], far[kStretch], sums[kNarrow];
    for (Index task = first; task < last; ++task) {
      const Index batch = task / (down * across), i0 = task / across % down * L, c0 = task % across * kColumns;
      const Index rows = std::min(s.n - i0, L), width = std::min(s.m - c0, kColumns), place = batch * s.n + i0;
      const T* to = b + batch * s.k * s.m + c0;
      pack(a + place * s.m + c0, s.m, rows, width, lines);
      std::fill_n(lines + width, kNarrow, Vec<T>{});
      std::fill_n(totals, width + kNarrow, Vec<T>{});
      for (Index j = 0; j < s.k; j += kStretch) {
        const Index k = std::min(kStretch, s.k - j);
        pack(g + place * s.k + j, s.k, rows, k, weight);
        if constexpr (order != Order::One) pack(y + place * s.k + j, s.k, rows, k, far);
        if constexpr (order == Order::Two || order == Order::Other) {
          for (Index l = 0; l < k; ++l) {
            far[l] = far[l] == 0 ? Vec<T>{} + T(1) : far[l];
            if (order == Order::Two) weight[l] /= far[l];
          }
        }
        for (Index c = 0; c < width; c += kNarrow) {
          const T* columns[kNarrow];
          for (Index t = 0; t < kNarrow; ++t) columns[t] = to + j * s.m + std::min(c + t, width - 1);
          slope(lines + c, columns, s.m, k, weight, far, sums);
          for (int t = 0; t < kNarrow; ++t) totals[c + t] += sums[t];
        }
      }
      for (Index c = 0; c < width; c += L) {
        Vec<T> square[L];
        std::copy_n(totals + c, std::min(L, width - c), square);
        lanes::transpose<T>(square);
        for (Index r = 0; r < rows; ++r) store_first(dx + (place + r) * s.m + c0 + c, square[r], width - c);
      }
    }
  });
}

}  // namespace

template <class T>
void cdist(const DistanceShape& s, const T* a, const T* b, T* y) {
  if (s.pairs() == 0) return;
  if (s.m == 0) return void(std::fill_n(y, s.pairs(), T(0)));
  switch (order_of(s.p)) {
    case Order::Zero: return distances<T, Order::Zero>(s, a, b, y);
    case Order::One: return distances<T, Order::One>(s, a, b, y);
    case Order::Two: return distances<T, Order::Two>(s, a, b, y);
    case Order::Largest: return distances<T, Order::Largest>(s, a, b, y);
    case Order::Other: return distances<T, Order::Other>(s, a, b, y);
  }
}

template <class T>
void cdist_backward(const DistanceShape& s, const T* g, const T* a, const T* b, const T* y, T* dx) {
  const Index size = s.batches * s.n * s.m;
  if (s.k == 0) std::fill_n(dx, size, T(0));
  if (size == 0 || s.k == 0) return;
  switch (order_of(s.p)) {
    case Order::Zero: return void(std::fill_n(dx, size, T(0)));
    case Order::One: return slopes<T, Order::One>(s, g, a, b, y, dx);
    case Order::Two: return slopes<T, Order::Two>(s, g, a, b, y, dx);
    case Order::Largest: return slopes<T, Order::Largest>(s, g, a, b, y, dx);
    case Order::Other: return slopes<T, Order::Other>(s, g, a, b, y, dx);
  }
}

template void cdist(const DistanceShape&, const float*, const float*, float*);
template void cdist(const DistanceShape&, const double*, const double*, double*);
template void cdist_backward(const DistanceShape&, const float*, const float*, const float*, const float*, float*);
template void cdist_backward(const DistanceShape&, const double*, const double*, const double*, const double*, double*);

}  // namespace tg
