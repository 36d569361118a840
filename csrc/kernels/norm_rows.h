// Pieces that the normalizations share: statistics of a run, and gradients of weights summed over rows.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "../core/parallel.h"
#include "reduce_ops.h"

namespace tg {

// Mean and biased variance of a run, which is read twice from cache. The center is the mean rounded to T; what the
// rounding leaves is taken out of the squares again, so data far from zero keeps its digits.
template <class T>
inline Moments moments_of(const T* x, Index n) {
  Moments m;
  VarOp<T>::run(m, x, n);
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

// Runs row(r, sums) for all rows in pieces that depend on the shape alone, and adds the pieces in order:
// first[j] and second[j] (either may be null) receive the sums over all rows.
template <class T, class Row>
void sum_over_rows(Index rows, Index n, T* first, T* second, Row row) {
  const Index per_piece = std::max<Index>(32, (rows + 255) / 256 > 65536 / std::max<Index>(1, n)
                                                  ? (rows + 255) / 256
                                                  : 65536 / std::max<Index>(1, n));
  const Index pieces = (rows + per_piece - 1) / per_piece;
  std::vector<double> parts(size_t(pieces * 2 * n));
  parallel_for(pieces, 1, [&](Index begin, Index end) {
    for (Index p = begin; p < end; ++p) {
      RowSums<T> sums(n);
      for (Index r = p * per_piece; r < std::min(rows, (p + 1) * per_piece); ++r) {
        row(r, sums.first(), sums.second());
        sums.end_row();
      }
      sums.flush();
      std::copy(sums.total(), sums.total() + 2 * n, &parts[size_t(p * 2 * n)]);
    }
  });
  for (Index p = 1; p < pieces; ++p)
    for (Index j = 0; j < 2 * n; ++j) parts[size_t(j)] += parts[size_t(p * 2 * n + j)];
  for (Index j = 0; j < n; ++j) {
    if (first) first[j] = pieces ? T(parts[size_t(j)]) : T(0);
    if (second) second[j] = pieces ? T(parts[size_t(n + j)]) : T(0);
  }
}

}  // namespace tg
