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

// e^y for |y| <= 87: without the second scale by which lane::exp reaches subnormal and largest results.
inline float exp_of_gate(float y) {
  const float t = lane::fma_(y, 1.44269504f, lane::kRoundF);
  const float k = t - lane::kRoundF;
  float r = lane::fma_(k, -0.693145752f, y);
  r = lane::fma_(k, -1.42860677e-6f, r);
  return (lane::fma_(lane::exp_tail(r), r * r, r) + 1.0f) *
         lane::power_of_two(lane::bits<std::int32_t>(t) - lane::kRoundBitsF);
}

// Within 2 ulp where the gate is at least 2^-126, and that where it should be less.
inline float gate_sigmoid(float x) {
  float y = x < -87.0f ? -87.0f : x;
  y = y > 87.0f ? 87.0f : y;
  return 1.0f / (1.0f + exp_of_gate(-y));
}
inline double gate_sigmoid(double x) { return lane::sigmoid(x); }

// lane::tanh with that exponential.
inline float gate_tanh(float x) {
  const float a = std::fabs(x), z = x * x;
  const float p = lane::horner(z, -0.333333313f, 0.133332014f, -0.0539460182f, 0.0216961652f, -0.00816521049f,
                               0.00213102112f);
  const float large = 1.0f - 2.0f / (exp_of_gate(2.0f * (a > 10.0f ? 10.0f : a)) + 1.0f);
  return a < 0.625f ? lane::fma_(p * z, x, x) : std::copysign(large, x);
}
inline double gate_tanh(double x) { return lane::tanh(x); }

// What gates are of: the input's share and what was summed up, each in blocks of a gate so far apart, and biases.
template <class T>
struct GateSums {
  const T* share;
  Index share_apart;
  const T* sums;
  Index sums_apart;
  const T* bias;
  Index bias_apart;
};

// `share` may be where results go: an element is read before it is written.
template <class T>
TG_CELL void sigmoid_run(const GateSums<T>& of, int gate, int n, T* to, T* copy) {
  const T *share = of.share + gate * of.share_apart, *sum = of.sums + gate * of.sums_apart;
  const T* bias = of.bias + gate * of.bias_apart;
#pragma GCC ivdep
  for (int j = 0; j < n; ++j) to[j] = copy[j] = gate_sigmoid(share[j] + sum[j] + bias[j]);
}
template <class T>
TG_CELL void tanh_run(const GateSums<T>& of, int gate, int n, T* to, T* copy) {
  const T *share = of.share + gate * of.share_apart, *sum = of.sums + gate * of.sums_apart;
  const T* bias = of.bias + gate * of.bias_apart;
#pragma GCC ivdep
  for (int j = 0; j < n; ++j) to[j] = copy[j] = gate_tanh(share[j] + sum[j] + bias[j]);
}

// gates: where the activated ones go, in blocks `apart`. c is the cell, updated; kept receives a copy.
template <class T>
TG_CELL void lstm_units(int n, const GateSums<T>& of, T* gates, Index apart, T* __restrict c, T* __restrict kept,
                        T* __restrict h) {
  T i[kPanel<T>], f[kPanel<T>], g[kPanel<T>], o[kPanel<T>];
  sigmoid_run(of, 0, n, gates, i);
  sigmoid_run(of, 1, n, gates + apart, f);
  tanh_run(of, 2, n, gates + 2 * apart, g);
  sigmoid_run(of, 3, n, gates + 3 * apart, o);
  for (int j = 0; j < n; ++j) f[j] = lane::fma_(f[j], c[j], i[j] * g[j]);
  for (int j = 0; j < n; ++j) h[j] = o[j] * gate_tanh(f[j]);
  for (int j = 0; j < n; ++j) c[j] = f[j];
  for (int j = 0; j < n; ++j) kept[j] = f[j];
}

template <class T>
TG_CELL void lstm_units_backward(int n, const T* gates, Index hidden, const T* __restrict c, const T* __restrict before,
                                 const T* __restrict dh, T* __restrict dc, T* to) {
  T *di = to, *df = to + hidden, *dg = to + 2 * hidden, *d_o = to + 3 * hidden;
  const T *i = gates, *f = gates + hidden, *g = gates + 2 * hidden, *o = gates + 3 * hidden;
  T d[kPanel<T>], next[kPanel<T>], a[kPanel<T>];
  for (int j = 0; j < n; ++j) {
    const T t = gate_tanh(c[j]);
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

// given, share: the input's and the state's share of the new gate; state_bias: the latter's; kept: that, bias included.
template <class T>
TG_CELL void gru_units(int n, const GateSums<T>& of, const T* given, const T* share, const T* state_bias, T* gates,
                       Index apart, const T* __restrict before, T* __restrict kept, T* __restrict h) {
  T r[kPanel<T>], z[kPanel<T>], fed[kPanel<T>];
  sigmoid_run(of, 0, n, gates, r);
  sigmoid_run(of, 1, n, gates + apart, z);
  T* __restrict fresh = gates + 2 * apart;
  const T* bias = of.bias + 2 * of.bias_apart;
  for (int j = 0; j < n; ++j) fed[j] = share[j] + state_bias[j];
#pragma GCC ivdep
  for (int j = 0; j < n; ++j) r[j] = gate_tanh(lane::fma_(r[j], fed[j], given[j] + bias[j]));
  for (int j = 0; j < n; ++j) h[j] = lane::fma_(z[j], before[j], (T(1) - z[j]) * r[j]);
  for (int j = 0; j < n; ++j) fresh[j] = r[j];
  for (int j = 0; j < n; ++j) kept[j] = fed[j];
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
TG_CELL void plain_units(bool relu, int n, const GateSums<T>& of, T* __restrict h) {
  const T *share = of.share, *sum = of.sums, *bias = of.bias;
  if (relu)
    for (int j = 0; j < n; ++j) {
      const T total = share[j] + sum[j] + bias[j];
      h[j] = total <= T(0) ? T(0) : total;  // NaN stays
    }
  else
    for (int j = 0; j < n; ++j) h[j] = gate_tanh(share[j] + sum[j] + bias[j]);
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
