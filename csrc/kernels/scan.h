// Running sums and products along the middle axis of a contiguous (outer, length, inner) array.
#pragma once

#include "../core/dtype.h"

namespace tg {

enum class Scan { sum, product };

// T: float (accumulates in double), double, int64_t (wraps).
template <class T>
void scan_lines(Scan kind, Index outer, Index length, Index inner, const T* x, T* y);

}  // namespace tg
