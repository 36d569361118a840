// Batches of the smallest products, of which the call, the copies and the loops cost more than the arithmetic: a vector has
// an element of as many products, which are read and written turned (beside.h).
//
// Ladder, two Zen 4 cores, us, one by one (with an offset for each, which a step has replaced) and side by side. AVX-512: (1,
// 2) by (2, 1), 147,456 of them, 1640 and 170; 65,536 of 2 x 2 1250 and 200; 16,384 of 4 x 4 600 and 144; 16,384 of (8, 1) by
// (1, 8) 1850 and 240; 4096 of 6 x 6 205 and 110. AVX2: 16,384 of 4 x 4 560 and 305; 4096 of 5 x 5 220 and 140.
#pragma once

#include "beside.h"
#include "gemm.h"

namespace tg {

constexpr Index kLittleTask = 16384;  // elements
// Of a, b and c together. AVX2 gains with 5 x 5 and loses with 6 x 6.
template <class T>
constexpr Index kLittleElements = 10 * lanes::Lanes<T>::count;

template <class T>
Index elements_of(const Gemm<T>& g) { return g.m * g.k + g.k * g.n + g.m * g.n; }

// Rows of c that fill vectors are as well computed one by one (AVX2, (8, 1) by (1, 8): 310 and 410 us).
template <class T>
bool are_little(const Gemm<T>& g) {
  constexpr Index L = lanes::Lanes<T>::count;
  return g.batch >= 2 * L && g.n % L != 0 && elements_of(g) <= kLittleElements<T>;
}

// Products of a task, whole vectors of them.
template <class T>
Index little_task(const Gemm<T>& g) {
  constexpr Index L = lanes::Lanes<T>::count;
  return std::max<Index>(1, kLittleTask / elements_of(g) / L) * L;
}

// One operand: element (i, j) of L products is vector number place(i, j) of a tile.
template <class T>
class Little {
 public:
  Little(const Matrix<T>& a, const Index* offset, Index step, Index rows, Index cols)
      : a_(a), offset_(offset), step_(step), rows_(rows), cols_(cols) {
    const bool by_rows = (cols == 1 || a.col == 1) && (rows == 1 || a.row == cols);
    const bool by_columns = (rows == 1 || a.row == 1) && (cols == 1 || a.col == rows);
    follow_ = !offset && step == rows * cols && (by_rows || by_columns);
  }

  Index place(Index i, Index j) const {
    if (!follow_) return i * cols_ + j;
    return (rows_ > 1 ? i * a_.row : 0) + (cols_ > 1 ? j * a_.col : 0);
  }

  // Of products from `first` on, before `last`.
  void turn(Index first, Index last, T* tile) const {
    constexpr Index L = lanes::Lanes<T>::count;
    const Index count = std::min(L, last - first), size = rows_ * cols_;
    if (follow_) return turn_beside<false, T>(a_.data + first * step_, (last - first) * size, tile, L, count, size, 1);
    for (Index e = 0; e < count; ++e) {
      const T* from = a_.data + (offset_ ? offset_[first + e] : (first + e) * step_);
      for (Index i = 0; i < rows_; ++i)
        for (Index j = 0; j < cols_; ++j) tile[(i * cols_ + j) * L + e] = from[i * a_.row + j * a_.col];
    }
  }

 private:
  const Matrix<T> a_;
  const Index* offset_;
  Index step_, rows_, cols_;
  bool follow_;  // one behind the other, without gaps
};

// Products [first, last) of the batch. Each has the same bits wherever it stands.
template <class T>
[[gnu::noinline]] void little(const Gemm<T>& g, Index first, Index last) {
  using namespace lanes;
  constexpr Index L = Lanes<T>::count;
  const Little<T> a(g.a, g.a_offset, g.a_step, g.m, g.k), b(g.b, g.b_offset, g.b_step, g.k, g.n);
  alignas(64) T room[kLittleElements<T> * L] = {};
  T *as = room, *bs = as + g.m * g.k * L, *cs = bs + g.k * g.n * L;
  for (Index entry = first; entry < last; entry += L) {
    const Index count = std::min(L, last - entry);
    a.turn(entry, last, as);
    b.turn(entry, last, bs);
    for (Index i = 0; i < g.m; ++i)
      for (Index j = 0; j < g.n; ++j) {
        Vec<T> sum{};
        for (Index k = 0; k < g.k; ++k) sum += load(as + a.place(i, k) * L) * load(bs + b.place(k, j) * L);
        if (g.bias) sum += g.bias[j];
        store(cs + (i * g.n + j) * L, sum);
      }
    turn_beside<true, T>(g.c + entry * g.m * g.n, (last - entry) * g.m * g.n, cs, L, count, g.m * g.n, 1);
  }
}

}  // namespace tg
