// Where values belong in an order, which there are, how many fall into equal intervals.
#pragma once

#include "../core/dtype.h"

namespace tg {

// y[i] = how many of the row's sorted bounds are before x[i] (`right`: or equal). One row of bounds for all, or one for
// each stretch of `row` values. NaN counts as larger than every number.
template <class T>
void search_sorted(Index n, Index row, const T* x, Index bounds_length, bool one_row, const T* bounds, bool right, int64_t* y);

// Of n sorted values and where each was: the distinct ones, where each element is among them (may be null) and how often
// each occurs. Returns how many. NaN differs from NaN.
template <class T>
Index count_distinct(Index n, const T* sorted, const int64_t* at, T* values, int64_t* inverse, int64_t* counts);

// counts[b] of the values in [low, high], in `bins` intervals of (x - low) * bins / (high - low) rounded down.
template <class T>
void count_in_bins(Index n, const T* x, Index bins, T low, T high, int64_t* counts);

}  // namespace tg
