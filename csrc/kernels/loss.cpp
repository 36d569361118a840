// For a row x with target t, weights w, smoothing s over C classes, lse = log(sum(exp(x))):
//   loss = (1 - s) w_t (lse - x_t) + s / C * sum_c w_c (lse - x_c)
//   gx_c = g (((1 - s) w_t + s / C * W) exp(x_c - lse) - s / C * w_c - (1 - s) w_t [c = t]),   W = sum_c w_c
// The mean divides by the sum of w_t over the rows that are not ignored, with or without smoothing, as in PyTorch.
// The probabilities are never stored: the forward pass keeps one number per row.
// Of log-probabilities x, loss = -w_t x_t and gx_c = -g w_t [c = t]: one element per row is read, and the gradient is
// zeros written once, with one element per row put in while the row is near.
#include "loss.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "../core/parallel.h"
#include "softmax_exp.h"

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
  double total = 0;
  for (Index r = 0; r < c.rows; ++r)
    if (c.target[r] != c.ignore_index) total += weight ? double(weight[c.target[r]]) : 1.0;
  return total;
}

}  // namespace

template <class T>
void cross_entropy(const CrossEntropy& c, const T* x, const T* weight, T* loss, T* lse) {
  const Index n = c.classes;
  const double smooth = c.label_smoothing, all = smooth != 0 ? weight_total(c, weight) : 0;
  std::vector<double> row_loss(size_t(c.rows));
  parallel_for(c.rows, std::max<Index>(1, kPiece / std::max<Index>(1, n)), [&](Index first, Index last) {
    for (Index r = first; r < last; ++r) {
      const T* row = x + r * n;
      const T m = extreme_run<1>(row, n);
      // A row whose maximum is infinite has no shift that helps: -inf everywhere, or +inf somewhere.
      const double l = std::isinf(m) ? double(m) : double(m) + std::log(sum_exp_long(row, n, m));
      lse[r] = T(l);
      const int64_t t = c.target[r];
      if (t == c.ignore_index) {
        row_loss[size_t(r)] = 0;
        continue;
      }
      double value = (1 - smooth) * (weight ? double(weight[t]) : 1.0) * (l - double(row[t]));
      if (smooth != 0) {
        double dot = 0;
        for (Index i = 0; i < n; i += kSumBlock) {
          const Index k = std::min(kSumBlock, n - i);
          dot += weight ? sum_products(row + i, weight + i, k) : sum_run(row + i, k);
        }
        value += smooth / double(n) * (all * l - dot);
      }
      row_loss[size_t(r)] = value;
    }
  });
  if (c.reduction == Reduction::none) {
    for (Index r = 0; r < c.rows; ++r) loss[r] = T(row_loss[size_t(r)]);
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
  parallel_for(c.rows, std::max<Index>(1, kPiece / std::max<Index>(1, n)), [&](Index first, Index last) {
    for (Index r = first; r < last; ++r) {
      const T* row = x + r * n;
      T* to = gx + r * n;
      const int64_t t = c.target[r];
      if (t == c.ignore_index) {
        std::fill(to, to + n, T(0));
        continue;
      }
      const double up = double(g[c.reduction == Reduction::none ? r : 0]) * scale;
      const double hit = up * (1 - smooth) * (weight ? double(weight[t]) : 1.0);
      // The stored lse is rounded, which shifts every exponential of the row alike: their own sum takes that out again.
      const double total = exp_long(to, row, n, lse[r]);
      const T factor = T((hit + up * smooth / double(n) * all) / total);
      if (smooth == 0) {
        for (Index k = 0; k < n; ++k) to[k] *= factor;
      } else {
        const T even = T(up * smooth / double(n));
        for (Index k = 0; k < n; ++k) to[k] = to[k] * factor - (weight ? even * weight[k] : even);
      }
      to[t] -= T(hit);
    }
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
