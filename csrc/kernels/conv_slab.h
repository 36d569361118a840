// What the forward and the weight-gradient kernel do alike: copy a slab's source with its zeros, list its offsets.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "../core/allocator.h"
#include "conv_shape.h"

namespace tg {

// What a task holds: bytes of its copy of the source, and sums. With a block of packed weights they fill one core's L2
// (1 MB where measured).
constexpr Index kSlabSourceBytes = 256 * 1024;
constexpr Index kSumElements = 64 * 1024;

struct SlabLayout {
  Triple box{};
  Index plane = 0;    // elements of one padded box
  Index channel = 0;  // elements from one channel to the next: all images of the slab, kept off powers of two

  SlabLayout(const Walk& walk, const Slab& slab) : box(slab.box(walk)), plane(volume(box)) {
    channel = plane * slab.images;
    if (channel % 64 == 0) channel += 16;  // or every channel would fall into the same few sets of L1
  }
};

// Rows are short (4 to 64 elements), so a call of memcpy for each would cost more than its bytes: fixed sizes, the last
// overlapping the one before.
template <class T>
inline void copy_row(T* to, const T* from, Index n) {
  constexpr Index wide = 64 / sizeof(T), half = 32 / sizeof(T), quarter = 16 / sizeof(T);
  if (n >= wide) {
    for (Index i = 0; i + wide <= n; i += wide) std::memcpy(to + i, from + i, 64);
    std::memcpy(to + n - wide, from + n - wide, 64);
  } else if (n >= half) {
    std::memcpy(to, from, 32);
    std::memcpy(to + n - half, from + n - half, 32);
  } else if (n >= quarter) {
    std::memcpy(to, from, 16);
    std::memcpy(to + n - quarter, from + n - quarter, 16);
  } else {
    for (Index i = 0; i < n; ++i) to[i] = from[i];
  }
}

// A slab's copy of the padded source. The zeros lie in the same places for every channel, so they are written once.
template <class T>
class PaddedSource {
 public:
  PaddedSource(Index capacity) : data_(capacity) {}
  const T* data() const { return data_.data(); }

  // Prepares for a slab of this layout and at most `channels` channels at a time.
  void start(const Walk& walk, const Slab& slab, const SlabLayout& layout, Index channels) {
    for (int a = 0; a < 3; ++a) {
      origin_[a] = slab.first[a] * walk.step[a] - walk.before[a];
      first_[a] = std::clamp<Index>(-origin_[a], 0, layout.box[a]);
      last_[a] = std::clamp<Index>(walk.source[a] - origin_[a], first_[a], layout.box[a]);
    }
    const bool padded = first_ != Triple{0, 0, 0} || last_ != layout.box;
    if (padded) std::fill_n(data_.data(), layout.channel * channels, T(0));
  }

  // data[channel][image][box] = source channels [first, first + count) of each image.
  void fill(const T* source, Index image_stride, Index channel_stride, Index first, Index count, const Walk& walk,
            const Slab& slab, const SlabLayout& layout) {
    const Index length = last_[2] - first_[2];
    const bool rows_joined = length == layout.box[2] && length == walk.source[2];
    for (Index c = 0; c < count; ++c)
      for (Index n = 0; n < slab.images; ++n) {
        const T* plane = source + (slab.first_image + n) * image_stride + (first + c) * channel_stride;
        T* to = data_.data() + c * layout.channel + n * layout.plane;
        for (Index d = first_[0]; d < last_[0]; ++d) {
          const T* from = plane + ((origin_[0] + d) * walk.source[1] + origin_[1] + first_[1]) * walk.source[2] +
                          origin_[2] + first_[2];
          T* line = to + (d * layout.box[1] + first_[1]) * layout.box[2] + first_[2];
          const Index rows = last_[1] - first_[1];
          if (rows_joined) {
            copy_row(line, from, rows * length);
          } else {
            for (Index h = 0; h < rows; ++h, line += layout.box[2], from += walk.source[2]) copy_row(line, from, length);
          }
        }
      }
  }

 private:
  Scratch<T> data_;
  Triple origin_{}, first_{}, last_{};
};

// Offsets, in one channel of the copy, of the positions of a pass inside a slab: images outermost.
inline void list_positions(const Walk& walk, const Slab& slab, const SlabLayout& layout, const Pass& pass,
                           std::vector<std::int32_t>& out) {
  const Triple n = slab.clip(pass);
  for (Index i = 0; i < slab.images; ++i)
    for (Index d = 0; d < n[0]; ++d)
      for (Index h = 0; h < n[1]; ++h)
        for (Index w = 0; w < n[2]; ++w)
          out.push_back(static_cast<std::int32_t>(
              i * layout.plane + (d * walk.step[0] * layout.box[1] + h * walk.step[1]) * layout.box[2] +
              w * walk.step[2]));
}

// Offsets of (channel, tap) for `channels` channels of the copy, taps fastest.
inline void list_taps(const SlabLayout& layout, const Pass& pass, Index channels, std::vector<std::int32_t>& out) {
  for (Index c = 0; c < channels; ++c)
    for (const Triple& t : pass.taps)
      out.push_back(static_cast<std::int32_t>(c * layout.channel + (t[0] * layout.box[1] + t[1]) * layout.box[2] + t[2]));
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
