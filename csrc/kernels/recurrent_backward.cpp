// Backward: from the last place of the walk to the first, dh = g + dgates w_hh of the place after it, then the cell's
// derivative gives dgates from what forward kept; when all are there, each weight's gradient is one product over all rows,
// and so is the input's.
//
// The packed weights are walked as in forward, and the derivative is taken on the block of units whose dh was just summed.
// dgates are the one large array: as many elements as the kept gates.
#include <algorithm>

#include "gemm.h"
#include "linear.h"
#include "recurrent.h"
#include "recurrent_cells.h"
#include "recurrent_walk.h"

namespace tg {
namespace {

template <class T>
class Backward : RecurrentWalk<T> {
  using Base = RecurrentWalk<T>;
  using Base::a;
  static constexpr Index kWide = kPanel<T>;
  static constexpr int kGroup = 4;  // panels of one call

 public:
  Backward(const Recurrent<T>& layer, const RecurrentSeeds<T>& seeds, const T* out, const Kept<T>& kept,
           const RecurrentGrads<T>& grads)
      : Base(layer), seeds_(seeds), out_(out), kept_(kept), grads_(grads), fed_(a.gates() * a.hidden),
        width_(a.cell == Cell::gru ? 4 * a.hidden : fed_), shift_(a.cell == Cell::gru ? a.hidden : 0),
        pack_(a.steps() > 1), slopes_(a.rows() * width_),
        panels_(pack_ ? divide_up(a.state, kWide) * fed_ * kWide : 0),
        projection_(a.w_hr ? divide_up(a.hidden, kWide) * a.state * kWide : 0),
        carry_(a.batch() * a.state), cell_(a.cell == Cell::lstm && !grads.c0 ? a.batch() * a.hidden : 0),
        projected_(a.w_hr ? a.rows() * a.state : 0), wide_(a.w_hr && grads.w_hr ? a.rows() * a.hidden : 0) {
    to_cell_ = grads.c0 ? grads.c0 : cell_.data();
  }

  void run() {
    fill(seeds_.h_n, a.batch() * a.state, carry_.data());
    if (a.cell == Cell::lstm) fill(seeds_.c_n, a.batch() * a.hidden, to_cell_);
    pack();
    this->for_steps(0, a.steps(), true, a.w_hr != nullptr, divide_up(a.state, kWide), kGroup,
                    [&](Index k, Index r0, Index r1, Index u0, Index u1) { run_step(k, r0, r1, u0, u1); });
    if (grads_.h0) to_first_state();
    to_weights();
  }

 private:
  static void fill(const T* from, Index n, T* to) {
    if (from) std::copy_n(from, n, to);
    else std::fill_n(to, n, T(0));
  }

  void pack() {
    if (pack_)
      pack_panels<T>(divide_up(a.state, kWide), fed_, [&](Index p) {
        pack_straight(a.w_hh + p * kWide, a.state, a.state - p * kWide, fed_, panels_.data() + p * fed_ * kWide);
      });
    if (a.w_hr)
      pack_panels<T>(divide_up(a.hidden, kWide), a.state, [&](Index p) {
        pack_straight(a.w_hr + p * kWide, a.hidden, a.hidden - p * kWide, a.state,
                      projection_.data() + p * a.state * kWide);
      });
  }

  // The part of a row of slopes that the recurrent weights gave.
  const T* slope(Index at) const { return slopes_.data() + at * width_ + shift_; }

  // Blocks [u0, u1) of the state's columns of rows [r0, r1) at place k.
  void run_step(Index k, Index r0, Index r1, Index u0, Index u1) const {
    alignas(64) T sums[kGroup * kBlockRows * kWide];
    for (Index r = r0; r < r1; r += kBlockRows) {
      const int n = static_cast<int>(std::min<Index>(kBlockRows, r1 - r));
      const T* rows[kBlockRows];
      int fed = 0;  // rows that fed a later step: the first ones
      while (fed < n && this->has(k + 1, r + fed)) {
        rows[fed] = slope(this->row(this->step(k + 1), r + fed));
        ++fed;
      }
      for (Index u = u0; u < u1; u += kGroup) {
        const int count = static_cast<int>(std::min<Index>(kGroup, u1 - u));
        if (fed < n) std::fill_n(sums, count * kBlockRows * kWide, T(0));
        if (fed) {
          RowsAhead<T> ahead = ahead_of(k, r, n, u * kWide, std::min(a.state - u * kWide, count * kWide));
          rows_by_panels(rows, fed, fed_, panels_.data() + u * fed_ * kWide, count, sums, false, &ahead);
        }
        for (int p = 0; p < count; ++p)
          for (int i = 0; i < n; ++i) {
            T* dh = sums + (p * kBlockRows + i) * kWide;
            const Index unit = (u + p) * kWide;
            const int width = static_cast<int>(std::min<Index>(kWide, a.state - unit));
            gather(width, k, r + i, unit, dh);
            if (a.w_hr) std::copy_n(dh, width, projected_.data() + this->row(this->step(k), r + i) * a.state + unit);
            else if (width == kWide) cell(int(kWide), k, r + i, unit, dh);
            else cell(width, k, r + i, unit, dh);
          }
      }
      if (a.w_hr) unproject(k, r, n);
    }
  }

