// One recurrent layer in one direction over whole sequences: LSTM, GRU, and the plain cell with tanh or relu.
//
// Rows are numbered step by step: step t has sizes[t] of them, those of the sequences 0 to sizes[t] - 1, and sizes fall,
// as in a packed batch; in a padded one they are all the same. Everything is C-contiguous.
#pragma once

#include <vector>

#include "../core/dtype.h"

namespace tg {

enum class Cell { lstm, gru, tanh, relu };

template <class T>
struct Recurrent {
  Cell cell = Cell::lstm;
  bool reverse = false;                    // the last step comes first
  Index inputs = 0, hidden = 0, state = 0;  // state: width of what is fed back, the projection's where there is one
  std::vector<Index> sizes, first;         // first row of each step, and at the end the number of rows
  const T* x = nullptr;                    // (rows, inputs)
  const T *h0 = nullptr, *c0 = nullptr;    // (batch, state) and (batch, hidden), or null for zeros
  const T *w_ih = nullptr, *w_hh = nullptr, *w_hr = nullptr;  // (gates * hidden, inputs | state), (state, hidden) or null
  const T *b_ih = nullptr, *b_hh = nullptr;                   // (gates * hidden,) or null

  Index gates() const { return cell == Cell::lstm ? 4 : cell == Cell::gru ? 3 : 1; }
  Index steps() const { return static_cast<Index>(sizes.size()); }
  Index batch() const { return sizes.empty() ? 0 : sizes[0]; }
  Index rows() const { return first.back(); }
};

// What backward needs besides out: LSTM, the activated gates (rows, 4 hidden) and the cells (rows, hidden); GRU, the
// activated gates (rows, 3 hidden) and the new gate's share of the state (rows, hidden); null if nobody will ask.
template <class T>
struct Kept {
  T *gates = nullptr, *cells = nullptr;
};

// out (rows, state), the final h_n (batch, state) and, for LSTM, c_n (batch, hidden).
template <class T>
void recurrent(const Recurrent<T>& layer, T* out, T* h_n, T* c_n, const Kept<T>& kept);

// The gradients that arrive (null: none). Element (row r of step t) of that to out lies at r * g_row + t * g_step, or, in a
// packed batch, at (first[t] + r) * g_row.
template <class T>
struct RecurrentSeeds {
  const T* out = nullptr;
  Index g_row = 0, g_step = 0;
  bool packed = false;
  const T *h_n = nullptr, *c_n = nullptr;
};

// Where the gradients go; null for those not needed.
template <class T>
struct RecurrentGrads {
  T *x = nullptr, *h0 = nullptr, *c0 = nullptr, *w_ih = nullptr, *w_hh = nullptr, *b_ih = nullptr, *b_hh = nullptr,
    *w_hr = nullptr;
};

template <class T>
void recurrent_backward(const Recurrent<T>& layer, const RecurrentSeeds<T>& seeds, const T* out, const Kept<T>& kept,
                        const RecurrentGrads<T>& grads);

}  // namespace tg
