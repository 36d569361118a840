// Copies between layouts and between dtypes.
#pragma once

#include "../core/dtype.h"

namespace tg {

// to[i] = from[i] for items of 1, 2, 4, 8 or 16 bytes; strides in bytes, any sign, on both sides. No overlap.
void copy_strided(Index itemsize, int ndim, const Index* shape, const char* from, const Index* from_strides, char* to,
                  const Index* to_strides);

// to[i] = from[i] converted, both contiguous and aligned; the conversions of copy_convert.h.
void cast_items(DType from_type, const char* from, DType to_type, char* to, Index n);

// y = x (planes, rows, columns), contiguous, and zero where column - row is below (upper) or above `diagonal`.
void copy_triangle(Index itemsize, Index planes, Index rows, Index columns, Index diagonal, bool upper, const char* x,
                   char* y);

// y (planes, out_rows, before + columns + after) from x (planes, rows, columns), both contiguous: row r of a plane of y is
// row row_of[r] of x, between items of that row from columns left[0..before) and right[0..after), or between copies of
// *value where that is not null; then a negative row is made of those.
void pad_rows(Index itemsize, Index planes, Index rows, Index columns, const Index* row_of, Index out_rows,
              const Index* left, Index before, const Index* right, Index after, const char* value, const char* x, char* y);

// n times the item (to is aligned to its size).
void fill_items(Index itemsize, Index n, const char* item, char* to);
// first, first + by, ...
void ramp_items(Index n, int64_t first, int64_t by, int64_t* to);

// A contiguous array whose elements move along some dimensions, each `length` elements of memory long, by `shift`: the
// outermost first, one at least. Any stretch of the result can be made by itself, right before what reads it.
struct Roll {
  Index item, n;
  const char* from;
  char* to;
  int count = 0;
  Index length[kMaxDims], shift[kMaxDims];

  void part(Index first, Index last) const;
};

}  // namespace tg
