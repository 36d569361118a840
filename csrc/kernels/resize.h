// Interpolation: along each axis an output is a weighted sum of a few inputs, which a table names.
#pragma once

#include "../core/dtype.h"

namespace tg {

// index and weight are (taps, outputs); a weight of zero counts for nothing, whatever it would multiply.
template <class T>
struct AxisTable {
  Index size, outputs, taps;
  const int32_t* index;
  const T* weight;
};

// y (outer, outputs, inner) = x (outer, size, inner) along the middle axis.
template <class T>
void resize_axis(Index outer, Index inner, const AxisTable<T>& table, const T* x, T* y);

// y (outer, rows.outputs, columns.outputs) = x (outer, rows.size, columns.size) along both axes.
template <class T>
void resize_plane(Index outer, const AxisTable<T>& rows, const AxisTable<T>& columns, const T* x, T* y);

}  // namespace tg
