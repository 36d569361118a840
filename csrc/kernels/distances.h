// Distances between the rows of two matrices, and their gradient: what linalg/distances.py defines.
#pragma once

#include "../core/dtype.h"

namespace tg {

// Batches of a (n, m) and b (k, m); p from 0 to infinity.
struct DistanceShape {
  Index batches, n, k, m;
  double p;
  bool g_turned = false, y_turned = false;  // (k, n) is how these lie
  Index pairs() const { return batches * n * k; }
};

// y (n, k).
template <class T>
void cdist(const DistanceShape& s, const T* a, const T* b, T* y);
// dx (n, m), the gradient to a, of g (n, k).
template <class T>
void cdist_backward(const DistanceShape& s, const T* g, const T* a, const T* b, const T* y, T* dx);

}  // namespace tg
