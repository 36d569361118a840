// One input channel per group: there is nothing to reuse between channels, so planes are added row by row, shifted by
// each tap, from a copy with its zeros. The sums of a row stay in L1 over all taps.
#include "conv_depthwise.h"

#include <algorithm>

#include "../core/allocator.h"
#include "conv_slab.h"
#include "gemm_tasks.h"

namespace tg {
namespace {

constexpr Index kRowLanes = 16;  // sums side by side of a dot product, so its order is the same on every CPU

// sum[i] += by * x[i * stride]
template <class T>
void add_row(T* sum, const T* x, Index stride, T by, Index n) {
  if (stride == 1)
    for (Index i = 0; i < n; ++i) sum[i] += by * x[i];
  else if (stride == 2)
    for (Index i = 0; i < n; ++i) sum[i] += by * x[i * 2];
  else
    for (Index i = 0; i < n; ++i) sum[i] += by * x[i * stride];
}

// lane[i % 16] += g[i] * x[i * stride]
template <int Stride, class T>
void dot_row_by(T* lane, const T* g, const T* x, Index runtime_stride, Index n) {
  const Index stride = Stride ? Stride : runtime_stride;
  Index i = 0;
  for (; i + kRowLanes <= n; i += kRowLanes)
    for (Index j = 0; j < kRowLanes; ++j) lane[j] += g[i + j] * x[(i + j) * stride];
  for (Index j = 0; i + j < n; ++j) lane[j] += g[i + j] * x[(i + j) * stride];
}
template <class T>
void dot_row(T* lane, const T* g, const T* x, Index stride, Index n) {
  if (stride == 1) dot_row_by<1>(lane, g, x, 1, n);
  else if (stride == 2) dot_row_by<2>(lane, g, x, 2, n);
  else dot_row_by<0>(lane, g, x, stride, n);
}

// The row of the copy that a tap meets for the row of outputs (d, h).
Index row_of(const SlabLayout& layout, Index d, Index h, const Triple& tap) {
  return (d * layout.step[0] + tap[0]) * layout.box[1] + h * layout.step[1] + tap[1];
}

Slab whole_image(const Walk& walk, Index n) { return {n, 1, {0, 0, 0}, walk.size}; }

// Planes of `per_group` channels per group on each side; one side has one.
struct Planes {
  Index sources, targets;            // per group
  Index weight_source, weight_target;  // strides of the weight inside a group
};

template <class T>
void add_planes(const ConvShape& s, const Walk& walk, const Planes& p, const T* source, const T* w, const T* bias,
                T* target) {
  const Index source_plane = volume(walk.source), target_plane = volume(walk.target);
  const SlabLayout layout(walk, whole_image(walk, 0));
  for_each_task(s.batch * s.groups, [&](Index task) {
    const Index n = task / s.groups, group = task % s.groups;
    Scratch<T> sum(walk.size[2]), padded(p.sources * layout.channel);
    const Slab slab = whole_image(walk, n);
    const PaddedCopy<T> copy(walk, slab, layout);
    copy.zero(padded.data(), p.sources);
    copy.fill(source + group * p.sources * source_plane, s.groups * p.sources * source_plane, source_plane, p.sources,
              padded.data());
    for (Index t = 0; t < p.targets; ++t) {
      const Index channel = group * p.targets + t;
      T* to = target + (n * s.groups * p.targets + channel) * target_plane;
      const T start = bias ? bias[channel] : T(0);
      for (const Pass& pass : walk.passes)
        for (Index d = 0; d < pass.size[0]; ++d)
          for (Index h = 0; h < pass.size[1]; ++h) {
            std::fill_n(sum.data(), pass.size[2], start);
            for (Index c = 0; c < p.sources; ++c)
              for (std::size_t j = 0; j < pass.taps.size(); ++j) {
                const Triple& tap = pass.taps[j];
                const T* row = padded.data() + c * layout.channel + tap[2] + row_of(layout, d, h, tap) * layout.box[2];
                const T by = w[group * s.out_per_group() * s.taps() + c * p.weight_source + t * p.weight_target +
                               pass.weight[j]];
                add_row(sum.data(), row, layout.step[2], by, pass.size[2]);
              }
            T* out = to + ((pass.start[0] + d * pass.stride[0]) * walk.target[1] + pass.start[1] + h * pass.stride[1]) *
                              walk.target[2] + pass.start[2];
            for (Index i = 0; i < pass.size[2]; ++i) out[i * pass.stride[2]] = sum.data()[i];
          }
    }
  });
}

}  // namespace

template <class T>
void depthwise_forward(const ConvShape& s, const T* x, const T* w, const T* bias, T* y) {
  add_planes(s, forward_walk(s), {1, s.out_per_group(), 0, s.taps()}, x, w, bias, y);
}

template <class T>
void depthwise_input_grad(const ConvShape& s, const T* g, const T* w, T* gx) {
  add_planes<T>(s, input_grad_walk(s), {s.out_per_group(), 1, s.taps(), 0}, g, w, nullptr, gx);
}

// A task owns a group: its sums run over images and rows in order, sixteen side by side.
template <class T>
void depthwise_weight_grad(const ConvShape& s, const T* g, const T* x, T* gw) {
  const Walk walk = forward_walk(s);
  const Pass& pass = walk.passes[0];
  const SlabLayout layout(walk, whole_image(walk, 0));
  const Index taps = s.taps(), targets = s.out_per_group();
  for_each_task(s.groups, [&](Index group) {
    Scratch<T> padded(layout.channel), sums(targets * taps * kRowLanes);
    std::fill_n(sums.data(), targets * taps * kRowLanes, T(0));
    for (Index n = 0; n < s.batch; ++n) {
      const Slab slab = whole_image(walk, n);
      const PaddedCopy<T> copy(walk, slab, layout);
      if (n == 0) copy.zero(padded.data(), 1);
      copy.fill(x + group * s.in_plane(), s.groups * s.in_plane(), s.in_plane(), 1, padded.data());
      for (Index t = 0; t < targets; ++t) {
        const T* plane = g + (n * s.out_channels + group * targets + t) * s.out_plane();
        for (Index d = 0; d < s.out[0]; ++d)
          for (Index h = 0; h < s.out[1]; ++h)
            for (Index j = 0; j < taps; ++j) {
              const Triple& tap = pass.taps[j];
              const T* row = padded.data() + tap[2] + row_of(layout, d, h, tap) * layout.box[2];
              dot_row(sums.data() + (t * taps + j) * kRowLanes, plane + (d * s.out[1] + h) * s.out[2], row,
                         layout.step[2], s.out[2]);
            }
      }
    }
    for (Index i = 0; i < targets * taps; ++i) {
      T* lane = sums.data() + i * kRowLanes;
      for (Index width = kRowLanes / 2; width > 0; width /= 2)
        for (Index j = 0; j < width; ++j) lane[j] += lane[j + width];
      gw[group * targets * taps + i] = lane[0];
    }
  });
}

#define TG_DEPTHWISE(T)                                                                 \
  template void depthwise_forward(const ConvShape&, const T*, const T*, const T*, T*);  \
  template void depthwise_input_grad(const ConvShape&, const T*, const T*, T*);         \
  template void depthwise_weight_grad(const ConvShape&, const T*, const T*, T*);
TG_DEPTHWISE(float)
TG_DEPTHWISE(double)
#undef TG_DEPTHWISE

}  // namespace tg
