// SGD:  g += wd p;  b = momentum b + (1 - dampening) g;  p -= lr (nesterov ? g + momentum b : b)
// Adam: m += (1 - beta1)(g - m);  v = beta2 v + (1 - beta2) g^2;
//       p -= lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
// where a gradient may be multiplied by one number for all as it is read (clipping by total norm: no pass of its own),
// in the order of operations PyTorch uses (Kingma, Ba 2015; Loshchilov, Hutter 2019; Reddi, Kale, Kumar 2018).
// Every element is read and written once. All tensors are cut into pieces of 16k elements, and the threads take pieces.
#include "optim.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "../core/parallel.h"
#include "reduce_lanes.h"

namespace tg {
namespace {

constexpr Index kPiece = 16384;

// Calls body(span, first, last) for pieces of every span, in parallel.
template <class S, class Body>
void over_pieces(const std::vector<S>& spans, Body body) {
  Index total = 0;
  for (const S& s : spans) total += s.n;
  if (total <= kPiece) {
    for (const S& s : spans)
      if (s.n) body(s, Index(0), s.n, Index(0));
    return;
  }
  std::vector<Index> start(spans.size() + 1, 0);
  for (size_t k = 0; k < spans.size(); ++k) start[k + 1] = start[k] + (spans[k].n + kPiece - 1) / kPiece;
  parallel_for(start.back(), 1, [&](Index first, Index last) {
    size_t k = size_t(std::upper_bound(start.begin(), start.end(), first) - start.begin()) - 1;
    for (Index t = first; t < last; ++t) {
      while (t >= start[k + 1]) ++k;
      const Index begin = (t - start[k]) * kPiece;
      body(spans[k], begin, std::min(spans[k].n, begin + kPiece), t);
    }
  });
}

template <class T, bool Momentum>
void sgd_piece(T* __restrict p, const T* __restrict g, T* __restrict b, Index n, const SgdRates& r) {
  const T lr = T(r.lr), momentum = T(r.momentum), take = T(1 - r.dampening), decay = T(r.weight_decay);
  const T scale = r.maximize ? -T(r.scale) : T(r.scale);
  const bool decays = r.weight_decay != 0;
  for (Index i = 0; i < n; ++i) {
    T d = scale * g[i];
    if (decays) d += decay * p[i];
    if constexpr (Momentum) {
      const T moved = r.fresh ? d : momentum * b[i] + take * d;
      b[i] = moved;
      d = r.nesterov ? d + momentum * moved : moved;
    }
    p[i] -= lr * d;
  }
}

template <class T, bool Amsgrad>
void adam_piece(T* __restrict p, const T* __restrict g, T* __restrict m, T* __restrict v, T* __restrict top, Index n,
                const AdamRates& r) {
  const T gradient_scale = r.maximize ? -T(r.scale) : T(r.scale), decay = T(r.weight_decay);
  const bool decays = r.weight_decay != 0 && !r.decoupled;
  const T shrink = r.decoupled ? T(1 - r.lr * r.weight_decay) : T(1);
  const T take1 = T(1 - r.beta1), keep1 = T(r.beta1), beta2 = T(r.beta2), take2 = T(1 - r.beta2), eps = T(r.eps);
  const bool light = std::fabs(1 - r.beta1) < 0.5;  // which end of the interpolation is exact
  const T root = T(std::sqrt(1 - std::pow(r.beta2, r.step)));
  const T rate = T(r.lr / (1 - std::pow(r.beta1, r.step)));
  for (Index i = 0; i < n; ++i) {
    T q = p[i] * shrink;
    T d = gradient_scale * g[i];
    if (decays) d += decay * q;
    const T mean = light ? m[i] + take1 * (d - m[i]) : d - keep1 * (d - m[i]);
    const T square = beta2 * v[i] + take2 * (d * d);
    m[i] = mean;
    v[i] = square;
    T scale = square;
    if constexpr (Amsgrad) {
      scale = max_nan(top[i], square);
      top[i] = scale;
    }
    p[i] = q - rate * (mean / (std::sqrt(scale) / root + eps));
  }
}

template <class T>
void sgd_all(const std::vector<SgdSpan>& spans, const std::vector<SgdRates>& rates) {
  over_pieces(spans, [&](const SgdSpan& s, Index first, Index last, Index) {
    T* p = static_cast<T*>(s.param) + first;
    const T* g = static_cast<const T*>(s.grad) + first;
    if (s.momentum) sgd_piece<T, true>(p, g, static_cast<T*>(s.momentum) + first, last - first, rates[size_t(s.group)]);
    else sgd_piece<T, false>(p, g, nullptr, last - first, rates[size_t(s.group)]);
  });
}

template <class T>
void adam_all(const std::vector<AdamSpan>& spans, const std::vector<AdamRates>& rates) {
  over_pieces(spans, [&](const AdamSpan& s, Index first, Index last, Index) {
    T* p = static_cast<T*>(s.param) + first;
    const T* g = static_cast<const T*>(s.grad) + first;
    T *m = static_cast<T*>(s.mean) + first, *v = static_cast<T*>(s.square) + first;
    if (s.largest) adam_piece<T, true>(p, g, m, v, static_cast<T*>(s.largest) + first, last - first, rates[size_t(s.group)]);
    else adam_piece<T, false>(p, g, m, v, nullptr, last - first, rates[size_t(s.group)]);
  });
}

template <class T>
double power_sum(const T* x, Index n, double p) {
  double total = 0;
  if (p == 2) {
    // Squares in double: no overflow for any float, and no rounding to speak of.
    if constexpr (sizeof(T) == 4) {
      constexpr Index lanes = lanes::Lanes<double>::count, side = 4;
      typedef float Few __attribute__((vector_size(lanes * sizeof(float)), aligned(alignof(float)), may_alias));
      lanes::Vec<double> sum[side] = {};
      Index i = 0;
      for (; i + side * lanes <= n; i += side * lanes)
        for (Index k = 0; k < side; ++k) {
          const auto d = __builtin_convertvector(*reinterpret_cast<const Few*>(x + i + k * lanes), lanes::Vec<double>);
          sum[k] += d * d;
        }
      for (; i < n; ++i) total += double(x[i]) * double(x[i]);
      return total + sum_lanes((sum[0] + sum[1]) + (sum[2] + sum[3]));
    }
    return sum_products(x, x, n);
  }
  for (Index i = 0; i < n; ++i) total += p == 0 ? double(x[i] != 0) : p == 1 ? std::fabs(x[i]) : std::pow(std::fabs(double(x[i])), p);
  return total;
}

template <class T>
double largest_magnitude(const T* x, Index n, bool smallest) {
  double best = std::fabs(double(x[0]));
  for (Index i = 1; i < n; ++i) {
    const double a = std::fabs(double(x[i]));
    best = smallest ? min_nan(best, a) : max_nan(best, a);
  }
  return best;
}

template <class T>
double norm_all(const std::vector<Span>& spans, double p) {
  const bool extreme = std::isinf(p);
  Index pieces = 0, total = 0;
  for (const Span& s : spans) {
    pieces += (s.n + kPiece - 1) / kPiece;
    total += s.n;
  }
  if (total <= kPiece) pieces = Index(spans.size());
  std::vector<double> parts;
  if (total <= kPiece) {  // one part per tensor
    for (const Span& s : spans)
      if (s.n) {
        const T* x = static_cast<const T*>(s.data);
        parts.push_back(extreme ? largest_magnitude(x, s.n, p < 0) : power_sum(x, s.n, p));
      }
  } else {
    parts.assign(size_t(pieces), 0);
    over_pieces(spans, [&](const Span& s, Index first, Index last, Index piece) {
      const T* x = static_cast<const T*>(s.data) + first;
      parts[size_t(piece)] = extreme ? largest_magnitude(x, last - first, p < 0) : power_sum(x, last - first, p);
    });
  }
  if (parts.empty()) return extreme && p < 0 ? std::numeric_limits<double>::infinity() : 0;
  double sum = parts[0];
  for (size_t k = 1; k < parts.size(); ++k)
    sum = !extreme ? sum + parts[k] : p < 0 ? min_nan(sum, parts[k]) : max_nan(sum, parts[k]);
  if (extreme || p == 0 || p == 1) return sum;
  return p == 2 ? std::sqrt(sum) : std::pow(sum, 1 / p);
}

template <class T>
void scale_spans(const std::vector<Span>& spans, double factor) {
  over_pieces(spans, [&](const Span& s, Index first, Index last, Index) {
    T* x = static_cast<T*>(s.data);
    const T f = T(factor);
    for (Index i = first; i < last; ++i) x[i] *= f;
  });
}

// Infinite and NaN are told by their exponents: integers, which vectorize where a sum of floats has an order to keep.
template <class T, class Bits, Bits kExponent>
bool unscale_spans(const std::vector<Span>& spans, double factor) {
  std::atomic<bool> found{false};
  over_pieces(spans, [&](const Span& s, Index first, Index last, Index) {
    T* __restrict x = static_cast<T*>(s.data);
    const T f = T(factor);
    Bits bad = 0;
    for (Index i = first; i < last; ++i) {
      const T y = x[i] * f;
      Bits bits;
      std::memcpy(&bits, &y, sizeof bits);
      x[i] = y;
      bad |= Bits((bits & kExponent) == kExponent);
    }
    if (bad) found.store(true, std::memory_order_relaxed);
  });
  return found;
}

}  // namespace

void sgd_step(const std::vector<SgdSpan>& spans, const std::vector<SgdRates>& rates, bool is_double) {
  is_double ? sgd_all<double>(spans, rates) : sgd_all<float>(spans, rates);
}

void adam_step(const std::vector<AdamSpan>& spans, const std::vector<AdamRates>& rates, bool is_double) {
  is_double ? adam_all<double>(spans, rates) : adam_all<float>(spans, rates);
}

double norm_of_all(const std::vector<Span>& spans, double p, bool is_double) {
  return is_double ? norm_all<double>(spans, p) : norm_all<float>(spans, p);
}

void scale_all(const std::vector<Span>& spans, double factor, bool is_double) {
  is_double ? scale_spans<double>(spans, factor) : scale_spans<float>(spans, factor);
}

bool unscale_all(const std::vector<Span>& spans, double factor, bool is_double) {
  return is_double ? unscale_spans<double, std::uint64_t, 0x7ff0000000000000u>(spans, factor)
                   : unscale_spans<float, std::uint32_t, 0x7f800000u>(spans, factor);
}

void update_loss_scale(float& scale, std::int32_t& count, bool found, double growth, double backoff, std::int64_t interval) {
  if (found) {
    scale *= float(backoff);
    count = 0;
  } else if (std::int64_t(++count) == interval) {
    const float grown = scale * float(growth);
    if (std::isfinite(grown)) scale = grown;
    count = 0;
  }
}

}  // namespace tg
