// layer norm: xhat = (x - mean) rstd, y = xhat w + b, rstd = 1 / sqrt(var + eps), var biased (Ba, Kiros, Hinton 2016).
//   gx = rstd (d - mean(d) - xhat mean(d xhat)),  d = g w;  gw = sum over rows of g xhat;  gb = sum of g
// rms norm: y = x rstd w, rstd = 1 / sqrt(mean(x^2) + eps) (Zhang, Sennrich 2019).
//   gx = rstd (d - xhat mean(d xhat)),  xhat = x rstd
// One row at a time, read again from cache; backward does gx and the row's share of gw and gb in the same visit. Short rows go
// forward as many at a time as a vector has lanes (two Zen 4 cores, AVX-512, us: 4096 of 2 191 and 30, of
// 8 114 and 33, of 16 87 and 41).
#include "beside.h"
#include "norm.h"
#include "norm_rows.h"

namespace tg {
namespace {

constexpr Index kPiece = 8192;  // elements of a task

constexpr Index kShortRow = 32;  // elements

inline Index rows_per_task(Index length) { return std::max<Index>(1, kPiece / std::max<Index>(1, length)); }

// Sums over a row of d and d xhat, with d = g w.
template <class T>
void row_dots(Index n, const T* g, const T* x, const T* w, T mean, T rstd, double& sum_d, double& sum_dx) {
  using W = Wide<T>;
  sum_d = sum_dx = 0;
  for (Index start = 0; start < n; start += kSumBlock) {
    const Index end = std::min(n, start + kSumBlock);
    typename W::Vector a{}, b{}, a2{}, b2{};
    Index i = start;
    for (; i + 2 * W::lanes <= end; i += 2 * W::lanes) {
      auto d = W::load(g + i), e = W::load(g + i + W::lanes);
      if (w) {
        d *= W::load(w + i);
        e *= W::load(w + i + W::lanes);
      }
      a += d;
      b += d * ((W::load(x + i) - mean) * rstd);
      a2 += e;
      b2 += e * ((W::load(x + i + W::lanes) - mean) * rstd);
    }
    T ta = 0, tb = 0;
    for (; i < end; ++i) {
      const T d = w ? g[i] * w[i] : g[i];
      ta += d;
      tb += d * ((x[i] - mean) * rstd);
    }
    sum_d += double(sum_lanes(a + a2) + ta);
    sum_dx += double(sum_lanes(b + b2) + tb);
  }
}

template <class T>
void row_gx(Index n, const T* g, const T* x, const T* w, T mean, T rstd, T c1, T c2, T* gx) {
  if (w)
    for (Index i = 0; i < n; ++i) gx[i] = rstd * (g[i] * w[i] - c1 - (x[i] - mean) * rstd * c2);
  else
    for (Index i = 0; i < n; ++i) gx[i] = rstd * (g[i] - c1 - (x[i] - mean) * rstd * c2);
}

template <class T>
void layer_norm_beside(Index rows, Index length, double eps, const T* x, const T* w, const T* b, T* y, T* mean, T* rstd) {
  using W = Wide<T>;
  using V = typename W::Vector;
  constexpr Index L = W::lanes;
  const V n = W::fill(T(length));
  alignas(64) T tile[kShortRow * L] = {};
  for (Index r = 0; r < rows; r += L) {
    const Index count = std::min(L, rows - r), room = (rows - r) * length;
    turn_beside<false, T>(x + r * length, room, tile, L, count, length, 1);
    const V guess = W::load(tile);
    V off{}, rest{}, squares{};
    for (Index i = 0; i < length; ++i) off += W::load(tile + i * L) - guess;
    const V m = guess + off / n;
    for (Index i = 0; i < length; ++i) {
      const V d = W::load(tile + i * L) - m;
      rest += d;
      squares += d * d;
    }
    rest /= n;  // what rounding the mean leaves
    squares /= n;
    T scale[L];
    for (Index l = 0; l < L; ++l) {
      const double left = double(rest[l]), variance = double(squares[l]) - left * left;
      scale[l] = T(1 / std::sqrt(std::max(variance, 0.0) + eps));
    }
    for (Index l = 0; l < count; ++l) mean[r + l] = m[l], rstd[r + l] = scale[l];
    const V k = W::load(scale);
    for (Index i = 0; i < length; ++i) {
      V v = ((W::load(tile + i * L) - m) - rest) * k;
      if (w) v *= w[i];
      if (b) v += b[i];
      W::store(tile + i * L, v);
    }
    turn_beside<true, T>(y + r * length, room, tile, L, count, length, 1);
  }
}

}  // namespace

template <class T>
void layer_norm(Index rows, Index length, double eps, const T* x, const T* w, const T* b, T* y, T* mean, T* rstd) {
  parallel_for(rows, rows_per_task(length), [&](Index first, Index last) {
    const Index at = first * length;
    if (length > 0 && length <= kShortRow)
      return layer_norm_beside(last - first, length, eps, x + at, w, b, y + at, mean + first, rstd + first);
    for (Index r = first; r < last; ++r) {
      const T* row = x + r * length;
      T* to = y + r * length;
      const Moments s = moments_of(row, length);
      const T m = T(s.mean), k = T(1 / std::sqrt(std::max(s.m2 / double(length), 0.0) + eps));
      const T rest = T(s.mean - double(m));  // what rounding the mean leaves
      mean[r] = m;
      rstd[r] = k;
      if (w && b)
        for (Index i = 0; i < length; ++i) to[i] = ((row[i] - m) - rest) * k * w[i] + b[i];
      else if (w)
        for (Index i = 0; i < length; ++i) to[i] = ((row[i] - m) - rest) * k * w[i];
      else if (b)
        for (Index i = 0; i < length; ++i) to[i] = ((row[i] - m) - rest) * k + b[i];
      else
        for (Index i = 0; i < length; ++i) to[i] = ((row[i] - m) - rest) * k;
    }
  });
}

namespace {

template <class T>
struct LayerNormBackward final : RowRun {
  LayerNormBackward(const LayerNormGradient<T>& of) : a(of), sums(of.gw || of.gb ? of.rows : 0, of.length) {}
  void rows(Index first, Index last) override {
    if (!a.gw && !a.gb) {
      for (Index r = first; r < last && a.gx; ++r) one_gx(r);
      return;
    }
    sums.run(first, last, [this](Index r, T* sum_w, T* sum_b) {
      if (a.gx) one_gx(r);
      const T *gr = a.g + r * a.length, *xr = a.x + r * a.length, m = a.mean[r], k = a.rstd[r];
      for (Index i = 0; i < a.length; ++i) {
        sum_w[i] += gr[i] * ((xr[i] - m) * k);
        sum_b[i] += gr[i];
      }
    });
  }
  void end() override {
    if (a.gw || a.gb) sums.end(a.gw, a.gb);
  }

