// The gradient of a convolution to its weight, by the same inner loop as forward with its two indices exchanged:
// rows are (channel, tap), the sum runs over positions, and output channels lie along the vector.
//
// A task owns a range of output channels and a range of input channels, whose gradient stays in its L2, and walks the
// slabs of its part of the batch. Where there are few such ranges (small weights), the batch is cut into parts by
// shape alone, and the parts are added in their order: the same bits for any number of threads.
#include "conv_weight.h"

#include <algorithm>

#include "../core/allocator.h"
#include "conv_slab.h"
#include "conv_tile.h"
#include "gemm_tasks.h"

namespace tg {
namespace {

constexpr Index kDepth = 64;      // terms summed in registers: of 784 at once a gradient's error was 2.8 times as large
constexpr Index kLongRow = 100;  // elements of a plane that are worth reading in place

template <class T>
class WeightGrad {
 public:
  WeightGrad(const ConvShape& s, const T* g, const T* x, T* gw)
      : s_(s), g_(g), x_(x), gw_(gw), walk_(forward_walk(s)) {
    slabs_ = cut_slabs(walk_, s.batch, 1024);
    // Without padding x is read where it lies (96-24 1x1 56x56, 16 images: 2.7 times as fast), but for short rows of several
    // images: those are copied once (1024-2048 1x1 /2 14x14, 16 images: 1.3 times as fast; planes of 7x7: 1.1 times).
    in_place_ = walk_.before == Triple{0, 0, 0};
    for (const Slab& slab : slabs_) {
      const SlabLayout layout(walk_, slab);
      most_channel_ = std::max(most_channel_, layout.channel);
      if (slab.images > 1 && (walk_.step != Triple{1, 1, 1} || s.in_plane() < kLongRow)) in_place_ = false;
      most_positions_ = std::max(most_positions_, volume(slab.clip(walk_.passes[0])) * slab.images);
    }
    for (const ChannelBlock& b : channel_blocks(s.out_per_group(), kLanes)) blocks_.push_back(b);
    split();
  }

  void run() {
    const Index tiles = s_.groups * out_chunks_ * in_ranges_;
    Scratch<T> partial(parts_ * tiles * tile_size_);
    for_each_task(parts_ * tiles, [&](Index task) {
      accumulate(task % tiles, task / tiles, partial.data() + task * tile_size_);
    });
    for_each_task(tiles, [&](Index t) { finish(t, partial.data() + t * tile_size_, tiles * tile_size_); });
  }

 private:
  static constexpr Index kLanes = Lanes<T>::count;

  struct Range {
    Index group, first_block, last_block, first_in, in;
  };

  void split() {
    const Index blocks = static_cast<Index>(blocks_.size()), taps = s_.taps();
    const Index width = 2 * kLanes;
    Index range = std::max<Index>(1, kSumElements / (width * taps));
    const Index by_source = 2 * kSlabSourceBytes / Index(sizeof(T)) / std::max<Index>(1, most_channel_);
    range = std::min(range, std::max<Index>(1, by_source));
    in_ranges_ = divide_up(s_.in_per_group(), range);
    range = divide_up(s_.in_per_group(), in_ranges_);
    const Index by_sum = kSumElements / (width * round_up(range * taps, kTileRows));
    out_chunks_ = divide_up(blocks, std::max<Index>(1, by_sum));
    const Index per_chunk = divide_up(blocks, out_chunks_);
    tile_size_ = per_chunk * width * round_up(range * taps, kTileRows);
    const Index work = s_.batch * s_.out_plane() * s_.out_channels * s_.in_per_group() * taps;
    const Index wanted = std::clamp<Index>(work / (Index(1) << 22), 1, 16);
    parts_ = std::clamp<Index>(divide_up(wanted, s_.groups * out_chunks_ * in_ranges_), 1, Index(slabs_.size()));
  }

  Range range_of(Index tile) const {
    const Index in = tile % in_ranges_, out = tile / in_ranges_ % out_chunks_;
    const Index blocks = static_cast<Index>(blocks_.size()), channels = s_.in_per_group();
    const Index first_in = channels * in / in_ranges_;
    return {tile / in_ranges_ / out_chunks_, blocks * out / out_chunks_, blocks * (out + 1) / out_chunks_, first_in,
            channels * (in + 1) / in_ranges_ - first_in};
  }

