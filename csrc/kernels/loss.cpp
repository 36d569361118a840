// For a row x with target t, weights w, smoothing s over C classes, lse = log(sum(exp(x))):
//   loss = (1 - s) w_t (lse - x_t) + s / C * sum_c w_c (lse - x_c)
//   gx_c = g (((1 - s) w_t + s / C * W) exp(x_c - lse) - s / C * w_c - (1 - s) w_t [c = t]),   W = sum_c w_c
// The mean divides by the sum of w_t over the rows that are not ignored, with or without smoothing, as in PyTorch.
// The probabilities are never stored: the forward pass keeps one number per row.
// Short rows of floats stand side by side in a tile, as those of softmax do: a vector has the same class of as many of them.
// So do rows of which others lie between two classes, which need not be turned: of (4, 21, 64, 64), forward and backward,
// moving the classes last and back took 250 us of 620.
// Of log-probabilities x, loss = -w_t x_t and gx_c = -g w_t [c = t]: one element per row is read, and the gradient is
// zeros written once, with one element per row put in while the row is near.
#include "loss.h"

#include <algorithm>
#include <cmath>
#include <cstring>
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

// What the mean divides by. In double and in the order of rows, by stretches.
template <class T>
TG_ONE_COPY double divisor(const CrossEntropy& c, const T* weight) {
  const Index stretch = 16384;
  std::vector<double> parts(size_t((c.rows + stretch - 1) / stretch));
  parallel_for(c.rows, stretch, [&](Index first, Index last) {
    double total = 0;
    Index count = 0;
    if (weight) {
      for (Index r = first; r < last; ++r)
        if (c.target[r] != c.ignore_index) total += double(weight[c.target[r]]);
    } else {
      for (Index r = first; r < last; ++r) count += c.target[r] != c.ignore_index;
    }
    parts[size_t(first / stretch)] = weight ? total : double(count);
  });
  double total = 0;
  for (const double part : parts) total += part;
  return total;
}

// As many rows as a tile has columns: floats alone, for the code is long.
template <class T>
using Rows = Strip<T, kStripVectors>;
static_assert(kStripTile % Rows<float>::width == 0);

// From a row's first element to that of the next, where that is the same.
Index row_step(const CrossEntropy& c) { return c.inner == 1 ? c.classes : 1; }

// call(row, how many, their first element) for rows [first, last), those that are a row_step apart at once.
template <class Call>
void over_segments(const CrossEntropy& c, Index first, Index last, Call call) {
  if (c.inner == 1) return call(first, last - first, first * c.classes);
  for (Index r = first, count; r < last; r += count) {
    const Index j = r % c.inner;
    count = std::min(c.inner - j, last - r);
    call(r, count, (r - j) * c.classes + j);
  }
}

// Rows [r, r + count) as columns of a tile, or back.
template <bool Back, class T>
[[gnu::noinline]] void turn(const CrossEntropy& c, std::conditional_t<Back, T, const T>* x,
                            std::conditional_t<Back, const T, T>* tile, Index r, Index count) {
  constexpr Index wide = Rows<T>::width;
  const Index n = c.classes;
  if (c.inner == 1)
    return turn_beside<Back, T>(x + r * n, (Back ? count : c.rows - r) * n, tile, wide, count, n, 1);
  over_segments(c, r, r + count, [&](Index at, Index length, Index from) {
    for (Index k = 0; k < n; ++k) {
      auto *there = x + from + k * c.inner;
      auto *here = tile + k * wide + (at - r);
      const auto copy = [](auto* a, auto* b, std::size_t items) {
        if constexpr (Back) std::memcpy(a, b, items * sizeof(T));
        else std::memcpy(b, a, items * sizeof(T));
      };
      if (length == wide) copy(there, here, wide);  // of a number that is known it is no call
      else copy(there, here, std::size_t(length));
    }
  });
}

// The classes of rows [first, first + count), 0 where they are ignored, and the part of a loss that each has there:
// (1 - smoothing) times the class's weight, or nothing.
template <class T>
TG_ONE_COPY void classes_of(const CrossEntropy& c, const T* weight, Index first, Index count, Index* at, double* share) {
  const int64_t *target = c.target + first, ignored = c.ignore_index;
  for (Index k = 0; k < count; ++k) at[k] = target[k] == ignored ? 0 : target[k];
  for (Index k = 0; k < count; ++k) share[k] = target[k] == ignored ? 0 : 1 - c.label_smoothing;
  for (Index k = 0; weight && k < count; ++k) share[k] *= double(weight[at[k]]);
}

