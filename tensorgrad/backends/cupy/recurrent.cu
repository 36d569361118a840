// The cells of recurrent layers, one step of all sequences at once: what comes behind the product of the states before
// (rows, gates * hidden) forward, and before that of the slopes backward.
//
//   lstm:  c' = f c + i g,  h = o tanh(c')          i, f, o = sigmoid, g = tanh
//   gru:   h' = (1 - z) n + z h                     r, z = sigmoid, n = tanh(x_n + r h_n)
//   plain: h' = tanh or relu
//
// A thread computes a few neighbouring units of one row, all their gates: what it reads and writes it reads and writes
// once. Everything is dense. Half precision (T) is what products take and give, and what is kept for backward; gates
// are computed, and what goes past the products is handed on, in float (W): cells, GRU's state, their gradients. A null
// pointer stands for zeros, or for what nobody wants.

namespace tg {

template <class W, int V> TG_FN void added(Some<W, V>& x, const Some<W, V>& y) {
#pragma unroll
  for (int e = 0; e < V; ++e) x.v[e] += y.v[e];
}
template <class T, class W, int V> TG_FN void added(Some<W, V>& x, const T* from) {
  if (from) added(x, fetch<V>(from));
}
template <class W, int V> TG_FN Some<W, V> zeros() {
  Some<W, V> x;
#pragma unroll
  for (int e = 0; e < V; ++e) x.v[e] = 0;
  return x;
}
template <class T> TG_FN const T* moved(const T* from, i64 by) { return from ? from + by : nullptr; }

// each(row, unit) of the first of every V neighbours.
template <int V, class Each>
TG_FN void over_units(i64 rows, i64 hidden, Each each) {
  const i64 packs = hidden / V, step = (i64)gridDim.x * blockDim.x;
  for (i64 i = blockIdx.x * (i64)blockDim.x + threadIdx.x; i < rows * packs; i += step) each(i / packs, i % packs * V);
}

TG_FN bool fit() { return true; }
template <class T, class... More>
TG_FN bool fit(const T* first, More... more) { return (size_t)first % 16 == 0 && fit(more...); }

// The inputs of gate g: the input's share and bias, and the state's.
template <class T, int V>
TG_FN Some<typename wide<T>::type, V> inputs(i64 at, i64 column, const T* gates, const T* bias_ih) {
  auto x = fetch<V>(gates + at);
  added(x, moved(bias_ih, column));
  return x;
}
template <class T, int V>
TG_FN Some<typename wide<T>::type, V> fed_back(i64 at, i64 column, const T* sums, const T* bias_hh) {
  auto x = zeros<typename wide<T>::type, V>();
  added(x, moved(sums, at));
  added(x, moved(bias_hh, column));
  return x;
}

template <class T, int V>
TG_FN void lstm(i64 rows, i64 hidden, T* gates, const T* sums, const T* bias_ih, const T* bias_hh,
                typename wide<T>::type* cell, T* cells, T* out, T* state) {
  typedef typename wide<T>::type W;
  over_units<V>(rows, hidden, [=](i64 row, i64 unit) {
    const i64 first = row * 4 * hidden + unit, place = row * hidden + unit;
    Some<W, V> a[4], c = fetch<V>(cell + place), h;
#pragma unroll
    for (int g = 0; g < 4; ++g) {
      const i64 at = first + g * hidden, column = g * hidden + unit;
      const Some<W, V> back = fed_back<T, V>(at, column, sums, bias_hh);
      a[g] = inputs<T, V>(at, column, gates, bias_ih);
#pragma unroll
      for (int e = 0; e < V; ++e) {
        const W x = a[g].v[e] + back.v[e];
        a[g].v[e] = g == 2 ? tanh(x) : sigmoid(x);
      }
    }
#pragma unroll
    for (int e = 0; e < V; ++e) {
      c.v[e] = a[1].v[e] * c.v[e] + a[0].v[e] * a[2].v[e];
      h.v[e] = a[3].v[e] * tanh(c.v[e]);
    }
    deposit<V>(cell + place, c);
    deposit<V>(out + place, h);
    if (state) deposit<V>(state + place, h);
    if (!cells) return;
    deposit<V>(cells + place, c);
#pragma unroll
    for (int g = 0; g < 4; ++g) deposit<V>(gates + first + g * hidden, a[g]);
  });
}

// h: the running state; state: what the next product reads, null where that is h itself.
template <class T, int V>
TG_FN void gru(i64 rows, i64 hidden, T* gates, const T* sums, const T* bias_ih, const T* bias_hh, T* cells, T* out,
               typename wide<T>::type* h, T* state) {
  typedef typename wide<T>::type W;
  over_units<V>(rows, hidden, [=](i64 row, i64 unit) {
    const i64 first = row * 3 * hidden + unit, place = row * hidden + unit;
    Some<W, V> a[3], back[3], now = fetch<V>(h + place);
#pragma unroll
    for (int g = 0; g < 3; ++g) {
      const i64 at = first + g * hidden, column = g * hidden + unit;
      back[g] = fed_back<T, V>(at, column, sums, bias_hh);
      a[g] = inputs<T, V>(at, column, gates, bias_ih);
    }
#pragma unroll
    for (int e = 0; e < V; ++e) {
      const W r = a[0].v[e] = sigmoid(a[0].v[e] + back[0].v[e]), z = a[1].v[e] = sigmoid(a[1].v[e] + back[1].v[e]);
      const W n = a[2].v[e] = tanh(a[2].v[e] + r * back[2].v[e]);
      now.v[e] = (1 - z) * n + z * now.v[e];
    }
    deposit<V>(out + place, now);
    deposit<V>(h + place, now);
    if (state) deposit<V>(state + place, now);
    if (!cells) return;
    deposit<V>(cells + place, back[2]);
#pragma unroll
    for (int g = 0; g < 3; ++g) deposit<V>(gates + first + g * hidden, a[g]);
  });
}

template <class T, int V>
TG_FN void plain(i64 rows, i64 hidden, i64 relu, const T* gates, const T* sums, const T* bias_ih, const T* bias_hh,
                 T* out, T* state) {
  typedef typename wide<T>::type W;
  over_units<V>(rows, hidden, [=](i64 row, i64 unit) {
    const i64 place = row * hidden + unit;
    Some<W, V> x = inputs<T, V>(place, unit, gates, bias_ih);
    const Some<W, V> back = fed_back<T, V>(place, unit, sums, bias_hh);
#pragma unroll
    for (int e = 0; e < V; ++e) {
      const W total = x.v[e] + back.v[e];
      x.v[e] = !relu ? tanh(total) : total <= 0 ? (W)0 : total;  // NaN stays
    }
    deposit<V>(out + place, x);
    deposit<V>(state + place, x);
  });
}

// --- backward

// The gradient of a row's state: what the step after it gave back (of the first `fed_rows` rows), what comes from outside,
// and what is carried past the weights.
template <class T, int V>
TG_FN Some<typename wide<T>::type, V> arriving(i64 row, i64 place, i64 fed_rows, const T* seed, const T* fed,
                                               const typename wide<T>::type* carry) {
  auto dh = carry ? fetch<V>(carry + place) : zeros<typename wide<T>::type, V>();
  if (row < fed_rows) added(dh, moved(fed, place));
  added(dh, moved(seed, place));
  return dh;
}

// What was there before a row's step: of the step before it, or where the sequence starts.
template <int V, class T>
TG_FN Some<typename wide<T>::type, V> earlier(i64 row, i64 place, i64 before_rows, const T* before, const T* start) {
  if (row < before_rows) return fetch<V>(before + place);
  return start ? fetch<V>(start + place) : zeros<typename wide<T>::type, V>();
}

template <class T, int V>
TG_FN void lstm_back(i64 rows, i64 hidden, i64 fed_rows, i64 before_rows, const T* gates, const T* cells, const T* before,
                     const T* start, const T* seed, const T* fed, typename wide<T>::type* carry,
                     typename wide<T>::type* to_cell, T* slopes) {
  typedef typename wide<T>::type W;
  over_units<V>(rows, hidden, [=](i64 row, i64 unit) {
    const i64 first = row * 4 * hidden + unit, place = row * hidden + unit;
    const Some<W, V> dh = arriving<T, V>(row, place, fed_rows, seed, fed, carry);
    const Some<W, V> c0 = earlier<V>(row, place, before_rows, before, start), c = fetch<V>(cells + place);
    Some<W, V> a[4], dc = fetch<V>(to_cell + place);
#pragma unroll
    for (int g = 0; g < 4; ++g) a[g] = fetch<V>(gates + first + g * hidden);
#pragma unroll
    for (int e = 0; e < V; ++e) {
      const W i = a[0].v[e], f = a[1].v[e], g = a[2].v[e], o = a[3].v[e], t = tanh(c.v[e]);
      const W d = dc.v[e] + dh.v[e] * o * (1 - t * t);
      dc.v[e] = d * f;
      a[0].v[e] = d * g * i * (1 - i);
      a[1].v[e] = d * c0.v[e] * f * (1 - f);
      a[2].v[e] = d * i * (1 - g * g);
      a[3].v[e] = dh.v[e] * t * o * (1 - o);
    }
    deposit<V>(to_cell + place, dc);
    if (carry) deposit<V>(carry + place, zeros<W, V>());
#pragma unroll
    for (int g = 0; g < 4; ++g) deposit<V>(slopes + first + g * hidden, a[g]);
  });
}

// to_x and to_h: the slopes of the input's share and of the state's, which differ in the new gate's.
template <class T, int V>
TG_FN void gru_back(i64 rows, i64 hidden, i64 fed_rows, i64 before_rows, const T* gates, const T* cells, const T* before,
                    const T* start, const T* seed, const T* fed, typename wide<T>::type* carry, T* to_x, T* to_h) {
  typedef typename wide<T>::type W;
  over_units<V>(rows, hidden, [=](i64 row, i64 unit) {
    const i64 first = row * 3 * hidden + unit, place = row * hidden + unit;
    const Some<W, V> dh = arriving<T, V>(row, place, fed_rows, seed, fed, carry);
    const Some<W, V> h0 = earlier<V>(row, place, before_rows, before, start), share = fetch<V>(cells + place);
    Some<W, V> a[3], back, direct;
#pragma unroll
    for (int g = 0; g < 3; ++g) a[g] = fetch<V>(gates + first + g * hidden);
#pragma unroll
    for (int e = 0; e < V; ++e) {
      const W r = a[0].v[e], z = a[1].v[e], n = a[2].v[e], dn = dh.v[e] * (1 - z) * (1 - n * n);
      a[0].v[e] = dn * share.v[e] * r * (1 - r);
      a[1].v[e] = dh.v[e] * (h0.v[e] - n) * z * (1 - z);
      a[2].v[e] = dn;
      back.v[e] = dn * r;
      direct.v[e] = dh.v[e] * z;
    }
    deposit<V>(carry + place, direct);
#pragma unroll
    for (int g = 0; g < 3; ++g) {
      deposit<V>(to_x + first + g * hidden, a[g]);
      deposit<V>(to_h + first + g * hidden, g == 2 ? back : a[g]);
    }
  });
}

template <class T, int V>
TG_FN void plain_back(i64 rows, i64 hidden, i64 relu, i64 fed_rows, const T* out, const T* seed, const T* fed,
                      typename wide<T>::type* carry, T* slopes) {
  typedef typename wide<T>::type W;
  over_units<V>(rows, hidden, [=](i64 row, i64 unit) {
    const i64 place = row * hidden + unit;
    Some<W, V> dh = arriving<T, V>(row, place, fed_rows, seed, fed, carry);
    const Some<W, V> h = fetch<V>(out + place);
#pragma unroll
    for (int e = 0; e < V; ++e) {
      if (relu) dh.v[e] = h.v[e] > 0 ? dh.v[e] : (W)0;
      else dh.v[e] *= 1 - h.v[e] * h.v[e];
    }
    deposit<V>(carry + place, zeros<W, V>());
    deposit<V>(slopes + place, dh);
  });
}

}  // namespace tg

