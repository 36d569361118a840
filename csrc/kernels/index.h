// Reading and writing through integer indices. Indices are checked before they come here, but for those of gather and
// scatter, which say whether all were in range; if not, the result is not complete.
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

enum class Combine { add, multiply, largest, smallest };

bool gather_items(const GatherShape& s, Index itemsize, const char* x, const int64_t* index, char* y);
// y[..., index, ...] = src; where indices repeat, the last one along dim stays. `checked`: all are known to be in range.
bool scatter_items(const GatherShape& s, bool checked, Index itemsize, char* y, const int64_t* index, const char* src);
// T: float, double, uint64_t (wraps; compares as int64), and for `add` the complex types.
template <class T>
bool scatter_combine(Combine how, const GatherShape& s, bool checked, T* y, const int64_t* index, const T* src);

// Slabs of `bytes`: y (outer, count, bytes) = x (outer, length, bytes)[:, index].
void select_slabs(Index outer, Index length, Index count, Index bytes, const char* x, const int64_t* index, char* y);

// numbers[m] = numbers[m] * length + from[m], of the first axis from[m] alone: slabs that one index array for each of several
// axes names. The numbers have `shape`, in which `from` has `strides`; negative ones count from the end.
void number_slabs(int ndim, const Index* shape, const Index* strides, Index length, bool first_axis, const int64_t* from,
                  int64_t* numbers);

// y (outer, length, bytes)[:, index[m]] = src (outer, count, bytes)[:, m], in the order of m.
void write_slabs(Index outer, Index length, Index count, Index bytes, char* y, const int64_t* index, const char* src);

// y (outer, length, inner)[:, index[m]] += src (outer, count, inner)[:, m], or what else `how` says (of a T as below), in the
// order of m; skips index == skip.
template <class T>
void combine_slabs(Combine how, Index outer, Index length, Index count, Index inner, T* y, const int64_t* index, const T* src,
                   int64_t skip = -1);

// y = index, negative ones counted from the end of `length`.
void count_rows(Index n, Index length, const int64_t* index, int64_t* y);

// Positions [0, count) brought together by target[m] in [0, groups), in their order: group g's lie from ends[g] to before
// ends[g + 1]. Written are source[position] to `rows` (the positions themselves where source is null), and the positions
// to `positions`, unless that is null.
void group_rows(Index count, Index groups, const int64_t* target, const int64_t* source, int64_t* rows, int64_t* ends,
                int64_t* positions);

// y (bags, heads * width) = base, or zeros, + the sums (or means) of the rows of x (length, heads * width) that
// index[ends[b]:ends[b + 1]] names, one after another; each, where there are weights (n, heads), multiplied by that of its
// position and head.
template <class T>
struct RowSums {
  Index bags, heads, width, length, count;  // count: of the index
  const T* x;
  const int64_t *index, *ends;
  const T* weights;
  const int64_t* positions;  // in [0, weighed), one for each index
  Index weighed;
  const T* base;
  bool mean;
  T* y;
};
// Whether all ends and indices were in range; if not, the result is not complete.
template <class T>
bool sum_rows(const RowSums<T>& s);

struct IndexRange {
  int64_t low, high;
};
IndexRange range_of(const int64_t* index, Index n);  // n >= 1

// Whether all indices are in [0, limit); the second on the pool.
inline bool indices_within(const int64_t* index, Index n, Index limit) {
  uint64_t signs = 0;
  for (Index i = 0; i < n; ++i) signs |= uint64_t(index[i]) | (uint64_t(limit) - 1 - uint64_t(index[i]));
  return !(signs >> 63);
}
bool all_within(const int64_t* index, Index n, Index limit);

// How often each value of [0, bins) occurs; and the sums of their weights, in their order.
void count_values(Index n, const int64_t* x, Index bins, int64_t* y);
template <class T>
void add_weights(Index n, const int64_t* x, Index bins, const T* weights, T* y);

// Points of an array: y[b, j, a] lies at x + before[b] + points[j] + after[a] (bytes), a run of `run` items each.
struct Points {
  Index befores, points, afters, run, itemsize;
  const Index *before, *point, *after;
};
void read_points(const Points& p, const char* x, char* y);
// Values lie at before[b] + point[j] + after[a] of their own, `step` bytes from item to item of a run.
struct PointValues {
  const char* data;
  const Index *before, *point, *after;
  Index step;
};
// Where points repeat, the last one stays. `span`: bytes from the lowest to behind the highest point.
void write_points(const Points& p, const PointValues& v, char* x, Index span);
template <class T>
void add_points(const Points& p, const PointValues& v, char* x, Index span);

// The positions of what is not zero in an array of n items, in order: counts first, then writes (count, ndim).
class NonZero {
 public:
  NonZero(DType type, const char* x, Index n);
  ~NonZero();
  NonZero(const NonZero&) = delete;
  NonZero& operator=(const NonZero&) = delete;
  Index count() const { return count_; }
  void write(int ndim, const Index* shape, int64_t* to) const;

 private:
  DType type_;
  const char* x_;
  Index n_, count_ = 0;
  Index* starts_;
};

}  // namespace tg