// row(r, x, to) or, of short rows and those that lie beside others, tile(first, rows, strip, x of those rows turned) for all
// of them; where `back` is not null, what that has become is turned back.
template <class T, class Row, class Tile>
void rows_or_tiles(const CrossEntropy& c, const T* x, T* back, Row row, Tile tile) {
  constexpr bool tiles = std::is_same_v<T, float>;
  const Index n = c.classes;
  if constexpr (tiles) {
    if (c.inner > 1 || are_beside<T>(n, 1)) {
      constexpr Index wide = Rows<T>::width;
      parallel_for(c.rows, wide * std::max<Index>(1, kPiece / (wide * std::max<Index>(1, n))), [&](Index first, Index last) {
        const Scratch<T, kShortColumn * wide * sizeof(T)> room(n * wide);
        if ((last - first) % wide) std::fill_n(room.data(), n * wide, T(0));
        for (Index r = first; r < last; r += wide) {
          const Index count = std::min(wide, last - r);
          turn<false, T>(c, x, room.data(), r, count);
          tile(r, count, Rows<T>{n, wide, wide}, room.data());
          if (back) turn<true, T>(c, back, room.data(), r, count);
        }
      });
      return;
    }
  }
  parallel_for(c.rows, std::max<Index>(1, kPiece / std::max<Index>(1, n)), [&](Index first, Index last) {
    const bool apart = !tiles && c.inner > 1;
    const Scratch<T> room(apart ? 2 * n : 0);
    for (Index r = first; r < last; ++r) {
      const Index at = apart ? (r - r % c.inner) * n + r % c.inner : r * n;
      const T* from = x + at;
      T* to = back ? back + at : nullptr;
      if (apart) {
        for (Index k = 0; k < n; ++k) room[k] = from[k * c.inner];
        from = room.data(), to = room.data() + n;
      }
      row(r, from, to);
      for (Index k = 0; back && apart && k < n; ++k) back[at + k * c.inner] = to[k];
    }
  });
}

}  // namespace

template <class T>
void cross_entropy(const CrossEntropy& c, const T* x, const T* weight, T* loss, T* lse) {
  const Index n = c.classes;
  const double smooth = c.label_smoothing, all = smooth != 0 ? weight_total(c, weight) : 0;
  const Scratch<double> row_loss(c.rows);
  // m is the row's maximum, log_total the logarithm of its exponentials' sum: apart, for both together may be as large as m
  // alone. A row whose maximum is infinite has no shift that helps: -inf everywhere, or +inf somewhere. hit: x of the row's
  // class; dot: the sum of w_c x_c, for smoothing.
  const auto finish = [&](Index r, double m, double log_total, double hit, double share, double dot) {
    const double over = m - m == 0 ? log_total : 0;
    lse[r] = T(m + over);
    double value = share * (m - hit + over);
    if (smooth != 0) value += smooth / double(n) * (all * m - dot + all * over);
    row_loss[r] = c.target[r] == c.ignore_index ? 0 : value;
  };
  rows_or_tiles<T>(
      c, x, nullptr,
      [&](Index r, const T* from, T*) {
        const T m = extreme_run<1>(from, n);
        double dot = 0, share[1];
        Index at[1];
        for (Index i = 0; smooth != 0 && i < n; i += kSumBlock) {
          const Index k = std::min(kSumBlock, n - i);
          dot += weight ? sum_products(from + i, weight + i, k) : sum_run(from + i, k);
        }
        classes_of(c, weight, r, 1, at, share);
        finish(r, m, std::isinf(m) ? 0 : std::log(sum_exp_long(from, n, m)), from[at[0]], share[0], dot);
      },
      [&](Index first, Index count, const auto& strip, const T* turned) {
        using S = std::decay_t<decltype(strip)>;
        typename S::Vector most[S::vectors];
        T top[S::width], hit[S::width];
        double total[S::width], share[S::width], dot[S::width] = {};
        Index at[S::width];
        strip.largest(turned, most);
        strip.sum_exp(turned, most, total);
        take_logs<T>(total);
        if (smooth != 0)
          strip.sum(dot, [&](Index i, auto& part) {
            typename S::Vector e[S::vectors];
            strip.load(turned, i, e);
            for (int v = 0; v < S::vectors; ++v) part[v] += e[v] * (weight ? weight[i] : T(1));
          });
        for (int v = 0; v < S::vectors; ++v) S::W::store(top + v * S::W::lanes, most[v]);
        classes_of(c, weight, first, count, at, share);
        for (Index k = 0; k < count; ++k) hit[k] = turned[at[k] * S::width + k];
        for (Index k = 0; k < count; ++k) finish(first + k, top[k], total[k], hit[k], share[k], dot[k]);
      });
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
  // The gradients of rows [first, first + count), of which classes_of tells, and those of their classes.
  const auto prepare = [&](Index first, Index count, auto& at, auto& up, auto& hit) {
    classes_of(c, weight, first, count, at, hit);
    for (Index k = 0; k < count; ++k) up[k] = g[c.reduction == Reduction::none ? first + k : 0] * scale;
    for (Index k = 0; k < count; ++k) up[k] = c.target[first + k] == c.ignore_index ? 0 : up[k];
    for (Index k = 0; k < count; ++k) hit[k] *= up[k];
  };
  // The stored lse is rounded, which shifts every exponential of the row alike: their own sum takes that out again.
  const double part = smooth / double(n);
  rows_or_tiles<T>(
      c, x, gx,
      [&](Index r, const T* from, T* to) {
        Index at[1];
        double up[1], hit[1];
        prepare(r, 1, at, up, hit);
        if (c.target[r] == c.ignore_index) {
          std::fill_n(to, n, T(0));
          return;
        }
        const T by = T((hit[0] + up[0] * part * all) / exp_long(to, from, n, lse[r])), less = T(up[0] * part);
        if (smooth == 0)
          for (Index k = 0; k < n; ++k) to[k] *= by;
        else
          for (Index k = 0; k < n; ++k) to[k] = to[k] * by - (weight ? less * weight[k] : less);
        to[at[0]] -= T(hit[0]);
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
        double total[S::width], up[S::width], hit[S::width];
        Index at[S::width];
        strip.sum_exp(turned, by, total, [&](Index k, const auto& kept) { strip.store(turned, k, kept); });
        prepare(first, count, at, up, hit);
        for (Index k = 0; k < count; ++k) rows[0][k] = T((hit[k] + up[k] * part * all) / total[k]);
        for (Index k = 0; k < count; ++k) rows[1][k] = T(up[k] * part);
        vectors(rows[0], by), vectors(rows[1], less);
        for (Index k = 0; k < n; ++k) {
          const T share = smooth == 0 ? T(0) : weight ? weight[k] : T(1);
          strip.load(turned, k, e);
          for (int v = 0; v < S::vectors; ++v) e[v] = e[v] * by[v] - less[v] * share;
          strip.store(turned, k, e);
        }
        for (Index k = 0; k < count; ++k) turned[at[k] * S::width + k] -= T(hit[k]);
        for (Index k = 0; k < count; ++k)  // whatever was there
          if (c.target[first + k] == c.ignore_index)
            for (Index i = 0; i < n; ++i) turned[i * S::width + k] = 0;
      });
}

