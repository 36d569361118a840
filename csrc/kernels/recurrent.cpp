// Forward: gates = x w_ih^T for all steps in one product, then step by step gates += h w_hh^T + b and the cell.
//
// The recurrent product, a few rows by all weights, is where a BLAS that packs the weights at every call is weak (53 to 65
// GFLOP/s of 90 on one Zen 3 core). Here they are packed once, in panels of the columns of a few units for all gates; a
// task multiplies its rows by the panels of one block of units and applies the cell to that block while the sums are in
// L1. Gates are activated where they lie, and are what backward keeps; without backward the steps are done in pieces, so
// that only a piece's gates exist.
//
// Ladder, LSTM of 256 units, 32 sequences of 64 steps, one Zen 3 core: this walk without the input product 16.2 ms, of
// which the tiles take 11.8 (90 GFLOP/s, their peak); cells by lane::sigmoid and tanh with a bias laid out by the product,
// 17.4. No gain: prefetching the gates that a cell will read. On two cores, forward and backward with Adam: one op per
// step, 88 to 91 ms; this, 46 to 47, beside PyTorch's 60.
#include "recurrent.h"

#include <algorithm>

#include "gemm.h"
#include "recurrent_cells.h"
#include "recurrent_walk.h"

namespace tg {
namespace {

constexpr Index kPieceElements = Index(1) << 20;  // gates of one piece of steps in inference: smaller, the product suffers

template <class T>
class Forward : RecurrentWalk<T> {
  using Base = RecurrentWalk<T>;
  using Base::a;
  static constexpr Index kWide = kPanel<T>;

 public:
  Forward(const Recurrent<T>& layer, T* out, T* h_n, T* c_n, const Kept<T>& kept)
      : Base(layer), out_(out), h_n_(h_n), c_n_(c_n), kept_(kept), blocks_(divide_up(a.hidden, kWide)),
        pack_(a.steps() > 1), panels_(pack_ ? blocks_ * a.gates() * a.state * kWide : 0),
        projection_(a.w_hr ? divide_up(a.state, kWide) * a.hidden * kWide : 0),
        product_(pack_ ? 0 : a.batch() * a.gates() * a.hidden), wide_(a.w_hr ? a.batch() * a.hidden : 0),
        bias_(a.gates() * a.hidden) {}

  void run() {
    if (a.cell == Cell::lstm) {
      if (a.c0) std::copy_n(a.c0, a.batch() * a.hidden, c_n_);
      else std::fill_n(c_n_, a.batch() * a.hidden, T(0));
    }
    pack();
    const Index width = a.gates() * a.hidden, all = a.steps();
    const Index piece = kept_.gates ? all : std::max<Index>(1, kPieceElements / std::max<Index>(1, a.batch() * width));
    Scratch<T> gates(kept_.gates ? 0 : std::min(all, piece) * a.batch() * width);
    add_biases();
    for (Index k0 = 0; k0 < all; k0 += piece) {
      const Index k1 = std::min(all, k0 + piece);
      const Index low = std::min(this->step(k0), this->step(k1 - 1)), high = std::max(this->step(k0), this->step(k1 - 1));
      first_row_ = a.first[low];
      gates_ = kept_.gates ? kept_.gates : gates.data();
      Gemm<T> g;
      g.m = a.first[high + 1] - first_row_, g.n = width, g.k = a.inputs;
      g.a = {a.x + first_row_ * a.inputs, a.inputs, 1};
      g.b = {a.w_ih, 1, a.inputs};
      g.c = gates_;
      gemm(g);
      this->for_steps(k0, k1, false, a.w_hr != nullptr, blocks_, units_per_group(),
                      [&](Index k, Index r0, Index r1, Index u0, Index u1) { run_step(k, r0, r1, u0, u1); });
    }
    for (Index t = 0; t < a.steps(); ++t) {  // of every sequence the row of the step that comes last
      const Index from = a.reverse || t + 1 == a.steps() ? 0 : a.sizes[t + 1];
      if (a.reverse ? t == 0 : from < a.sizes[t])
        std::copy_n(out_ + this->row(t, from) * a.state, (a.sizes[t] - from) * a.state, h_n_ + from * a.state);
    }
  }

 private:
  int units_per_group() const { return a.gates() == 1 ? 4 : 1; }

  // Of GRU's state share only reset and update take theirs here; the new gate's is multiplied by the reset gate.
  void add_biases() const {
    const Index h = a.hidden;
    for (Index j = 0; j < a.gates() * h; ++j)
      bias_[j] = (a.b_ih ? a.b_ih[j] : T(0)) + (a.b_hh && (a.cell != Cell::gru || j < 2 * h) ? a.b_hh[j] : T(0));
  }

  void pack() {
    const Index gates = a.gates(), k = a.state;
    if (pack_)
      pack_panels<T>(blocks_ * gates, k, [&](Index p) {
        const Index unit = p / gates * kWide, gate = p % gates;
        pack_transposed(a.w_hh + (gate * a.hidden + unit) * k, a.hidden - unit, k, panels_.data() + p * k * kWide);
      });
    if (a.w_hr)
      pack_panels<T>(divide_up(a.state, kWide), a.hidden, [&](Index p) {
        pack_transposed(a.w_hr + p * kWide * a.hidden, a.state - p * kWide, a.hidden,
                        projection_.data() + p * a.hidden * kWide);
      });
    if (!pack_ && a.h0) {  // a single step: packing would cost as much as the product
      Gemm<T> g;
      g.m = a.batch(), g.n = gates * a.hidden, g.k = k;
      g.a = {a.h0, k, 1};
      g.b = {a.w_hh, 1, k};
      g.c = product_.data();
      gemm(g);
    }
  }

