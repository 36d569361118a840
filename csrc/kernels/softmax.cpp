// y = exp(x - max) / sum(exp(x - max)) for each row;  log y = x - max - log(sum(exp(x - max))).
// gx = y (g - sum(g y));  for log_softmax gx = g - exp(y) sum(g).
//
// Rows (inner = 1): three passes over a row that stays in cache. Otherwise tiles of up to 64 columns, so that every
// access is a short run of memory. Rows and tiles are dealt out in chunks that depend on the shape alone.
#include "softmax.h"

#include <algorithm>
#include <cmath>

#include "../core/parallel.h"
#include "softmax_exp.h"

namespace tg {
namespace {

constexpr Index kPiece = 4096;   // elements per task: an exponential each, about 4 us
constexpr Index kTile = 64;      // columns per tile
constexpr Index kFlush = 64;     // rows summed in T before the sum goes to double

template <class Row>
void over_rows(const SoftmaxShape& s, Row row) {
  if (s.length == 0) return;
  parallel_for(s.outer, std::max<Index>(1, kPiece / s.length), [&](Index first, Index last) {
    for (Index r = first; r < last; ++r) row(r * s.length);
  });
}

// tile(offset of its first element, columns)
template <class Tile>
void over_tiles(const SoftmaxShape& s, Tile tile) {
  if (s.length == 0 || s.inner == 0) return;
  const Index tiles = (s.inner + kTile - 1) / kTile;
  const Index group = std::max<Index>(1, kPiece / (std::min(kTile, s.inner) * s.length));
  parallel_for(s.outer * tiles, group, [&](Index first, Index last) {
    for (Index t = first; t < last; ++t) {
      const Index column = t % tiles * kTile;
      tile(t / tiles * s.length * s.inner + column, std::min(kTile, s.inner - column));
    }
  });
}

// Sums rows of a tile: T within kFlush rows, double across.
template <class T>
struct TileSum {
  explicit TileSum(Index columns) : n(columns) {
    std::fill(part, part + n, T(0));
    std::fill(total, total + n, 0.0);
  }
  void end_row(Index row) {
    if (row % kFlush == kFlush - 1) flush();
  }
  void flush() {
    for (Index j = 0; j < n; ++j) {
      total[j] += double(part[j]);
      part[j] = 0;
    }
  }
  Index n;
  T part[kTile];
  double total[kTile];
};

template <class T>
void exp_row(T* y, const T* x, const T* shift, Index n) {  // y = exp(x - shift), columns apart
  using W = Wide<T>;
  Index j = 0;
  for (; j + 4 * W::lanes <= n; j += 4 * W::lanes) {
    typename W::Vector e[4];
    for (int k = 0; k < 4; ++k) e[k] = W::load(x + j + k * W::lanes) - W::load(shift + j + k * W::lanes);
    exp_each(e);
    for (int k = 0; k < 4; ++k) W::store(y + j + k * W::lanes, e[k]);
  }
  for (; j + W::lanes <= n; j += W::lanes) W::store(y + j, exp_wide(W::load(x + j) - W::load(shift + j)));
  if (j < n) {
    alignas(64) T pad[W::lanes] = {};
    for (Index l = 0; j + l < n; ++l) pad[l] = x[j + l] - shift[j + l];
    W::store(pad, exp_wide(W::load(pad)));
    for (Index l = 0; j + l < n; ++l) y[j + l] = pad[l];
  }
}

template <class T>
void tile_max(const T* x, Index rows, Index stride, Index n, T* m) {
  std::copy(x, x + n, m);
  for (Index r = 1; r < rows; ++r)
    for (Index j = 0; j < n; ++j) m[j] = max_nan(m[j], x[r * stride + j]);
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
  over_tiles(s, [&](Index at, Index columns) {
    T m[kTile], scale[kTile];
    tile_max(x + at, n, s.inner, columns, m);
    TileSum<T> sum(columns);
    for (Index r = 0; r < n; ++r) {
      T* row = y + at + r * s.inner;
      exp_row(row, x + at + r * s.inner, m, columns);
      for (Index j = 0; j < columns; ++j) sum.part[j] += row[j];
      sum.end_row(r);
    }
    sum.flush();
    for (Index j = 0; j < columns; ++j) scale[j] = T(1 / sum.total[j]);
    for (Index r = 0; r < n; ++r) {
      T* row = y + at + r * s.inner;
      for (Index j = 0; j < columns; ++j) row[j] *= scale[j];
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
  over_tiles(s, [&](Index at, Index columns) {
    T m[kTile], e[kTile], rest[kTile];
    tile_max(x + at, n, s.inner, columns, m);
    TileSum<T> sum(columns);
    for (Index r = 0; r < n; ++r) {
      exp_row(e, x + at + r * s.inner, m, columns);
      for (Index j = 0; j < columns; ++j) sum.part[j] += e[j];
      sum.end_row(r);
    }
    sum.flush();
    for (Index j = 0; j < columns; ++j) rest[j] = T(std::log(sum.total[j]));
    for (Index r = 0; r < n; ++r)
      for (Index j = 0; j < columns; ++j)
        y[at + r * s.inner + j] = x[at + r * s.inner + j] - m[j] - rest[j];
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
  over_tiles(s, [&](Index at, Index columns) {
    TileSum<T> sum(columns);
    for (Index r = 0; r < n; ++r) {
      const Index row = at + r * s.inner;
      for (Index j = 0; j < columns; ++j) sum.part[j] += g[row + j] * y[row + j];
      sum.end_row(r);
    }
    sum.flush();
    T dot[kTile];
    for (Index j = 0; j < columns; ++j) dot[j] = T(sum.total[j]);
    for (Index r = 0; r < n; ++r) {
      const Index row = at + r * s.inner;
      for (Index j = 0; j < columns; ++j) gx[row + j] = y[row + j] * (g[row + j] - dot[j]);
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
  over_tiles(s, [&](Index at, Index columns) {
    TileSum<T> sum(columns);
    for (Index r = 0; r < n; ++r) {
      for (Index j = 0; j < columns; ++j) sum.part[j] += g[at + r * s.inner + j];
      sum.end_row(r);
    }
    sum.flush();
    T total[kTile], zero[kTile] = {}, e[kTile];
    for (Index j = 0; j < columns; ++j) total[j] = T(sum.total[j]);
    for (Index r = 0; r < n; ++r) {
      const Index row = at + r * s.inner;
      exp_row(e, y + row, zero, columns);
      for (Index j = 0; j < columns; ++j) gx[row + j] = g[row + j] - e[j] * total[j];
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
