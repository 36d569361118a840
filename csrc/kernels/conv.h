// Convolution and its two gradients; the fastest kernel for a shape is chosen here. Arrays are contiguous:
// x (batch, in_channels, in), w (out_channels, in_channels / groups, kernel), y (batch, out_channels, out).
#pragma once

#include "conv_shape.h"
#include "conv_source.h"
#include "conv_tail.h"

namespace tg {

// Whether somebody who makes the source may be told of what is needed of it. Elsewhere it is read as it is, and `needed` is
// null below.
bool conv_asks(const ConvShape& s);
bool conv_input_grad_asks(const ConvShape& s);

template <class T>
void conv_forward(const ConvShape& s, const T* x, const SourceNeeded* needed, const T* w, const Tail<T>& tail, T* y);
template <class T>
void conv_input_grad(const ConvShape& s, const T* g, const SourceNeeded* needed, const T* w, T* gx);
// gx with its tail: what a transposed convolution gives.
template <class T>
void conv_transposed(const ConvShape& s, const T* g, const SourceNeeded* needed, const T* w, const Tail<T>& tail, T* gx);
template <class T>
void conv_weight_grad(const ConvShape& s, const T* g, const T* x, T* gw);

// Whether bfloat16 is convolved as it is stored, by float weights: not widened by a
// pass over memory, which took a tenth of a training step of such convolutions.
bool conv_reads_narrow(const ConvShape& s);
bool conv_input_grad_reads_narrow(const ConvShape& s);
bool conv_weight_grad_reads_narrow(const ConvShape& s);
void conv_forward(const ConvShape& s, const bfloat16* x, const float* w, const Tail<float>& tail, float* y);
void conv_input_grad(const ConvShape& s, const bfloat16* g, const float* w, float* gx);
void conv_weight_grad(const ConvShape& s, const bfloat16* g, const bfloat16* x, float* gw);

// out[c] = sum over batch and plane of g (batch, channels, plane).
template <class T>
void channel_sum(const T* g, Index batch, Index channels, Index plane, T* out);

}  // namespace tg
