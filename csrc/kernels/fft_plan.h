// What transforms of one length need to know: roots of unity, and factors.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "../core/dtype.h"

namespace tg {

constexpr int kFftPrime = 47;  // the largest factor with a pass of its own

template <class T>
struct FftPlan {
  Index n, step;             // complex values; root number step * k is exp(-2 pi i k / n)
  std::vector<T> roots;      // n * step complex numbers
  std::vector<int> factors;  // of n; empty where there is `inner`
  // For a line that may go alone, else 0 and empty: n = rows * columns; `factors` are those of columns, and from number `split`
  // on of rows. Roots l * q, for each stretch of `lanes` q below columns, and each l below rows: real parts, imaginary parts.
  Index rows = 0;
  std::size_t split = 0;
  std::vector<T> across;
  // For a length with large prime factors, else null.
  std::shared_ptr<const FftPlan> inner;
  std::vector<T> chirp, spectrum;  // complex numbers, n and inner->n of them

  Index room() const { return 2 * (inner ? inner->n : n + 1); }                 // vectors of a buffer
  Index room_alone() const { return 2 * (rows ? std::max(rows, n / rows) : 0); }
};

// The plans used last are kept. Takes a lock. `lanes`: elements of a vector.
template <class T>
std::shared_ptr<const FftPlan<T>> find_fft_plan(Index n, Index step, Index lanes);

}  // namespace tg