  // Units in blocks [u0, u1) of rows [r0, r1) at place k.
  void run_step(Index k, Index r0, Index r1, Index u0, Index u1) const {
    alignas(64) T sums[4 * kBlockRows * kWide];
    const Index gates = a.gates(), panel = a.state * kWide;
    for (Index r = r0; r < r1; r += kBlockRows) {
      const int n = static_cast<int>(std::min<Index>(kBlockRows, r1 - r));
      const T* rows[kBlockRows];
      int fed = 0;  // rows whose state is not zero: the first ones
      for (int i = 0; i < n; ++i) {
        rows[i] = this->before(k, r + i, out_, a.state, a.h0);
        if (a.h0 || this->has(k - 1, r + i)) fed = i + 1;
      }
      for (Index u = u0; u < u1; u += units_per_group()) {
        const Index last = std::min<Index>(u1, u + units_per_group());
        const int count = static_cast<int>((last - u) * gates);
        if (fed < n || !pack_) std::fill_n(sums, count * kBlockRows * kWide, T(0));
        if (fed && pack_) rows_by_panels(rows, fed, a.state, panels_.data() + u * gates * panel, count, sums);
        for (Index v = u; v < last; ++v)
          for (int i = 0; i < n; ++i) {
            const T* sum = sums + ((v - u) * gates * kBlockRows + i) * kWide;
            Index apart = kBlockRows * kWide;
            if (fed && !pack_) {
              sum = product_.data() + (r + i) * gates * a.hidden + v * kWide;
              apart = a.hidden;
            }
            const int width = static_cast<int>(std::min<Index>(kWide, a.hidden - v * kWide));
            T* to = a.w_hr ? wide_.data() + (r + i) * a.hidden : out_ + this->row(this->step(k), r + i) * a.state;
            if (width == kWide) cell(int(kWide), k, r + i, v * kWide, sum, apart, to + v * kWide);
            else cell(width, k, r + i, v * kWide, sum, apart, to + v * kWide);
          }
      }
      if (a.w_hr) project(k, r, n);
    }
  }

  inline __attribute__((always_inline)) void cell(int n, Index k, Index r, Index unit, const T* sum, Index apart,
                                                  T* to) const {
    const Index at = this->row(this->step(k), r);
    T unused[kWide];
    T* gates = gates_ + (at - first_row_) * a.gates() * a.hidden + unit;
    T* kept = kept_.cells ? kept_.cells + at * a.hidden + unit : unused;
    const T* bias = bias_.data() + unit;
    switch (a.cell) {
      case Cell::lstm:
        lstm_units(n, gates, a.hidden, sum, apart, bias, c_n_ + r * a.hidden + unit, kept, to);
        break;
      case Cell::gru: {
        T none[kWide] = {};
        const T* state_bias = a.b_hh ? a.b_hh + 2 * a.hidden + unit : none;
        gru_units(n, gates, a.hidden, sum, apart, bias, state_bias, this->before(k, r, out_, a.state, a.h0) + unit, kept,
                  to);
        break;
      }
      default:
        plain_units(a.cell == Cell::relu, n, gates, sum, bias, to);
    }
  }

  void project(Index k, Index r, int n) const {
    alignas(64) T sums[4 * kBlockRows * kWide];
    const T* rows[kBlockRows];
    for (int i = 0; i < n; ++i) rows[i] = wide_.data() + (r + i) * a.hidden;
    const Index blocks = divide_up(a.state, kWide);
    for (Index b = 0; b < blocks; b += 4) {
      const int count = static_cast<int>(std::min<Index>(4, blocks - b));
      rows_by_panels(rows, n, a.hidden, projection_.data() + b * a.hidden * kWide, count, sums);
      for (int p = 0; p < count; ++p)
        for (int i = 0; i < n; ++i) {
          const Index unit = (b + p) * kWide;
          std::copy_n(sums + (p * kBlockRows + i) * kWide, std::min<Index>(kWide, a.state - unit),
                      out_ + this->row(this->step(k), r + i) * a.state + unit);
        }
    }
  }

  T *out_, *h_n_, *c_n_;
  Kept<T> kept_;
  Index blocks_;
  bool pack_;
  Scratch<T> panels_, projection_, product_, wide_, bias_;  // wide: the hidden state before its projection
  T* gates_ = nullptr;
  Index first_row_ = 0;
};

}  // namespace

template <class T>
void recurrent(const Recurrent<T>& layer, T* out, T* h_n, T* c_n, const Kept<T>& kept) {
  Forward<T>(layer, out, h_n, c_n, kept).run();
}

template void recurrent(const Recurrent<float>&, float*, float*, float*, const Kept<float>&);
template void recurrent(const Recurrent<double>&, double*, double*, double*, const Kept<double>&);

}  // namespace tg
