// For a row x with target t, weights w, smoothing s over C classes, lse = log(sum(exp(x))):
//   loss = (1 - s) w_t (lse - x_t) + s / C * sum_c w_c (lse - x_c)
//   gx_c = g (((1 - s) w_t + s / C * W) exp(x_c - lse) - s / C * w_c - (1 - s) w_t [c = t]),   W = sum_c w_c
// The mean divides by the sum of w_t over the rows that are not ignored, with or without smoothing, as in PyTorch.
// The probabilities are never stored: the forward pass keeps one number per row.
// Short rows of floats stand side by side in a tile, as those of softmax do: a vector has the same class of as many of them.
// Of log-probabilities x, loss = -w_t x_t and gx_c = -g w_t [c = t]: one element per row is read, and the gradient is
// zeros written once, with one element per row put in while the row is near.
#include "loss.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "../core/allocator.h"
#include "../core/parallel.h"
#include "column_strips.h"

namespace tg {
namespace {

constexpr Index kPiece = 4096;  // elements per task: an exponential each, about 4 us

template <class T>
double weight_total(const CrossEntropy& c, const T* weight) {
  return weight ? sum_long(weight, c.classes) : double(c.classes);
}

// What the mean divides by. In double and in the order of rows.
template <class T>
double divisor(const CrossEntropy& c, const T* weight) {
  if (!weight) {
    Index count = 0;
    for (Index r = 0; r < c.rows; ++r) count += c.target[r] != c.ignore_index;
    return double(count);
  }
  double total = 0;
  for (Index r = 0; r < c.rows; ++r)
    if (c.target[r] != c.ignore_index) total += double(weight[c.target[r]]);
  return total;
}

// As many rows as a tile has columns: floats alone, for the code is long.
template <class T>
using Rows = Strip<T, kStripVectors>;
static_assert(kStripTile % Rows<float>::width == 0);

// row(r) or, of short rows, tile(first, rows, strip, x of those rows turned) for all of them, which is turned back to where
// `back` is not null; then end(r).
template <class T, class Row, class Tile, class End>
void rows_or_tiles(const CrossEntropy& c, const T* x, T* back, Row row, Tile tile, End end) {
  const Index n = c.classes;
  if constexpr (std::is_same_v<T, float>) {
    if (are_beside<T>(n, 1)) {
      constexpr Index wide = Rows<T>::width;
      parallel_for(c.rows, wide * std::max<Index>(1, kPiece / (wide * std::max<Index>(1, n))), [&](Index first, Index last) {
        alignas(64) T room[kShortColumn * wide] = {};
        for (Index r = first; r < last; r += wide) {
          const Index count = std::min(wide, last - r);
          turn_beside<false, T>(x + r * n, (c.rows - r) * n, room, wide, count, n, 1);
          tile(r, count, Rows<T>{n, wide, wide}, room);
          if (back) turn_beside<true, T>(back + r * n, count * n, room, wide, count, n, 1);
          for (Index k = 0; k < count; ++k) end(r + k);
        }
      });
      return;
    }
  }
  parallel_for(c.rows, std::max<Index>(1, kPiece / std::max<Index>(1, n)), [&](Index first, Index last) {
    for (Index r = first; r < last; ++r) row(r), end(r);
  });
}

}  // namespace

template <class T>
void cross_entropy(const CrossEntropy& c, const T* x, const T* weight, T* loss, T* lse) {
  const Index n = c.classes;
  const double smooth = c.label_smoothing, all = smooth != 0 ? weight_total(c, weight) : 0;
  const Scratch<double> row_loss(c.rows);
  // m is the row's maximum, log_total the logarithm of its exponentials' sum: apart, for both together may be as large as m
  // alone. A row whose maximum is infinite has no shift that helps: -inf everywhere, or +inf somewhere.
  const auto finish = [&](Index r, T m, double log_total) __attribute__((noinline)) {
    const T* row = x + r * n;
    const double top = m, over = std::isinf(m) ? 0 : log_total;
    lse[r] = T(top + over);
    const int64_t t = c.target[r];
    if (t == c.ignore_index) {
      row_loss[r] = 0;
      return;
    }
    double value = (1 - smooth) * (weight ? double(weight[t]) : 1.0) * (top - double(row[t]) + over);
    if (smooth != 0) {
      double dot = 0;
      for (Index i = 0; i < n; i += kSumBlock) {
        const Index k = std::min(kSumBlock, n - i);
        dot += weight ? sum_products(row + i, weight + i, k) : sum_run(row + i, k);
      }
      value += smooth / double(n) * (all * top - dot + all * over);
    }
    row_loss[r] = value;
  };
  rows_or_tiles<T>(
      c, x, nullptr,
      [&](Index r) {
        const T m = extreme_run<1>(x + r * n, n);
        finish(r, m, std::isinf(m) ? 0 : std::log(sum_exp_long(x + r * n, n, m)));
      },
      [&](Index first, Index count, const auto& strip, const T* turned) {
        using S = std::decay_t<decltype(strip)>;
        typename S::Vector most[S::vectors];
        double total[S::width];
        strip.largest(turned, most);
        strip.sum_exp(turned, most, total);
        take_logs<T>(total);
        for (Index k = 0; k < count; ++k) finish(first + k, most[k / S::W::lanes][k % S::W::lanes], total[k]);
      },
      [](Index) {});
  if (c.reduction == Reduction::none) {
    for (Index r = 0; r < c.rows; ++r) loss[r] = T(row_loss[r]);
    return;
  }
  const double total = sum_long(row_loss.data(), c.rows);
  loss[0] = T(c.reduction == Reduction::sum ? total : total / divisor(c, weight));
}

template <class T>
void cross_entropy_backward(const CrossEntropy& c, const T* g, const T* x, const T* weight, const T* lse, T* gx) {
  const Index n = c.classes;
  const double smooth = c.label_smoothing, all = smooth != 0 ? weight_total(c, weight) : 0;
  const double scale = c.reduction == Reduction::mean ? 1 / divisor(c, weight) : 1;
  const auto up = [&](Index r) { return double(g[c.reduction == Reduction::none ? r : 0]) * scale; };
  const auto hit = [&](Index r) { return up(r) * (1 - smooth) * (weight ? double(weight[c.target[r]]) : 1.0); };
  // The stored lse is rounded, which shifts every exponential of the row alike: their own sum takes that out again.
  const auto factor = [&](Index r, double total) { return T((hit(r) + up(r) * smooth / double(n) * all) / total); };
  const auto even = [&](Index r) { return T(up(r) * smooth / double(n)); };
  const auto ignored = [&](Index r) { return c.target[r] == c.ignore_index; };
  rows_or_tiles<T>(
      c, x, gx,
      [&](Index r) {
        T* to = gx + r * n;
        if (ignored(r)) return;
        const T by = factor(r, exp_long(to, x + r * n, n, lse[r])), less = even(r);
        if (smooth == 0)
          for (Index k = 0; k < n; ++k) to[k] *= by;
        else
          for (Index k = 0; k < n; ++k) to[k] = to[k] * by - (weight ? less * weight[k] : less);
      },
      [&](Index first, Index count, const auto& strip, T* turned) {
        using S = std::decay_t<decltype(strip)>;
        T rows[2][S::width] = {};
        std::copy_n(lse + first, count, rows[0]);
        typename S::Vector by[S::vectors], less[S::vectors], e[S::vectors];
        const auto vectors = [](const T* from, auto& to) {
          for (int v = 0; v < S::vectors; ++v) to[v] = S::W::load(from + v * S::W::lanes);
        };
        vectors(rows[0], by);
        double total[S::width];
        strip.sum_exp(turned, by, total, [&](Index k, const auto& kept) { strip.store(turned, k, kept); });
        for (Index k = 0; k < count; ++k) {
          const bool counts = !ignored(first + k);
          rows[0][k] = counts ? factor(first + k, total[k]) : T(0), rows[1][k] = counts ? even(first + k) : T(0);
        }
        vectors(rows[0], by), vectors(rows[1], less);
        for (Index k = 0; k < n; ++k) {
          const T share = smooth == 0 ? T(0) : weight ? weight[k] : T(1);
          strip.load(turned, k, e);
          for (int v = 0; v < S::vectors; ++v) e[v] = e[v] * by[v] - less[v] * share;
          strip.store(turned, k, e);
        }
      },
      [&](Index r) {
        if (ignored(r)) std::fill_n(gx + r * n, n, T(0));
        else gx[r * n + c.target[r]] -= T(hit(r));
      });
}

template <class T>
void nll_loss(const CrossEntropy& c, const T* x, const T* weight, T* loss) {
  const auto value = [&](Index r) {
    const int64_t t = c.target[r];
    return t == c.ignore_index ? 0.0 : -(weight ? double(weight[t]) : 1.0) * double(x[r * c.classes + t]);
  };
  const Index stretch = 2048;  // rows; each is a cache miss
  if (c.reduction == Reduction::none) {
    parallel_for(c.rows, stretch, [&](Index first, Index last) {
      for (Index r = first; r < last; ++r) loss[r] = T(value(r));
    });
    return;
  }
  std::vector<double> parts(size_t((c.rows + stretch - 1) / stretch));
  parallel_for(c.rows, stretch, [&](Index first, Index last) {
    double sum = 0;
    for (Index r = first; r < last; ++r) sum += value(r);
    parts[size_t(first / stretch)] = sum;
  });
  double total = 0;
  for (const double part : parts) total += part;
  loss[0] = T(c.reduction == Reduction::sum ? total : total / divisor(c, weight));
}

template <class T>
void nll_loss_backward(const CrossEntropy& c, const T* g, const T* weight, T* gx) {
  const double scale = c.reduction == Reduction::mean ? 1 / divisor(c, weight) : 1;
  parallel_for(c.rows, std::max<Index>(1, 32768 / std::max<Index>(1, c.classes)), [&](Index first, Index last) {
    std::fill(gx + first * c.classes, gx + last * c.classes, T(0));
    for (Index r = first; r < last; ++r) {
      const int64_t t = c.target[r];
      if (t == c.ignore_index) continue;
      const double up = double(g[c.reduction == Reduction::none ? r : 0]) * scale;
      gx[r * c.classes + t] = T(-up * (weight ? double(weight[t]) : 1.0));
    }
  });
}

#define TG_NLL(T)                                                                  \
  template void nll_loss(const CrossEntropy&, const T*, const T*, T*);             \
  template void nll_loss_backward(const CrossEntropy&, const T*, const T*, T*);
TG_NLL(float)
TG_NLL(double)
#undef TG_NLL
template void cross_entropy(const CrossEntropy&, const float*, const float*, float*, float*);
template void cross_entropy_backward(const CrossEntropy&, const float*, const float*, const float*, const float*, float*);
template void cross_entropy(const CrossEntropy&, const double*, const double*, double*, double*);
template void cross_entropy_backward(const CrossEntropy&, const double*, const double*, const double*, const double*, double*);

}  // namespace tg