 private:
  void one_gx(Index r) const {
    const T *gr = a.g + r * a.length, *xr = a.x + r * a.length;
    double d, dx;
    row_dots(a.length, gr, xr, a.w, a.mean[r], a.rstd[r], d, dx);
    row_gx(a.length, gr, xr, a.w, a.mean[r], a.rstd[r], T(d / double(a.length)), T(dx / double(a.length)), a.gx + r * a.length);
  }

  const LayerNormGradient<T> a;
  SumsOverRows<T> sums;
};

}  // namespace

template <class T>
std::unique_ptr<RowRun> run_of(const LayerNormGradient<T>& a) { return std::make_unique<LayerNormBackward<T>>(a); }

template <class T>
Index rows_in_order(const LayerNormGradient<T>& a) {
  return a.gw || a.gb ? SumsOverRows<T>::rows_in_order(a.rows, a.length) : 0;
}

template <class T>
void layer_norm_backward(const LayerNormGradient<T>& a) {
  LayerNormBackward<T> run(a);
  const Index order = rows_in_order(a);
  parallel_for(a.rows, order ? order : rows_per_task(a.length), [&](Index first, Index last) { run.rows(first, last); });
  run.end();
}

template <class T>
void rms_norm(Index rows, Index length, double eps, const T* x, const T* w, T* y, T* rstd) {
  parallel_for(rows, rows_per_task(length), [&](Index first, Index last) {
    for (Index r = first; r < last; ++r) {
      const T* row = x + r * length;
      T* to = y + r * length;
      const T k = T(1 / std::sqrt(sum_squares_long(row, length, T(0)) / double(length) + eps));
      rstd[r] = k;
      if (w)
        for (Index i = 0; i < length; ++i) to[i] = row[i] * k * w[i];
      else
        for (Index i = 0; i < length; ++i) to[i] = row[i] * k;
    }
  });
}

template <class T>
void rms_norm_backward(Index rows, Index length, const T* g, const T* x, const T* rstd, const T* w, T* gx, T* gw) {
  const auto one_gx = [&](Index r) {
    const T *gr = g + r * length, *xr = x + r * length;
    double d, dx;
    row_dots(length, gr, xr, w, T(0), rstd[r], d, dx);
    row_gx(length, gr, xr, w, T(0), rstd[r], T(0), T(dx / double(length)), gx + r * length);
  };
  if (!gw) {
    if (gx)
      parallel_for(rows, rows_per_task(length), [&](Index first, Index last) {
        for (Index r = first; r < last; ++r) one_gx(r);
      });
    return;
  }
  sum_over_rows<T>(rows, length, gw, static_cast<T*>(nullptr), [&](Index r, T* sum_w, T*) {
    if (gx) one_gx(r);
    const T *gr = g + r * length, *xr = x + r * length, k = rstd[r];
    for (Index i = 0; i < length; ++i) sum_w[i] += gr[i] * (xr[i] * k);
  });
}

template void layer_norm(Index, Index, double, const float*, const float*, const float*, float*, float*, float*);
template void layer_norm_backward(const LayerNormGradient<float>&);
template std::unique_ptr<RowRun> run_of(const LayerNormGradient<float>&);
template Index rows_in_order(const LayerNormGradient<float>&);
template void rms_norm(Index, Index, double, const float*, const float*, float*, float*);
template void rms_norm_backward(Index, Index, const float*, const float*, const float*, const float*, float*, float*);
template void layer_norm(Index, Index, double, const double*, const double*, const double*, double*, double*, double*);
template void layer_norm_backward(const LayerNormGradient<double>&);
template std::unique_ptr<RowRun> run_of(const LayerNormGradient<double>&);
template Index rows_in_order(const LayerNormGradient<double>&);
template void rms_norm(Index, Index, double, const double*, const double*, double*, double*);
template void rms_norm_backward(Index, Index, const double*, const double*, const double*, const double*, double*, double*);

}  // namespace tg
