// The cells, forward and backward, on n <= kPanel units of one row.
//
//   lstm:  c' = f c + i g,  h = o tanh(c')          i, f, o = sigmoid, g = tanh
//   gru:   h' = (1 - z) n + z h                     r, z = sigmoid, n = tanh(x_n + r h_n)
//   plain: h' = tanh or relu
//
// Each loop reads and writes few arrays, so that it vectorizes without questions about overlap.
#pragma once

#include "../core/simd.h"
#include "recurrent_tile.h"

namespace tg {

#define TG_CELL inline __attribute__((always_inline))

template <class T>
TG_CELL void sigmoid_run(int n, T* __restrict to, const T* __restrict sum, T* __restrict copy) {
  for (int j = 0; j < n; ++j) to[j] = copy[j] = lane::sigmoid(to[j] + sum[j]);
}
template <class T>
TG_CELL void tanh_run(int n, T* __restrict to, const T* __restrict sum, T* __restrict copy) {
  for (int j = 0; j < n; ++j) to[j] = copy[j] = lane::tanh(to[j] + sum[j]);
}

// gates: the input's share, with its blocks `hidden` apart, overwritten by the activated gates; sums: the state's share,
// `step` apart. c is the cell, updated; kept receives a copy.
template <class T>
TG_CELL void lstm_units(int n, T* gates, Index hidden, const T* sums, Index step, T* __restrict c, T* __restrict kept,
                        T* __restrict h) {
  T i[kPanel<T>], f[kPanel<T>], g[kPanel<T>], o[kPanel<T>];
  sigmoid_run(n, gates, sums, i);
  sigmoid_run(n, gates + hidden, sums + step, f);
  tanh_run(n, gates + 2 * hidden, sums + 2 * step, g);
  sigmoid_run(n, gates + 3 * hidden, sums + 3 * step, o);
  for (int j = 0; j < n; ++j) c[j] = kept[j] = lane::fma_(f[j], c[j], i[j] * g[j]);
  for (int j = 0; j < n; ++j) h[j] = o[j] * lane::tanh(kept[j]);
}

template <class T>
TG_CELL void lstm_units_backward(int n, const T* gates, Index hidden, const T* __restrict c, const T* __restrict before,
                                 const T* __restrict dh, T* __restrict dc, T* to) {
  T *di = to, *df = to + hidden, *dg = to + 2 * hidden, *d_o = to + 3 * hidden;
  const T *i = gates, *f = gates + hidden, *g = gates + 2 * hidden, *o = gates + 3 * hidden;
  T d[kPanel<T>], next[kPanel<T>], a[kPanel<T>];
  for (int j = 0; j < n; ++j) {
    const T t = lane::tanh(c[j]);
    d[j] = dc[j] + dh[j] * o[j] * (T(1) - t * t);
    a[j] = dh[j] * t * o[j] * (T(1) - o[j]);
  }
  for (int j = 0; j < n; ++j) d_o[j] = a[j];
  for (int j = 0; j < n; ++j) a[j] = d[j] * before[j] * f[j] * (T(1) - f[j]);
  for (int j = 0; j < n; ++j) next[j] = d[j] * f[j];
  for (int j = 0; j < n; ++j) df[j] = a[j];
  for (int j = 0; j < n; ++j) dc[j] = next[j];
  for (int j = 0; j < n; ++j) a[j] = d[j] * g[j] * i[j] * (T(1) - i[j]);
  for (int j = 0; j < n; ++j) next[j] = d[j] * i[j] * (T(1) - g[j] * g[j]);
  for (int j = 0; j < n; ++j) di[j] = a[j];
  for (int j = 0; j < n; ++j) dg[j] = next[j];
}

// bias: of the state's share of the new gate; kept: that share, bias included.
template <class T>
TG_CELL void gru_units(int n, T* gates, Index hidden, const T* sums, Index step, const T* __restrict bias,
                       const T* __restrict before, T* __restrict kept, T* __restrict h) {
  T r[kPanel<T>], z[kPanel<T>];
  sigmoid_run(n, gates, sums, r);
  sigmoid_run(n, gates + hidden, sums + step, z);
  T* __restrict fresh = gates + 2 * hidden;
  const T* __restrict share = sums + 2 * step;
  for (int j = 0; j < n; ++j) kept[j] = share[j] + bias[j];
  for (int j = 0; j < n; ++j) fresh[j] = lane::tanh(lane::fma_(r[j], kept[j], fresh[j]));
  for (int j = 0; j < n; ++j) h[j] = lane::fma_(z[j], before[j], (T(1) - z[j]) * fresh[j]);
}

// to: d new | d reset | d update | d (state's share of new), blocks `hidden` apart; dh becomes its direct share of the
// gradient to the state before.
template <class T>
TG_CELL void gru_units_backward(int n, const T* gates, Index hidden, const T* __restrict share, const T* __restrict before,
                                const T* __restrict dh, T* __restrict carry, T* to) {
  const T *r = gates, *z = gates + hidden, *fresh = gates + 2 * hidden;
  T dn[kPanel<T>], a[kPanel<T>];
  for (int j = 0; j < n; ++j) {
    dn[j] = dh[j] * (T(1) - z[j]) * (T(1) - fresh[j] * fresh[j]);
    a[j] = dh[j] * (before[j] - fresh[j]) * z[j] * (T(1) - z[j]);
  }
  for (int j = 0; j < n; ++j) to[j] = dn[j];
  for (int j = 0; j < n; ++j) to[2 * hidden + j] = a[j];
  for (int j = 0; j < n; ++j) a[j] = dn[j] * share[j] * r[j] * (T(1) - r[j]);
  for (int j = 0; j < n; ++j) to[hidden + j] = a[j];
  for (int j = 0; j < n; ++j) to[3 * hidden + j] = dn[j] * r[j];
  for (int j = 0; j < n; ++j) carry[j] = dh[j] * z[j];
}

template <class T>
TG_CELL void plain_units(bool relu, int n, const T* __restrict gates, const T* __restrict sums, T* __restrict h) {
  if (relu)
    for (int j = 0; j < n; ++j) {
      const T total = gates[j] + sums[j];
      h[j] = total <= T(0) ? T(0) : total;  // NaN stays
    }
  else
    for (int j = 0; j < n; ++j) h[j] = lane::tanh(gates[j] + sums[j]);
}

template <class T>
TG_CELL void plain_units_backward(bool relu, int n, const T* __restrict h, const T* __restrict dh, T* __restrict to) {
  if (relu)
    for (int j = 0; j < n; ++j) to[j] = h[j] > T(0) ? dh[j] : T(0);
  else
    for (int j = 0; j < n; ++j) to[j] = dh[j] * (T(1) - h[j] * h[j]);
}

#undef TG_CELL

}  // namespace tg
