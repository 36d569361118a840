// Sums and extremes of runs that lie in cache, over vectors as wide as the machine's.
//
// Not wider: compilers split additions of a wider vector, but take its comparisons apart lane by lane (amax of AVX2 was
// 30 times slower so). A run is summed in up to 8 vectors and a tree over their lanes, so a block of 1,024 floats (512
// without AVX) has chains of 16 additions: about those of NumPy's pairwise sum, which adds blocks of 128 in 8 chains.
// Compilers keep the order of float additions as written, so the lanes are written out.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>

#if defined(__AVX__)
#include <immintrin.h>
#endif

#include "../core/lanes.h"

namespace tg {

template <class T>
struct Wide {
  static constexpr Index lanes = lanes::Lanes<T>::count;
  using Vector = lanes::Vec<T>;
  using Mask = typename lanes::Lanes<T>::Int;
  static Vector load(const T* p) { return lanes::load(p); }
  static void store(T* p, Vector v) { lanes::store(p, v); }
  static Vector fill(T x) { return x - Vector{}; }
};

template <Index By, class V, size_t... I>
inline V rotate_lanes(V v, std::index_sequence<I...>) {
#if defined(__has_builtin) && __has_builtin(__builtin_shufflevector)
  return __builtin_shufflevector(v, v, (int(I + By) % int(sizeof...(I)))...);
#else
  return V{v[(I + By) % sizeof...(I)]...};
#endif
}

// One value from all lanes, halving: log2 steps instead of one per lane.
template <class T, class V, class Pick>
inline T fold_lanes(V v, Pick pick) {
  constexpr Index w = Wide<T>::lanes;
  constexpr auto all = std::make_index_sequence<size_t(w)>();
  if constexpr (w >= 16) v = pick(v, rotate_lanes<8>(v, all));
  if constexpr (w >= 8) v = pick(v, rotate_lanes<4>(v, all));
  if constexpr (w >= 4) v = pick(v, rotate_lanes<2>(v, all));
  v = pick(v, rotate_lanes<1>(v, all));
  return v[0];
}

template <class T, class V, size_t... I>
inline T sum_upper_and_lower(V v, std::index_sequence<I...>) {
  typedef T Half __attribute__((vector_size(sizeof(V) / 2)));
#if defined(__has_builtin) && __has_builtin(__builtin_shufflevector)
  const Half h = Half(__builtin_shufflevector(v, v, int(I)...)) +
                 Half(__builtin_shufflevector(v, v, int(I + sizeof...(I))...));
#else
  const Half h = Half{v[I]...} + Half{v[I + sizeof...(I)]...};
#endif
  if constexpr (sizeof...(I) == 1) return h[0];
  else if constexpr (sizeof...(I) == 2) return h[0] + h[1];
  else return sum_upper_and_lower<T>(h, std::make_index_sequence<sizeof...(I) / 2>());
}

// The sum of all lanes, upper half onto lower.
template <class V>
inline auto sum_lanes(V v) {
  using T = std::decay_t<decltype(v[0])>;
  return sum_upper_and_lower<T>(v, std::make_index_sequence<sizeof(V) / sizeof(T) / 2>());
}

template <class T, size_t... I>
inline typename Wide<T>::Mask lane_numbers(std::index_sequence<I...>) {
  return typename Wide<T>::Mask{typename lanes::Lanes<T>::Word(I)...};
}

// The last `count` lanes, zero in the others: a tail is read as the end of a full vector.
template <class T>
inline typename Wide<T>::Vector last_lanes(typename Wide<T>::Vector v, Index count) {
  constexpr Index w = Wide<T>::lanes;
  const auto lane = lane_numbers<T>(std::make_index_sequence<size_t(w)>());
  return lane >= typename lanes::Lanes<T>::Word(w - count) ? v : typename Wide<T>::Vector{};
}

// y[i] = f(i) for a run, in vectors; the last one overlaps the one before. y may be what f reads, at i.
template <class T, class WideMap, class OneMap>
inline void fill_run(T* y, Index n, WideMap wide, OneMap one) {
  constexpr Index w = Wide<T>::lanes;
  if (n < w) {
    for (Index i = 0; i < n; ++i) y[i] = one(i);
    return;
  }
  typename Wide<T>::Vector end{};
  if (n % w) end = wide(n - w);  // before what it reads is written over
  for (Index i = 0; i + w <= n; i += w) Wide<T>::store(y + i, wide(i));
  if (n % w) Wide<T>::store(y + n - w, end);
}

// v as vectors of R: itself, or the sum of its halves in double.
template <class R, class V>
inline auto widened(V v) {
  using T = std::decay_t<decltype(v[0])>;
  if constexpr (std::is_same_v<R, T>) {
    return v;
  } else {
    typedef T Half __attribute__((vector_size(sizeof(V) / 2)));
    Half half[2];
    std::memcpy(half, &v, sizeof(V));
    return __builtin_convertvector(half[0], lanes::Vec<R>) + __builtin_convertvector(half[1], lanes::Vec<R>);
  }
}

// The sums in each lane over i < n of a map of which `wide(i)` gives lanes i, i+1, ...; n is a vector's lanes at least. The
// chains are summed in T, and joined in R: with R double what is left of the error is that of chains of a few terms.
template <class T, class R = T, class WideMap>
inline auto sums_of_lanes(Index n, WideMap wide) {
  constexpr Index w = Wide<T>::lanes, chains = lanes::kVectorBytes == 64 ? 4 : 8;
  Index i = 0;
  if (n < chains * w) {  // short rows come in great numbers: no tree for them
    typename Wide<T>::Vector total{};
    for (; i + w <= n; i += w) total += wide(i);
    if (i < n) total += last_lanes<T>(wide(n - w), n - i);
    return lanes::Vec<R>(widened<R>(total));
  }
  typename Wide<T>::Vector a[chains] = {};
  for (; i + chains * w <= n; i += chains * w)
    for (Index c = 0; c < chains; ++c) a[c] += wide(i + c * w);
  for (; i + w <= n; i += w) a[0] += wide(i);
  if (i < n) a[chains - 1] += last_lanes<T>(wide(n - w), n - i);
  lanes::Vec<R> sum[chains];
  for (Index c = 0; c < chains; ++c) sum[c] = widened<R>(a[c]);
  for (Index half = chains / 2; half; half /= 2)
    for (Index c = 0; c < half; ++c) sum[c] += sum[c + half];
  return sum[0];
}

// The sum over i < n; `one(i)` gives a single value.
template <class T, class R = T, class WideMap, class OneMap>
inline R sum_map(Index n, WideMap wide, OneMap one) {
  if (n >= Wide<T>::lanes) return sum_lanes(sums_of_lanes<T, R>(n, wide));
  R total = 0;
  for (Index i = 0; i < n; ++i) total += one(i);
  return total;
}

template <class T>
inline T sum_run(const T* x, Index n) {
  return sum_map<T>(n, [&](Index i) { return Wide<T>::load(x + i); }, [&](Index i) { return x[i]; });
}

// Sum of (x - center)^2.
template <class T>
inline double sum_squares(const T* x, Index n, T center) {
  const auto c = Wide<T>::fill(center);
  return sum_map<T, double>(
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

// Blocks up to this length are summed in T; their sums are added in double. Narrow vectors take shorter ones: with 1,024
// their chains are twice as long as those of AVX2, and equal errors of equal blocks add up in a long sum.
constexpr Index kSumBlock = lanes::kVectorBytes == 16 ? 512 : 1024;

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

// Lane by lane the larger (Sign > 0) or smaller, with NaN winning. Of floats by the processor's own, which gives q where
// either is NaN: compilers make a second comparison and a choice of it.
template <int Sign, class T>
inline typename Wide<T>::Vector extreme_lanes(typename Wide<T>::Vector p, typename Wide<T>::Vector q) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<T, float>) {
    const __mmask16 number = _mm512_cmp_ps_mask(__m512(p), __m512(p), _CMP_ORD_Q);
    if constexpr (Sign > 0) return typename Wide<T>::Vector(_mm512_mask_max_ps(__m512(p), number, __m512(p), __m512(q)));
    else return typename Wide<T>::Vector(_mm512_mask_min_ps(__m512(p), number, __m512(p), __m512(q)));
  }
#elif defined(__AVX__)
  if constexpr (std::is_same_v<T, float>) {
    const __m256 most = Sign > 0 ? _mm256_max_ps(__m256(p), __m256(q)) : _mm256_min_ps(__m256(p), __m256(q));
    return typename Wide<T>::Vector(_mm256_blendv_ps(most, __m256(p), _mm256_cmp_ps(__m256(p), __m256(p), _CMP_UNORD_Q)));
  }
#endif
  if constexpr (std::numeric_limits<T>::has_quiet_NaN) {
    if constexpr (Sign > 0) return ((p > q) | (p != p)) ? p : q;
    else return ((p < q) | (p != p)) ? p : q;
  } else {
    if constexpr (Sign > 0) return p > q ? p : q;
    else return p < q ? p : q;
  }
}

// Largest (Sign > 0) or smallest value of a run of n >= 1; a NaN anywhere gives NaN.
template <int Sign, class T>
inline T extreme_run(const T* x, Index n) {
  constexpr Index w = Wide<T>::lanes;
  using V = typename Wide<T>::Vector;
  const auto pick = extreme_lanes<Sign, T>;
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