// By packs where every row of every array has whole ones.
#define BY_PACKS(T, function, pointers, ...)                                          \
  if (hidden * sizeof(T) % 16 == 0 && tg::fit pointers) tg::function<T, 16 / sizeof(T)>(__VA_ARGS__); \
  else tg::function<T, 1>(__VA_ARGS__);

// T: stored; W: computed.
#define LSTM(name, T, W)                                                                                               \
  extern "C" __global__ void lstm_##name(const tg::i64 rows, const tg::i64 hidden, T* gates, const T* sums,            \
                                         const T* bias_ih, const T* bias_hh, W* cell, T* cells, T* out, T* state) {    \
    BY_PACKS(T, lstm, (gates, sums, bias_ih, bias_hh, cell, cells, out, state), rows, hidden, gates, sums, bias_ih,    \
             bias_hh, cell, cells, out, state)                                                                         \
  }
#define GRU(name, T, W)                                                                                                \
  extern "C" __global__ void gru_##name(const tg::i64 rows, const tg::i64 hidden, T* gates, const T* sums,             \
                                        const T* bias_ih, const T* bias_hh, T* cells, T* out, W* h, T* state) {        \
    BY_PACKS(T, gru, (gates, sums, bias_ih, bias_hh, cells, out, h, state), rows, hidden, gates, sums, bias_ih,        \
             bias_hh, cells, out, h, state)                                                                            \
  }
