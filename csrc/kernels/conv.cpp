// 1x1 is a product of matrices (of what a stride keeps, copied together), one channel per group a sum of shifted pixels,
// 3x3 with unit stride goes by Winograd's algorithm; all else through the shared walk.
#include "conv.h"

#include <algorithm>

#include "../core/allocator.h"
#include "conv_depthwise.h"
#include "conv_walk.h"
#include "conv_weight.h"
#include "conv_winograd.h"
#include "gemm.h"
#include "gemm_tasks.h"

namespace tg {
namespace {

bool pointwise(const ConvShape& s) {
  return s.taps() == 1 && s.stride == Triple{1, 1, 1} && s.padding == Triple{0, 0, 0};
}

// One tap and no padding: a product of matrices with what the stride leaves of the input.
bool strided_pointwise(const ConvShape& s) {
  return s.taps() == 1 && s.stride != Triple{1, 1, 1} && s.padding == Triple{0, 0, 0};
}

ConvShape without_stride(ConvShape s) {
  s.in = s.out;
  s.stride = {1, 1, 1};
  return s;
}

// small (planes, out) = what the stride keeps of large (planes, in)
template <class T>
void keep_strided(const ConvShape& s, Index planes, const T* large, T* small) {
  for_each_task(planes, [&](Index i) {
    T* to = small + i * s.out_plane();
    for (Index d = 0; d < s.out[0]; ++d)
      for (Index h = 0; h < s.out[1]; ++h, to += s.out[2]) {
        const T* from = large + i * s.in_plane() + (d * s.stride[0] * s.in[1] + h * s.stride[1]) * s.in[2];
        for (Index w = 0; w < s.out[2]; ++w) to[w] = from[w * s.stride[2]];
      }
  });
}

// large (planes, in) = small (planes, out) where the stride keeps it, zero between
template <class T>
void spread_strided(const ConvShape& s, Index planes, const T* small, T* large) {
  for_each_task(planes, [&](Index i) {
    const T* from = small + i * s.out_plane();
    std::fill_n(large + i * s.in_plane(), s.in_plane(), T(0));
    for (Index d = 0; d < s.out[0]; ++d)
      for (Index h = 0; h < s.out[1]; ++h, from += s.out[2]) {
        T* to = large + i * s.in_plane() + (d * s.stride[0] * s.in[1] + h * s.stride[1]) * s.in[2];
        for (Index w = 0; w < s.out[2]; ++w) to[w * s.stride[2]] = from[w];
      }
  });
}

bool depthwise(const ConvShape& s) { return s.groups > 1 && s.in_per_group() == 1 && s.out_per_group() <= 4; }

// y[n][group] = matrix (rows, cols) of the group times x[n][group] (cols, plane) for every image and group.
template <class T>
void multiply_planes(const ConvShape& s, Matrix<T> w, Index rows, Index cols, Index plane, const T* x, T* y) {
  std::vector<Index> w_offset, x_offset;
  for (Index n = 0; n < s.batch; ++n)
    for (Index g = 0; g < s.groups; ++g) {
      w_offset.push_back(g * rows * cols);
      x_offset.push_back((n * s.groups + g) * cols * plane);
    }
  Gemm<T> product;
  product.m = rows;
  product.n = plane;
  product.k = cols;
  product.batch = s.batch * s.groups;
  product.a = w;
  product.b = {x, plane, 1};
  product.a_offset = w_offset.data();
  product.b_offset = x_offset.data();
  product.c = y;
  gemm(product);
}

}  // namespace

template <class T>
void conv_forward(const ConvShape& s, const T* x, const T* w, const T* bias, T* y) {
  if (s.batch * s.out_channels * s.out_plane() == 0) return;
  if (depthwise(s)) return depthwise_forward(s, x, w, bias, y);
  if (pointwise(s) && bias == nullptr)
    return multiply_planes(s, {w, s.in_per_group(), 1}, s.out_per_group(), s.in_per_group(), s.in_plane(), x, y);
  if (strided_pointwise(s) && bias == nullptr) {
    Scratch<T> kept(s.batch * s.in_channels * s.out_plane());
    keep_strided(s, s.batch * s.in_channels, x, kept.data());
    return conv_forward<T>(without_stride(s), kept.data(), w, nullptr, y);
  }
  if (winograd_fits(s)) return winograd_forward(s, x, w, bias, y);
  ConvOperands<T> op;
  op.batch = s.batch;
  op.groups = s.groups;
  op.source_channels = s.in_channels;
  op.target_channels = s.out_channels;
  op.source_plane = s.in_plane();
  op.source = x;
  op.weight = w;
  op.bias = bias;
  op.target = y;
  op.weight_source = s.taps();
  op.weight_target = s.in_per_group() * s.taps();
  op.weight_group = s.out_per_group() * op.weight_target;
  conv_walk(forward_walk(s), op);
}

template <class T>
void conv_input_grad(const ConvShape& s, const T* g, const T* w, T* gx) {
  const Index size = s.batch * s.in_channels * s.in_plane();
  if (size == 0 || s.out_channels * s.out_plane() == 0) {
    std::fill_n(gx, size, T(0));
    return;
  }
  if (depthwise(s)) return depthwise_input_grad(s, g, w, gx);
  if (pointwise(s))
    return multiply_planes(s, {w, 1, s.in_per_group()}, s.in_per_group(), s.out_per_group(), s.in_plane(), g, gx);
  if (strided_pointwise(s)) {
    Scratch<T> kept(s.batch * s.in_channels * s.out_plane());
    conv_input_grad(without_stride(s), g, w, kept.data());
    return spread_strided(s, s.batch * s.in_channels, kept.data(), gx);
  }
  if (winograd_fits(s)) return winograd_input_grad(s, g, w, gx);
  ConvOperands<T> op;
  op.batch = s.batch;
  op.groups = s.groups;
  op.source_channels = s.out_channels;
  op.target_channels = s.in_channels;
  op.source_plane = s.out_plane();
  op.source = g;
  op.weight = w;
  op.target = gx;
  op.weight_target = s.taps();
  op.weight_source = s.in_per_group() * s.taps();
  op.weight_group = s.out_per_group() * op.weight_source;
  conv_walk(input_grad_walk(s), op);
}

template <class T>
void conv_weight_grad(const ConvShape& s, const T* g, const T* x, T* gw) {
  const Index size = s.out_channels * s.in_per_group() * s.taps();
  if (size == 0 || s.batch * s.out_plane() == 0) {
    std::fill_n(gw, size, T(0));
    return;
  }
  if (depthwise(s)) return depthwise_weight_grad(s, g, x, gw);
  if (winograd_fits_weight(s)) return winograd_weight_grad(s, g, x, gw);
  conv_weight_grad_walk(s, g, x, gw);
}

template <class T>
void channel_sum(const T* g, Index batch, Index channels, Index plane, T* out) {
  const Index grain = std::max<Index>(1, (Index(1) << 16) / std::max<Index>(1, batch * plane));
  for_each_task((channels + grain - 1) / grain, [&](Index task) {
    for (Index c = task * grain; c < std::min(channels, (task + 1) * grain); ++c) {
      T total = 0;
      for (Index n = 0; n < batch; ++n) {
        // Sixteen sums side by side: fast, and as good as pairwise at the length of a plane.
        T lane[16] = {};
        const T* row = g + (n * channels + c) * plane;
        Index i = 0;
        for (; i + 16 <= plane; i += 16)
          for (Index j = 0; j < 16; ++j) lane[j] += row[i + j];
        for (; i < plane; ++i) lane[i % 16] += row[i];
        for (Index width = 8; width > 0; width /= 2)
          for (Index j = 0; j < width; ++j) lane[j] += lane[j + width];
        total += lane[0];
      }
      out[c] = total;
    }
  });
}

#define TG_CONV(T)                                                                  \
  template void conv_forward(const ConvShape&, const T*, const T*, const T*, T*);   \
  template void conv_input_grad(const ConvShape&, const T*, const T*, T*);          \
  template void conv_weight_grad(const ConvShape&, const T*, const T*, T*);         \
  template void channel_sum(const T*, Index, Index, Index, T*);
TG_CONV(float)
TG_CONV(double)
#undef TG_CONV

}  // namespace tg
