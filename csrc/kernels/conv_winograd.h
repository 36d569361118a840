#pragma once

#include "conv_shape.h"
#include "conv_tail.h"

namespace tg {

// Whether the shape is one that Winograd's algorithm computes, and faster than the direct kernels.
bool winograd_fits(const ConvShape& s);
// Whether forward stores whole rows at a time.
bool winograd_stores_rows(const ConvShape& s);
bool winograd_fits_weight(const ConvShape& s);

template <class T>
void winograd_forward(const ConvShape& s, const T* x, const T* w, const Tail<T>& tail, T* y);
template <class T>
void winograd_input_grad(const ConvShape& s, const T* g, const T* w, T* gx);
template <class T>
void winograd_weight_grad(const ConvShape& s, const T* g, const T* x, T* gw);

}  // namespace tg
