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

constexpr Index kFew = 1024;  // elements of 16 bits that are widened at once: with their moments they stay in L1

// How elements of 16 bits become floats and are rounded back.
struct Narrow {
  void (*widen)(const void* from, Index n, float* to);
  void (*round)(const float* from, Index n, void* to);
};
template <class T>
void widen_few(const void* from, Index n, float* to) {
  for (Index i = 0; i < n; ++i) to[i] = float(static_cast<const T*>(from)[i]);
}
template <class T>
void round_few(const float* from, Index n, void* to) {
  for (Index i = 0; i < n; ++i) static_cast<T*>(to)[i] = T(from[i]);
}
// Null for what is computed as it is stored.
const Narrow* narrow_of(DType type) {
  static constexpr Narrow kHalf{widen_few<half>, round_few<half>}, kBfloat{widen_few<bfloat16>, round_few<bfloat16>};
  return type == DType::Float16 ? &kHalf : type == DType::BFloat16 ? &kBfloat : nullptr;
}

// n elements from `first` on as floats while the object lives; what was `written` goes back.
class Few {
 public:
  Few(const Narrow& type, const void* data, Index first, Index n, bool written)
      : type_(type), from_(data ? static_cast<char*>(const_cast<void*>(data)) + first * 2 : nullptr), n_(n), written_(written) {
    if (from_) type_.widen(from_, n_, floats_);
  }
  ~Few() {
    if (written_ && from_) type_.round(floats_, n_, from_);
  }
  Few(const Few&) = delete;
  Few& operator=(const Few&) = delete;
  float* get() { return from_ ? floats_ : nullptr; }

 private:
  const Narrow& type_;
  char* from_;
  Index n_;
  bool written_;
  float floats_[kFew];
};

// Calls body(first, n) for stretches of elements, those that are widened at once.
template <class Body>
void by_few(Index first, Index last, Body body, Index most = kFew) {
  for (Index i = first; i < last; i += most) body(i, std::min(most, last - i));
}

template <class T>
T* at(const void* data, Index first) { return data ? static_cast<T*>(const_cast<void*>(data)) + first : nullptr; }

template <class T>
void sgd_part(T* p, const T* g, T* b, Index n, const SgdRates& r) {
  if (b) sgd_piece<T, true>(p, g, b, n, r);
  else sgd_piece<T, false>(p, g, nullptr, n, r);
}
template <class T>
void sgd_part(const SgdSpan& s, Index i, Index n, const SgdRates& r) {
  sgd_part(at<T>(s.param, i), at<T>(s.grad, i), at<T>(s.momentum, i), n, r);
}

template <class T>
void adam_part(T* p, const T* g, T* m, T* v, T* top, Index n, const AdamRates& r) {
  if (top) adam_piece<T, true>(p, g, m, v, top, n, r);
  else adam_piece<T, false>(p, g, m, v, nullptr, n, r);
}
template <class T>
void adam_part(const AdamSpan& s, Index i, Index n, const AdamRates& r) {
  adam_part(at<T>(s.param, i), at<T>(s.grad, i), at<T>(s.mean, i), at<T>(s.square, i), at<T>(s.largest, i), n, r);
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

// The norm of n elements before the root: what `p` adds up, or the largest or smallest.
template <class T>
double norm_part(const T* x, Index n, double p) {
  return std::isinf(p) ? largest_magnitude(x, n, p < 0) : power_sum(x, n, p);
}

double joined(double a, double b, double p) { return !std::isinf(p) ? a + b : p < 0 ? min_nan(a, b) : max_nan(a, b); }

double norm_part(const void* data, Index first, Index last, double p, DType type) {
  if (type == DType::Float64) return norm_part(at<double>(data, first), last - first, p);
  const Narrow* narrow = narrow_of(type);
  if (!narrow) return norm_part(at<float>(data, first), last - first, p);
  double found = 0;
  by_few(first, last, [&](Index i, Index n) {
    Few x(*narrow, data, i, n, false);
    const double part = norm_part(x.get(), n, p);
    found = i == first ? part : joined(found, part, p);
  });
  return found;
}

template <class T>
void scale_part(T* x, Index n, double factor) {
  const T f = T(factor);
  for (Index i = 0; i < n; ++i) x[i] *= f;
}

// Whether one is infinite or NaN. Told by exponents: integers, which vectorize where a sum of floats has an order to keep.
template <class T, class Bits, Bits kExponent>
bool any_bad(const T* x, Index n) {
  Bits bad = 0;
  for (Index i = 0; i < n; ++i) {
    Bits bits;
    std::memcpy(&bits, x + i, sizeof bits);
    bad |= Bits((bits & kExponent) == kExponent);
  }
  return bad;
}

// Scaled, and where it is asked whether one is infinite or NaN then.
bool scale_spans(const std::vector<Span>& spans, double factor, DType type, bool asked) {
  const Narrow* narrow = narrow_of(type);
  std::atomic<bool> found{false};
  over_pieces(spans, [&](const Span& s, Index first, Index last, Index) {
    const auto scale_few = [&](Index i, Index n) {
      bool bad = false;
      if (type == DType::Float64) {
        double* x = at<double>(s.data, i);
        scale_part(x, n, factor);
        bad = asked && any_bad<double, std::uint64_t, 0x7ff0000000000000u>(x, n);
      } else {
        float* x = at<float>(s.data, i);
        if (narrow) {
          Few few(*narrow, s.data, i, n, true);
          scale_part(few.get(), n, factor);
        } else scale_part(x, n, factor);
        if (asked && narrow) {
          Few few(*narrow, s.data, i, n, false);
          bad = any_bad<float, std::uint32_t, 0x7f800000u>(few.get(), n);
        } else if (asked) bad = any_bad<float, std::uint32_t, 0x7f800000u>(x, n);
      }
      if (bad) found.store(true, std::memory_order_relaxed);
    };
    by_few(first, last, scale_few, asked || narrow ? kFew : kPiece);  // few are asked about while they are in L1
  });
  return found;
}

}  // namespace

