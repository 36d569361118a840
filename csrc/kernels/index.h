// Reading and writing through integer indices. Indices are checked before they come here.
#pragma once

#include "../core/dtype.h"

namespace tg {

// Arrays of gather and scatter: an odometer over `index`'s axes before `dim`, then dim, then the axes after it.
struct GatherShape {
  int ndim;
  int dim;
  const Index* index;   // shape of the index array (contiguous)
  const Index* data;    // shape of the indexed array (contiguous)
  const Index* source;  // shape of src (contiguous), for scatter; at least as large as index
};

void gather_items(const GatherShape& s, Index itemsize, const char* x, const int64_t* index, char* y);
// y[..., index, ...] = src; where indices repeat, the last one along dim stays.
void scatter_items(const GatherShape& s, Index itemsize, char* y, const int64_t* index, const char* src);
template <class T>
void scatter_add(const GatherShape& s, T* y, const int64_t* index, const T* src);

// Slabs of `bytes`: y (outer, count, bytes) = x (outer, length, bytes)[:, index].
void select_slabs(Index outer, Index length, Index count, Index bytes, const char* x, const int64_t* index, char* y);

// y (outer, length, inner)[:, index[m]] += src (outer, count, inner)[:, m], in the order of m; skips index == skip.
template <class T>
void add_slabs(Index outer, Index length, Index count, Index inner, T* y, const int64_t* index, const T* src,
               int64_t skip);

struct IndexRange {
  int64_t low, high;
};
IndexRange range_of(const int64_t* index, Index n);  // n >= 1

}  // namespace tg
