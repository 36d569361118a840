// What the forward and the weight-gradient kernel do alike: copy a slab's source with its zeros, list its offsets.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "conv_shape.h"
#include "gemm_tasks.h"

namespace tg {

// What a task holds: bytes of its copy of the source, and sums. With a block of packed weights they fill one core's L2
// (1 MB where measured).
constexpr Index kSlabSourceBytes = 256 * 1024;
constexpr Index kSumElements = 64 * 1024;

struct SlabLayout {
  Triple box{};       // lengths of the copy of one image and channel
  Triple copy_step{}; // from one copied element to the next in the padded source
  Triple step{};      // from one position to the next in the copy
  Index plane = 0;    // elements of one box
  Index channel = 0;  // elements from one channel to the next: all images of the slab, kept off powers of two

  SlabLayout(const Walk& walk, const Slab& slab) : box(slab.box(walk)) {
    for (int a = 0; a < 3; ++a) {
      // where the kernel has one tap, what the stride skips is not copied
      const bool skips = walk.reach[a] == 1;
      copy_step[a] = skips ? walk.step[a] : 1;
      step[a] = skips ? 1 : walk.step[a];
      if (skips) box[a] = slab.size[a];
    }
    plane = volume(box);
    channel = plane * slab.images;
    if (channel % 64 == 0) channel += 16;  // or every channel would fall into the same few sets of L1
  }

  // Of a source without padding that is read where it lies.
  SlabLayout(const Walk& walk, Index source_channels)
      : box(walk.source), copy_step{1, 1, 1}, step(walk.step), plane(source_channels * volume(walk.source)),
        channel(volume(walk.source)) {}

  // The first element that a slab reads of it.
  Index start(const Slab& slab) const {
    Index at = slab.first_image * plane;
    at += (slab.first[0] * step[0] * box[1] + slab.first[1] * step[1]) * box[2] + slab.first[2] * step[2];
    return at;
  }
};

// Copies a slab's part of the padded source: dst[channel][image][box]. The zeros lie in the same places for every
// channel, so they are written once and the copies only fill what lies inside.
template <class T>
class PaddedCopy {
 public:
  PaddedCopy(const Walk& walk, const Slab& slab, const SlabLayout& layout) : slab_(slab), layout_(layout) {
    Triple origin{};
    for (int a = 0; a < 3; ++a) {
      const Index step = layout.copy_step[a];
      origin[a] = slab.first[a] * walk.step[a] - walk.before[a];
      first_[a] = std::clamp<Index>(origin[a] >= 0 ? 0 : divide_up(-origin[a], step), 0, layout.box[a]);
      const Index inside = walk.source[a] - origin[a];
      last_[a] = std::clamp<Index>(inside <= 0 ? 0 : divide_up(inside, step), first_[a], layout.box[a]);
      from_[a] = origin[a] + first_[a] * step;
    }
    row_ = layout.copy_step[1] * walk.source[2];
    depth_ = layout.copy_step[0] * walk.source[1] * walk.source[2];
    offset_ = (from_[0] * walk.source[1] + from_[1]) * walk.source[2] + from_[2];
    place_ = (first_[0] * layout.box[1] + first_[1]) * layout.box[2] + first_[2];
    padded_ = first_ != Triple{0, 0, 0} || last_ != layout.box;
  }

  void zero(T* dst, Index channels) const {
    if (padded_) std::fill_n(dst, layout_.channel * channels, T(0));
  }

  // `source` at the first channel of the first image of the batch.
  void fill(const T* source, Index image_stride, Index channel_stride, Index channels, T* dst) const {
    const Index length = last_[2] - first_[2];
    constexpr Index wide = 64 / sizeof(T), half = 32 / sizeof(T), quarter = 16 / sizeof(T);
    if (layout_.copy_step[2] != 1) planes<0>(source, image_stride, channel_stride, channels, dst);
    else if (length >= wide) planes<wide>(source, image_stride, channel_stride, channels, dst);
    else if (length >= half) planes<half>(source, image_stride, channel_stride, channels, dst);
    else if (length >= quarter) planes<quarter>(source, image_stride, channel_stride, channels, dst);
    else planes<0>(source, image_stride, channel_stride, channels, dst);
  }

