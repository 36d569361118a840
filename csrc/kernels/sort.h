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

enum class Middle { kth, median, nanmedian };

// The element at place k (from 0) of each line in order, or the lower of the middle ones: `median` is the first NaN
// where there is one, `nanmedian` is that of the numbers. Outputs are (outer, inner). length >= 1.
template <class T>
void select_lines(const LineShape& s, Middle which, Index k, const T* x, T* values, int64_t* indices);

}  // namespace tg
