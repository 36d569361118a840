// Forward convolution and its gradient to the input: target[o][t] = bias[o] + sum over (c, tap) of
// source[c][t * step + tap] * weight, walked in slabs.
//
// A task is a slab of positions and a range of output channels. It copies some source channels with their zeros (so
// the inner loop has no borders), multiplies them into its sums, goes on to the next channels, and at the end
// turns the sums, which lie position by position, into planes. Copy, weights and sums of a task fit in L2; nothing
// else is materialized, but where all positions fit one slab: then the copy is made ahead, for all ranges of channels.
// Tasks and the order of sums depend on shapes alone.
#include "conv_walk.h"

#include <algorithm>

#include "../core/allocator.h"
#include "conv_slab.h"
#include "conv_tile.h"
#include "gemm_tasks.h"

namespace tg {
namespace {

constexpr Index kReduceBlock = 256;  // k of one sweep over the sums: 16 KB of packed weights, half of L1 (of 768: 5 % slower)

// Weights as the inner loop reads them: per pass and block of output channels, [source channel][tap][width].
struct WeightPlan {
  Index source_channels = 0;               // of one group
  std::vector<ChannelBlock> blocks;        // of one group
  std::vector<Index> pass_offset;          // within one group
  Index group_size = 0;
};

template <class T>
class WalkConv {
 public:
  WalkConv(const Walk& walk, const ConvOperands<T>& op) : walk_(walk), op_(op) {
    plan_.source_channels = op.source_channels / op.groups;
    plan_.blocks = channel_blocks(op.target_channels / op.groups, kLanes);
    padded_channels_ = plan_.blocks.empty() ? 0 : plan_.blocks.back().first + plan_.blocks.back().width;
    for (const Pass& pass : walk.passes) {
      plan_.pass_offset.push_back(plan_.group_size);
      plan_.group_size += padded_channels_ * plan_.source_channels * static_cast<Index>(pass.taps.size());
      most_taps_ = std::max(most_taps_, static_cast<Index>(pass.taps.size()));
    }
    // As many positions as leave room for the sums of every output channel: then no copy is made twice.
    const Index room = kSumElements / std::max<Index>(1, padded_channels_);
    slabs_ = cut_slabs(walk, op.batch, std::clamp<Index>(room, 256, 1024));
    split_channels();
  }

  void run() {
    if (slabs_.empty() || plan_.blocks.empty()) return;
    // With one slab every weight is used once: its task packs it just before. Else all are packed ahead, once.
    const bool ahead = slabs_.size() > 1;
    Scratch<T> packed(ahead ? plan_.group_size * op_.groups : 0);
    if (ahead) pack_all(packed.data());
    // And every range of output channels needs the same copy of the source: it is made ahead, once.
    const SlabLayout layout(walk_, slabs_[0]);
    Scratch<T> copied(ahead ? 0 : layout.channel * op_.source_channels);
    if (!ahead) copy_all(layout, copied.data());
    const Index tasks = static_cast<Index>(slabs_.size()) * op_.groups * chunks_;
    for_each_task(tasks, [&](Index task) {
      const Index chunk = task % chunks_, group = task / chunks_ % op_.groups;
      compute(slabs_[task / chunks_ / op_.groups], group, chunk, ahead ? packed.data() : nullptr,
              ahead ? nullptr : copied.data());
    });
  }

 private:
  static constexpr Index kLanes = Lanes<T>::count;

  // How many ranges the output channels are cut into: the sums must fit, and a small batch must still
  // give every core something to do.
  void split_channels() {
    const Index blocks = static_cast<Index>(plan_.blocks.size());
    if (blocks == 0 || slabs_.empty()) return;
    Index positions = 0;
    for (const Pass& pass : walk_.passes) positions += volume(slabs_[0].clip(pass)) * slabs_[0].images + kTileRows;
    const Index fit = std::max<Index>(1, kSumElements / std::max<Index>(1, positions * 2 * kLanes));
    chunks_ = divide_up(blocks, fit);
    const Index tasks = static_cast<Index>(slabs_.size()) * op_.groups;
    const Index work = positions * tasks * plan_.source_channels * most_taps_ * padded_channels_;
    const Index wanted = std::clamp<Index>(work / (Index(1) << 22), 1, 16);
    chunks_ = std::clamp<Index>(divide_up(wanted, tasks), chunks_, blocks);
  }