 private:
  // Rows are short (4 to 64 elements), so a call of memcpy for each would cost more than its bytes: pieces of a fixed
  // size, the last overlapping the one before; 0 copies one by one.
  template <Index Piece>
  void planes(const T* source, Index image_stride, Index channel_stride, Index channels, T* dst) const {
    const Index length = last_[2] - first_[2], rows = last_[1] - first_[1], depths = last_[0] - first_[0];
    const Index step = layout_.copy_step[2], width = layout_.box[2], row = row_;
    source += slab_.first_image * image_stride + offset_;
    dst += place_;
    for (Index c = 0; c < channels; ++c)
      for (Index n = 0; n < slab_.images; ++n)
        for (Index d = 0; d < depths; ++d) {
          const T* from = source + c * channel_stride + n * image_stride + d * depth_;
          T* to = dst + c * layout_.channel + n * layout_.plane + d * layout_.box[1] * width;
          for (Index h = 0; h < rows; ++h, from += row, to += width) {
            if constexpr (Piece == 0) {
              for (Index i = 0; i < length; ++i) to[i] = from[i * step];
            } else {
              for (Index i = Piece; i < length; i += Piece)
                std::memcpy(to + i - Piece, from + i - Piece, Piece * sizeof(T));
              std::memcpy(to + length - Piece, from + length - Piece, Piece * sizeof(T));
            }
          }
        }
  }

  const Slab& slab_;
  const SlabLayout& layout_;
  Triple first_{}, last_{}, from_{};
  Index row_ = 0, depth_ = 0, offset_ = 0, place_ = 0;
  bool padded_ = false;
};

// Offsets, in one channel of the copy, of the positions of a pass inside a slab: images outermost.
inline void list_positions(const Slab& slab, const SlabLayout& layout, const Pass& pass,
                           std::vector<std::int32_t>& out) {
  const Triple n = slab.clip(pass);
  for (Index i = 0; i < slab.images; ++i)
    for (Index d = 0; d < n[0]; ++d)
      for (Index h = 0; h < n[1]; ++h)
        for (Index w = 0; w < n[2]; ++w)
          out.push_back(static_cast<std::int32_t>(
              i * layout.plane + (d * layout.step[0] * layout.box[1] + h * layout.step[1]) * layout.box[2] +
              w * layout.step[2]));
}

// Offsets of (channel, tap) for `channels` channels of the copy, taps fastest.
inline void list_taps(const SlabLayout& layout, const Pass& pass, Index channels, std::vector<std::int32_t>& out) {
  for (Index c = 0; c < channels; ++c)
    for (const Triple& t : pass.taps) {
      const Index tap = (t[0] * layout.box[1] + t[1]) * layout.box[2] + t[2];
      out.push_back(static_cast<std::int32_t>(c * layout.channel + tap));
    }
}

// Calls f(image, offset, count) for runs of positions in the order of list_positions: `offset` is the first one's place
// in a plane of the target, the others follow at the pass's stride along the last axis.
template <class F>
void for_each_run(const Walk& walk, const Slab& slab, const Pass& pass, F f) {
  const Triple n = slab.clip(pass);
  if (volume(n) == 0) return;
  const Triple& size = walk.target;
  auto at = [&](Index d, Index h) {
    return ((pass.start[0] + (slab.first[0] + d) * pass.stride[0]) * size[1] + pass.start[1] +
            (slab.first[1] + h) * pass.stride[1]) * size[2] + pass.start[2] + slab.first[2] * pass.stride[2];
  };
  const bool rows = pass.stride == Triple{1, 1, 1} && n[2] == size[2], planes = rows && n[1] == size[1];
  for (Index i = 0; i < slab.images; ++i) {
    const Index image = slab.first_image + i;
    if (planes) {
      f(image, at(0, 0), volume(n));
    } else if (rows) {
      for (Index d = 0; d < n[0]; ++d) f(image, at(d, 0), n[1] * n[2]);
    } else {
      for (Index d = 0; d < n[0]; ++d)
        for (Index h = 0; h < n[1]; ++h) f(image, at(d, h), n[2]);
    }
  }
}

// Output channels in blocks of two vectors, the last of one where one is enough.
struct ChannelBlock {
  Index first, valid, width;
};

inline std::vector<ChannelBlock> channel_blocks(Index channels, Index lanes) {
  std::vector<ChannelBlock> blocks;
  for (Index c = 0; c < channels;) {
    const Index left = channels - c, width = left > lanes ? 2 * lanes : lanes;
    blocks.push_back({c, std::min(left, width), width});
    c += width;
  }
  return blocks;
}

}  // namespace tg
