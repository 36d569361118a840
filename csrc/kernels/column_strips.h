// Columns of a contiguous (rows, inner) matrix, a strip of a few vectors of them at a time: what is kept for a column stays in
// a register while the rows go by. Short matrices narrower than a vector, down to a column, stand side by side in a buffer,
// long ones are copied next to themselves row by row.
#pragma once

#include <algorithm>
#include <cmath>

#include "../core/pack_double.h"
#include "../core/parallel.h"
#include "beside.h"
#include "softmax_exp.h"

namespace tg {

constexpr int kStripVectors = 4;   // exponentials side by side are what registers hold
constexpr Index kStripBlock = 64;  // rows summed in T before the sum goes to double
constexpr Index kStripTile = 64;   // columns of a tile
constexpr Index kStripPiece = 4096;  // elements of a task: an exponential each, about 4 us
constexpr Index kShortColumn = 32;   // rows of a buffer, which stays in L1

// V vectors of columns, of which `columns` are there; V is 1 where they are fewer than a vector.
template <class T, int V>
struct Strip {
  using W = Wide<T>;
  using Vector = typename W::Vector;
  static constexpr int vectors = V;
  static constexpr Index width = V * W::lanes;
  Index rows, inner, columns;

  void load(const T* x, Index row, Vector (&to)[V]) const {
    const T* from = x + row * inner;
    if (V == 1 && columns < W::lanes) {
      T pad[W::lanes] = {};
      for (Index j = 0; j < columns; ++j) pad[j] = from[j];
      to[0] = W::load(pad);
      return;
    }
    for (int v = 0; v < V; ++v) to[v] = W::load(from + v * W::lanes);
  }

  void store(T* y, Index row, const Vector (&from)[V]) const {
    T* to = y + row * inner;
    if (V == 1 && columns < W::lanes) {
      for (Index j = 0; j < columns; ++j) to[j] = from[0][j];
      return;
    }
    for (int v = 0; v < V; ++v) W::store(to + v * W::lanes, from[v]);
  }

  // add(row, sum) for each row: the sums of T, of rows that follow each other, end in `total`, in double.
  template <class Add>
  void sum(double (&total)[width], Add add) const {
    std::fill(total, total + width, 0.0);
    for (Index first = 0; first < rows; first += kStripBlock) {
      Vector part[V] = {};
      for (Index r = first; r < std::min(rows, first + kStripBlock); ++r) add(r, part);
      for (Index j = 0; j < width; ++j) total[j] += double(part[j / W::lanes][j % W::lanes]);
    }
  }

  // Sums of exp(x - shift), each of which is given to keep(row, exponentials).
  template <class Keep>
  void sum_exp(const T* x, const Vector (&shift)[V], double (&total)[width], Keep keep) const {
    sum(total, [&](Index r, Vector (&part)[V]) {
      Vector e[V];
      load(x, r, e);
      for (int v = 0; v < V; ++v) e[v] -= shift[v];
      exp_each(e);
      keep(r, e);
      for (int v = 0; v < V; ++v) part[v] += e[v];
    });
  }

  void sum_exp(const T* x, const Vector (&shift)[V], double (&total)[width]) const {
    sum_exp(x, shift, total, [](Index, const auto&) {});
  }

  // The largest (Sign > 0) or smallest.
  template <int Sign>
  void extreme(const T* x, Vector (&most)[V]) const {
    load(x, 0, most);
    for (Index r = 1; r < rows; ++r) {
      Vector row[V];
      load(x, r, row);
      for (int v = 0; v < V; ++v) most[v] = extreme_lanes<Sign, T>(most[v], row[v]);
    }
  }
  void largest(const T* x, Vector (&most)[V]) const { extreme<1>(x, most); }

