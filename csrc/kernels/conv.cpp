// What patches hold counts as channels. 1x1 is a product of matrices; one channel per group is a sum of shifted pixels, 3x3
// with unit stride goes by Winograd's algorithm; all else, few such groups too, through the shared walk.
#include "conv.h"

#include <algorithm>

#include "../core/allocator.h"
#include "conv_depthwise.h"
#include "conv_few.h"
#include "conv_patch.h"
#include "conv_pointwise.h"
#include "conv_walk.h"
#include "conv_weight.h"
#include "conv_winograd.h"
#include "gemm.h"
#include "gemm_tasks.h"

namespace tg {
namespace {

constexpr Index kLeastRun = 128;  // elements: a call for fewer takes longer than a pass of its own

// One position that sees all there is: a product with images as rows.
bool whole(const ConvShape& s) {
  return s.groups == 1 && s.in_plane() == 1 && s.taps() == 1 && s.padding == Triple{0, 0, 0} && s.in_channels > 0;
}

template <class T>
void multiply(Index m, Index n, Index k, Matrix<T> a, Matrix<T> b, const T* bias, T* c) {
  Gemm<T> product;
  product.m = m, product.n = n, product.k = k;
  product.a = a, product.b = b, product.c = c, product.bias = bias;
  gemm(product);
}

template <class T>
void walk(const Walk& walk, const ConvOperands<T>& op) {
  few_targets<T>(walk, op.groups, op.source_channels, op.target_channels) ? conv_walk_few(walk, op) : conv_walk(walk, op);
}

// The tail of sums that were stored without one.
template <class T>
void finish(Index batch, Index channels, Index plane, const Tail<T>& tail, T* y) {
  if (tail.plain() && !tail.shift) return;
  parallel_for(batch * channels, std::max<Index>(1, (Index(1) << 15) / std::max<Index>(1, plane)), [&](Index first, Index last) {
    for (Index r = first; r < last; ++r) tail.finish(y + r * plane, plane, r % channels, r * plane);
  });
}

// Tells of all of a result at once, by way of the pool.
template <class T>
void tell(const Tail<T>& tail, Index size) {
  if (!tail.finished) return;
  parallel_for(size, Index(1) << 14, [&](Index first, Index last) { (*tail.finished)(first, last); });
}

bool depthwise(const ConvShape& s) { return s.groups > 1 && s.in_per_group() == 1 && s.out_per_group() <= 4; }

// Whether one channel per group goes along the vector. Where groups leave many lanes idle, positions do, as in the walk for few
// targets, if that takes a fifth fewer vectors with what is computed between the rows. A tap alone is not worth that walk's
// copies, and a stride not its scattered results.
//
// Ladder, one Zen 4 core, ms of forward, channels along the vector -> positions: 11x11, (8, 2, 128, 128), AVX2 3.36 -> 1.24,
// AVX-512 7.49 -> 1.24; 3x3, (16, 2, 32, 32), 0.057 -> 0.024 and 0.102 -> 0.023.
template <class T>
bool by_channel(const ConvShape& s, Walk (*walk_of)(const ConvShape&), Index sources, Index targets) {
  const Index filled = round_up(s.groups, lanes::Lanes<T>::count);
  const bool idle = 5 * s.groups < 4 * filled && s.taps() > 1 && volume(s.stride) == 1;
  if (!depthwise(s) || !idle) return depthwise(s);
  const Walk walk = walk_of(s);
  return !few_targets<T>(walk, s.groups, sources, targets) || 5 * s.groups * reached(walk) >= 4 * filled * volume(walk.size);
}

template <class T>
bool forward_by_channel(const ConvShape& s) {
  return by_channel<T>(s, forward_walk, s.in_channels, s.out_channels);
}

template <class T>
bool input_grad_by_channel(const ConvShape& s) {
  return by_channel<T>(s, input_grad_walk, s.out_channels, s.in_channels);
}

template <class T>
void forward(const ConvShape& s, const T* x, const SourceNeeded* needed, const T* w, const Tail<T>& tail, T* y) {
  if (forward_by_channel<T>(s)) return depthwise_forward(s, x, needed, w, tail, y);
  const Index row = s.in_channels;
  if (whole(s)) {
    multiply<T>(s.batch, s.out_channels, row, {x, row, 1}, {w, 1, row}, tail.plain() ? tail.shift : nullptr, y);
    if (!tail.plain()) finish(s.batch, s.out_channels, 1, tail, y);
    return;
  }
  if (pointwise_fits(s)) return pointwise_forward(s, x, needed, w, tail, y);
  if (winograd_fits(s)) return winograd_forward(s, source_of(x), w, tail, y);
  ConvOperands<T> op;
  op.batch = s.batch;
  op.groups = s.groups;
  op.source_channels = s.in_channels;
  op.target_channels = s.out_channels;
  op.source_plane = s.in_plane();
  op.source = x;
  op.weight = w;
  op.target = y;
  op.weight_source = s.taps();
  op.weight_target = s.in_per_group() * s.taps();
  op.weight_group = s.out_per_group() * op.weight_target;
  const Walk path = forward_walk(s);
  if (!few_targets<T>(path, s.groups, s.in_channels, s.out_channels)) {
    op.tail = tail;
    return conv_walk(path, op);
  }
  if (tail.plain()) op.tail = tail;
  conv_walk_few(path, op);
  if (!tail.plain()) finish(s.batch, s.out_channels, s.out_plane(), tail, y);
}

// Whether forward's kernel tells of what it stores, in runs that are worth a call each.
template <class T>
bool stores_runs(const ConvShape& s) {
  if (s.out_plane() < kLeastRun) return false;
  if (forward_by_channel<T>(s)) return true;
  if (whole(s)) return false;
  if (pointwise_fits(s)) return true;
  if (winograd_fits(s)) return winograd_stores_rows(s);
  return !few_targets<T>(forward_walk(s), s.groups, s.in_channels, s.out_channels);
}

template <class T>
void input_grad(const ConvShape& s, const T* g, const SourceNeeded* needed, const T* w, T* gx) {
  if (input_grad_by_channel<T>(s)) return depthwise_input_grad(s, g, needed, w, gx);
  const Index row = s.in_channels;
  if (whole(s)) return multiply<T>(s.batch, row, s.out_channels, {g, s.out_channels, 1}, {w, row, 1}, nullptr, gx);
  if (pointwise_fits(s)) return pointwise_input_grad(s, g, needed, w, gx);
  if (winograd_fits(s)) return winograd_input_grad(s, source_of(g), w, gx);
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
  walk(input_grad_walk(s), op);
}

template <class T>
void weight_grad(const ConvShape& s, const T* g, const T* x, T* gw) {
  if (depthwise(s)) return depthwise_weight_grad(s, g, x, gw);
  const Index row = s.in_channels;
  if (whole(s)) return multiply<T>(s.out_channels, row, s.batch, {g, 1, s.out_channels}, {x, row, 1}, nullptr, gw);
  if (pointwise_fits(s)) return pointwise_weight_grad(s, g, x, gw);
  if (winograd_fits_weight(s)) return winograd_weight_grad(s, source_of(g), source_of(x), gw);
  conv_weight_grad_walk(s, g, x, gw);
}

// The arrays of a convolution of patches in the order of what is left of it.
template <class T>
class PatchArrays {
 public:
  explicit PatchArrays(const Patches& p)
      : p_(p), source_(p.moves_source() ? p.source_size() : 0), weight_(p.moves_weight() ? p.weight_size() : 0) {}

