// The walk of conv_walk.cpp for at most four channels of the target in a group, which would leave a vector half empty: here
// positions lie along it. That takes a step of one in the source, which every gradient to the input has.
//
// A task copies a slab's source with its zeros, some channels at a time, and takes the copy as one long row: position t
// of the box of any image reads its taps at fixed distances, so sums run over rows, zeros and images alike, and what they
// give at the zeros is left behind when the sums are stored. Copy and sums of a task fit L2. Tasks and the order of sums
// depend on shapes alone.
//
// Ladder, one Zen 3 core, gradient to the input, channels along the vector -> this: 64-3 3x3 @32, 16 images, 3.9 -> 1.05 ms;
// 32-1 3x3 @28, 64 images, 5.8 -> 1.6; 64-3 7x7 /2 @224 13.9 -> 6.4; 64-3 4x4 /2 @32, 64 images, 6.9 -> 4.3.
#include "conv_few.h"

#include <algorithm>

#include "../core/allocator.h"
#include "conv_slab.h"
#include "conv_tile.h"
#include "gemm_tasks.h"

namespace tg {
namespace {

constexpr Index kMostTargets = 4;
constexpr Index kPositions = 2048;  // of a slab

// c[t][i] (+)= sum over k of x[col[k] + i] * w[k][t] for i < count, in blocks of V vectors.
template <class T, int N, int V>
void add_rows(const T* x, const std::vector<std::int32_t>& col, const T* w, T* c, Index count, Index c_step, bool add) {
  constexpr int L = Lanes<T>::count;
  const Index terms = static_cast<Index>(col.size());
  for (Index i = 0; i < count; i += V * L) {
    Vec<T> sum[N][V];
    for (int t = 0; t < N; ++t)
      for (int v = 0; v < V; ++v) sum[t][v] = add ? load(c + t * c_step + i + v * L) : Vec<T>{};
    const T* wk = w;
    for (Index k = 0; k < terms; ++k, wk += N) {
      const T* xk = x + col[k] + i;
      Vec<T> xv[V];
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) xv[v] = load(xk + v * L);
#pragma GCC unroll 4
      for (int t = 0; t < N; ++t) {
        const Vec<T> by = wk[t] - Vec<T>{};  // minus zero: a broadcast the compiler sees through
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) sum[t][v] += xv[v] * by;
      }
    }
    for (int t = 0; t < N; ++t)
      for (int v = 0; v < V; ++v) store(c + t * c_step + i + v * L, sum[t][v]);
  }
}

template <class T>
class FewTargets {
 public:
  FewTargets(const Walk& walk, const ConvOperands<T>& op)
      : walk_(walk), op_(op), sources_(op.source_channels / op.groups), targets_(op.target_channels / op.groups),
        slabs_(cut_slabs(walk, op.batch, kPositions)) {
    for (const Pass& pass : walk.passes) {
      place_.push_back(size_);
      size_ += sources_ * static_cast<Index>(pass.taps.size()) * targets_;
    }
  }

  void run() {
    Scratch<T> weights(size_ * op_.groups);
    for (Index group = 0; group < op_.groups; ++group) pack(group, weights.data() + group * size_);
    const Index slabs = static_cast<Index>(slabs_.size());
    for_each_task(slabs * op_.groups, [&](Index task) {
      const Index group = task / slabs;
      compute(slabs_[task % slabs], group, weights.data() + group * size_);
    });
  }

 private:
  static constexpr Index L = Lanes<T>::count, kBlock = 24 * L;  // a multiple of every block below

  // [pass][source channel][tap][target channel]
  void pack(Index group, T* to) const {
    const T* from = op_.weight + group * op_.weight_group;
    for (const Pass& pass : walk_.passes)
      for (Index c = 0; c < sources_; ++c)
        for (Index id : pass.weight)
          for (Index t = 0; t < targets_; ++t) *to++ = from[c * op_.weight_source + t * op_.weight_target + id];
  }

  static void multiply(Index targets, const T* x, const std::vector<std::int32_t>& col, const T* w, T* c, Index count,
                       bool add) {
    switch (targets) {  // as many sums as hide the latency and leave registers for their operands
      case 1: return add_rows<T, 1, 8>(x, col, w, c, count, count, add);
      case 2: return add_rows<T, 2, 4>(x, col, w, c, count, count, add);
      case 3: return add_rows<T, 3, 3>(x, col, w, c, count, count, add);
      default: return add_rows<T, 4, 3>(x, col, w, c, count, count, add);
    }
  }

