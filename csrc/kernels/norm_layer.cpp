// layer norm: xhat = (x - mean) rstd, y = xhat w + b, rstd = 1 / sqrt(var + eps), var biased (Ba, Kiros, Hinton 2016).
//   gx = rstd (d - mean(d) - xhat mean(d xhat)),  d = g w;  gw = sum over rows of g xhat;  gb = sum of g
// rms norm: y = x rstd w, rstd = 1 / sqrt(mean(x^2) + eps) (Zhang, Sennrich 2019).
//   gx = rstd (d - xhat mean(d xhat)),  xhat = x rstd
// One row at a time, read again from cache; backward does gx and the row's share of gw and gb in the same visit. Short rows are
// taken as many at a time as a vector has lanes (two Zen 4 cores, AVX-512, us: forward 4096 of 2 191 and 30, of 8 114 and 33, of
// 16 87 and 41; gx of 1M elements in rows of 2 2120 and 810, of 8 770 and 715). Rows of a vector or more are quicker one by one
// for gx, where two arrays would be turned: in rows of 16 490 and 385, and 240 of 32.
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
  using V = typename W::Vector;
  sum_d = sum_dx = 0;
  for (Index start = 0; start < n; start += kSumBlock) {
    const Index end = std::min(n, start + kSumBlock);
    V a{}, b{}, a2{}, b2{};
    const auto terms = [&](Index i, V& d, V& dx) {
      d = W::load(g + i);
      if (w) d *= W::load(w + i);
      dx = d * ((W::load(x + i) - mean) * rstd);
    };
    const auto add = [&](Index i, V& sum, V& sum_x) {
      V d, dx;
      terms(i, d, dx);
      sum += d, sum_x += dx;
    };
    Index i = start;
    for (; i + 2 * W::lanes <= end; i += 2 * W::lanes) add(i, a, b), add(i + W::lanes, a2, b2);
    if (i + W::lanes <= end) add(i, a, b), i += W::lanes;
    T ta = 0, tb = 0;
    if (i < end && n >= W::lanes) {
      V d, dx;
      terms(end - W::lanes, d, dx);
      a2 += last_lanes<T>(d, end - i), b2 += last_lanes<T>(dx, end - i);
      i = end;
    }
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
  using W = Wide<T>;
  fill_run(
      gx, n,
      [&](Index i) {
        auto d = W::load(g + i);
        if (w) d *= W::load(w + i);
        return rstd * (d - c1 - (W::load(x + i) - mean) * rstd * c2);
      },
      [&](Index i) { return rstd * ((w ? g[i] * w[i] : g[i]) - c1 - (x[i] - mean) * rstd * c2); });
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
    V m = guess + off / n;
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
    if (sizeof(T) == 4 && !std::isfinite(sum_lanes(squares))) {  // some beyond the range of float
      for (Index l = 0; l < count; ++l) {
        if (std::isfinite(squares[l])) continue;
        const Moments wide = moments_in_double(x + (r + l) * length, length);
        m[l] = T(wide.mean), rest[l] = T(wide.mean - double(m[l]));
        scale[l] = T(1 / std::sqrt(wide.m2 / double(length) + eps));
      }
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

// gx of rows of at most kShortRow; without means those of rms norm.
template <class T>
[[gnu::noinline]] void gx_beside(Index rows, Index length, const T* g, const T* x, const T* w, const T* mean, const T* rstd, T* gx) {
  using W = Wide<T>;
  using V = typename W::Vector;
  constexpr Index L = W::lanes;
  const V n = W::fill(T(length));
  alignas(64) T gs[kShortRow * L] = {}, xs[kShortRow * L] = {};
  for (Index r = 0; r < rows; r += L) {
    const Index count = std::min(L, rows - r), room = (rows - r) * length, at = r * length;
    turn_beside<false, T>(g + at, room, gs, L, count, length, 1);
    turn_beside<false, T>(x + at, room, xs, L, count, length, 1);
    T of_row[2 * L] = {};
    for (Index l = 0; l < count; ++l) of_row[l] = mean ? mean[r + l] : T(0), of_row[L + l] = rstd[r + l];
    const V m = W::load(of_row), k = W::load(of_row + L);
    V sum_d{}, sum_dx{};
    for (Index i = 0; i < length; ++i) {
      V d = W::load(gs + i * L);
      if (w) d *= w[i];
      const V hat = (W::load(xs + i * L) - m) * k;
      sum_d += d, sum_dx += d * hat;
      W::store(gs + i * L, d);
      W::store(xs + i * L, hat);
    }
    const V c1 = mean ? sum_d / n : V{}, c2 = sum_dx / n;
    for (Index i = 0; i < length; ++i)
      W::store(gs + i * L, k * (W::load(gs + i * L) - c1 - W::load(xs + i * L) * c2));
    turn_beside<true, T>(gx + at, count * length, gs, L, count, length, 1);  // gx may be g: nothing behind the last row
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

// gx of all rows [first, last).
template <class T>
void rows_gx(Index first, Index last, Index length, const T* g, const T* x, const T* w, const T* mean, const T* rstd, T* gx) {
  if (length > 0 && length < Wide<T>::lanes) {
    const Index at = first * length;
    return gx_beside(last - first, length, g + at, x + at, w, mean ? mean + first : nullptr, rstd + first, gx + at);
  }
  for (Index r = first; r < last; ++r) {
    const Index at = r * length;
    const T m = mean ? mean[r] : T(0);
    double d, dx;
    row_dots(length, g + at, x + at, w, m, rstd[r], d, dx);
    row_gx(length, g + at, x + at, w, m, rstd[r], mean ? T(d / double(length)) : T(0), T(dx / double(length)), gx + at);
  }
}

template <class T>
struct LayerNormBackward final : RowRun {
  LayerNormBackward(const LayerNormGradient<T>& of) : a(of), sums(of.gw || of.gb ? of.rows : 0, of.length) {}
  void rows(Index first, Index last) override {
    // the rows' shares of the sums follow while they are in the first-level cache
    const Index at_once = std::max<Index>(Wide<T>::lanes, 1024 / std::max<Index>(1, a.length));
    for (Index r = first; r < last; r += at_once) {
      const Index stop = std::min(last, r + at_once);
      if (a.gx) rows_gx(r, stop, a.length, a.g, a.x, a.w, a.mean, a.rstd, a.gx);
      if (a.gw || a.gb) add_rows(r, stop);
    }
  }
  void end() override {
    if (a.gw || a.gb) sums.end(a.gw, a.gb);
  }

 private:
  void add_rows(Index first, Index last) {
    sums.run(first, last, [this](Index r, T* sum_w, T* sum_b) {
      const T *gr = a.g + r * a.length, *xr = a.x + r * a.length, m = a.mean[r], k = a.rstd[r];
      for (Index i = 0; i < a.length; ++i) {
        sum_w[i] += gr[i] * ((xr[i] - m) * k);
        sum_b[i] += gr[i];
      }
    });
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
      double squares = sum_squares_long(row, length, T(0));
      if (sizeof(T) == 4 && !std::isfinite(squares)) {  // beyond the range of float
        squares = 0;
        for (Index i = 0; i < length; ++i) squares += double(row[i]) * double(row[i]);
      }
      const T k = T(1 / std::sqrt(squares / double(length) + eps));
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
  if (gx)
    parallel_for(rows, rows_per_task(length), [&](Index first, Index last) {
      rows_gx(first, last, length, g, x, w, static_cast<const T*>(nullptr), rstd, gx);
    });
  if (!gw) return;
  sum_over_rows<T>(rows, length, gw, static_cast<T*>(nullptr), [&](Index r, T* sum_w, T*) {
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
