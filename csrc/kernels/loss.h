// Losses of (rows / inner, classes, inner), contiguous, with integer targets: cross-entropy from logits, and from
// log-probabilities. A row is the numbers of all classes, `inner` apart.
#pragma once

#include "../core/dtype.h"

namespace tg {

enum class Reduction { none, mean, sum };

struct CrossEntropy {
  Index rows, classes, inner;
  const int64_t* target;  // checked: in [0, classes) or ignore_index
  int64_t ignore_index;
  Reduction reduction;
  double label_smoothing;
};

// loss: one value, or `rows` of them for Reduction::none. lse: `rows` values of log(sum(exp(x))).
template <class T>
void cross_entropy(const CrossEntropy& c, const T* x, const T* weight, T* loss, T* lse);

// g: the gradient of the loss, shaped like it.
template <class T>
void cross_entropy_backward(const CrossEntropy& c, const T* g, const T* x, const T* weight, const T* lse, T* gx);

// The negative log-likelihood of log-probabilities x, and its gradient, which does not depend on x. `label_smoothing` is
// not read.
template <class T>
void nll_loss(const CrossEntropy& c, const T* x, const T* weight, T* loss);
template <class T>
void nll_loss_backward(const CrossEntropy& c, const T* g, const T* weight, T* gx);

}  // namespace tg
