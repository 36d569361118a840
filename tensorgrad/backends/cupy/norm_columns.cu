// Sums and statistics down the columns of (rows, length), dense, in two stages: each of `parts` stretches of
// `per_part` rows for itself, a column (or 16 bytes of columns) a thread, so that neighbours read neighbours; then
// the parts of a column together, by a tree of fixed shape. How many parts there are is decided by the shape alone,
// so the bits are too.

namespace tg {

// along[part, column] = sum of g n, n = (x - mean) rstd; plain[part, column] = sum of g. Mean (null for none) and
// rstd are per row or per column; `along` or `plain` is null where it is not needed.
// With the ReLU of a batch norm behind, g is zero where it did not pass.
template <int N, bool Relu, class T>
TG_FN void column_sums_of(i64 rows, i64 length, i64 parts, i64 per_part, bool by_column, const T* g,
                          const T* x, const typename wide<T>::type* means, const typename wide<T>::type* rstds,
                          typename wide<T>::type* along, typename wide<T>::type* plain, Parameter<T> weight,
                          const typename wide<T>::type* shifts) {
  typedef typename wide<T>::type W;
  const i64 across = length / N;
  for (i64 k = first_thread(); k < parts * across; k += thread_step()) {
    const i64 part = quotient(k, across), column = (k - part * across) * N;
    const i64 last = (part + 1) * per_part < rows ? (part + 1) * per_part : rows;
    Some<W, N> products = {}, sums = {}, mean = {}, rstd = {}, scale = {}, shift = {};
    if (along && by_column) {
      if (means) mean = fetch<N>(means + column);
      rstd = fetch<N>(rstds + column);
    }
    if (Relu) {
      scale = weight.template get<N>(column, 1);
      shift = fetch<N>(shifts + column);
#pragma unroll
      for (int e = 0; e < N; ++e) scale.v[e] *= rstd.v[e];
    }
    for (i64 row = part * per_part; row < last; ++row) {
      Some<W, N> a = fetch<N>(g + row * length + column), v = {};
      if (along) v = fetch<N>(x + row * length + column);
#pragma unroll
      for (int e = 0; e < N; ++e) {
        if (Relu && !((v.v[e] - mean.v[e]) * scale.v[e] + shift.v[e] > 0)) a.v[e] = 0;
        sums.v[e] += a.v[e];
      }
      if (!along) continue;
      const W row_mean = !by_column && means ? means[row] : 0, row_rstd = by_column ? 1 : rstds[row];
#pragma unroll
      for (int e = 0; e < N; ++e) {
        const W m = by_column ? mean.v[e] : row_mean, r = by_column ? rstd.v[e] : row_rstd;
        products.v[e] += a.v[e] * ((v.v[e] - m) * r);
      }
    }
    if (along) deposit<N>(along + part * length + column, products);
    if (plain) deposit<N>(plain + part * length + column, sums);
  }
}
template <bool Relu, class T>
TG_FN void column_sums(i64 rows, i64 length, i64 parts, i64 per_part, bool by_column, const T* g, const T* x,
                       const typename wide<T>::type* means, const typename wide<T>::type* rstds,
                       typename wide<T>::type* along, typename wide<T>::type* plain, Parameter<T> weight = {},
                       const typename wide<T>::type* shifts = nullptr) {
  if (in_packs<T>(length)) {
    column_sums_of<16 / sizeof(T), Relu>(rows, length, parts, per_part, by_column, g, x, means, rstds, along, plain,
                                         weight, shifts);
  } else {
    column_sums_of<1, Relu>(rows, length, parts, per_part, by_column, g, x, means, rstds, along, plain, weight, shifts);
  }
}

// to[column] = sum over the parts, a warp a column; from and to may be null.
template <class T>
TG_FN void column_totals(i64 parts, i64 length, const typename wide<T>::type* from, T* to) {
  typedef typename wide<T>::type W;
  if (!from) return;
  const Team warp{false};
  for (i64 column = warp.first(); column < length; column += warp.step()) {
    W sum = 0;
    for (i64 part = warp.rank(); part < parts; part += warp.size()) sum += from[part * length + column];
    sum = warp.sum(sum);
    if (warp.rank() == 0) put(to + column, sum);
  }
}

// Mean, less the pivot (the column's first element), and sum of squared deviations of each part of a column.
// Relative to an element of its own, a column's mean is at most as large as its deviation times the root of its
// length: nothing is lost where the mean is far from zero.
template <int N, class T>
TG_FN void column_stats_of(i64 rows, i64 length, i64 parts, i64 per_part, const T* x,
                           typename wide<T>::type* means, typename wide<T>::type* squares) {
  typedef typename wide<T>::type W;
  const i64 across = length / N;
  for (i64 k = first_thread(); k < parts * across; k += thread_step()) {
    const i64 part = quotient(k, across), column = (k - part * across) * N, first = part * per_part;
    const i64 last = first + per_part < rows ? first + per_part : rows;
    const Some<W, N> pivot = fetch<N>(x + column);
    Some<W, N> mean = {}, drift = {}, square = {};
    for (i64 row = first; row < last; ++row) {
      const Some<W, N> v = fetch<N>(x + row * length + column);
#pragma unroll
      for (int e = 0; e < N; ++e) mean.v[e] += v.v[e] - pivot.v[e];
    }
    const W count = last - first;
#pragma unroll
    for (int e = 0; e < N; ++e) mean.v[e] /= count;
    for (i64 row = first; row < last; ++row) {
      const Some<W, N> v = fetch<N>(x + row * length + column);
#pragma unroll
      for (int e = 0; e < N; ++e) {
        const W apart = v.v[e] - pivot.v[e] - mean.v[e];
        drift.v[e] += apart;
        square.v[e] += apart * apart;
      }
    }
#pragma unroll
    for (int e = 0; e < N; ++e) {
      mean.v[e] += drift.v[e] / count;
      square.v[e] -= drift.v[e] * drift.v[e] / count;
    }
    deposit<N>(means + part * length + column, mean);
    deposit<N>(squares + part * length + column, square);
  }
}
template <class T>
TG_FN void column_stats(i64 rows, i64 length, i64 parts, i64 per_part, const T* x, typename wide<T>::type* means,
                        typename wide<T>::type* squares) {
  if (in_packs<T>(length)) {
    column_stats_of<16 / sizeof(T)>(rows, length, parts, per_part, x, means, squares);
  } else {
    column_stats_of<1>(rows, length, parts, per_part, x, means, squares);
  }
}

}  // namespace tg