  // What the cells of these rows and units read and write.
  RowsAhead<T> ahead_of(Index k, Index r, int n, Index unit, Index width) const {
    RowsAhead<T> ahead;
    ahead.rows = n, ahead.width = width;
    if (seeds_.out) ahead.add(seed(k, r) + unit, seeds_.g_row);
    if (a.w_hr) return ahead;
    const Index at = this->row(this->step(k), r);
    for (Index i = 0; i < width_; i += a.hidden) ahead.add(slopes_.data() + at * width_ + i + unit, width_);
    if (kept_.gates)
      for (Index i = 0; i < fed_; i += a.hidden) ahead.add(kept_.gates + at * fed_ + i + unit, fed_);
    if (kept_.cells) ahead.add(kept_.cells + at * a.hidden + unit, a.hidden);
    return ahead;
  }

  // Where the gradient to a row of out lies.
  const T* seed(Index k, Index r) const {
    const Index t = this->step(k);
    return seeds_.out + (seeds_.packed ? this->row(t, r) * seeds_.g_row : r * seeds_.g_row + t * seeds_.g_step);
  }

  // Adds what arrives from outside.
  void gather(int n, Index k, Index r, Index unit, T* __restrict dh) const {
    T* __restrict carry = carry_.data() + r * a.state + unit;
    for (int j = 0; j < n; ++j) dh[j] += carry[j];
    if (a.cell != Cell::gru && !this->has(k + 1, r)) std::fill_n(carry, n, T(0));
    if (!seeds_.out) return;
    const T* __restrict g = seed(k, r) + unit;
    for (int j = 0; j < n; ++j) dh[j] += g[j];
  }

  void unproject(Index k, Index r, int n) const {
    alignas(64) T sums[kGroup * kBlockRows * kWide];
    const T* rows[kBlockRows];
    for (int i = 0; i < n; ++i) rows[i] = projected_.data() + this->row(this->step(k), r + i) * a.state;
    const Index blocks = divide_up(a.hidden, kWide);
    for (Index b = 0; b < blocks; b += kGroup) {
      const int count = static_cast<int>(std::min<Index>(kGroup, blocks - b));
      rows_by_panels(rows, n, a.state, projection_.data() + b * a.state * kWide, count, sums);
      for (int p = 0; p < count; ++p)
        for (int i = 0; i < n; ++i) {
          const Index unit = (b + p) * kWide;
          cell(static_cast<int>(std::min<Index>(kWide, a.hidden - unit)), k, r + i, unit,
               sums + (p * kBlockRows + i) * kWide);
        }
    }
    if (!grads_.w_hr) return;
    for (int i = 0; i < n; ++i) {  // the hidden state before its projection, which forward did not keep
      const Index at = this->row(this->step(k), r + i);
      const T *o = kept_.gates + at * fed_ + 3 * a.hidden, *c = kept_.cells + at * a.hidden;
      T* h = wide_.data() + at * a.hidden;
      for (Index j = 0; j < a.hidden; ++j) h[j] = o[j] * gate_tanh(c[j]);
    }
  }

  inline __attribute__((always_inline)) void cell(int n, Index k, Index r, Index unit, T* dh) const {
    const Index at = this->row(this->step(k), r);
    T* to = slopes_.data() + at * width_ + unit;
    switch (a.cell) {
      case Cell::lstm:
        lstm_units_backward(n, kept_.gates + at * fed_ + unit, a.hidden, kept_.cells + at * a.hidden + unit,
                            this->before(k, r, kept_.cells, a.hidden, a.c0) + unit, dh, to_cell_ + r * a.hidden + unit, to);
        break;
      case Cell::gru:
        gru_units_backward(n, kept_.gates + at * fed_ + unit, a.hidden, kept_.cells + at * a.hidden + unit,
                           this->before(k, r, out_, a.state, a.h0) + unit, dh, carry_.data() + r * a.state + unit, to);
        break;
      default:
        plain_units_backward(a.cell == Cell::relu, n, out_ + at * a.state + unit, dh, to);
    }
  }

  void to_first_state() const {
    const Index batch = a.batch();
    Scratch<T> slopes(batch * fed_);  // of every sequence the row of its first place
    for (Index r = 0; r < batch; ++r) {
      Index t = 0;
      if (a.reverse)
        while (t + 1 < a.steps() && r < a.sizes[t + 1]) ++t;
      std::copy_n(slope(this->row(t, r)), fed_, slopes.data() + r * fed_);
    }
    Gemm<T> g;
    g.m = batch, g.n = a.state, g.k = fed_;
    g.a = {slopes.data(), fed_, 1};
    g.b = {a.w_hh, a.state, 1};
    g.c = grads_.h0;
    gemm(g);
    for (Index i = 0; i < batch * a.state; ++i) grads_.h0[i] += carry_[i];
  }