  // Weights of source channels [first, first + count) of one block, for each pass: place[pass][channel][tap][width].
  void pack_weights(Index group, const ChannelBlock& block, Index first, Index count, std::vector<T*> place) const {
    const Index taps = std::min(op_.weight_source, op_.weight_target);  // of the kernel, side by side
    const T* from = op_.weight + group * op_.weight_group + block.first * op_.weight_target + first * op_.weight_source;
    const bool all = place.size() == 1 && static_cast<Index>(walk_.passes[0].weight.size()) == taps;
    if (all && op_.weight_source == taps) {  // forward: (channel, tap) lie together, a plain transpose
      tile_pack(from, op_.weight_target, count * taps, block.valid, place[0], block.width);
      return;
    }
    Scratch<T> turned(taps * block.width);
    for (Index c = 0; c < count; ++c, from += op_.weight_source) {
      tile_pack(from, op_.weight_target, taps, block.valid, turned.data(), block.width);
      for (std::size_t p = 0; p < place.size(); ++p)
        for (Index id : walk_.passes[p].weight) {
          for (Index v = 0; v < block.width; v += kLanes) tg::store(place[p] + v, load(turned.data() + id * block.width + v));
          place[p] += block.width;
        }
    }
  }

  Index packed_offset(Index group, std::size_t pass, const ChannelBlock& block, Index first) const {
    const Index taps = static_cast<Index>(walk_.passes[pass].taps.size());
    return group * plan_.group_size + plan_.pass_offset[pass] +
           (block.first * plan_.source_channels + first * block.width) * taps;
  }

  void pack_all(T* packed) const {
    const Index blocks = static_cast<Index>(plan_.blocks.size());
    for_each_task(op_.groups * blocks, [&](Index task) {
      const ChannelBlock& block = plan_.blocks[task % blocks];
      std::vector<T*> place;
      for (std::size_t p = 0; p < walk_.passes.size(); ++p)
        place.push_back(packed + packed_offset(task / blocks, p, block, 0));
      pack_weights(task / blocks, block, 0, plan_.source_channels, place);
    });
  }

  void copy_all(const SlabLayout& layout, T* copied) const {
    const PaddedCopy<T> copy(walk_, slabs_[0], layout);
    const Index grain = std::max<Index>(1, kSlabSourceBytes / Index(sizeof(T)) / std::max<Index>(1, layout.channel));
    for_each_task(divide_up(op_.source_channels, grain), [&](Index task) {
      const Index first = task * grain, count = std::min(grain, op_.source_channels - first);
      T* to = copied + first * layout.channel;
      copy.zero(to, count);
      copy.fill(op_.source + first * op_.source_plane, image_stride(), op_.source_plane, count, to);
    });
  }

  Index image_stride() const { return op_.source_channels * op_.source_plane; }

