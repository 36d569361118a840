// batch norm: per channel over batch and plane, xhat = (x - mean) rstd, y = xhat w + b (Ioffe, Szegedy 2015).
//   gx = w rstd (g - mean(g) - xhat mean(g xhat)),  gw = sum of g xhat,  gb = sum of g
// Computed as y = (x - mean) k + shift, k = rstd w; the shift is b less what rounding the mean leaves, times k.
// With ReLU behind it y = max(y, 0), and backward finds the zeros again from x: g counts where (x - mean) k + shift > 0.
// That costs nothing next to reading g and x, so the pair makes the passes of batch norm alone.
//
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

// The samples of a piece.
struct Samples {
  Index first, last;
};

// Cuts a channel's samples into blocks of about kSumBlock values: block(offset, runs, step, length) is `runs` runs of
// `length` values, `step` apart.
template <class Block>
void over_blocks(const ChannelShape& s, Index c, Samples samples, Block block) {
  const Index step = s.channels * s.plane;
  if (s.plane >= kSumBlock) {
    for (Index n = samples.first; n < samples.last; ++n)
      for (Index i = 0; i < s.plane; i += kSumBlock)
        block((n * s.channels + c) * s.plane + i, Index(1), step, std::min(kSumBlock, s.plane - i));
    return;
  }
  const Index together = kSumBlock / s.plane;
  for (Index n = samples.first; n < samples.last; n += together)
    block((n * s.channels + c) * s.plane, std::min(together, samples.last - n), step, s.plane);
}

// Runs a channel's two phases: gather(c, samples, part) over pieces, merge(part, part), then put(c, part) once and
// write(c, samples) over the pieces.
template <class Part, class Gather, class Merge, class Put, class Write>
void over_channels(const ChannelShape& s, Gather gather, Merge merge, Put put, Write write) {
  const Index per_piece = samples_per_piece(s), pieces = (s.batch + per_piece - 1) / per_piece;
  const Index group = std::max<Index>(1, kPiece / std::max<Index>(1, per_piece * s.plane));
  if (pieces <= 1) {
    parallel_for(s.channels, group, [&](Index first, Index last) {
      for (Index c = first; c < last; ++c) {
        Part part;
        gather(c, Samples{0, s.batch}, part);
        put(c, part);
        write(c, Samples{0, s.batch});
      }
    });
    return;
  }
  const auto piece = [&](Index p) { return Samples{p * per_piece, std::min(s.batch, (p + 1) * per_piece)}; };
  std::vector<Part> parts(size_t(pieces * s.channels));
  parallel_for(pieces * s.channels, group, [&](Index first, Index last) {
    for (Index t = first; t < last; ++t) gather(t % s.channels, piece(t / s.channels), parts[size_t(t)]);
  });
  for (Index c = 0; c < s.channels; ++c) {
    for (Index p = 1; p < pieces; ++p) merge(parts[size_t(c)], parts[size_t(p * s.channels + c)]);
    put(c, parts[size_t(c)]);
  }
  parallel_for(pieces * s.channels, group, [&](Index first, Index last) {
    for (Index t = first; t < last; ++t) write(t % s.channels, piece(t / s.channels));
  });
}

// (x - mean) k + shift of one channel, without its negative values where ReLU follows. NaN stays NaN, and -0 becomes 0.
template <class T, bool Relu>
struct Line {
  using V = typename Wide<T>::Vector;
  T mean, k, shift;
  V means = Wide<T>::fill(mean), ks = Wide<T>::fill(k), shifts = Wide<T>::fill(shift);

  V affine(V x) const { return (x - means) * ks + shifts; }
  T affine(T x) const { return (x - mean) * k + shift; }
  template <class X>
  X operator()(X x) const {
    const X y = affine(x);
    if constexpr (Relu) return y <= X{} ? X{} : y;
    else return y;
  }
  template <class X>
  X gate(X g, X x) const {  // what of g passes the ReLU
    if constexpr (Relu) return affine(x) > X{} ? g : X{};
    else return g;
  }
};

template <class T, bool Relu>
void write_line(const ChannelShape& s, Index c, Samples samples, const Line<T, Relu>& line, const T* x, T* y) {
  for (Index n = samples.first; n < samples.last; ++n) {
    const Index at = (n * s.channels + c) * s.plane;
    const T* from = x + at;
    fill_run(
        y + at, s.plane, [&](Index i) { return line(Wide<T>::load(from + i)); }, [&](Index i) { return line(from[i]); });
  }
}

