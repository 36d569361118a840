// Pieces that the normalizations share: statistics of a run, and gradients of weights summed over rows.
#pragma once

#include <algorithm>
#include <memory>
#include <cmath>
#include <vector>

#include "../core/parallel.h"
#include "reduce_ops.h"

namespace tg {

// Asks for a run that is needed soon: short runs that lie apart leave the hardware's prefetcher behind (5 to 10 % of
// batch norm). Asking for what will be written gains nothing.
template <class T>
inline void fetch_run(const T* x, Index n) {
  for (Index i = 0; i < n; i += 64 / Index(sizeof(T))) __builtin_prefetch(x + i);
}

// Two sums over the same positions, in T; taken over at most about kSumBlock of them before they are read in double.
template <class T>
class PairSums {
 public:
  using V = typename Wide<T>::Vector;

  // wide(i, u, v) gives the terms of lanes i, i+1, ..., one(i, u, v) those of a single position.
  template <class WideTerms, class OneTerm>
  void run(Index n, WideTerms wide, OneTerm one) {
    constexpr Index w = Wide<T>::lanes;
    Index i = 0;
    V u, v;
    for (; i + 4 * w <= n; i += 4 * w) {
      wide(i, u, v);
      a_ += u, b_ += v;
      wide(i + w, u, v);
      c_ += u, d_ += v;
      wide(i + 2 * w, u, v);
      e_ += u, f_ += v;
      wide(i + 3 * w, u, v);
      g_ += u, h_ += v;
    }
    if (i + 2 * w <= n) {
      wide(i, u, v);
      a_ += u, b_ += v;
      wide(i + w, u, v);
      c_ += u, d_ += v;
      i += 2 * w;
    }
    if (i + w <= n) {
      wide(i, u, v);
      e_ += u, f_ += v;
      i += w;
    }
    if (i == n) return;
    if (n >= w) {
      wide(n - w, u, v);
      g_ += last_lanes<T>(u, n - i), h_ += last_lanes<T>(v, n - i);
      return;
    }
    T p, q;
    for (; i < n; ++i) {
      one(i, p, q);
      first_ += p, second_ += q;
    }
  }
  double first() const { return double(sum_lanes((a_ + c_) + (e_ + g_)) + first_); }
  double second() const { return double(sum_lanes((b_ + d_) + (f_ + h_)) + second_); }

 private:
  V a_{}, b_{}, c_{}, d_{}, e_{}, f_{}, g_{}, h_{};
  T first_ = 0, second_ = 0;
};

// Adds x - center and its square.
template <class T>
inline void add_distances(PairSums<T>& sums, const T* x, Index n, T center) {
  const auto c = Wide<T>::fill(center);
  sums.run(
      n,
      [&](Index i, auto& u, auto& v) {
        u = Wide<T>::load(x + i) - c;
        v = u * u;
      },
      [&](Index i, T& u, T& v) {
        u = x[i] - center;
        v = u * u;
      });
}

// Merges `runs` runs of `n` values into the moments. sums(center) gives the PairSums of their distances from a center.
// Squares lose less than a bit as long as the center is within a deviation of the mean, so one reading does where the guess
// was good (Chan, Golub, LeVeque 1983); else the mean it found is the center of a second. Values whose squares leave the
// range of float, from 1e19 on, are read again in double.
template <class T, class Sums>
inline void merge_block(Moments& m, const T* x, Index n, Index runs, Index step, T guess, Sums sums) {
  const Index count = runs * n;
  for (bool again = false;; again = true) {
    const PairSums<T> s = sums(guess);
    const double d = s.first(), off = d / double(count), spread = s.second() - d * off;
    if (sizeof(T) == 4 && !std::isfinite(spread)) {
      const Moments wide = moments_in_double(x, n, runs, step);
      return m.merge(wide.count, wide.mean, wide.m2);
    }
    if (d * off <= spread || again) return m.merge(double(count), double(guess) + off, spread);
    guess = T(double(guess) + off);
  }
}

// A first guess of the mean.
template <class T>
inline T near_mean(const T* x, Index n) {
  return n < Wide<T>::lanes ? x[0] : sum_lanes(Wide<T>::load(x)) / T(Wide<T>::lanes);
}

// Mean and biased variance of a run.
template <class T>
inline Moments moments_of(const T* x, Index n) {
  Moments m;
  for (Index i = 0; i < n; i += kSumBlock) {
    const Index k = std::min(kSumBlock, n - i);
    merge_block(m, x + i, k, 1, 0, i ? T(m.mean) : near_mean(x, k), [&](T center) {
      PairSums<T> sums;
      add_distances(sums, x + i, k, center);
      return sums;
    });
  }
  return m;
}

// a[j], b[j] += terms of a row, for many rows: in T within 32 rows, then in double.
template <class T>
class RowSums {
 public:
  explicit RowSums(Index n) : n_(n), part_(size_t(2 * n), T(0)), total_(size_t(2 * n), 0.0) {}
  T* first() { return part_.data(); }
  T* second() { return part_.data() + n_; }
  void end_row() {
    if (++rows_ % 32 == 0) flush();
  }
  void flush() {
    for (Index j = 0; j < 2 * n_; ++j) {
      total_[size_t(j)] += double(part_[size_t(j)]);
      part_[size_t(j)] = 0;
    }
  }
  const double* total() const { return total_.data(); }

