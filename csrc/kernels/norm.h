// Normalizations over contiguous arrays, forward and backward. float or double; statistics are kept in the same type.
#pragma once

#include <memory>

#include "row_run.h"

namespace tg {

// Rows of `length` values; w and b have `length` values or are null; mean and rstd one per row.
template <class T>
void layer_norm(Index rows, Index length, double eps, const T* x, const T* w, const T* b, T* y, T* mean, T* rstd);
// Null gx, gw, gb are not computed.
template <class T>
struct LayerNormGradient {
  Index rows, length;
  const T *g, *x, *mean, *rstd, *w;
  T *gx, *gw, *gb;
};
template <class T>
void layer_norm_backward(const LayerNormGradient<T>& a);
// The same in parts; rows between multiples of `rows_in_order`, where that is not zero, come in order and from one thread.
template <class T>
std::unique_ptr<RowRun> run_of(const LayerNormGradient<T>& a);
template <class T>
Index rows_in_order(const LayerNormGradient<T>& a);

template <class T>
void rms_norm(Index rows, Index length, double eps, const T* x, const T* w, T* y, T* rstd);
template <class T>
void rms_norm_backward(Index rows, Index length, const T* g, const T* x, const T* rstd, const T* w, T* gx, T* gw);

// (batch, channels, plane). Statistics are per channel; `var` is the biased one.
struct ChannelShape {
  Index batch, channels, plane;
};

// With `relu`, y is what ReLU leaves. `shift` is such that y = (x - mean) rstd w + shift.
template <class T>
void batch_norm(const ChannelShape& s, bool relu, double eps, const T* x, const T* w, const T* b, T* y, T* mean, T* rstd,
                T* var, T* shift);
// Null gx, gw, gb are not computed. `shift` is null where no ReLU followed.
template <class T>
void batch_norm_backward(const ChannelShape& s, const T* g, const T* x, const T* mean, const T* rstd, const T* w,
                         const T* shift, T* gx, T* gw, T* gb);
template <class T>
void batch_norm_eval(const ChannelShape& s, double eps, const T* x, const T* w, const T* b, const T* mean, const T* var,
                     T* y);
template <class T>
void batch_norm_eval_backward(const ChannelShape& s, double eps, const T* g, const T* x, const T* w, const T* mean,
                              const T* var, T* gx, T* gw, T* gb, T* gmean, T* gvar);

// Statistics per sample and group of channels / groups channels: mean and rstd have batch * groups values.
template <class T>
void group_norm(const ChannelShape& s, Index groups, double eps, const T* x, const T* w, const T* b, T* y, T* mean,
                T* rstd);
template <class T>
void group_norm_backward(const ChannelShape& s, Index groups, const T* g, const T* x, const T* mean, const T* rstd,
                         const T* w, T* gx, T* gw, T* gb);

}  // namespace tg
