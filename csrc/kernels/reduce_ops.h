// What is reduced: one struct per reduction, with what the walk over memory needs of it.
//
//   C             the type values are computed in (storage is converted in blocks that stay in L1)
//   Acc           what is kept per output
//   run           folds a run of values into one Acc
//   columns       folds up to 8 rows into one Acc per column
//   merge         joins two Accs; the walk calls it in an order that depends on the shape alone
//
// float32 sums are formed in float over at most 1,024 values, then in double; double sums carry their rounding error
// from block to block, so long sums are at least as accurate as a pairwise one. Every reduction is one pass over
// memory: variance merges (count, mean, M2) of blocks that are in L1 while they are read twice (Chan, Golub, LeVeque
// 1983), logsumexp rescales when the maximum grows.
#pragma once

#include <algorithm>
#include <complex>

#if defined(__AVX__)
#include <immintrin.h>
#endif

#include "reduce_lanes.h"
#include "softmax_exp.h"

namespace tg {

struct CompensatedSum {  // high + low, by Neumaier's variant of Kahan's sum
  double high = 0, low = 0;
  void add(double x) {
    const double t = high + x;
    low += std::fabs(high) >= std::fabs(x) ? (high - t) + x : (x - t) + high;
    high = t;
  }
  double value() const { return std::isfinite(high) ? high + low : high; }
};

constexpr Index kRowGroup = 8;  // rows that `columns` takes at once

template <class C>
struct SumOp;

template <>
struct SumOp<float> {
  using C = float;
  using Acc = double;
  static Acc init() { return 0; }
  [[gnu::noinline]] static void run(Acc& a, const C* x, Index n) { a += sum_long(x, n); }  // once for all who add rows
  static void merge(Acc& a, const Acc& b) { a += b; }
  static void columns(Acc* a, const C* const* rows, Index count, Index n) {
    if (count == 8) {
      const C *r0 = rows[0], *r1 = rows[1], *r2 = rows[2], *r3 = rows[3], *r4 = rows[4], *r5 = rows[5], *r6 = rows[6],
              *r7 = rows[7];
      for (Index j = 0; j < n; ++j)
        a[j] += double(((r0[j] + r1[j]) + (r2[j] + r3[j])) + ((r4[j] + r5[j]) + (r6[j] + r7[j])));
      return;
    }
    Index r = 0;  // what is left of the rows, in float as far as it goes: a row alone costs as much as eight
    if (count & 4) {
      const C *r0 = rows[0], *r1 = rows[1], *r2 = rows[2], *r3 = rows[3];
      for (Index j = 0; j < n; ++j) a[j] += double((r0[j] + r1[j]) + (r2[j] + r3[j]));
      r = 4;
    }
    if (count & 2) {
      const C *r0 = rows[r], *r1 = rows[r + 1];
      for (Index j = 0; j < n; ++j) a[j] += double(r0[j] + r1[j]);
      r += 2;
    }
    if (r < count)
      for (Index j = 0; j < n; ++j) a[j] += double(rows[r][j]);
  }
};

template <>
struct SumOp<double> {
  using C = double;
  using Acc = CompensatedSum;
  static Acc init() { return {}; }
  [[gnu::noinline]] static void run(Acc& a, const C* x, Index n) {
    for (Index i = 0; i < n; i += kSumBlock) a.add(sum_run(x + i, n - i < kSumBlock ? n - i : kSumBlock));
  }
  static void merge(Acc& a, const Acc& b) {
    a.add(b.high);
    a.low += b.low;
  }
  static void columns(Acc* a, const C* const* rows, Index count, Index n) {
    if (count == 8) {
      const C *r0 = rows[0], *r1 = rows[1], *r2 = rows[2], *r3 = rows[3], *r4 = rows[4], *r5 = rows[5], *r6 = rows[6],
              *r7 = rows[7];
      for (Index j = 0; j < n; ++j)
        a[j].add(((r0[j] + r1[j]) + (r2[j] + r3[j])) + ((r4[j] + r5[j]) + (r6[j] + r7[j])));
      return;
    }
    for (Index r = 0; r < count; ++r)
      for (Index j = 0; j < n; ++j) a[j].add(rows[r][j]);
  }
};

template <>
struct SumOp<int64_t> {  // wraps as NumPy does, in unsigned arithmetic, where overflow is defined
  using C = int64_t;
  using Acc = uint64_t;
  static Acc init() { return 0; }
  static void run(Acc& a, const C* x, Index n) {
    using W = Wide<uint64_t>;
    const auto* from = reinterpret_cast<const uint64_t*>(x);
    W::Vector t[4] = {};
    Index i = 0;
    for (; i + 4 * W::lanes <= n; i += 4 * W::lanes)
#pragma GCC unroll 4
      for (Index l = 0; l < 4; ++l) t[l] += W::load(from + i + l * W::lanes);
    const W::Vector sum = (t[0] + t[1]) + (t[2] + t[3]);
    for (Index l = 0; l < W::lanes; ++l) a += sum[l];
    for (; i < n; ++i) a += from[i];
  }
  static void merge(Acc& a, const Acc& b) { a += b; }
  static void columns(Acc* a, const C* const* rows, Index count, Index n) {
    Index r = 0;
    for (; r + 4 <= count; r += 4) {
      const C *r0 = rows[r], *r1 = rows[r + 1], *r2 = rows[r + 2], *r3 = rows[r + 3];
      for (Index j = 0; j < n; ++j)
        a[j] += (uint64_t(r0[j]) + uint64_t(r1[j])) + (uint64_t(r2[j]) + uint64_t(r3[j]));
    }
    for (; r < count; ++r)
      for (Index j = 0; j < n; ++j) a[j] += uint64_t(rows[r][j]);
  }
};

template <>
struct SumOp<std::complex<double>> {
  using C = std::complex<double>;
  struct Acc {
    CompensatedSum re, im;
  };
  static Acc init() { return {}; }
  static void run(Acc& a, const C* x, Index n) {
    for (Index i = 0; i < n; ++i) {
      a.re.add(x[i].real());
      a.im.add(x[i].imag());
    }
  }
  static void merge(Acc& a, const Acc& b) {
    a.re.add(b.re.high);
    a.im.add(b.im.high);
    a.re.low += b.re.low;
    a.im.low += b.im.low;
  }
  static void columns(Acc* a, const C* const* rows, Index count, Index n) {
    for (Index r = 0; r < count; ++r)
      for (Index j = 0; j < n; ++j) run(a[j], rows[r] + j, 1);
  }
};

// As many floats as a vector has doubles. GCC takes the general conversion apart into pairs: prod took 1.6 times as long.
inline lanes::Vec<double> load_doubles(const float* x) {
#if defined(__AVX512F__)
  return lanes::Vec<double>(_mm512_maskz_cvtps_pd(0xff, _mm256_loadu_ps(x)));  // GCC 12 warns of the form without a mask
#elif defined(__AVX__)
  return lanes::Vec<double>(_mm256_cvtps_pd(_mm_loadu_ps(x)));
#else
  typedef float Narrow __attribute__((vector_size(lanes::kVectorBytes / 2), aligned(4), may_alias));
  return __builtin_convertvector(*reinterpret_cast<const Narrow*>(x), lanes::Vec<double>);
#endif
}

template <class T>
struct ProdOp {  // floats multiply in double, so partial products overflow only where the double does
  using C = T;
  using Acc = std::conditional_t<std::is_integral_v<T>, uint64_t, std::conditional_t<std::is_same_v<T, float>, double, T>>;
  static Acc init() { return Acc(1); }
  static void run(Acc& a, const C* x, Index n) {
    Index i = 0;
    if constexpr (std::is_same_v<T, float>) {
      using V = Wide<double>::Vector;
      constexpr Index w = Wide<double>::lanes;
      if (n >= 4 * w) {
        V p[4];
        for (V& v : p) v = Wide<double>::fill(1);
        for (; i + 4 * w <= n; i += 4 * w)
          for (int l = 0; l < 4; ++l)
            p[l] *= load_doubles(x + i + w * l);
        a *= fold_lanes<double>((p[0] * p[1]) * (p[2] * p[3]), [](V u, V v) { return u * v; });
      }
    }
    Acc p[4] = {Acc(1), Acc(1), Acc(1), Acc(1)};
    for (; i + 4 <= n; i += 4)
      for (int l = 0; l < 4; ++l) p[l] *= Acc(x[i + l]);
    for (; i < n; ++i) p[0] *= Acc(x[i]);
    a *= (p[0] * p[1]) * (p[2] * p[3]);
  }
  static void merge(Acc& a, const Acc& b) { a *= b; }
  static void columns(Acc* a, const C* const* rows, Index count, Index n) {
    Index start = 0;
    if constexpr (std::is_same_v<T, float>) {
      for (constexpr Index w = Wide<double>::lanes; start + w <= n; start += w) {
        auto product = Wide<double>::load(a + start);
        for (Index r = 0; r < count; ++r) product *= load_doubles(rows[r] + start);
        Wide<double>::store(a + start, product);
      }
    }
    for (Index r = 0; r < count; ++r)
      for (Index j = start; j < n; ++j) a[j] *= Acc(rows[r][j]);
  }
};

template <class T, int Sign>
struct ExtremeOp {
  using C = T;
  using Acc = T;
  static Acc init() {
    using Limits = std::numeric_limits<T>;
    if constexpr (Limits::has_infinity) return Sign > 0 ? -Limits::infinity() : Limits::infinity();
    else return Sign > 0 ? Limits::min() : Limits::max();
  }
  static T pick(T a, T b) { return Sign > 0 ? max_nan(a, b) : min_nan(a, b); }
  static void run(Acc& a, const C* x, Index n) { a = pick(a, extreme_run<Sign>(x, n)); }
  static void merge(Acc& a, const Acc& b) { a = pick(a, b); }
  static void columns(Acc* a, const C* const* rows, Index count, Index n) {
    Index start = 0;
    for (constexpr Index w = Wide<T>::lanes; start + w <= n; start += w) {
      auto best = Wide<T>::load(a + start);
      for (Index r = 0; r < count; ++r) best = extreme_lanes<Sign, T>(best, Wide<T>::load(rows[r] + start));
      Wide<T>::store(a + start, best);
    }
    for (Index r = 0; r < count; ++r)
      for (Index j = start; j < n; ++j) a[j] = pick(a[j], rows[r][j]);
  }
};

// Sums of |x| or x^2: of blocks in T, the blocks in double.
template <class T, int Power>
struct NormOp {
  using C = T;
  using Acc = double;
  static T one(T x) { return Power == 2 ? x * x : std::fabs(x); }
  static typename Wide<T>::Vector wide(typename Wide<T>::Vector v) {
    if constexpr (Power == 2) return v * v;
    else return v < 0 ? -v : v;
  }
  static Acc init() { return 0; }
  static void run(Acc& a, const C* x, Index n) {
    for (Index i = 0; i < n; i += kSumBlock) {
      const T* p = x + i;
      a += double(sum_map<T>(
          n - i < kSumBlock ? n - i : kSumBlock, [&](Index j) { return wide(Wide<T>::load(p + j)); },
          [&](Index j) { return one(p[j]); }));
    }
  }
  static void merge(Acc& a, const Acc& b) { a += b; }
  static void columns(Acc* a, const C* const* rows, Index count, Index n) {
    constexpr Index tile = 64;
    for (Index start = 0; start < n; start += tile) {
      const Index width = n - start < tile ? n - start : tile;
      T sum[tile] = {};
      for (Index r = 0; r < count; ++r)
        for (Index j = 0; j < width; ++j) sum[j] += one(rows[r][start + j]);
      for (Index j = 0; j < width; ++j) a[start + j] += double(sum[j]);
    }
  }
};

// Counted in bytes as long as these can't overflow: a vector of them instead of an eighth.
struct CountOp {
  using C = uint8_t;
  using Acc = int64_t;
  static Acc init() { return 0; }
  static void run(Acc& a, const C* x, Index n) {
    constexpr Index lanes = 32, most = 255 * lanes;
    Index i = 0;
    while (n - i >= lanes) {
      uint8_t count[lanes] = {};
      for (const Index end = i + std::min((n - i) / lanes * lanes, most); i < end; i += lanes)
        for (Index l = 0; l < lanes; ++l) count[l] = uint8_t(count[l] + (x[i + l] != 0));
      for (const uint8_t c : count) a += c;
    }
    for (; i < n; ++i) a += x[i] != 0;
  }
  static void merge(Acc& a, const Acc& b) { a += b; }
  static void columns(Acc* a, const C* const* rows, Index count, Index n) {
    constexpr Index tile = 64;
    for (Index start = 0; start < n; start += tile) {
      const Index width = std::min(tile, n - start);
      uint8_t here[tile] = {};  // of at most kRowGroup rows
      for (Index r = 0; r < count; ++r)
        for (Index j = 0; j < width; ++j) here[j] = uint8_t(here[j] + (rows[r][start + j] != 0));
      for (Index j = 0; j < width; ++j) a[start + j] += here[j];
    }
  }
};

// Values arrive as bytes, zero or not.
struct AnyOp {
  using C = uint8_t;
  using Acc = uint8_t;
  static Acc init() { return 0; }
  static void run(Acc& a, const C* x, Index n) {
    uint8_t t = 0;
    for (Index i = 0; i < n; ++i) t |= x[i];
    a |= t;
  }
  static void merge(Acc& a, const Acc& b) { a |= b; }
  static void columns(Acc* a, const C* const* rows, Index count, Index n) {
    for (Index r = 0; r < count; ++r)
      for (Index j = 0; j < n; ++j) a[j] |= rows[r][j];
  }
};

struct AllOp {
  using C = uint8_t;
  using Acc = uint8_t;
  static Acc init() { return 1; }
  static void run(Acc& a, const C* x, Index n) {
    uint8_t t = 1;
    for (Index i = 0; i < n; ++i) t &= uint8_t(x[i] != 0);
    a &= t;
  }
  static void merge(Acc& a, const Acc& b) { a &= b; }
  static void columns(Acc* a, const C* const* rows, Index count, Index n) {
    for (Index r = 0; r < count; ++r)
      for (Index j = 0; j < n; ++j) a[j] &= uint8_t(rows[r][j] != 0);
  }
};

// Count, mean and sum of squared distances from it.
struct Moments {
  double count = 0, mean = 0, m2 = 0;
  void merge(double n, double m, double s) {
    if (n == 0) return;
    const double total = count + n, d = m - mean;
    mean += d * (n / total);
    m2 += s + d * d * (count * n / total);
    count = total;
  }
};

// Moments of `runs` runs of `n` values, `step` apart, out of the way of those whose sums stay in the range of T.
template <class T>
[[gnu::noinline]] Moments moments_in_double(const T* x, Index n, Index runs = 1, Index step = 0) {
  Moments m;
  m.count = double(runs * n);
  for (Index r = 0; r < runs; ++r)
    for (Index i = 0; i < n; ++i) m.mean += double(x[r * step + i]);
  m.mean /= m.count;
  double sum[8] = {};
  for (Index r = 0; r < runs; ++r)
    for (Index i = 0; i < n; ++i) {
      const double d = double(x[r * step + i]) - m.mean;
      sum[i % 8] += d * d;
    }
  m.m2 = (sum[0] + sum[1]) + (sum[2] + sum[3]) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
  return m;
}

// Whether the squares of `n` distances went beyond the range of float, or vanished where their root does not.
template <class T>
bool beyond(double sum, Index n) {
  return sizeof(T) == 4 && !(sum >= 1e-30 * double(n) && sum < 3e38);
}

// The means and squares of columns, which hold what sums in T have given.
template <class T>
[[gnu::noinline]] void column_moments(const T* const* rows, Index count, Index start, Index n, double* mean, double* squares) {
  bool left = false;
  for (Index j = 0; j < n; ++j) left |= beyond<T>(squares[j], count);
  if (!left) return;
  std::fill_n(mean, n, 0.0);
  std::fill_n(squares, n, 0.0);
  for (Index r = 0; r < count; ++r)
    for (Index j = 0; j < n; ++j) mean[j] += double(rows[r][start + j]);
  for (Index j = 0; j < n; ++j) mean[j] /= double(count);
  for (Index r = 0; r < count; ++r)
    for (Index j = 0; j < n; ++j) {
      const double d = double(rows[r][start + j]) - mean[j];
      squares[j] += d * d;
    }
}

template <class T>
struct VarOp {
  using C = T;
  using Acc = Moments;
  static Acc init() { return {}; }
  static void run(Acc& a, const C* x, Index n) {
    for (Index i = 0; i < n; i += kSumBlock) {
      const Index k = n - i < kSumBlock ? n - i : kSumBlock;
      // Any center near the mean serves: the rest is corrected, so the center's own rounding does not matter.
      const T center = T(sum_run(x + i, k) / T(k));
      const double off = sum_map<T, double>(
                             k, [&](Index j) { return Wide<T>::load(x + i + j) - Wide<T>::fill(center); },
                             [&](Index j) { return x[i + j] - center; }) /
                         double(k);
      const double s = sum_squares(x + i, k, center);
      if (beyond<T>(s, k)) {
        merge(a, moments_in_double(x + i, k));
        continue;
      }
      // Squares that vanish in T may leave less than what is taken off; NaN, as the first argument, stays.
      a.merge(double(k), double(center) + off, std::max(s - double(k) * off * off, 0.0));
    }
  }
  static void merge(Acc& a, const Acc& b) { a.merge(b.count, b.mean, b.m2); }
  static void columns(Acc* a, const C* const* rows, Index count, Index n) {
    using W = Wide<T>;
    using V = typename W::Vector;
    const T inverse = T(1) / T(count);
    constexpr Index tile = 64;
    for (Index start = 0, width; start < n; start += width) {
      width = n - start < tile ? n - start : tile;
      while (width > 1 && a[start + width - 1].count != a[start].count) --width;  // the end of a stack is one row shorter
      T center[tile], off[tile], q[tile];
      Index at = 0;
      for (; at + W::lanes <= width; at += W::lanes) {
        V row[kRowGroup], sum{}, o{}, squares{};
        for (Index r = 0; r < count; ++r) sum += row[r] = W::load(rows[r] + start + at);
        const V c = sum * inverse;
        for (Index r = 0; r < count; ++r) {
          const V d = row[r] - c;
          o += d;
          squares += d * d;
        }
        W::store(center + at, c);
        W::store(off + at, o);
        W::store(q + at, squares);
      }
      for (Index j = at; j < width; ++j) {
        center[j] = off[j] = q[j] = 0;
        for (Index r = 0; r < count; ++r) center[j] += rows[r][start + j];
        center[j] *= inverse;
        for (Index r = 0; r < count; ++r) {
          const T d = rows[r][start + j] - center[j];
          off[j] += d;
          q[j] += d * d;
        }
      }
      // Moments::merge with the factors that all columns share taken out: they have the same count.
      const double rows_here = double(count), before = a[start].count, total = before + rows_here;
      const double part = rows_here / total, cross = before * part;
      double mean[tile], squares[tile];
      for (Index j = 0; j < width; ++j) {
        const double shift = double(off[j] * inverse);
        mean[j] = double(center[j]) + shift;
        squares[j] = std::max(double(q[j]) - rows_here * shift * shift, 0.0);
      }
      column_moments(rows, count, start, width, mean, squares);
      for (Index j = 0; j < width; ++j) {
        Moments& m = a[start + j];
        const double d = mean[j] - m.mean;
        m.mean += d * part;
        m.m2 += squares[j] + d * d * cross;
        m.count = total;
      }
    }
  }
};

// sum of exp(x - max), with the largest value so far.
struct ScaledExpSum {
  double max = -std::numeric_limits<double>::infinity(), sum = 0;
  void merge(double m, double s) {
    const double infinity = std::numeric_limits<double>::infinity();
    if (m == -infinity) return;
    if (max == m) {
      sum += s;
    } else if (max > m) {
      sum += s * std::exp(m - max);
    } else {  // also where either is NaN, which then stays
      sum = max == -infinity ? s : sum * std::exp(max - m) + s;
      max = max != max ? max : m;
    }
  }
  double value() const {
    if (std::isnan(max) || std::isinf(max)) return max;
    return max + std::log(sum);
  }
};

template <class T>
struct LogSumExpOp {
  using C = T;
  using Acc = ScaledExpSum;
  static Acc init() { return {}; }
  static void run(Acc& a, const C* x, Index n) {
    for (Index i = 0; i < n; i += kSumBlock) {
      const Index k = n - i < kSumBlock ? n - i : kSumBlock;
      const T m = extreme_run<1>(x + i, k);
      if (!std::isfinite(m)) {
        a.merge(double(m), 1);
        continue;
      }
      a.merge(double(m), double(sum_exp(x + i, k, m)));
    }
  }
  static void merge(Acc& a, const Acc& b) { a.merge(b.max, b.sum); }
  static void columns(Acc* a, const C* const* rows, Index count, Index n) {
    using W = Wide<T>;
    constexpr Index w = W::lanes;
    for (Index start = 0; start < n; start += w) {
      const Index width = n - start < w ? n - start : w;
      alignas(64) T top[w], shift[w], rescale[w], pad[w] = {};
      for (Index j = 0; j < w; ++j) top[j] = j < width ? T(a[start + j].max) : T(0);
      for (Index r = 0; r < count; ++r)
        for (Index j = 0; j < width; ++j) top[j] = max_nan(top[j], rows[r][start + j]);
      // Nothing shifts an infinite maximum: -inf everywhere so far, or a result that is already infinite or NaN.
      for (Index j = 0; j < w; ++j) shift[j] = std::isfinite(top[j]) ? top[j] : T(0);
      const auto s = W::load(shift);
      typename W::Vector sum{};
      for (Index r = 0; r < count; ++r) {
        const T* row = rows[r] + start;
        if (width < w) {
          for (Index j = 0; j < width; ++j) pad[j] = row[j];
          row = pad;
        }
        sum += exp_wide(W::load(row) - s);
      }
      for (Index j = 0; j < width; ++j) pad[j] = T(a[start + j].max);
      W::store(rescale, exp_wide(W::load(pad) - s));
      for (Index j = 0; j < width; ++j) {
        a[start + j].sum = a[start + j].sum * double(rescale[j]) + double(sum[j]);
        a[start + j].max = double(top[j]);
      }
    }
  }
};

// What an element costs, in additions: how many of them are worth a task of their own.
template <class Op>
constexpr Index work_of = 1;
template <class T>
constexpr Index work_of<LogSumExpOp<T>> = 8;

}  // namespace tg
