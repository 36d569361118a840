// y = exp(x - max) / sum(exp(x - max)) for each row;  log y = x - max - log(sum(exp(x - max))).
// gx = y (g - sum(g y));  for log_softmax gx = g - exp(y) sum(g).
//
// Rows (inner = 1): three passes over a row that stays in cache. Otherwise as many over strips of columns, in tiles of up to
// 64; short rows too are columns, turned. Rows and tiles are dealt out in chunks that depend on the shape alone.
//
// Ladder, two Zen 4 cores, us, in turn, loops over 64 columns with what is kept for them in memory and strips in registers:
// 4096 x 128 floats along the first axis, AVX-512: softmax 242 and 215, its gradient 136 and 94, that of log_softmax 174
// and 128; AVX2: 280 and 210, 131 and 114, 199 and 170. 4096 rows of 8, AVX-512, one by one and turned: softmax 135 and 22,
// log_softmax 108 and 28, its gradient 99 and 25; of 2: 129 and 9, 114 and 16, 40 and 11. 1M elements of log_softmax,
// AVX-512, logarithms one by one and in vectors: rows of 16 606 and 400, of 127 376 and 346; its gradient, the end of a row one by
// one and as a vector: of 127 540 and 230. Short rows one by one and 16 at a time: log_softmax of 64,
// AVX-512 325 and 240, AVX2 335 and 305; the gradient of softmax of 64, AVX2 259 and 97.
#include "softmax.h"

#include <algorithm>
#include <cmath>

#include "../core/parallel.h"
#include "column_strips.h"

