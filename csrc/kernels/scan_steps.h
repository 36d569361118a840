// Running extremes, running sums of exponentials and linear recurrences along the middle axis of contiguous
// (outer, length, inner) arrays: steps that are taken one after another.
#pragma once

#include "../core/dtype.h"

namespace tg {

// values[i] is the largest (or smallest) element so far and indices[i] where it was, the last of equals; NaN wins and
// stays. T: float, double, int64_t.
template <class T>
void scan_extreme(bool largest, Index outer, Index length, Index inner, const T* x, T* values, int64_t* indices);

// log(sum_(k<=i) exp(x_k)). T: float (computed in double), double.
template <class T>
void scan_logsumexp(Index outer, Index length, Index inner, const T* x, T* y);

// h_i = a_i h_(i-1) + b_i from h_(-1) = 0. T: float (computed in double), double.
template <class T>
void scan_recurrence(Index outer, Index length, Index inner, const T* a, const T* b, T* h);

}  // namespace tg
