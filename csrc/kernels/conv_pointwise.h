// Convolution by one tap without padding, and its gradients.
#pragma once

#include "conv_shape.h"
#include "conv_source.h"
#include "conv_tail.h"

namespace tg {

bool pointwise_fits(const ConvShape& s);  // one tap and no padding, any stride
// Whether forward and the gradient to the input ask for their source image by image, and gain by it.
bool pointwise_asks(const ConvShape& s);
bool pointwise_input_grad_asks(const ConvShape& s);

// `needed` may be given where it asks.
template <class T>
void pointwise_forward(const ConvShape& s, const T* x, const SourceNeeded* needed, const T* w, const Tail<T>& tail, T* y);
template <class T>
void pointwise_input_grad(const ConvShape& s, const T* g, const SourceNeeded* needed, const T* w, T* gx);
template <class T>
void pointwise_weight_grad(const ConvShape& s, const T* g, const T* x, T* gw);  // conv_pointwise_weight.cpp

// x (planes, in) at the positions that the stride keeps: (planes, out).
template <class T>
void gather_strided(const ConvShape& s, const T* x, T* kept);

}  // namespace tg
