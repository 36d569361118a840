// Many small matrices turned, so that each is a column of a tile: a vector then has the same element of as many of them, and
// what is done with one is done with all.
//
// Rows are turned a square of vectors at a time, in registers, matrices and the shortest rows element by element.
#pragma once

#include <algorithm>
#include <type_traits>

#include "../core/one_copy.h"
#include "../core/transpose.h"

namespace tg {

// Rows of `length`, `count` of them, to or from columns of a tile whose rows are `wide` apart. What lies behind a row is read
// with it, and written before the next row fills it, within the `room` elements from x on. Whole vectors of the tile are
// written; the tile has room for them.
template <bool Back, class T>
TG_ONE_COPY void turn_rows(std::conditional_t<Back, T, const T>* x, Index room, std::conditional_t<Back, const T, T>* tile,
                           Index wide, Index count, Index length) {
  constexpr Index L = lanes::Lanes<T>::count;
  lanes::Vec<T> v[L] = {};
  for (Index i = 0; i < count; i += L)
    for (Index c = 0; c < length; c += L) {
      const Index at = std::max<Index>(0, std::min(c, length - L));
      const Index columns = std::min(L, length), rows = std::min(L, count - i);
      auto* here = tile + at * wide + i;
      auto* there = x + i * length + at;
      const auto whole = [&](Index k) { return (i + k) * length + at + L <= room; };
      if (rows == L && whole(L - 1)) {  // of numbers that are known here the square stays in registers
        if constexpr (Back) {
#pragma GCC unroll 16
          for (Index k = 0; k < L; ++k)
            if (k < columns) v[k] = lanes::load(here + k * wide);
          lanes::transpose<T>(v);
#pragma GCC unroll 16
          for (Index k = 0; k < L; ++k) lanes::store(there + k * length, v[k]);
        } else {
#pragma GCC unroll 16
          for (Index k = 0; k < L; ++k) v[k] = lanes::load(there + k * length);
          lanes::transpose<T>(v);
#pragma GCC unroll 16
          for (Index k = 0; k < L; ++k)
            if (k < columns) lanes::store(here + k * wide, v[k]);
        }
        continue;
      }
      if constexpr (Back) {
        for (Index k = 0; k < columns; ++k) v[k] = lanes::load(here + k * wide);
        lanes::transpose<T>(v);
        for (Index k = 0; k < rows; ++k) {
          if (whole(k)) lanes::store(there + k * length, v[k]);
          else for (Index j = 0; j < columns; ++j) there[k * length + j] = v[k][j];
        }
      } else {
        for (Index k = 0; k < rows; ++k) {
          if (whole(k)) v[k] = lanes::load(there + k * length);
          else for (Index j = 0; j < columns; ++j) v[k][j] = there[k * length + j];
        }
        lanes::transpose<T>(v);
        for (Index k = 0; k < columns; ++k) lanes::store(here + k * wide, v[k]);
      }
    }
}

// The same for matrices of (length, inner).
template <bool Back, class T>
TG_ONE_COPY void turn_beside(std::conditional_t<Back, T, const T>* x, Index room, std::conditional_t<Back, const T, T>* tile,
                             Index wide, Index count, Index length, Index inner) {
  if (inner == 1 && 2 * length >= lanes::Lanes<T>::count) return turn_rows<Back, T>(x, room, tile, wide, count, length);
  const auto items = [&](auto rows, auto n) {
    for (Index r = 0; r < rows; ++r)
      for (Index i = 0; i < count; ++i)
        for (Index j = 0; j < n; ++j) {
          auto& there = x[(i * rows + r) * n + j];
          auto& here = tile[r * wide + i * n + j];
          if constexpr (Back) there = here;
          else here = there;
        }
  };
  using One = std::integral_constant<Index, 1>;
  using Two = std::integral_constant<Index, 2>;
  if (inner == 1 && length == 2) return items(Two{}, One{});
  if (inner == 1) return items(length, One{});
  if (inner == 2) return items(length, Two{});
  items(length, inner);
}

}  // namespace tg
