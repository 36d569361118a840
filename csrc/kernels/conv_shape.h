// The geometry of a convolution, and of the walks over it that the kernels share.
//
// One or two spatial axes are three with length 1 in front, so every kernel is written once.
#pragma once

#include <array>
#include <vector>

#include "../core/dtype.h"

namespace tg {

using Triple = std::array<Index, 3>;

inline Index volume(const Triple& t) { return t[0] * t[1] * t[2]; }

struct ConvShape {
  Index batch = 0, groups = 1, in_channels = 0, out_channels = 0;
  Triple in{1, 1, 1}, out{1, 1, 1}, kernel{1, 1, 1}, stride{1, 1, 1}, padding{0, 0, 0}, dilation{1, 1, 1};

  Index taps() const { return volume(kernel); }
  Index in_plane() const { return volume(in); }
  Index out_plane() const { return volume(out); }
  Index in_per_group() const { return in_channels / groups; }
  Index out_per_group() const { return out_channels / groups; }
};

// One pass over output positions. Position t of the pass reads, for tap j, the padded source at t * step + taps[j]
// and writes the target at start + t * stride.
struct Pass {
  Triple size{};                // positions along each axis
  Triple start{}, stride{};     // where they lie in the target
  std::vector<Triple> taps;     // offsets into the padded source
  std::vector<Index> weight;    // index of each tap in the kernel
};

// A convolution as reads from a padded copy of its source. Forward is one pass; the gradient to the input of a
// convolution with stride s is a pass of unit step for each remainder modulo s, so nothing is ever scattered.
struct Walk {
  Triple source{}, target{};  // unpadded lengths
  Triple before{};            // zeros in front of the source along each axis; negative crops
  Triple step{};              // of the source per position
  Triple reach{};             // taps lie in [0, reach)
  Triple size{};              // the largest pass along each axis
  std::vector<Pass> passes;
};

Walk forward_walk(const ConvShape& s);
Walk input_grad_walk(const ConvShape& s);

// A part of the work small enough for a core's cache: some images, and a box of positions in each.
struct Slab {
  Index first_image = 0, images = 0;
  Triple first{}, size{};  // positions, the same box for every pass (clipped to the pass's own size)

  // Lengths of the padded source box this slab reads.
  Triple box(const Walk& w) const {
    Triple b{};
    for (int a = 0; a < 3; ++a) b[a] = (size[a] - 1) * w.step[a] + w.reach[a];
    return b;
  }
  // Positions of `pass` inside this slab, per axis.
  Triple clip(const Pass& pass) const {
    Triple c{};
    for (int a = 0; a < 3; ++a) c[a] = std::max<Index>(0, std::min(first[a] + size[a], pass.size[a]) - first[a]);
    return c;
  }
};

// Elements of the padded source that a walk reads of a channel.
inline Index reached(const Walk& w) { return volume(Slab{0, 1, {0, 0, 0}, w.size}.box(w)); }

// Cuts a walk over `batch` images into slabs of about `target` positions; depends on shapes alone.
std::vector<Slab> cut_slabs(const Walk& w, Index batch, Index target);

}  // namespace tg
