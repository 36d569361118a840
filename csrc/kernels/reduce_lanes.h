// Sums and extremes of runs that lie in cache, over lanes of 64 bytes.
//
// A run is summed in four vectors of 16 floats (or 8 doubles) and a tree over their lanes, so a block of 1,024 floats
// has chains of 16 additions: no longer than NumPy's pairwise sum, which adds blocks of 128 in 8 chains. Compilers keep
// the order of float additions as written, so the lanes are written out; a smaller register file splits them.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>

#include "../core/dtype.h"

namespace tg {

template <class T>
struct Wide {
  static constexpr Index lanes = 64 / Index(sizeof(T));
  typedef T Vector __attribute__((vector_size(64)));
  typedef T Unaligned __attribute__((vector_size(64), aligned(sizeof(T)), may_alias));
  static Vector load(const T* p) { return *reinterpret_cast<const Unaligned*>(p); }
  static void store(T* p, Vector v) { *reinterpret_cast<Unaligned*>(p) = v; }
  static Vector fill(T x) { return x - Vector{}; }
};

inline float sum_lanes(Wide<float>::Vector v) {
  typedef float Half __attribute__((vector_size(32)));
  typedef float Quarter __attribute__((vector_size(16)));
  const Half h = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
                 __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
  const Quarter q = __builtin_shufflevector(h, h, 0, 1, 2, 3) + __builtin_shufflevector(h, h, 4, 5, 6, 7);
  return (q[0] + q[2]) + (q[1] + q[3]);
}

inline double sum_lanes(Wide<double>::Vector v) {
  typedef double Half __attribute__((vector_size(32)));
  const Half h = __builtin_shufflevector(v, v, 0, 1, 2, 3) + __builtin_shufflevector(v, v, 4, 5, 6, 7);
  return (h[0] + h[2]) + (h[1] + h[3]);
}

// The last `count` lanes, zero in the others: a tail is read as the end of a full vector.
template <class T>
inline typename Wide<T>::Vector last_lanes(typename Wide<T>::Vector v, Index count) {
  using Bits = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
  typedef Bits Mask __attribute__((vector_size(64)));
  constexpr Index w = Wide<T>::lanes;
  Mask lane;
  if constexpr (w == 16) lane = Mask{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  else lane = Mask{0, 1, 2, 3, 4, 5, 6, 7};
  return lane >= Bits(w - count) ? v : typename Wide<T>::Vector{};
}

// The sum over i < n of a map: `wide(i)` gives lanes i, i+1, ..., `one(i)` a single value.
template <class T, class WideMap, class OneMap>
inline T sum_map(Index n, WideMap wide, OneMap one) {
  constexpr Index w = Wide<T>::lanes;
  typename Wide<T>::Vector a{}, b{}, c{}, d{};
  Index i = 0;
  for (; i + 4 * w <= n; i += 4 * w) {
    a += wide(i);
    b += wide(i + w);
    c += wide(i + 2 * w);
    d += wide(i + 3 * w);
  }
  for (; i + w <= n; i += w) a += wide(i);
  if (n < w) {
    T total = 0;
    for (; i < n; ++i) total += one(i);
    return total;
  }
  if (i < n) d += last_lanes<T>(wide(n - w), n - i);
  return sum_lanes((a + b) + (c + d));
}

template <class T>
inline T sum_run(const T* x, Index n) {
  return sum_map<T>(n, [&](Index i) { return Wide<T>::load(x + i); }, [&](Index i) { return x[i]; });
}

// Sum of (x - center)^2.
template <class T>
inline T sum_squares(const T* x, Index n, T center) {
  const auto c = Wide<T>::fill(center);
  return sum_map<T>(
      n,
      [&](Index i) {
        const auto d = Wide<T>::load(x + i) - c;
        return d * d;
      },
      [&](Index i) { return (x[i] - center) * (x[i] - center); });
}

template <class T>
inline T sum_products(const T* x, const T* y, Index n) {
  return sum_map<T>(
      n, [&](Index i) { return Wide<T>::load(x + i) * Wide<T>::load(y + i); }, [&](Index i) { return x[i] * y[i]; });
}

// Blocks up to this length are summed in T; their sums are added in double.
constexpr Index kSumBlock = 1024;

// Sum of x over a run of any length: blocks in T, blocks added in double.
template <class T>
inline double sum_long(const T* x, Index n) {
  if (n <= kSumBlock) return sum_run(x, n);
  double total = 0;
  for (Index i = 0; i < n; i += kSumBlock) total += sum_run(x + i, n - i < kSumBlock ? n - i : kSumBlock);
  return total;
}

template <class T>
inline double sum_squares_long(const T* x, Index n, T center) {
  if (n <= kSumBlock) return sum_squares(x, n, center);
  double total = 0;
  for (Index i = 0; i < n; i += kSumBlock)
    total += sum_squares(x + i, n - i < kSumBlock ? n - i : kSumBlock, center);
  return total;
}

// The larger of two with NaN winning; a comparison and two blends, which vectorize.
template <class T>
inline T max_nan(T a, T b) {
  return (a > b || a != a) ? a : b;
}

template <class T>
inline T min_nan(T a, T b) {
  return (a < b || a != a) ? a : b;
}

template <Index By, class V, size_t... I>
inline V rotate_lanes(V v, std::index_sequence<I...>) {
  return __builtin_shufflevector(v, v, (int(I + By) % int(sizeof...(I)))...);
}

// One value from all lanes, halving: log2 steps instead of one per lane.
template <class T, class V, class Pick>
inline T fold_lanes(V v, Pick pick) {
  constexpr auto all = std::make_index_sequence<size_t(Wide<T>::lanes)>();
  if constexpr (Wide<T>::lanes >= 16) v = pick(v, rotate_lanes<8>(v, all));
  v = pick(v, rotate_lanes<4>(v, all));
  v = pick(v, rotate_lanes<2>(v, all));
  v = pick(v, rotate_lanes<1>(v, all));
  return v[0];
}

// Largest (Sign > 0) or smallest value of a run of n >= 1; a NaN anywhere gives NaN.
template <int Sign, class T>
inline T extreme_run(const T* x, Index n) {
  constexpr Index w = Wide<T>::lanes;
  using V = typename Wide<T>::Vector;
  const auto pick = [](V p, V q) {
    if constexpr (std::numeric_limits<T>::has_quiet_NaN) {
      if constexpr (Sign > 0) return ((p > q) | (p != p)) ? p : q;
      else return ((p < q) | (p != p)) ? p : q;
    } else {
      if constexpr (Sign > 0) return p > q ? p : q;
      else return p < q ? p : q;
    }
  };
  const auto one = [](T p, T q) { return Sign > 0 ? max_nan(p, q) : min_nan(p, q); };
  T best = x[0];
  Index i = 0;
  if (n >= w) {
    V a = Wide<T>::load(x);
    i = w;
    if (n >= 4 * w) {
      V b = Wide<T>::load(x + w), c = Wide<T>::load(x + 2 * w), d = Wide<T>::load(x + 3 * w);
      for (i = 4 * w; i + 4 * w <= n; i += 4 * w) {
        a = pick(a, Wide<T>::load(x + i));
        b = pick(b, Wide<T>::load(x + i + w));
        c = pick(c, Wide<T>::load(x + i + 2 * w));
        d = pick(d, Wide<T>::load(x + i + 3 * w));
      }
      a = pick(pick(a, b), pick(c, d));
    }
    for (; i + w <= n; i += w) a = pick(a, Wide<T>::load(x + i));
    if (i < n) a = pick(a, Wide<T>::load(x + n - w));  // some values twice, which changes no extreme
    i = n;
    best = fold_lanes<T>(a, pick);
  }
  for (; i < n; ++i) best = one(best, x[i]);
  return best;
}

}  // namespace tg
