// alpha_t[s] = log(e^alpha[s] + e^alpha[s - 1] + e^alpha[s - 2] where skipping is allowed) + x_t[label of s], and beta the
// same from the end. A sequence is a task; its states are worked on side by side, its alphas kept for the way back.
#include "ctc.h"

#include <algorithm>
#include <limits>

#include "../core/allocator.h"
#include "../core/parallel.h"
#include "../core/simd_float.h"

namespace tg {
namespace {

// The logarithm of a probability of zero: finite, as in the op's definition.
constexpr double kNever = -1e30;

template <class T>
inline T log_sum(T a, T b, T c) {
  const T most = std::max(std::max(a, b), c), shift = most == -std::numeric_limits<T>::infinity() ? T(0) : most;
  return shift + lane::log(lane::exp(a - shift) + lane::exp(b - shift) + lane::exp(c - shift));
}

template <class T>
class Sequence {
 public:
  Sequence(const CtcShape& s, const T* x, Index i)
      : s_(s), x_(x + i * s.classes), labels_(s.labels + i * s.states), skips_(s.skips + i * s.states), i_(i),
        length_(s.lengths[i]), last_(s.last[i]), alphas_(std::max<Index>(1, length_) * (s.states + 2)), scores_(s.states) {}

  // Row t begins with two states that are never reached.
  T* alpha(Index t) const { return alphas_.data() + t * (s_.states + 2) + 2; }

  void score(Index t) {
    const T* row = x_ + t * s_.n * s_.classes;
    for (Index s = 0; s < s_.states; ++s) scores_[s] = row[labels_[s]];
  }

  T forward() {
    const T never = T(kNever);
    std::fill(alpha(0) - 2, alpha(0) + s_.states, never);
    if (length_ > 0) {
      score(0);
      std::copy(scores_.data(), scores_.data() + std::min<Index>(2, s_.states), alpha(0));
    }
    for (Index t = 1; t < length_; ++t) {
      const T* from = alpha(t - 1);
      T* to = alpha(t);
      to[-2] = to[-1] = never;
      score(t);
      for (Index s = 0; s < s_.states; ++s)
        to[s] = log_sum(from[s], from[s - 1], skips_[s] ? from[s - 2] : never) + scores_[s];
    }
    const T* end = alpha(std::max<Index>(0, length_ - 1));
    return log_sum(end[last_], end[last_ - 1], never);
  }

  void backward(T g, T total, T* dx) {
    const T never = T(kNever);
    const Index states = s_.states;
    const bool impossible = total < never / 2 && g != T(0);
    for (Index t = 0; t < s_.steps; ++t) {
      T* row = dx + (t * s_.n + i_) * s_.classes;
      std::fill(row, row + s_.classes, impossible && t < length_ ? std::numeric_limits<T>::quiet_NaN() : T(0));
    }
    if (impossible) return;
    Scratch<T> beta(states), ahead(states + 2), share(states);
    std::fill(beta.data(), beta.data() + states, never);
    beta[last_] = T(0);
    if (last_ > 0) beta[last_ - 1] = T(0);
    ahead[states] = ahead[states + 1] = never;
    for (Index t = length_ - 1; t >= 0; --t) {
      const T* a = alpha(t);
      score(t);
      for (Index s = 0; s < states; ++s) {
        share[s] = lane::exp(a[s] + beta[s] - total);
        ahead[s] = beta[s] + scores_[s];
      }
      T* row = dx + (t * s_.n + i_) * s_.classes;
      for (Index s = 0; s < states; ++s) row[labels_[s]] -= share[s] * g;
      for (Index s = 0; s < states; ++s)
        beta[s] = log_sum(ahead[s], ahead[s + 1], s + 2 < states && skips_[s + 2] ? ahead[s + 2] : never);
    }
  }

  Index length() const { return length_; }
  Index last() const { return last_; }

 private:
  const CtcShape& s_;
  const T* x_;
  const int64_t* labels_;
  const uint8_t* skips_;
  Index i_, length_, last_;
  Scratch<T> alphas_, scores_;
};

}  // namespace

template <class T>
void ctc(const CtcShape& s, const T* x, T* loss) {
  parallel_for(s.n, 1, [&](Index first, Index last) {
    for (Index i = first; i < last; ++i) {
      Sequence<T> sequence(s, x, i);
      const bool nothing = sequence.length() == 0 && sequence.last() == 0;  // said in no time: certain
      const T total = nothing ? T(0) : sequence.forward();
      loss[i] = total < T(kNever) / 2 ? std::numeric_limits<T>::infinity() : -total;
    }
  });
}

template <class T>
void ctc_backward(const CtcShape& s, const T* g, const T* x, T* dx) {
  parallel_for(s.n, 1, [&](Index first, Index last) {
    for (Index i = first; i < last; ++i) {
      Sequence<T> sequence(s, x, i);
      const T total = sequence.forward();
      sequence.backward(g[i], total, dx);
    }
  });
}

template void ctc(const CtcShape&, const float*, float*);
template void ctc(const CtcShape&, const double*, double*);
template void ctc_backward(const CtcShape&, const float*, const float*, float*);
template void ctc_backward(const CtcShape&, const double*, const double*, double*);

}  // namespace tg