  void accumulate(Index tile, Index part, T* sums) const {
    const Range r = range_of(tile);
    const Index count = static_cast<Index>(slabs_.size());
    const Index first = count * part / parts_, last = count * (part + 1) / parts_;
    const Pass& pass = walk_.passes[0];
    Scratch<T> source(in_place_ ? 0 : most_channel_ * r.in), packed(most_positions_ * 2 * kLanes);
    std::vector<std::int32_t> rows, cols;
    const Index q = r.in * s_.taps(), padded = round_up(q, kTileRows);
    for (Index i = first; i < last; ++i) {
      const Slab& slab = slabs_[i];
      const SlabLayout layout = in_place_ ? SlabLayout(walk_, s_.in_channels) : SlabLayout(walk_, slab);
      rows.clear();
      cols.clear();
      list_taps(layout, pass, r.in, rows);
      rows.resize(padded, 0);
      list_positions(slab, layout, pass, cols);
      const Index positions = static_cast<Index>(cols.size());
      const T* x = x_ + (r.group * s_.in_per_group() + r.first_in) * s_.in_plane();
      if (in_place_) {
        x += layout.start(slab);
      } else {
        const PaddedCopy<T> copy(walk_, slab, layout);
        copy.zero(source.data(), r.in);
        copy.fill(x, s_.in_channels * s_.in_plane(), s_.in_plane(), r.in, source.data());
        x = source.data();
      }
      T* to = sums;
      for (Index b = r.first_block; b < r.last_block; ++b) {
        const ChannelBlock& block = blocks_[b];
        T* line = packed.data();
        for_each_run(walk_, slab, pass, [&](Index image, Index offset, Index n) {
          const Index channel = r.group * s_.out_per_group() + block.first;
          tile_pack(g_ + (image * s_.out_channels + channel) * s_.out_plane() + offset, s_.out_plane(), n, block.valid,
                     line, block.width);
          line += n * block.width;
        });
        const Index step = divide_up(positions, divide_up(positions, kDepth));
        for (Index k = 0; k < positions; k += step)
          tile_run(x, rows.data(), padded, cols.data() + k, std::min(step, positions - k), packed.data() + k * block.width, to,
                   block.width, i > first || k > 0);
        to += padded * block.width;
      }
    }
  }

  void finish(Index tile, T* sums, Index part_stride) const {
    const Range r = range_of(tile);
    const Index q = r.in * s_.taps(), padded = round_up(q, kTileRows), row = s_.in_per_group() * s_.taps();
    Index size = 0;
    for (Index b = r.first_block; b < r.last_block; ++b) size += padded * blocks_[b].width;
    for (Index p = 1; p < parts_; ++p) {
      const T* from = sums + p * part_stride;
      for (Index i = 0; i < size; ++i) sums[i] += from[i];
    }
    for (Index b = r.first_block; b < r.last_block; ++b) {
      const ChannelBlock& block = blocks_[b];
      T* to = gw_ + (r.group * s_.out_per_group() + block.first) * row + r.first_in * s_.taps();
      tile_unpack<T>(sums, block.width, q, block.valid, {}, to, row);
      sums += padded * block.width;
    }
  }

  const ConvShape& s_;
  const T *g_, *x_;
  T* gw_;
  const Walk walk_;
  std::vector<Slab> slabs_;
  std::vector<ChannelBlock> blocks_;
  Index most_channel_ = 0, most_positions_ = 0;
  Index in_ranges_ = 1, out_chunks_ = 1, parts_ = 1, tile_size_ = 0;
  bool in_place_ = false;
};

}  // namespace

template <class T>
void conv_weight_grad_walk(const ConvShape& shape, const T* g, const T* x, T* gw) {
  WeightGrad<T>(shape, g, x, gw).run();
}

template void conv_weight_grad_walk(const ConvShape&, const float*, const float*, float*);
template void conv_weight_grad_walk(const ConvShape&, const double*, const double*, double*);

}  // namespace tg