  // The columns' numbers as vectors of T.
  template <class Map>
  static void each(const double (&total)[width], Vector (&to)[V], Map map) {
    T value[width];
    for (Index j = 0; j < width; ++j) value[j] = T(map(total[j]));
    for (int v = 0; v < V; ++v) to[v] = W::load(value + v * W::lanes);
  }
};

// The logarithms of sums of exponentials, in place: for floats a vector of double at a time.
template <class T, std::size_t N>
[[gnu::noinline]] void take_logs(double (&sums)[N]) {
  if constexpr (std::is_same_v<T, double>) {
    for (double& sum : sums) sum = std::log(sum);
  } else {
    static_assert(N % pack::kDoubles == 0);
    for (std::size_t i = 0; i < N; i += pack::kDoubles) {
      const pack::Double sum = lanes::load(sums + i);
      lanes::store(sums + i, pack::log(sum) + (sum - sum));  // NaN stays
    }
  }
}

// call(strip, first column) for columns [0, columns) of a tile. The last vector ends with the tile, and has columns that the
// one before it had: they are computed again, which changes nothing where the result is not read from.
template <class T, int V = kStripVectors, class Call>
void for_strips(Index rows, Index inner, Index columns, Call call) {
  constexpr Index lanes = Wide<T>::lanes, wide = V * lanes;
  Index j = 0;
  for (; j + wide <= columns; j += wide) call(Strip<T, V>{rows, inner, wide}, j);
  for (; j < columns; j += lanes) {
    const Index at = std::max<Index>(0, std::min(j, columns - lanes));
    call(Strip<T, 1>{rows, inner, std::min(lanes, columns)}, at);
  }
}

// Whether columns are taken side by side: a softmax of 4096 rows of 8 takes a fifth of the time so.
template <class T>
bool are_beside(Index length, Index inner) {
  return inner < Wide<T>::lanes && length <= kShortColumn;
}

// call(strip, inputs, output) for all columns of `outer` matrices of (length, inner), the pointers at the strip's first element.
// The output has `out_length` rows. It may lie over the first input, whose row is read before that of the output is written.
template <class T, int V = kStripVectors, int N, class Call>
void over_columns(Index outer, Index length, Index inner, const T* const (&in)[N], T* out, Index out_length, Call call) {
  if (length == 0 || inner == 0) return;
  constexpr Index lanes = Wide<T>::lanes;
  const bool turned = are_beside<T>(length, inner);
  const Index beside = turned ? kStripTile / inner : 1, tiles = (inner + kStripTile - 1) / kStripTile;
  const Index group = std::max<Index>(1, kStripPiece / (std::min(kStripTile, beside * inner) * length));
  parallel_for((outer + beside - 1) / beside * tiles, group, [&](Index first, Index last) {
    alignas(64) T room[N][kShortColumn * kStripTile];
    for (Index t = first; t < last; ++t) {
      const Index o = t / tiles * beside, column = t % tiles * kStripTile, count = std::min(beside, outer - o);
      const T* from[N];
      for (int k = 0; k < N; ++k) from[k] = in[k] + o * length * inner + column;
      T* to = out + o * out_length * inner + column;
      Index columns = std::min(kStripTile, count * inner - column), stride = inner;
      if (turned) {
        const Index whole = (columns + lanes - 1) / lanes * lanes;
        for (int k = 0; k < N; ++k) {
          for (Index r = 0; r < length && columns < whole; ++r)
            std::fill(&room[k][r * kStripTile + columns], &room[k][r * kStripTile + whole], T(0));
          turn_beside<false, T>(from[k], (outer - o) * length, room[k], kStripTile, count, length, inner);
          from[k] = room[k];
        }
        to = room[0], columns = whole, stride = kStripTile;
      }
      for_strips<T, V>(length, stride, columns, [&](const auto& strip, Index j) {
        const T* at[N];
        for (int k = 0; k < N; ++k) at[k] = from[k] + j;
        call(strip, at, to + j);
      });
      if (turned) turn_beside<true, T>(out + o * out_length * inner, count * out_length, room[0], kStripTile, count, out_length, inner);
    }
  });
}

}  // namespace tg
