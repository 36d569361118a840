// y = m + log(sum(exp(x - m))), m = max(x), for each column of a (length, inner) matrix, `outer` of them.
//
// A tile of up to 64 columns is gone over twice, for m and for the sum, in blocks of 64 rows that stay in L1; within a block
// a vector of columns goes down four rows at a time, four exponentials side by side whatever the width. Sums are formed in T
// within a block, in double across. The walk of reduce_walk.h, which rescales as the maximum grows, took 20 times as long for
// 32 matrices of 16 x 16: it remains for columns that are strided, of half precision, or long enough to be cut.
#include "logsumexp.h"

#include <algorithm>
#include <cmath>

#include "../core/parallel.h"
#include "softmax_exp.h"

namespace tg {
namespace {

constexpr Index kPiece = 4096;   // elements per task: an exponential each
constexpr Index kTile = 64;      // columns per tile
constexpr Index kBlock = 64;     // rows per block
constexpr Index kLongest = 1 << 14;

// Columns [0, n) of a tile, a vector of them at a time. The last vector ends with the tile, and has columns that the one
// before it had: they come out the same. A tile narrower than a vector is copied next to itself row by row.
template <class T>
class Tile {
 public:
  using W = Wide<T>;
  using V = typename W::Vector;
  Tile(const T* x, Index length, Index stride, Index n) : x_(x), length_(length), stride_(stride), n_(n) {}

  void operator()(T* y) const {
    T m[kTile], shift[kTile];
    double total[kTile] = {};
    std::fill(m, m + kTile, -std::numeric_limits<T>::infinity());
    each_block([&](Index at, Index first, Index last) {
      V best = W::load(m + at);
      for (Index r = first; r < last; ++r) best = extreme_lanes<1, T>(best, row(r, at));
      W::store(m + at, best);
    });
    // Nothing shifts an infinite maximum: it, or NaN, is the result.
    for (Index j = 0; j < kTile; ++j) shift[j] = std::isfinite(m[j]) ? m[j] : T(0);
    each_block([&](Index at, Index first, Index last) {
      const V s = W::load(shift + at);
      V sum{};
      Index r = first;
      for (; r + 4 <= last; r += 4) {
        V e[4];
        for (int k = 0; k < 4; ++k) e[k] = row(r + k, at) - s;
        exp_each(e);
        sum += (e[0] + e[1]) + (e[2] + e[3]);
      }
      for (; r < last; ++r) sum += exp_wide(row(r, at) - s);
      for (Index l = first_new(at); l < W::lanes; ++l) total[at + l] += double(sum[l]);
    });
    for (Index j = 0; j < n_; ++j) y[j] = std::isfinite(m[j]) ? T(double(m[j]) + std::log(total[j])) : m[j];
  }

 private:
  // call(first column of a vector, first row, last row)
  template <class Call>
  void each_block(Call call) const {
    for (Index first = 0; first < length_; first += kBlock) {
      const Index last = std::min(length_, first + kBlock);
      for (Index at = 0; at < n_; at += W::lanes) call(std::max<Index>(0, std::min(at, n_ - W::lanes)), first, last);
    }
  }

  // The lane of the vector at `at` whose column no vector before it had.
  Index first_new(Index at) const { return at % W::lanes ? W::lanes - at % W::lanes : 0; }

  V row(Index r, Index at) const {
    const T* from = x_ + r * stride_ + at;
    if (n_ >= W::lanes) return W::load(from);
    alignas(64) T pad[W::lanes] = {};
    for (Index j = 0; j < n_; ++j) pad[j] = from[j];
    return W::load(pad);
  }

  const T* x_;
  Index length_, stride_, n_;
};

}  // namespace

bool is_middle_axis(const ReducePlan& plan, Index item) {
  if (plan.rn != 1 || plan.kn < 1 || plan.kn > 2 || plan.rshape[0] > kLongest) return false;
  const Index inner = plan.kshape[plan.kn - 1];
  return plan.kstride[plan.kn - 1] == item && plan.rstride[0] == inner * item &&
         (plan.kn == 1 || plan.kstride[0] == plan.rshape[0] * inner * item);
}

template <class T>
void logsumexp_columns(const ReducePlan& plan, const T* x, T* y) {
  const Index length = plan.rshape[0], inner = plan.kshape[plan.kn - 1], tiles = (inner + kTile - 1) / kTile;
  const Index group = std::max<Index>(1, kPiece / (std::min(kTile, inner) * length));
  parallel_for(plan.outputs / inner * tiles, group, [&](Index first, Index last) {
    for (Index t = first; t < last; ++t) {
      const Index matrix = t / tiles, column = t % tiles * kTile;
      const Tile<T> tile(x + matrix * length * inner + column, length, inner, std::min(kTile, inner - column));
      tile(y + matrix * inner + column);
    }
  });
}

template void logsumexp_columns(const ReducePlan&, const float*, float*);
template void logsumexp_columns(const ReducePlan&, const double*, double*);

}  // namespace tg
