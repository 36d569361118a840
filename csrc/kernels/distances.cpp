// y = (sum |a - b|^p)^(1/p) for each row of a and each of b. Rows of b are the lanes of a vector, transposed stretch by
// stretch; a few rows of a, element by element, meet them in registers. Of the gradient rows of a are the lanes, with their g
// and y, and a few columns of b meet them. Sums are taken in stretches of 128 terms, which are then added: that keeps the
// digits of float32.
//
// Ladder, two Emerald Rapids cores, us, floats: two arrays of (1000, 3) with p = 1, differences in NumPy 28005, this with the
// results of 64 rows written panel by panel 430, row by row 340, few columns packed one by one 188; PyTorch 1717.
#include "distances.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "../core/allocator.h"
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
constexpr Index kAround = 16;         // and all that is done around the terms of a sum

Order order_of(double p) {
  return p == 0 ? Order::Zero : p == 1 ? Order::One : p == 2 ? Order::Two : std::isinf(p) ? Order::Largest : Order::Other;
}

Index pieces(Index n, Index size) { return (n + size - 1) / size; }

// to[c] is element c of each of the rows, and 0 in the lanes behind them.
template <class T>
[[gnu::noinline]] void pack(const T* from, Index stride, Index rows, Index columns, Vec<T>* to) {
  constexpr int L = Lanes<T>::count;
  for (Index c = 0; c < columns; c += L) {
    const Index width = std::min<Index>(L, columns - c);
    if (width <= kNarrow) {  // one by one they are there sooner
      T* lines = reinterpret_cast<T*>(to + c);
      for (Index t = 0; t < width; ++t)
        for (Index i = 0; i < L; ++i) lines[t * L + i] = i < rows ? from[i * stride + c + t] : T(0);
      continue;
    }
    Vec<T> square[L];
    for (int i = 0; i < L; ++i) square[i] = i < rows ? lanes::load_first(from + i * stride + c, width) : Vec<T>{};
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
// exp(p log x), with the digits that a rounded logarithm loses.
inline double pow_of(double x, double p) {
  double k, f;
  lane::split(x, k, f);
  const double whole = k * 0.6931471803691238, near = whole + f;
  const double rest = f - (near - whole) + lane::fma_(k, 1.9082149292705877e-10, lane::log_low(f));
  const double high = near + rest, low = rest - (high - near);
  const double e = p * high, y = lane::exp(e) * (1.0 + lane::fma_(p, low, lane::fma_(p, high, -e)));
  const double end = (x == 0.0) == (p > 0.0) ? 0.0 : lane::kInfD;
  const double r = ((x == 0.0) | (x == lane::kInfD)) ? end : y;
  return x != x ? x : r;
}

// x^p of numbers that are not negative: products and a root where that is all.
template <class T>
[[gnu::noinline, gnu::flatten]] void power(Vec<T>* x, Index n, T p) {
  constexpr int L = Lanes<T>::count;
  const T twice = std::fabs(2 * p);
  const bool by_products = twice <= T(16) && twice == std::trunc(twice);
  if (!by_products) {
    T* each = reinterpret_cast<T*>(x);
    for (Index i = 0; i < n * L; ++i) each[i] = pow_of(each[i], p);
    return;
  }
  for (Index i = 0; i < n; ++i) {
    Vec<T> factor = x[i], y = Vec<T>{} + T(1);
    if (int(twice) & 1) {
      T each[L];
      lanes::store(each, x[i]);
      for (int l = 0; l < L; ++l) each[l] = std::sqrt(each[l]);
      y = load(each);
    }
    for (int left = int(twice) / 2; left; left >>= 1, factor *= factor)
      if (left & 1) y *= factor;
    x[i] = p < 0 ? 1 / y : y;
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
template <class T>
using Tile = void (*)(const T* const* rows, const Vec<T>* panel, Index m, T p, Vec<T>* sums);

template <class T, Order order>
void tile(const T* const* rows, const Vec<T>* panel, Index m, T p, Vec<T>* sums) {
  if constexpr (order == Order::Other) {
    Vec<T> powers[kStretch];
    for (int r = 0; r < kTile; ++r) {
      for (Index c = 0; c < m; ++c) powers[c] = size_of_each<T>(rows[r][c] - panel[c]);
      power<T>(powers, m, p);
      sums[r] = Vec<T>{};
      for (Index c = 0; c < m; ++c) sums[r] += powers[c];
    }
  } else {
    Vec<T> sum[kTile];
#pragma GCC unroll 8
    for (int r = 0; r < kTile; ++r) sum[r] = Vec<T>{};
    for (Index c = 0; c < m; ++c) {
      const Vec<T> other = panel[c];
#pragma GCC unroll 8
      for (int r = 0; r < kTile; ++r) sum[r] = with<T, order>(sum[r], rows[r][c] - other);
    }
#pragma GCC unroll 8
    for (int r = 0; r < kTile; ++r) sums[r] = sum[r];
  }
}

template <class T>
Tile<T> tile_of(Order order) {
  switch (order) {
    case Order::Zero: return tile<T, Order::Zero>;
    case Order::One: return tile<T, Order::One>;
    case Order::Two: return tile<T, Order::Two>;
    case Order::Largest: return tile<T, Order::Largest>;
    case Order::Other: break;
  }
  return tile<T, Order::Other>;
}

// What flows through one element of a row, of `weight` through the row.
template <class T, Order order>
inline Vec<T> share_of(Vec<T> weight, Vec<T> far, Vec<T> away) {
  if constexpr (order == Order::Two) return weight * away;
  if constexpr (order == Order::Largest) weight = size_of_each<T>(away) == far ? weight : Vec<T>{};
  return weight * sign_of<T>(away);
}

// Adds, to those of kNarrow columns of a, whose rows are lanes, what flows from k rows of b.
template <class T>
using Slope = void (*)(const Vec<T>* a, const T* const* columns, Index stride, Index k, const Vec<T>* weight, const Vec<T>* far,
                       T p, Vec<T>* sums);

template <class T, Order order>
void slope(const Vec<T>* a, const T* const* columns, Index stride, Index k, const Vec<T>* weight, const Vec<T>* far, T p,
           Vec<T>* sums) {
  if constexpr (order == Order::Other) {
    Vec<T> powers[kStretch];
    for (int c = 0; c < kNarrow; ++c) {
      for (Index j = 0; j < k; ++j) powers[j] = size_of_each<T>(a[c] - columns[c][j * stride]) / far[j];
      power<T>(powers, k, p - 1);
      Vec<T> sum{};
      for (Index j = 0; j < k; ++j) {
        const Vec<T> away = a[c] - columns[c][j * stride];
        sum += weight[j] * (away == 0 ? Vec<T>{} : powers[j]) * sign_of<T>(away);
      }
      sums[c] += sum;
    }
  } else {
    Vec<T> sum[kNarrow];
#pragma GCC unroll 8
    for (int c = 0; c < kNarrow; ++c) sum[c] = Vec<T>{};
    for (Index j = 0; j < k; ++j) {
      const Vec<T> by = weight[j], distance = order == Order::Largest ? far[j] : by;
#pragma GCC unroll 8
      for (int c = 0; c < kNarrow; ++c) sum[c] += share_of<T, order>(by, distance, a[c] - columns[c][j * stride]);
    }
#pragma GCC unroll 8
    for (int c = 0; c < kNarrow; ++c) sums[c] += sum[c];
  }
}

template <class T>
Slope<T> slope_of(Order order) {
  switch (order) {
    case Order::One: return slope<T, Order::One>;
    case Order::Two: return slope<T, Order::Two>;
    case Order::Largest: return slope<T, Order::Largest>;
    default: return slope<T, Order::Other>;
  }
}

}  // namespace

template <class T>
void cdist(const DistanceShape& s, const T* a, const T* b, T* y) {
  constexpr Index L = Lanes<T>::count;
  if (s.pairs() == 0) return;
  if (s.m == 0) return void(std::fill_n(y, s.pairs(), T(0)));
  const Order order = order_of(s.p);
  const Tile<T> tile = tile_of<T>(order);
  const Index down = pieces(s.n, kRows), across = pieces(s.k, kColumns);
  const Index each = std::min(s.n, kRows) * std::min(s.k, kColumns) * (s.m + kAround) * (order == Order::Other ? kPower : 1);
  parallel_for(s.batches * down * across, std::max<Index>(1, kWork / each), [&](Index first, Index last) {
    const Scratch<Vec<T>, kOnStack> panels(pieces(std::min(s.k, kColumns), L) * std::min(s.m, kStretch));
    Vec<T> sums[kTile];
    for (Index task = first; task < last; ++task) {
      const Index batch = task / (down * across), i0 = task / across % down * kRows, j0 = task % across * kColumns;
      const Index below = std::min(s.n, i0 + kRows), right = std::min(s.k, j0 + kColumns);
      const T *of = a + batch * s.n * s.m, *to = b + batch * s.k * s.m;
      T* out = y + batch * s.n * s.k;
      for (Index c = 0; c < s.m; c += kStretch) {
        const Index m = std::min(kStretch, s.m - c);
        for (Index j = j0; j < right; j += L) pack(to + j * s.m + c, s.m, right - j, m, panels.data() + (j - j0) / L * m);
        for (Index i = i0; i < below; i += kTile) {
          const Index count = std::min<Index>(kTile, below - i);
          const T* rows[kTile];
          for (Index r = 0; r < kTile; ++r) rows[r] = of + (i + std::min(r, count - 1)) * s.m + c;
          for (Index j = j0; j < right; j += L) {
            tile(rows, panels.data() + (j - j0) / L * m, m, T(s.p), sums);
            for (Index r = 0; c > 0 && r < count; ++r) {
              const Vec<T> before = lanes::load_first(out + (i + r) * s.k + j, right - j);
              sums[r] = order == Order::Largest ? larger<T>(before, sums[r]) : before + sums[r];
            }
            if (c + m == s.m && order == Order::Two) {
              T* numbers = reinterpret_cast<T*>(sums);
              for (Index l = 0; l < kTile * L; ++l) numbers[l] = std::sqrt(numbers[l]);
            }
            if (c + m == s.m && order == Order::Other) power<T>(sums, count, T(1 / s.p));
            for (Index r = 0; r < count; ++r) lanes::store_first(out + (i + r) * s.k + j, sums[r], right - j);
          }
        }
      }
    }
  });
}

template <class T>
void cdist_backward(const DistanceShape& s, const T* g, const T* a, const T* b, const T* y, T* dx) {
  constexpr Index L = Lanes<T>::count;
  const Index size = s.batches * s.n * s.m;
  const Order order = order_of(s.p);
  if (size == 0 || s.k == 0 || order == Order::Zero) return void(std::fill_n(dx, size, T(0)));
  const Slope<T> slope = slope_of<T>(order);
  const Index down = pieces(s.n, L), across = pieces(s.m, kColumns);
  const Index each = std::min(s.n, L) * std::min(s.m, kColumns) * (s.k + kAround) * (order == Order::Other ? kPower : 1);
  parallel_for(s.batches * down * across, std::max<Index>(1, kWork / each), [&](Index first, Index last) {
    // a few more columns than there are, which nobody reads
    Vec<T> lines[kColumns + kNarrow], totals[kColumns + kNarrow], weight[kStretch], far[kStretch];
    for (Index task = first; task < last; ++task) {
      const Index batch = task / (down * across), i0 = task / across % down * L, c0 = task % across * kColumns;
      const Index rows = std::min(s.n - i0, L), width = std::min(s.m - c0, kColumns), place = batch * s.n + i0;
      const T *to = b + batch * s.k * s.m + c0, *up = g + batch * s.n * s.k, *from = y + batch * s.n * s.k;
      const auto bring = [&](const T* pairs, bool turned, Index j, Index k, Vec<T>* into) {
        if (!turned) return pack(pairs + i0 * s.k + j, s.k, rows, k, into);
        for (Index l = 0; l < k; ++l) into[l] = lanes::load_first(pairs + (j + l) * s.n + i0, rows);
      };
      pack(a + place * s.m + c0, s.m, rows, width, lines);
      std::fill_n(lines + width, kNarrow, Vec<T>{});
      std::fill_n(totals, width + kNarrow, Vec<T>{});
      for (Index j = 0; j < s.k; j += kStretch) {
        const Index k = std::min(kStretch, s.k - j);
        bring(up, s.g_turned, j, k, weight);
        if (order != Order::One) bring(from, s.y_turned, j, k, far);
        for (Index l = 0; l < k && (order == Order::Two || order == Order::Other); ++l) {
          far[l] = far[l] == 0 ? Vec<T>{} + T(1) : far[l];
          if (order == Order::Two) weight[l] /= far[l];
        }
        for (Index c = 0; c < width; c += kNarrow) {
          const T* columns[kNarrow];
          for (Index t = 0; t < kNarrow; ++t) columns[t] = to + j * s.m + std::min(c + t, width - 1);
          slope(lines + c, columns, s.m, k, weight, far, T(s.p), totals + c);
        }
      }
      for (Index c = 0; c < width; c += L) {
        Vec<T> square[L];
        pack(reinterpret_cast<const T*>(totals + c), L, width - c, rows, square);
        for (Index r = 0; r < rows; ++r) lanes::store_first(dx + (place + r) * s.m + c0 + c, square[r], width - c);
      }
    }
  });
}

template void cdist(const DistanceShape&, const float*, const float*, float*);
template void cdist(const DistanceShape&, const double*, const double*, double*);
template void cdist_backward(const DistanceShape&, const float*, const float*, const float*, const float*, float*);
template void cdist_backward(const DistanceShape&, const double*, const double*, const double*, const double*, double*);

}  // namespace tg