  // (rows, state): the state that each row was computed from.
  void gather_states(T* to) const {
    parallel_for(a.steps(), std::max<Index>(1, (Index(1) << 15) / std::max<Index>(1, a.batch() * a.state)),
                 [&](Index first, Index last) {
                   for (Index k = first; k < last; ++k)
                     for (Index t = this->step(k), r = 0; r < a.sizes[t]; ++r)
                       std::copy_n(this->before(k, r, out_, a.state, a.h0), a.state, to + this->row(t, r) * a.state);
                 });
  }

  void to_weights() const {
    const Index rows = a.rows(), h = a.hidden;
    const bool gru = a.cell == Cell::gru;
    std::vector<Gemm<T>> products;
    auto transposed = [&](Index first, Index row0 = 0) { return Matrix<T>{slopes_.data() + row0 * width_ + first, 1, width_}; };
    auto add = [&](Index m, Index n, Index k, Matrix<T> left, Matrix<T> right, T* to) {
      Gemm<T> g;
      g.m = m, g.n = n, g.k = k, g.a = left, g.b = right, g.c = to;
      products.push_back(g);
    };
    const Matrix<T> x{a.x, a.inputs, 1};
    // slopes of GRU: new | reset | update | new's share of the state. Weights: reset | update | new
    if (grads_.w_ih) {
      add(gru ? 2 * h : fed_, a.inputs, rows, transposed(shift_), x, grads_.w_ih);
      if (gru) add(h, a.inputs, rows, transposed(0), x, grads_.w_ih + 2 * h * a.inputs);
    }
    Scratch<T> turned(gru && grads_.x ? fed_ * a.inputs : 0);
    if (grads_.x) {
      const T* w = a.w_ih;
      if (gru) {
        std::copy_n(w + 2 * h * a.inputs, h * a.inputs, turned.data());
        std::copy_n(w, 2 * h * a.inputs, turned.data() + h * a.inputs);
        w = turned.data();
      }
      add(rows, a.inputs, fed_, {slopes_.data(), width_, 1}, {w, a.inputs, 1}, grads_.x);
    }
    // Between steps of equal size the states before are the outputs themselves, one step on.
    const bool shifted = grads_.w_hh && !a.h0 && a.sizes.back() == a.batch();
    Scratch<T> states(grads_.w_hh && !shifted ? rows * a.state : 0);
    if (shifted) {
      const Index n = rows - a.batch(), later = a.reverse ? 0 : a.batch();
      add(fed_, a.state, n, transposed(shift_, later), {out_ + (a.batch() - later) * a.state, a.state, 1}, grads_.w_hh);
    } else if (grads_.w_hh) {
      gather_states(states.data());
      add(fed_, a.state, rows, transposed(shift_), {states.data(), a.state, 1}, grads_.w_hh);
    }
    if (grads_.w_hr)
      add(a.state, h, rows, {projected_.data(), 1, a.state}, {wide_.data(), h, 1}, grads_.w_hr);
    gemm(products);
    if (!grads_.b_ih && !grads_.b_hh) return;
    Scratch<T> sum(width_);
    column_sum(Matrix<T>{slopes_.data(), width_, 1}, rows, width_, sum.data());
    if (grads_.b_hh) std::copy_n(sum.data() + shift_, fed_, grads_.b_hh);
    if (!grads_.b_ih) return;
    std::copy_n(sum.data() + shift_, fed_, grads_.b_ih);
    if (gru) std::copy_n(sum.data(), h, grads_.b_ih + 2 * h);
  }

  RecurrentSeeds<T> seeds_;
  const T* out_;
  Kept<T> kept_;
  RecurrentGrads<T> grads_;
  Index fed_, width_, shift_;  // of a row of slopes: what the state fed, all, and where the former starts
  bool pack_;
  Scratch<T> slopes_, panels_, projection_, carry_, cell_, projected_, wide_;
  T* to_cell_ = nullptr;
};

}  // namespace

template <class T>
void recurrent_backward(const Recurrent<T>& layer, const RecurrentSeeds<T>& seeds, const T* out, const Kept<T>& kept,
                        const RecurrentGrads<T>& grads) {
  Backward<T>(layer, seeds, out, kept, grads).run();
}

template void recurrent_backward(const Recurrent<float>&, const RecurrentSeeds<float>&, const float*, const Kept<float>&,
                                 const RecurrentGrads<float>&);
template void recurrent_backward(const Recurrent<double>&, const RecurrentSeeds<double>&, const double*,
                                 const Kept<double>&, const RecurrentGrads<double>&);

}  // namespace tg
