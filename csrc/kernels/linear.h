// What a linear layer needs besides the products of gemm.h.
#pragma once

#include "gemm.h"

namespace tg {

// out[j] = sum over i of a (rows, cols): the gradient to a bias. Blocks of rows are summed, then their sums in order.
template <class T>
void column_sum(const Matrix<T>& a, Index rows, Index cols, T* out);

// float16 and bfloat16 are computed in float; both ways over n contiguous elements, on the pool.
template <class Half>
void widen(const Half* from, Index n, float* to);
template <class Half>
void narrow(const float* from, Index n, Half* to);

}  // namespace tg
