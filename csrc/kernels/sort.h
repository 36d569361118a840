// Sorting and selection along the middle axis of a contiguous (outer, length, inner) array.
#pragma once

#include "../core/dtype.h"

namespace tg {

struct LineShape {
  Index outer, length, inner;
};

// Stable; NaN counts as larger than every number. indices may be null.
template <class T>
void sort_lines(const LineShape& s, bool descending, const T* x, T* values, int64_t* indices);

// The k largest (or smallest) of each line, best first; equal values keep their order. Outputs are (outer, k, inner).
template <class T>
void topk_lines(const LineShape& s, Index k, bool largest, const T* x, T* values, int64_t* indices);

}  // namespace tg
