// y = exp(x - max) / sum(exp(x - max)) for each row;  log y = x - max - log(sum(exp(x - max))).
// gx = y (g - sum(g y));  for log_softmax gx = g - exp(y) sum(g).
//
// Rows (inner = 1): three passes over a row that stays in cache. Otherwise as many over strips of columns, in tiles of up to
// 64. Rows and tiles are dealt out in chunks that depend on the shape alone.
//
// Ladder, two Zen 4 cores, us, in turn, loops over 64 columns with what is kept for them in memory and strips in registers:
// 4096 x 128 floats along the first axis, AVX-512: softmax 242 and 215, its gradient 136 and 94, that of log_softmax 174
// and 128; AVX2: 280 and 210, 131 and 114, 199 and 170.
#include "softmax.h"

#include <algorithm>
#include <cmath>

#include "../core/parallel.h"
#include "column_strips.h"

namespace tg {
namespace {

constexpr Index kPiece = 4096;   // elements per task: an exponential each, about 4 us
constexpr Index kTile = 64;      // columns per tile
// Vectors of a strip of columns where there are no exponentials: 256 bytes of a row, half of which took 1.4 times as long
// where rows are 16 KB apart.
constexpr int kSideBySide = lanes::kVectorBytes == 64 ? 4 : 8;

template <class Row>
void over_rows(const SoftmaxShape& s, Row row) {
  if (s.length == 0) return;
  parallel_for(s.outer, std::max<Index>(1, kPiece / s.length), [&](Index first, Index last) {
    for (Index r = first; r < last; ++r) row(r * s.length);
  });
}

// call(strip of columns, offset of its first element)
template <class T, int V = kStripVectors, class Call>
void over_columns(const SoftmaxShape& s, Call call) {
  if (s.length == 0 || s.inner == 0) return;
  const Index tiles = (s.inner + kTile - 1) / kTile;
  const Index group = std::max<Index>(1, kPiece / (std::min(kTile, s.inner) * s.length));
  parallel_for(s.outer * tiles, group, [&](Index first, Index last) {
    for (Index t = first; t < last; ++t) {
      const Index column = t % tiles * kTile, at = t / tiles * s.length * s.inner + column;
      for_strips<T, V>(s.length, s.inner, std::min(kTile, s.inner - column),
                    [&](const auto& strip, Index j) { call(strip, at + j); });
    }
  });
}

}  // namespace

template <class T>
void softmax(const SoftmaxShape& s, const T* x, T* y) {
  const Index n = s.length;
  if (s.inner == 1) {
    over_rows(s, [&](Index at) {
      const T scale = T(1 / exp_long(y + at, x + at, n, extreme_run<1>(x + at, n)));
      T* row = y + at;
      for (Index i = 0; i < n; ++i) row[i] *= scale;
    });
    return;
  }
  over_columns<T>(s, [&](const auto& strip, Index at) {
    using S = std::decay_t<decltype(strip)>;
    typename S::Vector most[S::vectors], scale[S::vectors];
    double total[S::width];
    strip.largest(x + at, most);
    strip.sum_exp(x + at, most, total, [&](Index r, const auto& e) { strip.store(y + at, r, e); });
    S::each(total, scale, [](double sum) { return 1 / sum; });
    for (Index r = 0; r < n; ++r) {
      typename S::Vector row[S::vectors];
      strip.load(y + at, r, row);
      for (int v = 0; v < S::vectors; ++v) row[v] *= scale[v];
      strip.store(y + at, r, row);
    }
  });
}

template <class T>
void log_softmax(const SoftmaxShape& s, const T* x, T* y) {
  const Index n = s.length;
  if (s.inner == 1) {
    over_rows(s, [&](Index at) {
      const T *from = x + at, m = extreme_run<1>(from, n);
      const T rest = T(std::log(sum_exp_long(from, n, m)));
      T* to = y + at;
      for (Index i = 0; i < n; ++i) to[i] = from[i] - m - rest;
    });
    return;
  }
  over_columns<T>(s, [&](const auto& strip, Index at) {
    using S = std::decay_t<decltype(strip)>;
    typename S::Vector most[S::vectors], rest[S::vectors];
    double total[S::width];
    strip.largest(x + at, most);
    strip.sum_exp(x + at, most, total);
    S::each(total, rest, [](double sum) { return std::log(sum); });
    for (Index r = 0; r < n; ++r) {
      typename S::Vector row[S::vectors];
      strip.load(x + at, r, row);
      for (int v = 0; v < S::vectors; ++v) row[v] = row[v] - most[v] - rest[v];
      strip.store(y + at, r, row);
    }
  });
}

template <class T>
void softmax_backward(const SoftmaxShape& s, const T* g, const T* y, T* gx) {
  const Index n = s.length;
  if (s.inner == 1) {
    over_rows(s, [&](Index at) {
      double total = 0;
      for (Index i = 0; i < n; i += kSumBlock) total += sum_products(g + at + i, y + at + i, std::min(kSumBlock, n - i));
      const T dot = T(total);
      for (Index i = at; i < at + n; ++i) gx[i] = y[i] * (g[i] - dot);
    });
    return;
  }
  over_columns<T, kSideBySide>(s, [&](const auto& strip, Index at) {
    using S = std::decay_t<decltype(strip)>;
    typename S::Vector dot[S::vectors];
    double total[S::width];
    const auto both = [&](Index r, auto& gs, auto& ys) {
      strip.load(g + at, r, gs);
      strip.load(y + at, r, ys);
    };
    strip.sum(total, [&](Index r, auto& sum) {
      typename S::Vector gs[S::vectors], ys[S::vectors];
      both(r, gs, ys);
      for (int v = 0; v < S::vectors; ++v) sum[v] += lanes::rounded(gs[v] * ys[v]);
    });
    S::each(total, dot, [](double sum) { return sum; });
    for (Index r = 0; r < n; ++r) {
      typename S::Vector gs[S::vectors], ys[S::vectors];
      both(r, gs, ys);
      for (int v = 0; v < S::vectors; ++v) gs[v] = ys[v] * (gs[v] - dot[v]);
      strip.store(gx + at, r, gs);
    }
  });
}

template <class T>
void log_softmax_backward(const SoftmaxShape& s, const T* g, const T* y, T* gx) {
  const Index n = s.length;
  using W = Wide<T>;
  if (s.inner == 1) {
    over_rows(s, [&](Index at) {
      const T total = T(sum_long(g + at, n));
      Index i = at;
      for (; i + 4 * W::lanes <= at + n; i += 4 * W::lanes) {
        typename W::Vector e[4];
        for (int k = 0; k < 4; ++k) e[k] = W::load(y + i + k * W::lanes);
        exp_each(e);
        for (int k = 0; k < 4; ++k) W::store(gx + i + k * W::lanes, W::load(g + i + k * W::lanes) - e[k] * total);
      }
      for (; i + W::lanes <= at + n; i += W::lanes)
        W::store(gx + i, W::load(g + i) - exp_wide(W::load(y + i)) * total);
      for (; i < at + n; ++i) gx[i] = g[i] - exp_one(y[i]) * total;
    });
    return;
  }
  over_columns<T>(s, [&](const auto& strip, Index at) {
    using S = std::decay_t<decltype(strip)>;
    typename S::Vector by[S::vectors];
    double total[S::width];
    strip.sum(total, [&](Index r, auto& sum) {
      typename S::Vector gs[S::vectors];
      strip.load(g + at, r, gs);
      for (int v = 0; v < S::vectors; ++v) sum[v] += gs[v];
    });
    S::each(total, by, [](double sum) { return sum; });
    for (Index r = 0; r < n; ++r) {
      typename S::Vector gs[S::vectors], e[S::vectors];
      strip.load(g + at, r, gs);
      strip.load(y + at, r, e);
      exp_each(e);
      for (int v = 0; v < S::vectors; ++v) gs[v] -= e[v] * by[v];
      strip.store(gx + at, r, gs);
    }
  });
}

template void softmax(const SoftmaxShape&, const float*, float*);
template void log_softmax(const SoftmaxShape&, const float*, float*);
template void softmax_backward(const SoftmaxShape&, const float*, const float*, float*);
template void log_softmax_backward(const SoftmaxShape&, const float*, const float*, float*);
template void softmax(const SoftmaxShape&, const double*, double*);
template void log_softmax(const SoftmaxShape&, const double*, double*);
template void softmax_backward(const SoftmaxShape&, const double*, const double*, double*);
template void log_softmax_backward(const SoftmaxShape&, const double*, const double*, double*);

}  // namespace tg