template <class T>
void put_statistics(const Moments& m, double eps, Index c, const T* w, const T* b, T* mean, T* rstd, T* var, T* shift) {
  const double v = std::max(m.m2 / m.count, 0.0);
  mean[c] = m.count > 0 ? T(m.mean) : std::numeric_limits<T>::quiet_NaN();
  var[c] = T(v);
  rstd[c] = T(1 / std::sqrt(v + eps));
  const double k = double(rstd[c] * (w ? w[c] : T(1)));
  shift[c] = T((b ? double(b[c]) : 0.0) - (m.mean - double(mean[c])) * k);
}

// Rows of channels: statistics of columns, then one pass that scales.
template <class T, bool Relu>
void columns_forward(const ChannelShape& s, double eps, const T* x, const T* w, const T* b, T* y, T* mean, T* rstd,
                     T* var, T* shift) {
  const Index shape[2] = {s.batch, s.channels}, strides[2] = {s.channels * Index(sizeof(T)), Index(sizeof(T))};
  const bool reduce[2] = {true, false};
  const ReducePlan plan(2, shape, strides, reduce);
  const Reader<T> reader{&load_block<T, T>, true};
  std::vector<T> scale(static_cast<size_t>(s.channels));
  ReduceWalk<VarOp<T>> walk(plan, reinterpret_cast<const char*>(x), reader);
  walk([&](Index first, const Moments* m, Index count) {
    for (Index c = first; c < first + count; ++c) {
      put_statistics(m[c - first], eps, c, w, b, mean, rstd, var, shift);
      scale[size_t(c)] = rstd[c] * (w ? w[c] : T(1));
    }
  });
  parallel_for(s.batch, std::max<Index>(1, kPiece / s.channels), [&](Index first, Index last) {
    const T* k = scale.data();
    for (Index r = first; r < last; ++r) {
      const T* row = x + r * s.channels;
      T* to = y + r * s.channels;
      for (Index c = 0; c < s.channels; ++c) {
        const T v = (row[c] - mean[c]) * k[c] + shift[c];
        to[c] = Relu && v <= 0 ? T(0) : v;
      }
    }
  });
}

template <class T, bool Relu>
void forward(const ChannelShape& s, double eps, const T* x, const T* w, const T* b, T* y, T* mean, T* rstd, T* var,
             T* shift) {
  if (s.plane == 1 && s.channels > 0) {
    columns_forward<T, Relu>(s, eps, x, w, b, y, mean, rstd, var, shift);
    return;
  }
  over_channels<Moments>(
      s,
      [&](Index c, Samples samples, Moments& m) {
        if (!s.plane) return;
        over_blocks(s, c, samples, [&](Index at, Index runs, Index step, Index length) {
          const T guess = m.count > 0 ? T(m.mean) : near_mean(x + at, length);
          merge_block(m, x + at, length, runs, step, guess, [&](T center) {
            PairSums<T> sums;
            for (Index r = 0; r < runs; ++r) {
              fetch_run(x + at + (r + 1) * step, length);
              add_distances(sums, x + at + r * step, length, center);
            }
            return sums;
          });
        });
      },
      [](Moments& m, const Moments& more) { m.merge(more.count, more.mean, more.m2); },
      [&](Index c, const Moments& m) { put_statistics(m, eps, c, w, b, mean, rstd, var, shift); },
      [&](Index c, Samples samples) {
        write_line(s, c, samples, Line<T, Relu>{mean[c], rstd[c] * (w ? w[c] : T(1)), shift[c]}, x, y);
      });
}

struct Dots {
  double sum = 0, dot = 0;  // of g, and of g (x - mean)
};

// The sums of g and g (x - mean) over a piece of a channel.
template <class T, bool Relu>
void add_dots(const ChannelShape& s, Index c, Samples samples, const Line<T, Relu>& line, const T* g, const T* x,
              Dots& dots) {
  if (!s.plane) return;
  over_blocks(s, c, samples, [&](Index at, Index runs, Index step, Index length) {
    PairSums<T> sums;
    for (Index r = 0; r < runs; ++r) {
      const T *gr = g + at + r * step, *xr = x + at + r * step;
      fetch_run(gr + step, length);
      fetch_run(xr + step, length);
      sums.run(
          length,
          [&](Index i, auto& u, auto& v) {
            const auto value = Wide<T>::load(xr + i);
            u = line.gate(Wide<T>::load(gr + i), value);
            v = lanes::rounded(u * (value - line.means));
          },
          [&](Index i, T& u, T& v) {
            u = line.gate(gr[i], xr[i]);
            v = lanes::rounded(u * (xr[i] - line.mean));
          });
    }
    dots.sum += sums.first();
    dots.dot += sums.second();
  });
}