  void compute(const Slab& slab, Index group, const T* weights) const {
    const SlabLayout layout(walk_, slab);
    const Triple last{slab.size[0] - 1, slab.size[1] - 1, slab.size[2] - 1};
    Index count = (slab.images - 1) * layout.plane;  // elements of the row that sums are made for
    count = round_up(count + (last[0] * layout.box[1] + last[1]) * layout.box[2] + last[2] + 1, kBlock);
    const Index most = kSlabSourceBytes / Index(sizeof(T)) / layout.channel;
    const Index step = std::clamp<Index>(most, 1, sources_), passes = static_cast<Index>(walk_.passes.size());
    // the last sums, which nobody wants, read behind the copy: as far as a block and the taps reach
    const Index copied = step * layout.channel;
    Scratch<T> source(copied + kBlock + layout.plane), sums(passes * targets_ * count);
    std::fill_n(source.data() + copied, kBlock + layout.plane, T(0));
    const PaddedCopy<T> copy(walk_, slab, layout);
    if (layout.channel > layout.plane * slab.images) std::fill_n(source.data(), copied, T(0));
    else copy.zero(source.data(), step);
    std::vector<std::int32_t> cols;
    for (Index c = 0; c < sources_; c += step) {
      const Index channels = std::min(step, sources_ - c);
      copy.fill(op_.source + (group * sources_ + c) * op_.source_plane, op_.source_channels * op_.source_plane,
                op_.source_plane, channels, source.data());
      for (Index p = 0; p < passes; ++p) {
        const Pass& pass = walk_.passes[p];
        const Index taps = static_cast<Index>(pass.taps.size());
        cols.clear();
        list_taps(layout, pass, channels, cols);
        multiply(targets_, source.data(), cols, weights + place_[p] + c * taps * targets_,
                 sums.data() + p * targets_ * count, count, c > 0);
      }
    }
    for (Index p = 0; p < passes; ++p)
      for (Index t = 0; t < targets_; ++t)
        store_plane(slab, layout, walk_.passes[p], group * targets_ + t, sums.data() + (p * targets_ + t) * count);
  }

  void store_plane(const Slab& slab, const SlabLayout& layout, const Pass& pass, Index channel, const T* sums) const {
    const Triple n = slab.clip(pass);
    const T bias = op_.tail.shift ? op_.tail.shift[channel] : T(0);
    for (Index i = 0; i < slab.images; ++i)
      for (Index d = 0; d < n[0]; ++d)
        for (Index h = 0; h < n[1]; ++h) {
          const T* from = sums + i * layout.plane + (d * layout.box[1] + h) * layout.box[2];
          const Index image = (slab.first_image + i) * op_.target_channels + channel;
          T* to = op_.target + ((image * walk_.target[0] + pass.start[0] + (slab.first[0] + d) * pass.stride[0]) *
                                    walk_.target[1] + pass.start[1] + (slab.first[1] + h) * pass.stride[1]) *
                                   walk_.target[2] + pass.start[2] + slab.first[2] * pass.stride[2];
          for (Index w = 0; w < n[2]; ++w) to[w * pass.stride[2]] = from[w] + bias;
        }
  }

  const Walk& walk_;
  const ConvOperands<T>& op_;
  Index sources_, targets_, size_ = 0;
  std::vector<Slab> slabs_;
  std::vector<Index> place_;
};

}  // namespace

// Where that needs fewer vectors than channels along the vector: what is computed between the rows counts.
template <class T>
bool few_targets(const Walk& walk, Index groups, Index source_channels, Index target_channels) {
  if (walk.step != Triple{1, 1, 1} || source_channels == 0) return false;
  const Index targets = target_channels / groups;
  return targets <= kMostTargets && targets * reached(walk) < Lanes<T>::count * volume(walk.size);
}

template <class T>
void conv_walk_few(const Walk& walk, const ConvOperands<T>& operands) {
  FewTargets<T>(walk, operands).run();
}

#define TG_FEW(T)                                                 \
  template bool few_targets<T>(const Walk&, Index, Index, Index); \
  template void conv_walk_few(const Walk&, const ConvOperands<T>&);
TG_FEW(float)
TG_FEW(double)
#undef TG_FEW

}  // namespace tg
