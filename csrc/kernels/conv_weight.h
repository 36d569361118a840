#pragma once

#include "conv_shape.h"

namespace tg {

// gw[o][c][tap] = sum over images and positions of g[o][t] * x[c][t * stride + tap * dilation - padding].
// x, g and gw are contiguous.
template <class T>
void conv_weight_grad_walk(const ConvShape& shape, const T* g, const T* x, T* gw);

}  // namespace tg