  const T* source(const T* x) const {
    if (p_.moves_source()) p_.source(sizeof(T), x, source_.data());
    return p_.moves_source() ? source_.data() : x;
  }
  const T* weight(const T* w) const {
    if (p_.moves_weight()) p_.weight(sizeof(T), w, weight_.data());
    return p_.moves_weight() ? weight_.data() : w;
  }
  // f(where to put the gradient)
  template <class F>
  void source_back(T* gx, F f) const {
    f(p_.moves_source() ? source_.data() : gx);
    if (p_.moves_source()) p_.source_back(sizeof(T), source_.data(), gx);
  }
  template <class F>
  void weight_back(T* gw, F f) const {
    f(p_.moves_weight() ? weight_.data() : gw);
    if (p_.moves_weight()) p_.weight_back(sizeof(T), weight_.data(), gw);
  }

 private:
  const Patches& p_;
  Scratch<T> source_, weight_;
};

}  // namespace

// The walk asks for nothing; where float goes by channel, so does double.
bool conv_asks(const ConvShape& s) {
  if (s.out_channels * s.out_plane() == 0 || Patches(s).worth_reading() || whole(s)) return false;
  if (!depthwise(s)) return pointwise_asks(s);
  return depthwise_asks(s.batch * s.in_channels * s.in_plane()) && forward_by_channel<float>(s);
}

bool conv_input_grad_asks(const ConvShape& s) {
  if (s.in_channels * s.in_plane() == 0 || Patches(s).worthwhile() || whole(s)) return false;
  if (!depthwise(s)) return pointwise_input_grad_asks(s);
  return depthwise_asks(s.batch * s.out_channels * s.out_plane()) && input_grad_by_channel<float>(s);
}

template <class T>
void conv_forward(const ConvShape& s, const T* x, const SourceNeeded* needed, const T* w, const Tail<T>& tail, T* y) {
  const Index size = s.batch * s.out_channels * s.out_plane();
  if (size == 0) return;
  const Patches patches(s);
  const bool patched = patches.worth_reading();
  const ConvShape& shape = patched ? patches.shape() : s;
  const bool told = stores_runs<T>(shape);
  Tail<T> own = tail;
  own.start = y;
  if (!told) own.finished = nullptr;
  if (patched) {
    const PatchArrays<T> arrays(patches);
    forward<T>(shape, arrays.source(x), nullptr, arrays.weight(w), own, y);
  } else {
    forward(shape, x, needed, w, own, y);
  }
  if (!told) tell(tail, size);
}

bool conv_reads_narrow(const ConvShape& s) { return winograd_fits(s) && !Patches(s).worth_reading(); }
bool conv_input_grad_reads_narrow(const ConvShape& s) { return winograd_fits(s) && !Patches(s).worthwhile(); }
bool conv_weight_grad_reads_narrow(const ConvShape& s) {
  return s.batch * s.out_plane() > 0 && winograd_fits_weight(s) && !Patches(s).worth_reading();
}

void conv_forward(const ConvShape& s, const bfloat16* x, const float* w, const Tail<float>& tail, float* y) {
  Tail<float> own = tail;
  own.start = y;
  const bool told = stores_runs<float>(s);
  if (!told) own.finished = nullptr;
  winograd_forward(s, source_of(x), w, own, y);
  if (!told) tell(tail, s.batch * s.out_channels * s.out_plane());
}
void conv_input_grad(const ConvShape& s, const bfloat16* g, const float* w, float* gx) {
  winograd_input_grad(s, source_of(g), w, gx);
}
void conv_weight_grad(const ConvShape& s, const bfloat16* g, const bfloat16* x, float* gw) {
  winograd_weight_grad(s, source_of(g), source_of(x), gw);
}

template <class T>
void conv_transposed(const ConvShape& s, const T* g, const SourceNeeded* needed, const T* w, const Tail<T>& tail, T* gx) {
  conv_input_grad(s, g, needed, w, gx);
  finish(s.batch, s.in_channels, s.in_plane(), tail, gx);
  tell(tail, s.batch * s.in_channels * s.in_plane());
}

template <class T>
void conv_input_grad(const ConvShape& s, const T* g, const SourceNeeded* needed, const T* w, T* gx) {
  const Index size = s.batch * s.in_channels * s.in_plane();
  if (size == 0 || s.out_channels * s.out_plane() == 0) {
    std::fill_n(gx, size, T(0));
    return;
  }
  const Patches patches(s);
  if (!patches.worthwhile()) return input_grad(s, g, needed, w, gx);
  const PatchArrays<T> arrays(patches);
  arrays.source_back(gx, [&](T* to) { input_grad<T>(patches.shape(), g, nullptr, arrays.weight(w), to); });
}

template <class T>
void conv_weight_grad(const ConvShape& s, const T* g, const T* x, T* gw) {
  const Index size = s.out_channels * s.in_per_group() * s.taps();
  if (size == 0 || s.batch * s.out_plane() == 0) {
    std::fill_n(gw, size, T(0));
    return;
  }
  const Patches patches(s);
  if (!patches.worth_reading()) return weight_grad(s, g, x, gw);
  const PatchArrays<T> arrays(patches);
  arrays.weight_back(gw, [&](T* to) { weight_grad(patches.shape(), g, arrays.source(x), to); });
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

#define TG_CONV(T)                                                                                              \
  template void conv_forward(const ConvShape&, const T*, const SourceNeeded*, const T*, const Tail<T>&, T*);    \
  template void conv_transposed(const ConvShape&, const T*, const SourceNeeded*, const T*, const Tail<T>&, T*); \
  template void conv_input_grad(const ConvShape&, const T*, const SourceNeeded*, const T*, T*);                 \
  template void conv_weight_grad(const ConvShape&, const T*, const T*, T*);                                     \
  template void channel_sum(const T*, Index, Index, Index, T*);
TG_CONV(float)
TG_CONV(double)
#undef TG_CONV

}  // namespace tg
