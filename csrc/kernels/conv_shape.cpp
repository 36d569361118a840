#include "conv_shape.h"

#include <algorithm>

namespace tg {
namespace {

// The product of three lists of per-axis choices, last axis fastest, as the kernel's taps lie in memory.
template <class F>
void for_each_tap(const Triple& kernel, F f) {
  for (Index d = 0; d < kernel[0]; ++d)
    for (Index h = 0; h < kernel[1]; ++h)
      for (Index w = 0; w < kernel[2]; ++w) f(Triple{d, h, w}, (d * kernel[1] + h) * kernel[2] + w);
}

constexpr Index kMostBox = Index(1) << 20;  // elements of the padded copy of one channel, all images of a slab

Index floor_div(Index a, Index b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }

}  // namespace

Walk forward_walk(const ConvShape& s) {
  Walk walk;
  walk.source = s.in;
  walk.target = s.out;
  walk.before = s.padding;
  walk.step = s.stride;
  walk.size = s.out;
  Pass pass;
  pass.size = s.out;
  pass.stride = {1, 1, 1};
  for (int a = 0; a < 3; ++a) walk.reach[a] = (s.kernel[a] - 1) * s.dilation[a] + 1;
  for_each_tap(s.kernel, [&](const Triple& k, Index id) {
    pass.taps.push_back({k[0] * s.dilation[0], k[1] * s.dilation[1], k[2] * s.dilation[2]});
    pass.weight.push_back(id);
  });
  walk.passes.push_back(std::move(pass));
  return walk;
}

// in = out * stride - padding + k * dilation, so input position r + stride * t is reached by tap k from output
// position t + (r + padding - k * dilation) / stride, where that division leaves no remainder.
Walk input_grad_walk(const ConvShape& s) {
  Walk walk;
  walk.source = s.out;
  walk.target = s.in;
  walk.step = {1, 1, 1};
  Triple lowest{}, highest{};
  for (int a = 0; a < 3; ++a) {
    lowest[a] = floor_div(s.padding[a] - (s.kernel[a] - 1) * s.dilation[a], s.stride[a]);
    highest[a] = floor_div(s.stride[a] - 1 + s.padding[a], s.stride[a]);
    walk.before[a] = -lowest[a];
    walk.reach[a] = highest[a] - lowest[a] + 1;
    walk.size[a] = (s.in[a] + s.stride[a] - 1) / s.stride[a];
  }
  for_each_tap(s.stride, [&](const Triple& r, Index) {
    Pass pass;
    for (int a = 0; a < 3; ++a) {
      if (r[a] >= s.in[a]) return;
      pass.size[a] = (s.in[a] - r[a] + s.stride[a] - 1) / s.stride[a];
    }
    pass.start = r;
    pass.stride = s.stride;
    for_each_tap(s.kernel, [&](const Triple& k, Index id) {
      Triple offset{};
      for (int a = 0; a < 3; ++a) {
        Index distance = r[a] + s.padding[a] - k[a] * s.dilation[a];
        if (distance % s.stride[a] != 0) return;
        offset[a] = distance / s.stride[a] - lowest[a];
      }
      pass.taps.push_back(offset);
      pass.weight.push_back(id);
    });
    walk.passes.push_back(std::move(pass));
  });
  return walk;
}

std::vector<Slab> cut_slabs(const Walk& w, Index batch, Index target) {
  // Positions of one image over all passes, relative to the box of the largest pass.
  Index factor = static_cast<Index>(w.passes.size());
  Index image = std::max<Index>(1, volume(w.size) * factor);
  std::vector<Slab> slabs;
  if (image <= target) {
    Index groups = (batch * image + target - 1) / target;
    // A large dilation makes a small output read a large box.
    groups = std::max(groups, batch * reached(w) / kMostBox);
    groups = std::min(batch, std::max<Index>(1, groups));
    for (Index g = 0; g < groups; ++g) {
      Index lo = batch * g / groups, hi = batch * (g + 1) / groups;
      slabs.push_back({lo, hi - lo, {0, 0, 0}, w.size});
    }
    return slabs;
  }
  // Too large for one slab: bands along the outermost axes, as thick as the rest allows.
  Triple bands{1, 1, 1};
  Index inner = image;
  for (int a = 0; a < 3; ++a) {
    inner /= std::max<Index>(1, w.size[a]);
    Index thick = std::clamp<Index>(target / std::max<Index>(1, inner), 1, std::max<Index>(1, w.size[a]));
    bands[a] = (w.size[a] + thick - 1) / thick;
    if (thick > 1) break;
  }
  auto cut = [&](int a, Index i) { return w.size[a] * i / bands[a]; };
  for (Index n = 0; n < batch; ++n)
    for_each_tap(bands, [&](const Triple& b, Index) {
      Slab slab{n, 1, {}, {}};
      for (int a = 0; a < 3; ++a) {
        slab.first[a] = cut(a, b[a]);
        slab.size[a] = cut(a, b[a] + 1) - slab.first[a];
      }
      slabs.push_back(slab);
    });
  return slabs;
}

}  // namespace tg
