// The gradient of a convolution by one tap to its weight: gw = sum over images of g[n] x[n]', as one product whose terms are
// the positions of all images, one after the other.
//
// Memory: the side of fewer channels lies along the vector and is packed; where that is g, sums are those of gw transposed and
// turned at the end. A task has a range of rows by a range of columns, whose sums stay in half an L2, and a part of the
// terms. It takes them in stretches that lie in one image or, of short planes, in several whole ones: packs panels of its
// columns, and reads its rows where they lie if that is one image, else copies them side by side. Where there are few
// tasks the terms are cut into parts, by shape alone, whose sums are added in their order. What a stride skips is left
// out of a copy of x before.
//
// Ladder, 16 images, two Zen 3 cores, ms through the walk of conv_weight.cpp -> sums in gw itself, whose rows share few sets
// of the caches -> this -> PyTorch: 512-256 @28 26.7 -> 22.5 -> 21.3 -> 24; 960-320 @7 5.0 -> 3.9 -> 3.4 -> 4.1;
// 512-1024 /2 @28 39.0 -> 24.4 -> 24.1 -> 28 (the stride's remainder copied for each range of rows: 41.8).
#include "conv_pointwise.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "../core/allocator.h"
#include "conv_tile.h"
#include "gemm_tasks.h"
#include "gemm_tile.h"

namespace tg {
namespace {

using tile::kColumns;
using tile::kRows;

constexpr Index kDepth = 64;                // terms summed in registers: of 98 at once a gradient erred more than PyTorch's
constexpr Index kMostRows = 256, kMostColumns = 256;  // of a task
constexpr Index kRowBlock = 16 * kRows;     // rows of g that stay in L2 while the panels pass by
constexpr Index kLeastRows = 8 * kRows;     // of a task: a panel packed is used as often as that at least
constexpr Index kLeastTerms = 512;          // of a part: fewer cost less than adding up what they gave
constexpr Index kFewStretches = 4;          // summed in gw itself: a copy would cost more
constexpr Index kTaskWork = Index(1) << 19; // multiplications of a task, where there are enough
constexpr Index kWantedTasks = 16;

// Sums over n of a[n] b[n]', a (batch, groups * rows, plane), b (batch, groups * columns, plane), group by group.
template <class T>
class SumOfProducts {
 public:
  SumOfProducts(Index batch, Index groups, Index rows, Index columns, Index plane, const T* a, const T* b)
      : groups_(groups), rows_(rows), columns_(columns), plane_(plane), a_(a), b_(b) {
    const bool short_planes = 2 * plane <= kDepth;
    const Index images = short_planes ? divide_up(batch, kDepth / plane) : batch;
    const Index pieces = short_planes ? 1 : divide_up(plane, kDepth);
    for (Index n = 0; n < images; ++n)
      for (Index i = 0; i < pieces; ++i) {
        const Index image = batch * n / images, first = plane * i / pieces;
        stretches_.push_back({image, batch * (n + 1) / images - image, first, plane * (i + 1) / pieces - first});
        depth_ = std::max(depth_, stretches_.back().depth());
        copies_ |= stretches_.back().images > 1;
      }
    split(batch);
  }

  // To c (groups, rows, columns), or (groups, columns, rows) if it is to be turned.
  void run(T* c, bool turned) const {
    const Index tiles = groups_ * row_ranges_ * column_ranges_, size = row_range_ * column_range_;
    const bool direct = !turned && static_cast<Index>(stretches_.size()) <= kFewStretches;
    Scratch<T> sums(direct ? 0 : parts_ * tiles * size);
    for_each_task(parts_ * tiles, [&](Index task) {
      accumulate(task % tiles, task / tiles, direct ? nullptr : sums.data() + task * size, c);
    });
    if (direct) return;
    for_each_task(tiles, [&](Index tile) { finish(tile, sums.data() + tile * size, tiles * size, turned, c); });
  }

 private:
  static constexpr Index L = Lanes<T>::count, N = kColumns<T>;

  // Positions [first, first + terms) of some images.
  struct Stretch {
    Index image, images, first, terms;
    Index depth() const { return images * terms; }
  };

  void split(Index batch) {
    const Index work = batch * plane_ * groups_ * rows_ * columns_;
    const Index wanted = std::clamp<Index>(work / kTaskWork, 1, kWantedTasks);
    column_range_ = round_up(divide_up(columns_, divide_up(columns_, kMostColumns)), N);
    column_ranges_ = divide_up(columns_, column_range_);
    Index ranges = divide_up(rows_, kMostRows);
    const Index most_parts = std::max<Index>(1, batch * plane_ / kLeastTerms);
    parts_ = std::min(divide_up(wanted, groups_ * column_ranges_ * ranges), most_parts);
    ranges = std::max(ranges, std::min(divide_up(wanted, groups_ * column_ranges_ * parts_), rows_ / kLeastRows));
    row_range_ = round_up(divide_up(rows_, ranges), kRows);
    row_ranges_ = divide_up(rows_, row_range_);
  }

