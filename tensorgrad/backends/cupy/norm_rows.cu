// Layer norm and RMS norm of rows, and their gradients in x. x, g, y: (rows, length), dense; half precision is
// computed in float and rounded once. w, b: (length), stored as x or wide; null where there is none. `means` is null
// for RMS norm.
//
// The variance is computed from the mean, not along with it: so it is right to a few ulp however far the mean is
// from zero. The sum of deviations, zero but for rounding, corrects both. A row is read from memory once and from a
// cache after that.

namespace tg {

template <class T>
TG_FN void row_norm(Team team, i64 rows, i64 length, typename wide<T>::type eps, bool wide_affine, const T* x,
                    const void* w, const void* b, T* y, typename wide<T>::type* means,
                    typename wide<T>::type* rstds) {
  typedef typename wide<T>::type W;
  const bool packed = in_packs<T>(length);
  const Parameter<T> weight{w, wide_affine}, bias{b, wide_affine};
  for (i64 row = team.first(); row < rows; row += team.step()) {
    const T* const from = x + row * length;
    T* const to = y + row * length;
    W mean = 0, drift = 0, square = 0;
    if (means) {
      W sum = 0;
      strides<T>(team, 0, length, packed, [&](i64 i, auto count) {
        constexpr int N = decltype(count)::value;
        const Some<W, N> v = fetch<N>(from + i);
#pragma unroll
        for (int e = 0; e < N; ++e) sum += v.v[e];
      });
      mean = team.sum(sum) / length;
    }
    strides<T>(team, 0, length, packed, [&](i64 i, auto count) {
      constexpr int N = decltype(count)::value;
      const Some<W, N> v = fetch<N>(from + i);
#pragma unroll
      for (int e = 0; e < N; ++e) {
        const W apart = v.v[e] - mean;
        drift += apart;
        square += apart * apart;
      }
    });
    square = team.sum(square);
    if (means) {
      drift = team.sum(drift) / length;
      mean += drift;
      square -= drift * drift * length;
      if (square < 0) square = 0;
    }
    const W rstd = 1 / sqrt(square / length + eps);
    if (team.rank() == 0) {
      if (means) means[row] = mean;
      rstds[row] = rstd;
    }
    strides<T>(team, 0, length, packed, [&](i64 i, auto count) {
      constexpr int N = decltype(count)::value;
      Some<W, N> v = fetch<N>(from + i);
      const Some<W, N> factor = weight.template get<N>(i, 1), shift = bias.template get<N>(i, 0);
#pragma unroll
      for (int e = 0; e < N; ++e) v.v[e] = (v.v[e] - mean) * rstd * factor.v[e] + shift.v[e];
      deposit<N>(to + i, v);
    });
  }
}

// With h = g w and n = (x - mean) rstd: gx = (h - mean of h - n * mean of h n) rstd, for RMS norm without the mean
// of h.
template <class T>
TG_FN void row_norm_backward(Team team, i64 rows, i64 length, bool wide_weight, const T* g, const T* x,
                             const typename wide<T>::type* means, const typename wide<T>::type* rstds, const void* w,
                             T* gx) {
  typedef typename wide<T>::type W;
  const bool packed = in_packs<T>(length);
  const Parameter<T> weight{w, wide_weight};
  for (i64 row = team.first(); row < rows; row += team.step()) {
    const T *slope = g + row * length, *from = x + row * length;
    T* const to = gx + row * length;
    const W mean = means ? means[row] : 0, rstd = rstds[row];
    W middle = 0, along = 0;
    strides<T>(team, 0, length, packed, [&](i64 i, auto count) {
      constexpr int N = decltype(count)::value;
      const Some<W, N> a = fetch<N>(slope + i), v = fetch<N>(from + i);
      const Some<W, N> factor = weight.template get<N>(i, 1);
#pragma unroll
      for (int e = 0; e < N; ++e) {
        const W inner = a.v[e] * factor.v[e];
        middle += inner;
        along += inner * ((v.v[e] - mean) * rstd);
      }
    });
    along = team.sum(along) / length;
    middle = means ? team.sum(middle) / length : 0;
    strides<T>(team, 0, length, packed, [&](i64 i, auto count) {
      constexpr int N = decltype(count)::value;
      Some<W, N> a = fetch<N>(slope + i);
      const Some<W, N> v = fetch<N>(from + i), factor = weight.template get<N>(i, 1);
#pragma unroll
      for (int e = 0; e < N; ++e)
        a.v[e] = (a.v[e] * factor.v[e] - middle - (v.v[e] - mean) * rstd * along) * rstd;
      deposit<N>(to + i, a);
    });
  }
}

}  // namespace tg

#define ROWNORM(name, T, W)                                                                                            \
  extern "C" __global__ void rownorm_##name(const tg::i64 block, const tg::i64 rows, const tg::i64 length, const W eps,\
                                            const tg::i64 wide_affine, const T* x, const void* w, const void* b, T* y, \
                                            W* means, W* rstds) {                                                      \
    tg::row_norm<T>({block != 0}, rows, length, eps, wide_affine, x, w, b, y, means, rstds);                           \
  }

#define ROWNORMGRAD(name, T, W)                                                                                        \
  extern "C" __global__ void rownormgrad_##name(const tg::i64 block, const tg::i64 rows, const tg::i64 length,         \
                                                const tg::i64 wide_weight, const T* g, const T* x, const W* means,     \
                                                const W* rstds, const void* w, T* gx) {                                \
    tg::row_norm_backward<T>({block != 0}, rows, length, wide_weight, g, x, means, rstds, w, gx);                      \
  }
