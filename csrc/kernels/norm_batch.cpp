// batch norm: per channel over batch and plane, xhat = (x - mean) rstd, y = xhat w + b (Ioffe, Szegedy 2015).
//   gx = w rstd (g - mean(g) - xhat mean(g xhat)),  gw = sum of g xhat,  gb = sum of g
// A channel of a convolution's output is `batch` runs of `plane` values, and usually fits L2: a task takes one channel,
// gathers its statistics and, while the values are near, writes the result. Few channels with much data are cut along
// the batch as well, with a second pass once the statistics are merged. plane = 1 runs over rows of channels.
#include "norm.h"
#include "copy_convert.h"
#include "norm_rows.h"
#include "reduce_walk.h"

namespace tg {
namespace {

constexpr Index kPiece = 65536;  // elements per task

// How samples are cut: whole channels where there are enough of them to share out.
Index samples_per_piece(const ChannelShape& s) {
  if (s.channels >= 8 && s.batch * s.plane <= 16 * kPiece) return std::max<Index>(1, s.batch);
  return std::max<Index>(1, std::min(s.batch, kPiece / std::max<Index>(1, s.plane)));
}

template <class T>
void scale_run(const T* x, T* y, Index n, T mean, T rest, T scale, T w, T b) {
  const T k = scale * w;
  for (Index i = 0; i < n; ++i) y[i] = ((x[i] - mean) - rest) * k + b;
}

template <class T>
void put_statistics(const Moments& m, double eps, Index c, T* mean, T* rstd, T* var) {
  const double v = std::max(m.m2 / m.count, 0.0);
  mean[c] = m.count > 0 ? T(m.mean) : std::numeric_limits<T>::quiet_NaN();
  var[c] = T(v);
  rstd[c] = T(1 / std::sqrt(v + eps));
}

// Rows of channels: statistics of columns, then one pass that scales.
template <class T>
void columns_forward(const ChannelShape& s, double eps, const T* x, const T* w, const T* b, T* y, T* mean, T* rstd,
                     T* var) {
  const Index shape[2] = {s.batch, s.channels}, strides[2] = {s.channels * Index(sizeof(T)), Index(sizeof(T))};
  const bool reduce[2] = {true, false};
  const ReducePlan plan(2, shape, strides, reduce);
  const Reader<T> reader{&load_block<T, T>, true};
  std::vector<T> rest(static_cast<size_t>(s.channels));
  ReduceWalk<VarOp<T>> walk(plan, reinterpret_cast<const char*>(x), reader);
  walk([&](Index c, const Moments& m) {
    put_statistics(m, eps, c, mean, rstd, var);
    rest[size_t(c)] = T(m.mean - double(mean[c]));
  });
  parallel_for(s.batch, std::max<Index>(1, kPiece / s.channels), [&](Index first, Index last) {
    for (Index r = first; r < last; ++r) {
      const T* row = x + r * s.channels;
      T* to = y + r * s.channels;
      for (Index c = 0; c < s.channels; ++c)
        to[c] = ((row[c] - mean[c]) - rest[size_t(c)]) * rstd[c] * (w ? w[c] : T(1)) + (b ? b[c] : T(0));
    }
  });
}

template <class T>
void dots_of_run(const T* g, const T* x, Index n, T mean, T rstd, double& sum, double& dot) {
  using W = Wide<T>;
  for (Index start = 0; start < n; start += kSumBlock) {
    const Index end = std::min(n, start + kSumBlock);
    typename W::Vector a{}, b{};
    Index i = start;
    for (; i + W::lanes <= end; i += W::lanes) {
      const auto d = W::load(g + i);
      a += d;
      b += d * ((W::load(x + i) - mean) * rstd);
    }
    T ta = 0, tb = 0;
    for (; i < end; ++i) {
      ta += g[i];
      tb += g[i] * ((x[i] - mean) * rstd);
    }
    sum += double(sum_lanes(a) + ta);
    dot += double(sum_lanes(b) + tb);
  }
}

template <class T>
void gx_run(const T* g, const T* x, T* gx, Index n, T mean, T rstd, T k, T c1, T c2) {
  for (Index i = 0; i < n; ++i) gx[i] = k * (g[i] - c1 - (x[i] - mean) * rstd * c2);
}

}  // namespace

template <class T>
void batch_norm(const ChannelShape& s, double eps, const T* x, const T* w, const T* b, T* y, T* mean, T* rstd, T* var) {
  if (s.plane == 1 && s.channels > 0) {
    columns_forward(s, eps, x, w, b, y, mean, rstd, var);
    return;
  }
  const Index per_piece = samples_per_piece(s), pieces = (s.batch + per_piece - 1) / per_piece;
  std::vector<Moments> parts(size_t(pieces * s.channels));
  const auto gather = [&](Index c, Index p) {
    Moments& m = parts[size_t(p * s.channels + c)];
    for (Index n = p * per_piece; n < std::min(s.batch, (p + 1) * per_piece); ++n)
      VarOp<T>::run(m, x + (n * s.channels + c) * s.plane, s.plane);
  };
  const auto write = [&](Index c, Index p, T rest) {
    for (Index n = p * per_piece; n < std::min(s.batch, (p + 1) * per_piece); ++n) {
      const Index at = (n * s.channels + c) * s.plane;
      scale_run(x + at, y + at, s.plane, mean[c], rest, rstd[c], w ? w[c] : T(1), b ? b[c] : T(0));
    }
  };
  const Index group = std::max<Index>(1, kPiece / std::max<Index>(1, s.batch * s.plane));
  if (pieces <= 1) {
    parallel_for(s.channels, group, [&](Index first, Index last) {
      for (Index c = first; c < last; ++c) {
        Moments none;
        if (pieces) gather(c, 0);
        const Moments& m = pieces ? parts[size_t(c)] : none;
        put_statistics(m, eps, c, mean, rstd, var);
        if (pieces) write(c, 0, T(m.mean - double(mean[c])));
      }
    });
    return;
  }
  parallel_for(pieces * s.channels, group, [&](Index first, Index last) {
    for (Index t = first; t < last; ++t) gather(t % s.channels, t / s.channels);
  });
  for (Index c = 0; c < s.channels; ++c) {
    Moments& m = parts[size_t(c)];
    for (Index p = 1; p < pieces; ++p) VarOp<T>::merge(m, parts[size_t(p * s.channels + c)]);
    put_statistics(m, eps, c, mean, rstd, var);
  }
  parallel_for(pieces * s.channels, group, [&](Index first, Index last) {
    for (Index t = first; t < last; ++t) {
      const Index c = t % s.channels;
      write(c, t / s.channels, T(parts[size_t(c)].mean - double(mean[c])));
    }
  });
}

template <class T>
void batch_norm_backward(const ChannelShape& s, const T* g, const T* x, const T* mean, const T* rstd, const T* w, T* gx,
                         T* gw, T* gb) {
  const double count = double(s.batch * s.plane);
  if (s.plane == 1 && s.channels > 0) {
    std::vector<T> sum_w(static_cast<size_t>(s.channels)), sum_b(static_cast<size_t>(s.channels));
    sum_over_rows<T>(s.batch, s.channels, sum_w.data(), sum_b.data(), [&](Index r, T* to_w, T* to_b) {
      const T *gr = g + r * s.channels, *xr = x + r * s.channels;
      for (Index c = 0; c < s.channels; ++c) {
        to_w[c] += gr[c] * ((xr[c] - mean[c]) * rstd[c]);
        to_b[c] += gr[c];
      }
    });
    if (gw) std::copy(sum_w.begin(), sum_w.end(), gw);
    if (gb) std::copy(sum_b.begin(), sum_b.end(), gb);
    if (!gx) return;
    const T inverse = T(1 / count);
    parallel_for(s.batch, std::max<Index>(1, kPiece / s.channels), [&](Index first, Index last) {
      for (Index r = first; r < last; ++r) {
        const Index at = r * s.channels;
        for (Index c = 0; c < s.channels; ++c)
          gx[at + c] = rstd[c] * (w ? w[c] : T(1)) *
                       (g[at + c] - sum_b[size_t(c)] * inverse -
                        (x[at + c] - mean[c]) * rstd[c] * (sum_w[size_t(c)] * inverse));
      }
    });
    return;
  }
  const Index per_piece = samples_per_piece(s), pieces = (s.batch + per_piece - 1) / per_piece;
  struct Dots {
    double sum = 0, dot = 0;
  };
  std::vector<Dots> parts(size_t(std::max<Index>(1, pieces) * s.channels));
  const auto gather = [&](Index c, Index p) {
    Dots& d = parts[size_t(p * s.channels + c)];
    for (Index n = p * per_piece; n < std::min(s.batch, (p + 1) * per_piece); ++n) {
      const Index at = (n * s.channels + c) * s.plane;
      dots_of_run(g + at, x + at, s.plane, mean[c], rstd[c], d.sum, d.dot);
    }
  };
  const auto write = [&](Index c, Index p) {
    if (!gx) return;
    const Dots& d = parts[size_t(c)];
    const T k = rstd[c] * (w ? w[c] : T(1)), c1 = T(d.sum / count), c2 = T(d.dot / count);
    for (Index n = p * per_piece; n < std::min(s.batch, (p + 1) * per_piece); ++n) {
      const Index at = (n * s.channels + c) * s.plane;
      gx_run(g + at, x + at, gx + at, s.plane, mean[c], rstd[c], k, c1, c2);
    }
  };
  const auto put = [&](Index c) {
    if (gw) gw[c] = T(parts[size_t(c)].dot);
    if (gb) gb[c] = T(parts[size_t(c)].sum);
  };
  const Index group = std::max<Index>(1, kPiece / std::max<Index>(1, s.batch * s.plane));
  if (pieces <= 1) {
    parallel_for(s.channels, group, [&](Index first, Index last) {
      for (Index c = first; c < last; ++c) {
        gather(c, 0);
        put(c);
        write(c, 0);
      }
    });
    return;
  }
  parallel_for(pieces * s.channels, group, [&](Index first, Index last) {
    for (Index t = first; t < last; ++t) gather(t % s.channels, t / s.channels);
  });
  for (Index c = 0; c < s.channels; ++c) {
    for (Index p = 1; p < pieces; ++p) {
      parts[size_t(c)].sum += parts[size_t(p * s.channels + c)].sum;
      parts[size_t(c)].dot += parts[size_t(p * s.channels + c)].dot;
    }
    put(c);
  }
  parallel_for(pieces * s.channels, group, [&](Index first, Index last) {
    for (Index t = first; t < last; ++t) write(t % s.channels, t / s.channels);
  });
}

template <class T>
void batch_norm_eval(const ChannelShape& s, double eps, const T* x, const T* w, const T* b, const T* mean, const T* var,
                     T* y) {
  std::vector<T> scale(static_cast<size_t>(s.channels));
  for (Index c = 0; c < s.channels; ++c)
    scale[size_t(c)] = T(1 / std::sqrt(double(var[c]) + eps) * (w ? double(w[c]) : 1.0));
  if (s.plane == 1) {
    parallel_for(s.batch, std::max<Index>(1, kPiece / std::max<Index>(1, s.channels)), [&](Index first, Index last) {
      for (Index r = first; r < last; ++r)
        for (Index c = 0; c < s.channels; ++c)
          y[r * s.channels + c] = (x[r * s.channels + c] - mean[c]) * scale[size_t(c)] + (b ? b[c] : T(0));
    });
    return;
  }
  const Index group = std::max<Index>(1, kPiece / std::max<Index>(1, s.plane));
  parallel_for(s.batch * s.channels, group, [&](Index first, Index last) {
    for (Index r = first; r < last; ++r) {
      const Index c = r % s.channels;
      const T m = mean[c], k = scale[size_t(c)], shift = b ? b[c] : T(0);
      const T* from = x + r * s.plane;
      T* to = y + r * s.plane;
      for (Index i = 0; i < s.plane; ++i) to[i] = (from[i] - m) * k + shift;
    }
  });
}

template void batch_norm(const ChannelShape&, double, const float*, const float*, const float*, float*, float*, float*, float*);
template void batch_norm_backward(const ChannelShape&, const float*, const float*, const float*, const float*, const float*, float*, float*, float*);
template void batch_norm_eval(const ChannelShape&, double, const float*, const float*, const float*, const float*, const float*, float*);
template void batch_norm(const ChannelShape&, double, const double*, const double*, const double*, double*, double*, double*, double*);
template void batch_norm_backward(const ChannelShape&, const double*, const double*, const double*, const double*, const double*, double*, double*, double*);
template void batch_norm_eval(const ChannelShape&, double, const double*, const double*, const double*, const double*, const double*, double*);

}  // namespace tg
