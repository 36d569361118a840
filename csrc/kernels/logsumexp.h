// Logsumexp over the middle axis of a contiguous (outer, length, inner) array: of columns, or of short rows.
#pragma once

#include "reduce_plan.h"

namespace tg {

// Whether `plan` is that of such an array of items of `item` bytes, short enough that one thread takes a column.
bool is_plain_axis(const ReducePlan& plan, Index item);

// Whether it is that of short rows, one behind the other, which are turned.
bool are_turned_rows(const ReducePlan& plan, Index item);

template <class T>
void logsumexp_columns(const ReducePlan& plan, const T* x, T* y);

}  // namespace tg