template <class T>
void nll_loss(const CrossEntropy& c, const T* x, const T* weight, T* loss) {
  const Index stretch = 2048;  // rows; each is a cache miss
  std::vector<double> parts(size_t((c.rows + stretch - 1) / stretch));
  parallel_for(c.rows, stretch, [&](Index first, Index last) {
    double sum = 0;
    over_segments(c, first, last, [&](Index at, Index count, Index from) {
      for (Index r = at; r < at + count; ++r, from += row_step(c)) {
        const int64_t t = c.target[r];
        const double value = t == c.ignore_index ? 0.0 : -(weight ? double(weight[t]) : 1.0) * double(x[from + t * c.inner]);
        if (c.reduction == Reduction::none) loss[r] = T(value);
        sum += value;
      }
    });
    parts[size_t(first / stretch)] = sum;
  });
  if (c.reduction == Reduction::none) return;
  double total = 0;
  for (const double part : parts) total += part;
  loss[0] = T(c.reduction == Reduction::sum ? total : total / divisor(c, weight));
}

template <class T>
void nll_loss_backward(const CrossEntropy& c, const T* g, const T* weight, T* gx) {
  const double scale = c.reduction == Reduction::mean ? 1 / divisor(c, weight) : 1;
  parallel_for(c.rows, std::max<Index>(1, 32768 / std::max<Index>(1, c.classes)), [&](Index first, Index last) {
    if (c.inner == 1) std::fill(gx + first * c.classes, gx + last * c.classes, T(0));
    over_segments(c, first, last, [&](Index at, Index count, Index to) {
      for (Index k = 0; c.inner > 1 && k < c.classes; ++k) std::fill_n(gx + to + k * c.inner, count, T(0));
      for (Index r = at; r < at + count; ++r, to += row_step(c)) {
        const int64_t t = c.target[r];
        if (t == c.ignore_index) continue;
        const double up = double(g[c.reduction == Reduction::none ? r : 0]) * scale;
        gx[to + t * c.inner] = T(-up * (weight ? double(weight[t]) : 1.0));
      }
    });
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
