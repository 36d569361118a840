#pragma once

#include "conv_shape.h"
#include "conv_source.h"
#include "conv_tail.h"

namespace tg {

// Whether forward and the gradient to the input, from a source of so many elements, gain by asking for it.
inline bool depthwise_asks(Index source) { return source >= Index(1) << 20; }

// One input channel per group, out_per_group() output channels from each.
template <class T>
void depthwise_forward(const ConvShape& s, const T* x, const SourceNeeded* needed, const T* w, const Tail<T>& tail, T* y);
template <class T>
void depthwise_input_grad(const ConvShape& s, const T* g, const SourceNeeded* needed, const T* w, T* gx);
template <class T>
void depthwise_weight_grad(const ConvShape& s, const T* g, const T* x, T* gw);

}  // namespace tg
