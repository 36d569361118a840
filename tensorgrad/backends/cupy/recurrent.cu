// The cells of recurrent layers, one step of all sequences at once: what comes behind the product of the states before
// (rows, gates * hidden) forward, and before that of the slopes backward.
//
//   lstm:  c' = f c + i g,  h = o tanh(c')          i, f, o = sigmoid, g = tanh
//   gru:   h' = (1 - z) n + z h                     r, z = sigmoid, n = tanh(x_n + r h_n)
//   plain: h' = tanh or relu
//
// A thread computes a few neighbouring units of one row, all their gates: what it reads and writes it reads and writes
// once. Everything is dense; half precision has been widened. A null pointer stands for zeros, or for what nobody wants.

namespace tg {

template <class T, int V> TG_FN pack<T, V> taken(const T* from) { return *(const pack<T, V>*)from; }
template <class T, int V> TG_FN void given(T* to, const pack<T, V>& x) { *(pack<T, V>*)to = x; }
template <class T, int V> TG_FN void added(pack<T, V>& x, const T* from) {
  if (!from) return;
  const pack<T, V> y = taken<T, V>(from);
#pragma unroll
  for (int e = 0; e < V; ++e) x.v[e] += y.v[e];
}
template <class T, int V> TG_FN pack<T, V> zeros() {
  pack<T, V> x;
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
TG_FN pack<T, V> inputs(i64 at, i64 column, const T* gates, const T* bias_ih) {
  pack<T, V> x = taken<T, V>(gates + at);
  added<T, V>(x, moved(bias_ih, column));
  return x;
}
template <class T, int V>
TG_FN pack<T, V> fed_back(i64 at, i64 column, const T* sums, const T* bias_hh) {
  pack<T, V> x = zeros<T, V>();
  added<T, V>(x, moved(sums, at));
  added<T, V>(x, moved(bias_hh, column));
  return x;
}

template <class T, int V>
TG_FN void lstm(i64 rows, i64 hidden, T* gates, const T* sums, const T* bias_ih, const T* bias_hh, T* cell, T* cells,
                T* out, T* state) {
  over_units<V>(rows, hidden, [=](i64 row, i64 unit) {
    const i64 first = row * 4 * hidden + unit, place = row * hidden + unit;
    pack<T, V> a[4], c = taken<T, V>(cell + place), h;
#pragma unroll
    for (int g = 0; g < 4; ++g) {
      const i64 at = first + g * hidden, column = g * hidden + unit;
      const pack<T, V> back = fed_back<T, V>(at, column, sums, bias_hh);
      a[g] = inputs<T, V>(at, column, gates, bias_ih);
#pragma unroll
      for (int e = 0; e < V; ++e) {
        const T x = a[g].v[e] + back.v[e];
        a[g].v[e] = g == 2 ? tanh(x) : sigmoid(x);
      }
    }
#pragma unroll
    for (int e = 0; e < V; ++e) {
      c.v[e] = a[1].v[e] * c.v[e] + a[0].v[e] * a[2].v[e];
      h.v[e] = a[3].v[e] * tanh(c.v[e]);
    }
    given<T, V>(cell + place, c);
    given<T, V>(out + place, h);
    if (state) given<T, V>(state + place, h);
    if (!cells) return;
    given<T, V>(cells + place, c);
#pragma unroll
    for (int g = 0; g < 4; ++g) given<T, V>(gates + first + g * hidden, a[g]);
  });
}

template <class T, int V>
TG_FN void gru(i64 rows, i64 hidden, T* gates, const T* sums, const T* bias_ih, const T* bias_hh, T* cells, T* out,
               T* state) {
  over_units<V>(rows, hidden, [=](i64 row, i64 unit) {
    const i64 first = row * 3 * hidden + unit, place = row * hidden + unit;
    pack<T, V> a[3], back[3], h = taken<T, V>(state + place);
#pragma unroll
    for (int g = 0; g < 3; ++g) {
      const i64 at = first + g * hidden, column = g * hidden + unit;
      back[g] = fed_back<T, V>(at, column, sums, bias_hh);
      a[g] = inputs<T, V>(at, column, gates, bias_ih);
    }
#pragma unroll
    for (int e = 0; e < V; ++e) {
      const T r = a[0].v[e] = sigmoid(a[0].v[e] + back[0].v[e]), z = a[1].v[e] = sigmoid(a[1].v[e] + back[1].v[e]);
      const T n = a[2].v[e] = tanh(a[2].v[e] + r * back[2].v[e]);
      h.v[e] = (1 - z) * n + z * h.v[e];
    }
    given<T, V>(out + place, h);
    given<T, V>(state + place, h);
    if (!cells) return;
    given<T, V>(cells + place, back[2]);
#pragma unroll
    for (int g = 0; g < 3; ++g) given<T, V>(gates + first + g * hidden, a[g]);
  });
}

template <class T, int V>
TG_FN void plain(i64 rows, i64 hidden, i64 relu, const T* gates, const T* sums, const T* bias_ih, const T* bias_hh,
                 T* out, T* state) {
  over_units<V>(rows, hidden, [=](i64 row, i64 unit) {
    const i64 place = row * hidden + unit;
    pack<T, V> x = inputs<T, V>(place, unit, gates, bias_ih);
    const pack<T, V> back = fed_back<T, V>(place, unit, sums, bias_hh);
#pragma unroll
    for (int e = 0; e < V; ++e) {
      const T total = x.v[e] + back.v[e];
      x.v[e] = !relu ? tanh(total) : total <= 0 ? (T)0 : total;  // NaN stays
    }
    given<T, V>(out + place, x);
    given<T, V>(state + place, x);
  });
}

// --- backward

// The gradient of a row's state: what the step after it gave back (of the first `fed_rows` rows), what comes from outside,
// and what is carried past the weights.
template <class T, int V>
TG_FN pack<T, V> arriving(i64 row, i64 place, i64 fed_rows, const T* seed, const T* fed, const T* carry) {
  pack<T, V> dh = carry ? taken<T, V>(carry + place) : zeros<T, V>();
  if (row < fed_rows) added<T, V>(dh, moved(fed, place));
  added<T, V>(dh, moved(seed, place));
  return dh;
}

// What was there before a row's step: of the step before it, or where the sequence starts.
template <class T, int V>
TG_FN pack<T, V> earlier(i64 row, i64 place, i64 before_rows, const T* before, const T* start) {
  if (row < before_rows) return taken<T, V>(before + place);
  return start ? taken<T, V>(start + place) : zeros<T, V>();
}

template <class T, int V>
TG_FN void lstm_back(i64 rows, i64 hidden, i64 fed_rows, i64 before_rows, const T* gates, const T* cells, const T* before,
                     const T* start, const T* seed, const T* fed, T* carry, T* to_cell, T* slopes) {
  over_units<V>(rows, hidden, [=](i64 row, i64 unit) {
    const i64 first = row * 4 * hidden + unit, place = row * hidden + unit;
    const pack<T, V> dh = arriving<T, V>(row, place, fed_rows, seed, fed, carry);
    const pack<T, V> c0 = earlier<T, V>(row, place, before_rows, before, start), c = taken<T, V>(cells + place);
    pack<T, V> a[4], dc = taken<T, V>(to_cell + place);
#pragma unroll
    for (int g = 0; g < 4; ++g) a[g] = taken<T, V>(gates + first + g * hidden);
#pragma unroll
    for (int e = 0; e < V; ++e) {
      const T i = a[0].v[e], f = a[1].v[e], g = a[2].v[e], o = a[3].v[e], t = tanh(c.v[e]);
      const T d = dc.v[e] + dh.v[e] * o * (1 - t * t);
      dc.v[e] = d * f;
      a[0].v[e] = d * g * i * (1 - i);
      a[1].v[e] = d * c0.v[e] * f * (1 - f);
      a[2].v[e] = d * i * (1 - g * g);
      a[3].v[e] = dh.v[e] * t * o * (1 - o);
    }
    given<T, V>(to_cell + place, dc);
    if (carry) given<T, V>(carry + place, zeros<T, V>());
#pragma unroll
    for (int g = 0; g < 4; ++g) given<T, V>(slopes + first + g * hidden, a[g]);
  });
}

// to_x and to_h: the slopes of the input's share and of the state's, which differ in the new gate's.
template <class T, int V>
TG_FN void gru_back(i64 rows, i64 hidden, i64 fed_rows, i64 before_rows, const T* gates, const T* cells, const T* before,
                    const T* start, const T* seed, const T* fed, T* carry, T* to_x, T* to_h) {
  over_units<V>(rows, hidden, [=](i64 row, i64 unit) {
    const i64 first = row * 3 * hidden + unit, place = row * hidden + unit;
    const pack<T, V> dh = arriving<T, V>(row, place, fed_rows, seed, fed, carry);
    const pack<T, V> h0 = earlier<T, V>(row, place, before_rows, before, start), share = taken<T, V>(cells + place);
    pack<T, V> a[3], back, direct;
#pragma unroll
    for (int g = 0; g < 3; ++g) a[g] = taken<T, V>(gates + first + g * hidden);
#pragma unroll
    for (int e = 0; e < V; ++e) {
      const T r = a[0].v[e], z = a[1].v[e], n = a[2].v[e], dn = dh.v[e] * (1 - z) * (1 - n * n);
      a[0].v[e] = dn * share.v[e] * r * (1 - r);
      a[1].v[e] = dh.v[e] * (h0.v[e] - n) * z * (1 - z);
      a[2].v[e] = dn;
      back.v[e] = dn * r;
      direct.v[e] = dh.v[e] * z;
    }
    given<T, V>(carry + place, direct);
#pragma unroll
    for (int g = 0; g < 3; ++g) {
      given<T, V>(to_x + first + g * hidden, a[g]);
      given<T, V>(to_h + first + g * hidden, g == 2 ? back : a[g]);
    }
  });
}

template <class T, int V>
TG_FN void plain_back(i64 rows, i64 hidden, i64 relu, i64 fed_rows, const T* out, const T* seed, const T* fed, T* carry,
                      T* slopes) {
  over_units<V>(rows, hidden, [=](i64 row, i64 unit) {
    const i64 place = row * hidden + unit;
    pack<T, V> dh = arriving<T, V>(row, place, fed_rows, seed, fed, carry);
    const pack<T, V> h = taken<T, V>(out + place);
#pragma unroll
    for (int e = 0; e < V; ++e) {
      const T slope = relu ? (h.v[e] > 0 ? (T)1 : (T)0) : 1 - h.v[e] * h.v[e];
      dh.v[e] = relu && !(h.v[e] > 0) ? (T)0 : dh.v[e] * slope;
    }
    given<T, V>(carry + place, zeros<T, V>());
    given<T, V>(slopes + place, dh);
  });
}

}  // namespace tg

// By packs where every row of every array has whole ones.
#define BY_PACKS(T, function, pointers, ...)                                          \
  if (hidden * sizeof(T) % 16 == 0 && tg::fit pointers) tg::function<T, 16 / sizeof(T)>(__VA_ARGS__); \
  else tg::function<T, 1>(__VA_ARGS__);

#define LSTM(name, T)                                                                                                  \
  extern "C" __global__ void lstm_##name(const tg::i64 rows, const tg::i64 hidden, T* gates, const T* sums,            \
                                         const T* bias_ih, const T* bias_hh, T* cell, T* cells, T* out, T* state) {    \
    BY_PACKS(T, lstm, (gates, sums, bias_ih, bias_hh, cell, cells, out, state), rows, hidden, gates, sums, bias_ih,    \
             bias_hh, cell, cells, out, state)                                                                         \
  }