#define COLUMNSUMS(name, T, W)                                                                                         \
  extern "C" __global__ void columnsums_##name(const tg::i64 rows, const tg::i64 length, const tg::i64 parts,          \
                                               const tg::i64 per_part, const tg::i64 by_column, const T* g,            \
                                               const T* x, const W* means, const W* rstds, W* along, W* plain) {       \
    tg::column_sums<false, T>(rows, length, parts, per_part, by_column, g, x, means, rstds, along, plain);             \
  }

#define COLUMNSUMSRELU(name, T, W)                                                                                     \
  extern "C" __global__ void columnsumsrelu_##name(const tg::i64 rows, const tg::i64 length, const tg::i64 parts,      \
                                                   const tg::i64 per_part, const tg::i64 by_column, const T* g,        \
                                                   const T* x, const W* means, const W* rstds, W* along, W* plain,     \
                                                   const tg::i64 wide_weight, const void* w, const W* shifts) {        \
    tg::column_sums<true, T>(rows, length, parts, per_part, by_column, g, x, means, rstds, along, plain,               \
                             {w, wide_weight != 0}, shifts);                                                           \
  }

#define COLUMNTOTALS(name, T, W)                                                                                       \
  extern "C" __global__ void columntotals_##name(const tg::i64 parts, const tg::i64 length, const W* along,            \
                                                 const W* plain, T* to_along, T* to_plain) {                           \
    tg::column_totals<T>(parts, length, along, to_along);                                                              \
    tg::column_totals<T>(parts, length, plain, to_plain);                                                              \
  }

#define COLUMNSTATS(name, T, W)                                                                                        \
  extern "C" __global__ void columnstats_##name(const tg::i64 rows, const tg::i64 length, const tg::i64 parts,         \
                                                const tg::i64 per_part, const T* x, W* means, W* squares) {            \
    tg::column_stats<T>(rows, length, parts, per_part, x, means, squares);                                             \
  }