  // `count` channels of a stretch of several images, each channel's terms side by side.
  void copy_terms(const Stretch& stretch, const T* from, Index image_stride, Index count, T* to) const {
    for (Index n = 0; n < stretch.images; ++n)
      for (Index i = 0; i < count; ++i)
        tile::copy_few<tile::piece_of(kDepth / 2 + 1)>(from + n * image_stride + i * plane_, plane_,
                                                       to + i * stretch.depth() + n * plane_);
  }

  struct Range {
    Index group, i0, i1, j0, j1;
  };
  Range range_of(Index tile) const {
    const Index i0 = tile / column_ranges_ % row_ranges_ * row_range_, j0 = tile % column_ranges_ * column_range_;
    return {tile / (row_ranges_ * column_ranges_), i0, std::min(rows_, i0 + row_range_), j0,
            std::min(columns_, j0 + column_range_)};
  }

  // Sums of a tile: [panel of columns][row][kColumns], or null if they are made in c.
  void accumulate(Index tile, Index part, T* sums, T* c) const {
    const auto [group, i0, i1, j0, j1] = range_of(tile);
    const Index a_image = groups_ * rows_ * plane_, b_image = groups_ * columns_ * plane_;
    const Index count = static_cast<Index>(stretches_.size());
    const Index begin = count * part / parts_, end = count * (part + 1) / parts_;
    Scratch<T> packed(round_up(j1 - j0, N) * depth_), copied(copies_ ? std::max(i1 - i0, j1 - j0) * depth_ : 0);
    for (Index at = begin; at < end; ++at) {
      const Stretch& stretch = stretches_[at];
      const Index depth = stretch.depth();
      const T* a = a_ + stretch.image * a_image + (group * rows_ + i0) * plane_ + stretch.first;
      const T* b = b_ + stretch.image * b_image + (group * columns_ + j0) * plane_ + stretch.first;
      if (copies_) {
        copy_terms(stretch, b, b_image, j1 - j0, copied.data());
        b = copied.data();
      }
      const Index step = copies_ ? depth : plane_;
      for (Index j = 0; j < j1 - j0; j += N)
        tile_pack(b + j * step, step, depth, std::min(N, j1 - j0 - j), packed.data() + j * depth, N);
      if (copies_) {
        copy_terms(stretch, a, a_image, i1 - i0, copied.data());
        a = copied.data();
      }
      const Index rows = i1 - i0;
      for (Index block = 0; block < rows; block += kRowBlock)
        for (Index j = 0; j < j1 - j0; j += N) {
          const Index left = j1 - j0 - j, ldc = sums ? N : columns_;
          tile::Target<T> target{nullptr, ldc, sums ? (left <= L ? L : N) : std::min(N, left), nullptr, ldc};
          for (Index i = block; i < std::min(rows, block + kRowBlock);) {
            const int tall = tile::height(rows - i);
            target.c = sums ? sums + j * rows + i * N : c + (group * rows_ + i0 + i) * columns_ + j0 + j;
            if (at > begin) target.add = target.c;
            tile::run(tall, depth, a + i * step, step, true, packed.data() + j * depth, N, target);
            i += tall;
          }
        }
    }
  }

  void finish(Index tile, T* sums, Index part_step, bool turned, T* c) const {
    const auto [group, i0, i1, j0, j1] = range_of(tile);
    const Index rows = i1 - i0;
    for (Index p = 1; p < parts_; ++p)
      for (Index i = 0; i < rows * round_up(j1 - j0, N); ++i) sums[i] += sums[p * part_step + i];
    c += group * rows_ * columns_;
    for (Index j = j0; j < j1; j += N, sums += rows * N) {
      const Index valid = std::min(N, j1 - j);
      if (turned) {
        tile_unpack<T>(sums, N, rows, valid, {}, c + j * rows_ + i0, rows_);
        continue;
      }
      for (Index i = 0; i < rows; ++i) std::memcpy(c + (i0 + i) * columns_ + j, sums + i * N, valid * sizeof(T));
    }
  }

  Index groups_, rows_, columns_, plane_;
  const T *a_, *b_;
  std::vector<Stretch> stretches_;
  Index depth_ = 0, row_range_ = 0, row_ranges_ = 1, column_range_ = 0, column_ranges_ = 1, parts_ = 1;
  bool copies_ = false;  // some stretch has several images: all are read side by side
};

}  // namespace

template <class T>
void pointwise_weight_grad(const ConvShape& s, const T* g, const T* x, T* gw) {
  const bool strided = s.stride != Triple{1, 1, 1};
  Scratch<T> kept(strided ? s.batch * s.in_channels * s.out_plane() : 0);
  if (strided) gather_strided(s, x, kept.data()), x = kept.data();
  const Index outputs = s.out_per_group(), inputs = s.in_per_group();
  if (outputs >= inputs) SumOfProducts<T>(s.batch, s.groups, outputs, inputs, s.out_plane(), g, x).run(gw, false);
  else SumOfProducts<T>(s.batch, s.groups, inputs, outputs, s.out_plane(), x, g).run(gw, true);
}

template void pointwise_weight_grad(const ConvShape&, const float*, const float*, float*);
template void pointwise_weight_grad(const ConvShape&, const double*, const double*, double*);

}  // namespace tg