namespace tg {
namespace {

constexpr Index kPiece = 4096;   // elements per task: an exponential each, about 4 us
// Short rows whose sums are on their way at once, and the elements from which on rows are not short.
constexpr Index kRowsBeside = 16;
template <class T>
constexpr Index kNotShort = 512 / sizeof(T);
// Vectors of a strip of columns where there are no exponentials: 256 bytes of a row, half of which took 1.4 times as long
// where rows are 16 KB apart.
constexpr int kSideBySide = lanes::kVectorBytes == 64 ? 4 : 8;

// call(first element, rows) for all rows, so many of them together.
template <class Call>
void over_rows(const SoftmaxShape& s, Index together, Call call) {
  if (s.length == 0) return;
  parallel_for(s.outer, std::max<Index>(1, kPiece / s.length), [&](Index first, Index last) {
    for (Index r = first; r < last; r += together) call(r * s.length, std::min(together, last - r));
  });
}
template <class Row>
void over_rows(const SoftmaxShape& s, Row row) {
  over_rows(s, 1, [&](Index at, Index) { row(at); });
}

template <class T>
[[gnu::noinline]] void largest_each(const T* x, Index n, Index rows, T* most) {
  for (Index r = 0; r < rows; ++r) most[r] = extreme_run<1>(x + r * n, n);
}

template <class T>
bool in_rows(const SoftmaxShape& s) {
  return s.inner == 1 && !are_beside<T>(s.length, 1);
}

}  // namespace

template <class T>
void softmax(const SoftmaxShape& s, const T* x, T* y) {
  const Index n = s.length;
  if (in_rows<T>(s)) {
    over_rows(s, n < kNotShort<T> ? kRowsBeside : 1, [&](Index at, Index rows) {
      T most[kRowsBeside];
      largest_each(x + at, n, rows, most);
      for (Index r = 0; r < rows; ++r) most[r] = T(1 / exp_long(y + at + r * n, x + at + r * n, n, most[r]));
      for (Index r = 0; r < rows; ++r) {
        T *row = y + at + r * n, scale = most[r];
        fill_run(
            row, n, [&](Index i) { return Wide<T>::load(row + i) * scale; }, [&](Index i) { return row[i] * scale; });
      }
    });
    return;
  }
  over_columns<T>(s.outer, n, s.inner, {x}, y, n, [&](const auto& strip, const auto& in, T* to) {
    using S = std::decay_t<decltype(strip)>;
    typename S::Vector most[S::vectors], scale[S::vectors];
    double total[S::width];
    strip.largest(in[0], most);
    strip.sum_exp(in[0], most, total, [&](Index r, const auto& e) { strip.store(to, r, e); });
    S::each(total, scale, [](double sum) { return 1 / sum; });
    for (Index r = 0; r < n; ++r) {
      typename S::Vector row[S::vectors];
      strip.load(to, r, row);
      for (int v = 0; v < S::vectors; ++v) row[v] *= scale[v];
      strip.store(to, r, row);
    }
  });
}

template <class T>
void log_softmax(const SoftmaxShape& s, const T* x, T* y) {
  const Index n = s.length;
  if (in_rows<T>(s)) {
    constexpr Index kMost = 16;  // rows whose logarithms are taken together, while they are in cache
    const Index together = n == 0 ? 0 : std::clamp<Index>(kPiece / 2 / n, 1, kMost);
    over_rows(s, together, [&](Index at, Index rows) {
      double total[kMost];
      T most[kMost];
      std::fill(total, total + kMost, 1.0);
      largest_each(x + at, n, rows, most);
      for (Index r = 0; r < rows; ++r) total[r] = sum_exp_long(x + at + r * n, n, most[r]);
      take_logs<T>(total);
      for (Index r = 0; r < rows; ++r) {
        const T *from = x + at + r * n, m = most[r], rest = T(total[r]);
        fill_run(
            y + at + r * n, n, [&](Index i) { return Wide<T>::load(from + i) - m - rest; },
            [&](Index i) { return from[i] - m - rest; });
      }
    });
    return;
  }
  over_columns<T>(s.outer, n, s.inner, {x}, y, n, [&](const auto& strip, const auto& in, T* to) {
    using S = std::decay_t<decltype(strip)>;
    typename S::Vector most[S::vectors], rest[S::vectors];
    double total[S::width];
    strip.largest(in[0], most);
    strip.sum_exp(in[0], most, total);
    take_logs<T>(total);
    S::each(total, rest, [](double log) { return log; });
    for (Index r = 0; r < n; ++r) {
      typename S::Vector row[S::vectors];
      strip.load(in[0], r, row);
      for (int v = 0; v < S::vectors; ++v) row[v] = row[v] - most[v] - rest[v];
      strip.store(to, r, row);
    }
  });
}

template <class T>
void softmax_backward(const SoftmaxShape& s, const T* g, const T* y, T* gx) {
  const Index n = s.length;
  // there is no exponential that would be worth turning whole vectors for
  if (in_rows<T>(s) || (s.inner == 1 && n >= Wide<T>::lanes)) {
    const auto update = [&](Index at, T dot) {
      for (Index i = at; i < at + n; ++i) gx[i] = y[i] * (g[i] - dot);
    };
    if (n <= 256) {
      over_rows(s, kRowsBeside, [&](Index at, Index rows) {
        T dot[kRowsBeside];
        for (Index r = 0; r < rows; ++r) dot[r] = sum_products(g + at + r * n, y + at + r * n, n) + T(0);
        for (Index r = 0; r < rows; ++r) update(at + r * n, dot[r]);
      });
      return;
    }
    over_rows(s, [&](Index at) {
      double total = 0;
      for (Index i = 0; i < n; i += kSumBlock) total += sum_products(g + at + i, y + at + i, std::min(kSumBlock, n - i));
      update(at, T(total));
    });
    return;
  }
  over_columns<T, kSideBySide>(s.outer, n, s.inner, {g, y}, gx, n, [&](const auto& strip, const auto& in, T* to) {
    using S = std::decay_t<decltype(strip)>;
    typename S::Vector dot[S::vectors];
    double total[S::width];
    const auto both = [&](Index r, auto& gs, auto& ys) {
      strip.load(in[0], r, gs);
      strip.load(in[1], r, ys);
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
      strip.store(to, r, gs);
    }
  });
}

namespace {

// gx = g - exp(y) total for a vector or more, each with its own total, or all with those of four vectors. gx may be g.
// Short rows are one run, in which no exponential waits for a row's end.
template <class T>
void log_gradient_run(Index n, const T* total, bool own, const T* g, const T* y, T* gx) {
  using W = Wide<T>;
  const Index last = n - W::lanes;
  const auto last_g = W::load(g + last), last_y = W::load(y + last);  // of what overlaps the vector before
  Index i = 0;
  for (; i + 4 * W::lanes <= n; i += 4 * W::lanes) {
    typename W::Vector e[4];
    for (int k = 0; k < 4; ++k) e[k] = W::load(y + i + k * W::lanes);
    exp_each(e);
    for (int k = 0; k < 4; ++k)
      W::store(gx + i + k * W::lanes, W::load(g + i + k * W::lanes) - e[k] * W::load(total + (own ? i : 0) + k * W::lanes));
  }
  for (; i < n; i += W::lanes) {
    const bool cut = i > last;
    const Index at = cut ? last : i;
    const auto e = exp_wide(cut ? last_y : W::load(y + i));
    W::store(gx + at, (cut ? last_g : W::load(g + i)) - e * W::load(total + (own ? at : 0)));
  }
}

template <class T>
void log_gradient_rows(Index n, Index rows, bool own, const T* g, const T* y, T* gx) {
  T total[kRowsBeside * kNotShort<T>];
  const Index part = own ? n : 4 * Wide<T>::lanes;
  for (Index r = 0; r < rows; ++r) {
    double sum = 0;
    for (Index i = 0; i < n; i += kSumBlock) sum += sum_run(g + r * n + i, std::min(kSumBlock, n - i));
    std::fill_n(total + r * part, part, T(sum));
  }
  log_gradient_run(rows * n, total, own, g, y, gx);
}

}  // namespace

template <class T>
void log_softmax_backward(const SoftmaxShape& s, const T* g, const T* y, T* gx) {
  const Index n = s.length;
  if (in_rows<T>(s)) {
    const Index together = n < kNotShort<T> ? kRowsBeside : 1;
    over_rows(s, together, [&](Index at, Index rows) { log_gradient_rows(n, rows, together > 1, g + at, y + at, gx + at); });
    return;
  }
  over_columns<T>(s.outer, n, s.inner, {g, y}, gx, n, [&](const auto& strip, const auto& in, T* to) {
    using S = std::decay_t<decltype(strip)>;
    typename S::Vector by[S::vectors];
    double total[S::width];
    strip.sum(total, [&](Index r, auto& sum) {
      typename S::Vector gs[S::vectors];
      strip.load(in[0], r, gs);
      for (int v = 0; v < S::vectors; ++v) sum[v] += gs[v];
    });
    S::each(total, by, [](double sum) { return sum; });
    for (Index r = 0; r < n; ++r) {
      typename S::Vector gs[S::vectors], e[S::vectors];
      strip.load(in[0], r, gs);
      strip.load(in[1], r, e);
      exp_each(e);
      for (int v = 0; v < S::vectors; ++v) gs[v] -= e[v] * by[v];
      strip.store(to, r, gs);
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