#define PLAIN(name, T, W)                                                                                              \
  extern "C" __global__ void plain_##name(const tg::i64 rows, const tg::i64 hidden, const tg::i64 relu, const T* gates, \
                                          const T* sums, const T* bias_ih, const T* bias_hh, T* out, T* state) {       \
    BY_PACKS(T, plain, (gates, sums, bias_ih, bias_hh, out, state), rows, hidden, relu, gates, sums, bias_ih, bias_hh, \
             out, state)                                                                                               \
  }
#define LSTMBACK(name, T, W)                                                                                           \
  extern "C" __global__ void lstmback_##name(                                                                          \
      const tg::i64 rows, const tg::i64 hidden, const tg::i64 fed_rows, const tg::i64 before_rows, const T* gates,     \
      const T* cells, const T* before, const T* start, const T* seed, const T* fed, W* carry, W* to_cell, T* slopes) { \
    BY_PACKS(T, lstm_back, (gates, cells, before, start, seed, fed, carry, to_cell, slopes), rows, hidden, fed_rows,   \
             before_rows, gates, cells, before, start, seed, fed, carry, to_cell, slopes)                              \
  }
#define GRUBACK(name, T, W)                                                                                            \
  extern "C" __global__ void gruback_##name(                                                                           \
      const tg::i64 rows, const tg::i64 hidden, const tg::i64 fed_rows, const tg::i64 before_rows, const T* gates,     \
      const T* cells, const T* before, const T* start, const T* seed, const T* fed, W* carry, T* to_x, T* to_h) {      \
    BY_PACKS(T, gru_back, (gates, cells, before, start, seed, fed, carry, to_x, to_h), rows, hidden, fed_rows,         \
             before_rows, gates, cells, before, start, seed, fed, carry, to_x, to_h)                                   \
  }
#define PLAINBACK(name, T, W)                                                                                          \
  extern "C" __global__ void plainback_##name(const tg::i64 rows, const tg::i64 hidden, const tg::i64 relu,            \
                                              const tg::i64 fed_rows, const T* out, const T* seed, const T* fed,       \
                                              W* carry, T* slopes) {                                                   \
    BY_PACKS(T, plain_back, (out, seed, fed, carry, slopes), rows, hidden, relu, fed_rows, out, seed, fed, carry,      \
             slopes)                                                                                                   \
  }

// The kernels follow, each by a line of the table in kernels.py.