template <class T, bool Relu>
void columns_backward(const ChannelShape& s, const T* g, const T* x, const T* mean, const T* rstd, const T* w,
                      const T* shift, T* gx, T* gw, T* gb) {
  const size_t channels = size_t(s.channels);
  std::vector<T> sum_w(channels), sum_b(channels), scale(channels), zero(Relu ? 0 : channels);
  for (size_t c = 0; c < channels; ++c) scale[c] = rstd[c] * (w ? w[c] : T(1));
  const T *k = scale.data(), *at_zero = Relu ? shift : zero.data();
  const auto passes = [&](T gr, T xr, Index c) { return !Relu || (xr - mean[c]) * k[c] + at_zero[c] > 0 ? gr : T(0); };
  sum_over_rows<T>(s.batch, s.channels, sum_w.data(), sum_b.data(), [&](Index r, T* to_w, T* to_b) {
    const T *gr = g + r * s.channels, *xr = x + r * s.channels;
    for (Index c = 0; c < s.channels; ++c) {
      const T d = passes(gr[c], xr[c], c);
      to_w[c] += d * ((xr[c] - mean[c]) * rstd[c]);
      to_b[c] += d;
    }
  });
  if (gw) std::copy(sum_w.begin(), sum_w.end(), gw);
  if (gb) std::copy(sum_b.begin(), sum_b.end(), gb);
  if (!gx) return;
  const T inverse = T(1 / double(s.batch));
  for (size_t c = 0; c < channels; ++c) {
    sum_w[c] *= inverse * rstd[c];
    sum_b[c] *= inverse;
  }
  const T *along = sum_w.data(), *middle = sum_b.data();
  parallel_for(s.batch, std::max<Index>(1, kPiece / s.channels), [&](Index first, Index last) {
    for (Index r = first; r < last; ++r) {
      const T *gr = g + r * s.channels, *xr = x + r * s.channels;
      T* to = gx + r * s.channels;
      for (Index c = 0; c < s.channels; ++c)
        to[c] = k[c] * (passes(gr[c], xr[c], c) - middle[c] - (xr[c] - mean[c]) * along[c]);
    }
  });
}

template <class T, bool Relu>
void backward(const ChannelShape& s, const T* g, const T* x, const T* mean, const T* rstd, const T* w, const T* shift,
              T* gx, T* gw, T* gb) {
  if (s.plane == 1 && s.channels > 0) {
    columns_backward<T, Relu>(s, g, x, mean, rstd, w, shift, gx, gw, gb);
    return;
  }
  const double count = double(s.batch * s.plane);
  std::vector<Dots> totals(size_t(s.channels));
  const auto line = [&](Index c) {
    return Line<T, Relu>{mean[c], rstd[c] * (w ? w[c] : T(1)), Relu ? shift[c] : T(0)};
  };
  over_channels<Dots>(
      s, [&](Index c, Samples samples, Dots& d) { add_dots(s, c, samples, line(c), g, x, d); },
      [](Dots& d, const Dots& more) {
        d.sum += more.sum;
        d.dot += more.dot;
      },
      [&](Index c, const Dots& d) {
        totals[size_t(c)] = d;
        if (gw) gw[c] = T(d.dot * double(rstd[c]));
        if (gb) gb[c] = T(d.sum);
      },
      [&](Index c, Samples samples) {
        if (!gx) return;
        using W = Wide<T>;
        const Dots& d = totals[size_t(c)];
        const auto l = line(c);
        const T c1 = T(d.sum / count), c2 = T(d.dot / count * double(rstd[c]) * double(rstd[c]));
        const auto middle = W::fill(c1), along = W::fill(c2);
        for (Index n = samples.first; n < samples.last; ++n) {
          const Index at = (n * s.channels + c) * s.plane;
          const T *gr = g + at, *xr = x + at;
          fill_run(
              gx + at, s.plane,
              [&](Index i) {
                const auto value = W::load(xr + i);
                return l.ks * (l.gate(W::load(gr + i), value) - middle - (value - l.means) * along);
              },
              [&](Index i) { return l.k * (l.gate(gr[i], xr[i]) - c1 - (xr[i] - l.mean) * c2); });
        }
      });
}

}  // namespace