  void compute(const Slab& slab, Index group, Index chunk, const T* packed, const T* copied) const {
    const SlabLayout layout(walk_, slab);
    const Index blocks = static_cast<Index>(plan_.blocks.size());
    const Index first_block = blocks * chunk / chunks_, last_block = blocks * (chunk + 1) / chunks_;
    Index width = 0;
    for (Index b = first_block; b < last_block; ++b) width += plan_.blocks[b].width;

    const Index by_source = kSlabSourceBytes / static_cast<Index>(sizeof(T)) / std::max<Index>(1, layout.channel);
    const Index by_weight = kReduceBlock / std::max<Index>(1, most_taps_);
    const Index step = std::clamp<Index>(std::min(by_source, by_weight), 1, std::max<Index>(1, plan_.source_channels));

    std::vector<std::vector<std::int32_t>> rows(walk_.passes.size()), cols(walk_.passes.size());
    std::vector<Index> count(walk_.passes.size()), sum_offset(walk_.passes.size());
    Index sums = 0;
    for (std::size_t p = 0; p < walk_.passes.size(); ++p) {
      list_positions(slab, layout, walk_.passes[p], rows[p]);
      count[p] = static_cast<Index>(rows[p].size());
      rows[p].resize(round_up(count[p], kTileRows), 0);
      list_taps(layout, walk_.passes[p], step, cols[p]);
      sum_offset[p] = sums;
      sums += static_cast<Index>(rows[p].size()) * width;
    }
    Scratch<T> sum(sums);
    Scratch<T> source(copied ? 0 : layout.channel * step);
    const PaddedCopy<T> copy(walk_, slab, layout);
    if (!copied) copy.zero(source.data(), step);
    Scratch<T> weights(packed ? 0 : step * std::min(op_.weight_source, op_.weight_target) * 2 * kLanes);

    const T* group_source = op_.source + group * plan_.source_channels * op_.source_plane;
    for (Index c = 0; c == 0 || c < plan_.source_channels; c += step) {
      const Index channels = std::min(step, plan_.source_channels - c);
      const T* x = copied ? copied + (group * plan_.source_channels + c) * layout.channel : source.data();
      if (!copied)
        copy.fill(group_source + c * op_.source_plane, image_stride(), op_.source_plane, channels, source.data());
      Index before = 0;  // widths of the blocks before
      for (Index b = first_block; b < last_block; ++b) {
        const ChannelBlock& block = plan_.blocks[b];
        std::vector<T*> place;
        T* next = weights.data();
        for (const Pass& pass : walk_.passes) {
          place.push_back(next);
          next += channels * static_cast<Index>(pass.taps.size()) * block.width;
        }
        if (!packed) pack_weights(group, block, c, channels, place);
        for (std::size_t p = 0; p < walk_.passes.size(); ++p) {
          const Index taps = static_cast<Index>(walk_.passes[p].taps.size());
          const Index row_count = static_cast<Index>(rows[p].size());
          const T* w = packed ? packed + packed_offset(group, p, block, c) : place[p];
          tile_run(x, rows[p].data(), row_count, cols[p].data(), channels * taps, w,
                   sum.data() + sum_offset[p] + row_count * before, block.width, c > 0);
        }
        before += block.width;
      }
    }
    for (std::size_t p = 0; p < walk_.passes.size(); ++p) {
      const T* from = sum.data() + sum_offset[p];
      for (Index b = first_block; b < last_block; ++b) {
        store(slab, walk_.passes[p], group, plan_.blocks[b], from);
        from += static_cast<Index>(rows[p].size()) * plan_.blocks[b].width;
      }
    }
  }

  // From [position][channel] to planes of the target.
  void store(const Slab& slab, const Pass& pass, Index group, const ChannelBlock& block, const T* from) const {
    const Index plane = volume(walk_.target), stride = pass.stride[2];
    const Index channel = group * (op_.target_channels / op_.groups) + block.first;
    for_each_run(walk_, slab, pass, [&](Index image, Index offset, Index count) {
      const Index at = (image * op_.target_channels + channel) * plane + offset;
      const Tail<T> tail = op_.tail.at(channel, at);
      T* to = op_.target + at;
      if (stride == 1) {
        tile_unpack(from, block.width, count, block.valid, tail, to, plane);
      } else {
        for (Index c = 0; c < block.valid; ++c)
          for (Index k = 0; k < count; ++k)
            to[c * plane + k * stride] = from[k * block.width + c];  // gradients have no tail
      }
      from += count * block.width;
    });
  }

  const Walk& walk_;
  const ConvOperands<T>& op_;
  WeightPlan plan_;
  Index padded_channels_ = 0, most_taps_ = 0, chunks_ = 1;
  std::vector<Slab> slabs_;
};

}  // namespace

template <class T>
void conv_walk(const Walk& walk, const ConvOperands<T>& operands) {
  WalkConv<T>(walk, operands).run();
}

template void conv_walk(const Walk&, const ConvOperands<float>&);
template void conv_walk(const Walk&, const ConvOperands<double>&);

}  // namespace tg
