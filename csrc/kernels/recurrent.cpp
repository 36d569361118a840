// Forward: gates = x w_ih^T + h w_hh^T + b and the cell, step by step.
//
// The recurrent product, a few rows by all weights, is where a BLAS that packs the weights at every call is weak (53 to 65
// GFLOP/s of 90 on one Zen 3 core). Here they are packed once, in panels of the columns of a few units for all gates; a
// task multiplies its rows by the panels of one block of units and applies the cell to that block while the sums are in
// L1. Where rows and units fill the tiles, the input's share is summed up there as well, in one chain with the state's.
// Elsewhere it is one product for all steps before, and gates are activated where it lies; without backward that is done in
// pieces of the steps, so that only a piece's shares exist.
//
// Ladder, LSTM of 256 units, 32 sequences of 64 steps, one Zen 3 core: this walk without the input product 16.2 ms, of
// which the tiles take 11.8 (90 GFLOP/s, their peak); cells by lane::sigmoid and tanh with a bias laid out by the product,
// 17.4. On two cores, forward and backward with Adam: one op per step, 88 to 91 ms; this, 46 to 47, beside PyTorch's 60.
// On two Zen 4 cores with AVX-512, forward: input's share before, 11.6 ms; beside the state's, 11.1 to 11.3; GRU of 128
// units 2.65 and 2.5, plain cells of 64 with 8 inputs 0.40 and 0.34.
// What cells read and write is brought into L2 a row at a time between the tiles: forward 1.02 to 1.09, backward 1.02 to 1.06
// times as fast (all at once before them: no gain). No gain there: the product before in pieces of 1 to 8 MB, sweeps of 16
// KB (kSweep).
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
  static constexpr Index kWide = kPanel<T>, kApart = kBlockRows * kWide;  // a panel, and the sums of one

 public:
  Forward(const Recurrent<T>& layer, T* out, T* h_n, T* c_n, const Kept<T>& kept)
      : Base(layer), out_(out), h_n_(h_n), c_n_(c_n), kept_(kept), blocks_(divide_up(a.hidden, kWide)),
        pack_(a.steps() > 1), joined_(pack_ && filled(a)), given_(joined_ ? blocks_ * a.gates() * a.inputs * kWide : 0),
        panels_(pack_ ? blocks_ * a.gates() * a.state * kWide : 0),
        projection_(a.w_hr ? divide_up(a.state, kWide) * a.hidden * kWide : 0),
        product_(pack_ ? 0 : a.batch() * a.gates() * a.hidden), wide_(a.w_hr ? a.batch() * a.hidden : 0),
        bias_(a.gates() * a.hidden) {}

  void run() {
    if (a.cell == Cell::lstm) {
      if (a.c0) std::copy_n(a.c0, a.batch() * a.hidden, c_n_);
      else std::fill_n(c_n_, a.batch() * a.hidden, T(0));
    }
    pack();
    add_biases();
    if (joined_) walk(0, a.steps());
    else in_pieces();
    for (Index t = 0; t < a.steps(); ++t) {  // of every sequence the row of the step that comes last
      const Index from = a.reverse || t + 1 == a.steps() ? 0 : a.sizes[t + 1];
      if (a.reverse ? t == 0 : from < a.sizes[t])
        std::copy_n(out_ + this->row(t, from) * a.state, (a.sizes[t] - from) * a.state, h_n_ + from * a.state);
    }
  }

 private:
  // Whether a step's rows and units fill its tiles, so that its share of the input is best multiplied beside the state's.
  static bool filled(const Recurrent<T>& a) {
    const Index rows = a.rows() / a.steps();
    return round_up(rows, kBlockRows) * round_up(a.hidden, kWide) * 7 <= rows * a.hidden * 8;
  }

  void walk(Index k0, Index k1) const {
    this->for_steps(k0, k1, false, a.w_hr != nullptr, blocks_, units_per_group(),
                    [&](Index k, Index r0, Index r1, Index u0, Index u1) { run_step(k, r0, r1, u0, u1); });
  }

  // The input's share of a piece of steps in one product, which lies where the gates will.
  void in_pieces() {
    const Index width = a.gates() * a.hidden, all = a.steps();
    const Index piece = kept_.gates ? all : std::max<Index>(1, kPieceElements / std::max<Index>(1, a.batch() * width));
    Scratch<T> shares(kept_.gates ? 0 : std::min(all, piece) * a.batch() * width);
    for (Index k0 = 0; k0 < all; k0 += piece) {
      const Index k1 = std::min(all, k0 + piece);
      const Index low = std::min(this->step(k0), this->step(k1 - 1)), high = std::max(this->step(k0), this->step(k1 - 1));
      first_row_ = a.first[low];
      shares_ = kept_.gates ? kept_.gates : shares.data();
      Gemm<T> g;
      g.m = a.first[high + 1] - first_row_, g.n = width, g.k = a.inputs;
      g.a = {a.x + first_row_ * a.inputs, a.inputs, 1};
      g.b = {a.w_ih, 1, a.inputs};
      g.c = shares_;
      gemm(g);
      walk(k0, k1);
    }
  }

  int units_per_group() const { return a.gates() == 1 ? 4 : 1; }

  // Of GRU's state share only reset and update take theirs here; the new gate's is multiplied by the reset gate.
  void add_biases() const {
    const Index h = a.hidden;
    for (Index j = 0; j < a.gates() * h; ++j)
      bias_[j] = (a.b_ih ? a.b_ih[j] : T(0)) + (a.b_hh && (a.cell != Cell::gru || j < 2 * h) ? a.b_hh[j] : T(0));
  }

  void pack() {
    const Index gates = a.gates(), k = a.state;
    const auto by_units = [&](const T* w, Index depth, T* panels) {
      pack_panels<T>(blocks_ * gates, depth, [&](Index p) {
        const Index unit = p / gates * kWide, gate = p % gates;
        pack_transposed(w + (gate * a.hidden + unit) * depth, a.hidden - unit, depth, panels + p * depth * kWide);
      });
    };
    if (pack_) by_units(a.w_hh, k, panels_.data());
    if (joined_) by_units(a.w_ih, a.inputs, given_.data());
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
    const Index gates = a.gates();
    for (Index r = r0; r < r1; r += kBlockRows) {
      const int n = static_cast<int>(std::min<Index>(kBlockRows, r1 - r));
      const T *given[kBlockRows], *rows[kBlockRows];
      int fed = 0;  // rows whose state is not zero: the first ones
      for (int i = 0; i < n; ++i) {
        given[i] = a.x + this->row(this->step(k), r + i) * a.inputs;
        rows[i] = this->before(k, r + i, out_, a.state, a.h0);
        if (a.h0 || this->has(k - 1, r + i)) fed = i + 1;
      }
      for (Index u = u0; u < u1; u += units_per_group()) {
        const Index last = std::min<Index>(u1, u + units_per_group());
        const int count = static_cast<int>((last - u) * gates);
        if (joined_) {
          RowsAhead<T> ahead = ahead_of(k, r, n, u * kWide, std::min(a.hidden - u * kWide, (last - u) * kWide));
          rows_by_panels(given, n, a.inputs, given_.data() + u * gates * a.inputs * kWide, count, sums, false, &ahead);
        } else if (fed < n || !pack_) {
          std::fill_n(sums, count * kApart, T(0));
        }
        if (joined_ && a.cell == Cell::gru && fed < n) std::fill_n(sums + 3 * kApart, kApart, T(0));
        if (fed && pack_) add_states(rows, fed, u, count, sums);
        for (Index v = u; v < last; ++v)
          for (int i = 0; i < n; ++i) {
            const T* sum = sums + (v - u) * gates * kApart + i * kWide;
            Index apart = kApart;
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

  // What the cells of these rows and units read and write.
  RowsAhead<T> ahead_of(Index k, Index r, int n, Index unit, Index width) const {
    RowsAhead<T> ahead;
    ahead.rows = n, ahead.width = width;
    const Index at = this->row(this->step(k), r);
    if (kept_.gates)
      for (Index gate = 0; gate < a.gates(); ++gate)
        ahead.add(kept_.gates + (at * a.gates() + gate) * a.hidden + unit, a.gates() * a.hidden);
    if (kept_.cells) ahead.add(kept_.cells + at * a.hidden + unit, a.hidden);
    if (!a.w_hr) ahead.add(out_ + at * a.state + unit, a.state);
    return ahead;
  }

  // The state's share of `count` panels from block u on. GRU's of the new gate, which the reset gate will multiply, stays
  // apart from the input's.
  void add_states(const T* const* rows, int fed, Index u, int count, T* sums) const {
    const T* panels = panels_.data() + u * a.gates() * a.state * kWide;
    if (joined_ && a.cell == Cell::gru) {
      rows_by_panels(rows, fed, a.state, panels, 2, sums, true);
      rows_by_panels(rows, fed, a.state, panels + 2 * a.state * kWide, 1, sums + 3 * kApart);
    } else {
      rows_by_panels(rows, fed, a.state, panels, count, sums, joined_);
    }
  }

  inline __attribute__((always_inline)) void cell(int n, Index k, Index r, Index unit, const T* sum, Index sums_apart,
                                                  T* to) const {
    const Index at = this->row(this->step(k), r);
    T unused[5 * kWide];
    T* gates = kept_.gates ? kept_.gates + at * a.gates() * a.hidden + unit : unused;
    const Index apart = kept_.gates ? a.hidden : kWide;
    T* kept = kept_.cells ? kept_.cells + at * a.hidden + unit : unused + 4 * kWide;
    const T* share = joined_ ? this->zeros() : shares_ + (at - first_row_) * a.gates() * a.hidden + unit;
    const GateSums<T> of{share, joined_ ? 0 : a.hidden, sum, sums_apart, bias_.data() + unit, a.hidden};
    switch (a.cell) {
      case Cell::lstm:
        lstm_units(n, of, gates, apart, c_n_ + r * a.hidden + unit, kept, to);
        break;
      case Cell::gru: {
        const T* state_bias = a.b_hh ? a.b_hh + 2 * a.hidden + unit : this->zeros();
        const T* given = joined_ ? sum + 2 * sums_apart : share + 2 * a.hidden;
        gru_units(n, of, given, sum + (joined_ ? 3 : 2) * sums_apart, state_bias, gates, apart,
                  this->before(k, r, out_, a.state, a.h0) + unit, kept, to);
        break;
      }
      default:
        plain_units(a.cell == Cell::relu, n, of, to);
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
  bool pack_, joined_;
  Scratch<T> given_, panels_, projection_, product_, wide_, bias_;  // wide: the hidden state before its projection
  T* shares_ = nullptr;  // of the input, of a piece of steps from this row on
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