 private:
  Index n_, rows_ = 0;
  std::vector<T> part_;
  std::vector<double> total_;
};

// Sums over rows, in pieces that depend on the shape alone and are added in order. Of one piece the rows come in order, from
// one thread.
template <class T>
class SumsOverRows {
 public:
  SumsOverRows(Index rows, Index n)
      : rows_(rows), n_(n), per_piece_(rows_in_order(rows, n)), open_(size_t((rows + per_piece_ - 1) / per_piece_)),
        parts_(open_.size() * size_t(2 * n)) {}

  static Index rows_in_order(Index rows, Index n) {
    constexpr Index kPiece = 16384;  // elements: 10 us, so that (512, 128) is shared among threads
    return std::max({Index(32), (rows + 255) / 256, kPiece / std::max<Index>(1, n)});
  }

  // row(r, first, second) adds to the two sums.
  template <class Row>
  void run(Index first, Index last, Row row) {
    for (Index r = first; r < last;) {
      const Index p = r / per_piece_, end = std::min(rows_, (p + 1) * per_piece_);
      std::unique_ptr<RowSums<T>>& sums = open_[size_t(p)];
      if (!sums) sums = std::make_unique<RowSums<T>>(n_);
      for (const Index stop = std::min(last, end); r < stop; ++r) {
        row(r, sums->first(), sums->second());
        sums->end_row();
      }
      if (r < end) continue;
      sums->flush();
      std::copy(sums->total(), sums->total() + 2 * n_, &parts_[size_t(p * 2 * n_)]);
      sums.reset();
    }
  }

  // Either may be null.
  void end(T* first, T* second) {
    const Index pieces = Index(open_.size());
    for (Index p = 1; p < pieces; ++p)
      for (Index j = 0; j < 2 * n_; ++j) parts_[size_t(j)] += parts_[size_t(p * 2 * n_ + j)];
    for (Index j = 0; j < n_; ++j) {
      if (first) first[j] = pieces ? T(parts_[size_t(j)]) : T(0);
      if (second) second[j] = pieces ? T(parts_[size_t(n_ + j)]) : T(0);
    }
  }

 private:
  Index rows_, n_, per_piece_;
  std::vector<std::unique_ptr<RowSums<T>>> open_;  // of pieces that have begun
  std::vector<double> parts_;
};

// first[j] and second[j] (either may be null) receive the sums over all rows.
template <class T, class Row>
void sum_over_rows(Index rows, Index n, T* first, T* second, Row row) {
  SumsOverRows<T> sums(rows, n);
  parallel_for(rows, SumsOverRows<T>::rows_in_order(rows, n), [&](Index begin, Index end) { sums.run(begin, end, row); });
  sums.end(first, second);
}

}  // namespace tg
