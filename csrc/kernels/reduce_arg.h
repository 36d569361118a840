// Where the largest or smallest value lies along the middle axis of a contiguous (outer, length, inner) array.
#pragma once

#include "../core/dtype.h"

namespace tg {

// First occurrence; a NaN counts as the extreme. values may be null. length >= 1.
template <class T>
void arg_extreme(bool largest, Index outer, Index length, Index inner, const T* x, T* values, int64_t* indices);

}  // namespace tg