void sgd_step(const std::vector<SgdSpan>& spans, const std::vector<SgdRates>& rates, DType type) {
  const Narrow* narrow = narrow_of(type);
  over_pieces(spans, [&](const SgdSpan& s, Index first, Index last, Index) {
    const SgdRates& r = rates[size_t(s.group)];
    if (type == DType::Float64) return sgd_part<double>(s, first, last - first, r);
    if (!narrow) return sgd_part<float>(s, first, last - first, r);
    by_few(first, last, [&](Index i, Index n) {
      Few p(*narrow, s.param, i, n, true), g(*narrow, s.grad, i, n, false), b(*narrow, s.momentum, i, n, true);
      sgd_part(p.get(), g.get(), b.get(), n, r);
    });
  });
}

void adam_step(const std::vector<AdamSpan>& spans, const std::vector<AdamRates>& rates, DType type) {
  const Narrow* narrow = narrow_of(type);
  over_pieces(spans, [&](const AdamSpan& s, Index first, Index last, Index) {
    const AdamRates& r = rates[size_t(s.group)];
    if (type == DType::Float64) return adam_part<double>(s, first, last - first, r);
    if (!narrow) return adam_part<float>(s, first, last - first, r);
    by_few(first, last, [&](Index i, Index n) {
      Few p(*narrow, s.param, i, n, true), g(*narrow, s.grad, i, n, false), m(*narrow, s.mean, i, n, true);
      Few v(*narrow, s.square, i, n, true), top(*narrow, s.largest, i, n, true);
      adam_part(p.get(), g.get(), m.get(), v.get(), top.get(), n, r);
    });
  });
}

double norm_of_all(const std::vector<Span>& spans, double p, DType type) {
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
      if (s.n) parts.push_back(norm_part(s.data, 0, s.n, p, type));
  } else {
    parts.assign(size_t(pieces), 0);
    over_pieces(spans, [&](const Span& s, Index first, Index last, Index piece) {
      parts[size_t(piece)] = norm_part(s.data, first, last, p, type);
    });
  }
  if (parts.empty()) return extreme && p < 0 ? std::numeric_limits<double>::infinity() : 0;
  double sum = parts[0];
  for (size_t k = 1; k < parts.size(); ++k) sum = joined(sum, parts[k], p);
  if (extreme || p == 0 || p == 1) return sum;
  return p == 2 ? std::sqrt(sum) : std::pow(sum, 1 / p);
}

void scale_all(const std::vector<Span>& spans, double factor, DType type) { scale_spans(spans, factor, type, false); }

bool unscale_all(const std::vector<Span>& spans, double factor, DType type) { return scale_spans(spans, factor, type, true); }

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
