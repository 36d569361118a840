// Convolution by one tap without padding, and its gradient to the input.
#pragma once

#include "conv_shape.h"

namespace tg {

bool pointwise_fits(const ConvShape& s);  // one tap and no padding, any stride

template <class T>
void pointwise_forward(const ConvShape& s, const T* x, const T* w, const T* bias, T* y);
template <class T>
void pointwise_input_grad(const ConvShape& s, const T* g, const T* w, T* gx);

}  // namespace tg
