#pragma once

#include "conv_shape.h"
#include "conv_tail.h"

namespace tg {

// Whether the shape is one that Winograd's algorithm computes, and faster than the direct kernels.
bool winograd_fits(const ConvShape& s);
// Whether forward stores whole rows at a time.
bool winograd_stores_rows(const ConvShape& s);
bool winograd_fits_weight(const ConvShape& s);

// What is convolved: values, or bfloat16 ones that are widened when a task reads them. A copy of them in float, twice as
// large, was written and read once.
template <class T>
struct WinogradSource {
  const T* values = nullptr;
  const bfloat16* narrow = nullptr;  // where there are no values
};
inline WinogradSource<float> source_of(const float* x) { return {x, nullptr}; }
inline WinogradSource<double> source_of(const double* x) { return {x, nullptr}; }
inline WinogradSource<float> source_of(const bfloat16* x) { return {nullptr, x}; }

template <class T>
void winograd_forward(const ConvShape& s, const WinogradSource<T>& x, const T* w, const Tail<T>& tail, T* y);
template <class T>
void winograd_input_grad(const ConvShape& s, const WinogradSource<T>& g, const T* w, T* gx);
template <class T>
void winograd_weight_grad(const ConvShape& s, const WinogradSource<T>& g, const WinogradSource<T>& x, T* gw);

}  // namespace tg
