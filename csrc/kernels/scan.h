// Running sums and products along the middle axis of a contiguous (outer, length, inner) array.
#pragma once

#include "../core/dtype.h"

namespace tg {

enum class Scan { sum, product };

// T: float (accumulates in double), double, int64_t (wraps).
template <class T>
void scan_lines(Scan kind, Index outer, Index length, Index inner, const T* x, T* y);

// For each element of `lines` lines of n the product of all others. T: float (multiplies in double), double.
template <class T>
void products_of_others(Index lines, Index n, const T* x, T* y);

}  // namespace tg