template <class T>
void batch_norm(const ChannelShape& s, bool relu, double eps, const T* x, const T* w, const T* b, T* y, T* mean, T* rstd,
                T* var, T* shift) {
  if (relu) forward<T, true>(s, eps, x, w, b, y, mean, rstd, var, shift);
  else forward<T, false>(s, eps, x, w, b, y, mean, rstd, var, shift);
}

template <class T>
void batch_norm_backward(const ChannelShape& s, const T* g, const T* x, const T* mean, const T* rstd, const T* w,
                         const T* shift, T* gx, T* gw, T* gb) {
  if (shift) backward<T, true>(s, g, x, mean, rstd, w, shift, gx, gw, gb);
  else backward<T, false>(s, g, x, mean, rstd, w, shift, gx, gw, gb);
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
      const Index n = r / s.channels, c = r % s.channels;
      write_line(s, c, {n, n + 1}, Line<T, false>{mean[c], scale[size_t(c)], b ? b[c] : T(0)}, x, y);
    }
  });
}

// gx = g k, k = w rstd;  gw = rstd sum of g (x - mean);  gb = sum of g;  gmean = -k sum of g;
// gvar = -k rstd^2 / 2 sum of g (x - mean)
template <class T>
void batch_norm_eval_backward(const ChannelShape& s, double eps, const T* g, const T* x, const T* w, const T* mean,
                              const T* var, T* gx, T* gw, T* gb, T* gmean, T* gvar) {
  std::vector<T> scale(static_cast<size_t>(s.channels));
  const auto rstd = [&](Index c) { return 1 / std::sqrt(double(var[c]) + eps); };
  const auto put = [&](Index c, double sum, double dot) {
    const double r = rstd(c), k = r * (w ? double(w[c]) : 1.0);
    if (gw) gw[c] = T(dot * r);
    if (gb) gb[c] = T(sum);
    if (gmean) gmean[c] = T(-sum * k);
    if (gvar) gvar[c] = T(-0.5 * dot * k * r * r);
  };
  for (Index c = 0; c < s.channels; ++c) scale[size_t(c)] = T(rstd(c) * (w ? double(w[c]) : 1.0));
  const bool sums = gw || gb || gmean || gvar;
  if (s.plane == 1) {
    std::vector<T> dot(scale.size()), sum(scale.size());
    sum_over_rows<T>(s.batch, s.channels, dot.data(), sum.data(), [&](Index r, T* to_dot, T* to_sum) {
      const Index at = r * s.channels;
      for (Index c = 0; sums && c < s.channels; ++c) {
        to_dot[c] += g[at + c] * (x[at + c] - mean[c]);
        to_sum[c] += g[at + c];
      }
      for (Index c = 0; gx && c < s.channels; ++c) gx[at + c] = g[at + c] * scale[size_t(c)];
    });
    for (Index c = 0; sums && c < s.channels; ++c) put(c, double(sum[size_t(c)]), double(dot[size_t(c)]));
    return;
  }
  over_channels<Dots>(
      s,
      [&](Index c, Samples samples, Dots& d) {
        if (sums) add_dots(s, c, samples, Line<T, false>{mean[c], T(0), T(0)}, g, x, d);
      },
      [](Dots& d, const Dots& more) {
        d.sum += more.sum;
        d.dot += more.dot;
      },
      [&](Index c, const Dots& d) { put(c, d.sum, d.dot); },
      [&](Index c, Samples samples) {
        if (!gx) return;
        const T k = scale[size_t(c)];
        const auto ks = Wide<T>::fill(k);
        for (Index n = samples.first; n < samples.last; ++n) {
          const Index at = (n * s.channels + c) * s.plane;
          const T* gr = g + at;
          fill_run(
              gx + at, s.plane, [&](Index i) { return Wide<T>::load(gr + i) * ks; }, [&](Index i) { return gr[i] * k; });
        }
      });
}

#define TG_BATCH_NORM(T)                                                                                                \
  template void batch_norm(const ChannelShape&, bool, double, const T*, const T*, const T*, T*, T*, T*, T*, T*);        \
  template void batch_norm_backward(const ChannelShape&, const T*, const T*, const T*, const T*, const T*, const T*,    \
                                    T*, T*, T*);                                                                        \
  template void batch_norm_eval(const ChannelShape&, double, const T*, const T*, const T*, const T*, const T*, T*);     \
  template void batch_norm_eval_backward(const ChannelShape&, double, const T*, const T*, const T*, const T*, const T*, \
                                         T*, T*, T*, T*, T*);
TG_BATCH_NORM(float)
TG_BATCH_NORM(double)
#undef TG_BATCH_NORM

}  // namespace tg
