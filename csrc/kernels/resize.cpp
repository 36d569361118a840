// y[i, j] = sum over s, t of row_weight[s, i] column_weight[t, j] x[row_index[s, i], column_index[t, j]].
//
// One pass over memory: the rows that an output row is made of are summed into a line that stays in L1, from which the
// columns are taken. Output rows are shared out among threads.
#include "resize.h"

#include <algorithm>

#include "../core/allocator.h"
#include "../core/parallel.h"

namespace tg {
namespace {

constexpr Index kPiece = 16384;  // outputs per task

// The weighted sum of lines; the line itself where it is one of weight one.
template <class T>
const T* blend_lines(const AxisTable<T>& table, Index at, const T* x, Index n, Index apart, T* line) {
  if (table.taps == 1 && table.weight[at] == T(1)) return x + table.index[at] * apart;
  bool first = true;
  for (Index t = 0; t < table.taps; ++t) {
    const T w = table.weight[t * table.outputs + at];
    if (w == T(0)) continue;
    const T* from = x + table.index[t * table.outputs + at] * apart;
    if (first)
      for (Index j = 0; j < n; ++j) line[j] = w * from[j];
    else
      for (Index j = 0; j < n; ++j) line[j] += w * from[j];
    first = false;
  }
  if (first) std::fill(line, line + n, T(0));
  return line;
}

// Columns from one line; up to four taps at once, so that an output is written once.
template <class T, int Taps>
void take_columns(const AxisTable<T>& c, Index first, const T* line, T* y, bool add) {
  const Index n = c.outputs;
  const int32_t* index = c.index + first * n;
  const T* weight = c.weight + first * n;
  for (Index j = 0; j < n; ++j) {
    T sum = add ? y[j] : T(0);
    for (int t = 0; t < Taps; ++t) {
      const T w = weight[t * n + j], v = line[index[t * n + j]];
      sum += w == T(0) ? T(0) : w * v;
    }
    y[j] = sum;
  }
}

template <class T>
void columns_of(const AxisTable<T>& c, bool plain, const T* line, T* y) {
  if (plain) {
    for (Index j = 0; j < c.outputs; ++j) y[j] = line[c.index[j]];
    return;
  }
  Index t = 0;
  for (; t + 4 <= c.taps; t += 4) take_columns<T, 4>(c, t, line, y, t > 0);
  switch (c.taps - t) {
    case 3: return take_columns<T, 3>(c, t, line, y, t > 0);
    case 2: return take_columns<T, 2>(c, t, line, y, t > 0);
    case 1: return take_columns<T, 1>(c, t, line, y, t > 0);
    default: return;
  }
}

}  // namespace

template <class T>
void resize_axis(Index outer, Index inner, const AxisTable<T>& table, const T* x, T* y) {
  parallel_for(outer * table.outputs, std::max<Index>(1, kPiece / std::max<Index>(1, inner)), [&](Index first, Index last) {
    for (Index u = first; u < last; ++u) {
      T* to = y + u * inner;
      const T* from = blend_lines(table, u % table.outputs, x + u / table.outputs * table.size * inner, inner, inner, to);
      if (from != to) std::copy(from, from + inner, to);
    }
  });
}

template <class T>
void resize_plane(Index outer, const AxisTable<T>& rows, const AxisTable<T>& columns, const T* x, T* y) {
  const bool plain = columns.taps == 1 && std::all_of(columns.weight, columns.weight + columns.outputs, [](T w) { return w == T(1); });
  const Index group = std::max<Index>(1, kPiece / std::max<Index>(1, columns.outputs));
  parallel_for(outer * rows.outputs, group, [&](Index first, Index last) {
    Scratch<T> line(columns.size);
    for (Index u = first; u < last; ++u) {
      const T* plane = x + u / rows.outputs * rows.size * columns.size;
      const T* from = blend_lines(rows, u % rows.outputs, plane, columns.size, columns.size, line.data());
      columns_of(columns, plain, from, y + u * columns.outputs);
    }
  });
}

template void resize_axis(Index, Index, const AxisTable<float>&, const float*, float*);
template void resize_axis(Index, Index, const AxisTable<double>&, const double*, double*);
template void resize_plane(Index, const AxisTable<float>&, const AxisTable<float>&, const float*, float*);
template void resize_plane(Index, const AxisTable<double>&, const AxisTable<double>&, const double*, double*);

}  // namespace tg
