// Softmax along the middle axis of a contiguous (outer, length, inner) array, and its gradient.
#pragma once

#include "../core/dtype.h"

namespace tg {

struct SoftmaxShape {
  Index outer, length, inner;
};

template <class T>
void softmax(const SoftmaxShape& s, const T* x, T* y);
template <class T>
void log_softmax(const SoftmaxShape& s, const T* x, T* y);
template <class T>
void softmax_backward(const SoftmaxShape& s, const T* g, const T* y, T* gx);
template <class T>
void log_softmax_backward(const SoftmaxShape& s, const T* g, const T* y, T* gx);

}  // namespace tg