#define GRU(name, T)                                                                                                   \
  extern "C" __global__ void gru_##name(const tg::i64 rows, const tg::i64 hidden, T* gates, const T* sums,             \
                                        const T* bias_ih, const T* bias_hh, T* cells, T* out, T* state) {              \
    BY_PACKS(T, gru, (gates, sums, bias_ih, bias_hh, cells, out, state), rows, hidden, gates, sums, bias_ih, bias_hh,  \
             cells, out, state)                                                                                        \
  }
#define PLAIN(name, T)                                                                                                 \
  extern "C" __global__ void plain_##name(const tg::i64 rows, const tg::i64 hidden, const tg::i64 relu, const T* gates, \
                                          const T* sums, const T* bias_ih, const T* bias_hh, T* out, T* state) {       \
    BY_PACKS(T, plain, (gates, sums, bias_ih, bias_hh, out, state), rows, hidden, relu, gates, sums, bias_ih, bias_hh, \
             out, state)                                                                                               \
  }
#define LSTMBACK(name, T)                                                                                              \
  extern "C" __global__ void lstmback_##name(                                                                          \
      const tg::i64 rows, const tg::i64 hidden, const tg::i64 fed_rows, const tg::i64 before_rows, const T* gates,     \
      const T* cells, const T* before, const T* start, const T* seed, const T* fed, T* carry, T* to_cell, T* slopes) { \
    BY_PACKS(T, lstm_back, (gates, cells, before, start, seed, fed, carry, to_cell, slopes), rows, hidden, fed_rows,   \
             before_rows, gates, cells, before, start, seed, fed, carry, to_cell, slopes)                              \
  }
#define GRUBACK(name, T)                                                                                               \
  extern "C" __global__ void gruback_##name(                                                                           \
      const tg::i64 rows, const tg::i64 hidden, const tg::i64 fed_rows, const tg::i64 before_rows, const T* gates,     \
      const T* cells, const T* before, const T* start, const T* seed, const T* fed, T* carry, T* to_x, T* to_h) {      \
    BY_PACKS(T, gru_back, (gates, cells, before, start, seed, fed, carry, to_x, to_h), rows, hidden, fed_rows,         \
             before_rows, gates, cells, before, start, seed, fed, carry, to_x, to_h)                                   \
  }
#define PLAINBACK(name, T)                                                                                             \
  extern "C" __global__ void plainback_##name(const tg::i64 rows, const tg::i64 hidden, const tg::i64 relu,            \
                                              const tg::i64 fed_rows, const T* out, const T* seed, const T* fed,       \
                                              T* carry, T* slopes) {                                                   \
    BY_PACKS(T, plain_back, (out, seed, fed, carry, slopes), rows, hidden, relu, fed_rows, out, seed, fed, carry,      \
             slopes)                                                                                                   \
  }

// The kernels follow, each by a line of the table in kernels.py.
