// Ladder, two Zen 3 cores, ms of the gradient to the input through the walk -> this -> PyTorch: (32, 1, 40, 100) by 100 kernels
// of 3x100 143 -> 1.3 -> 1.0; (16, 3, 224, 224) by 192 kernels of 16x16 /16 227 -> 7.4 -> 30; (8, 1, 64, 200) by 64 of 64x5
// 46 -> 0.7 -> 4.0; forward of the second 8.8 -> 7.4 -> 6.9, of (8, 96, 16, 16) by 192 of 2x2 /2 1.4 -> 0.9 -> 0.8.
#include "conv_patch.h"

#include <cstring>

#include "copy.h"

namespace tg {
namespace {

// The order (rows, inside patches, patches) as strides of an array (rows, lengths) whose axis a holds patches of fold[a].
struct Order {
  Index shape[7], outer[7], inner[7];

  Order(Index itemsize, Index rows, const Triple& lengths, const Triple& fold, const Triple& patches) {
    shape[0] = rows, outer[0] = volume(lengths) * itemsize;
    Index step = itemsize;
    for (int a = 2; a >= 0; step *= lengths[a--]) {
      shape[1 + a] = fold[a], outer[1 + a] = step;
      shape[4 + a] = patches[a], outer[4 + a] = step * fold[a];
    }
    step = itemsize;
    for (int i = 6; i >= 0; step *= shape[i--]) inner[i] = step;
  }
};

// Whether what is inside a patch lies behind what is not.
bool moves(const Triple& fold, const Triple& rest) {
  for (int i = 0; i < 3; ++i)
    for (int j = i; j < 3; ++j)
      if (rest[i] > 1 && fold[j] > 1) return true;
  return false;
}

}  // namespace

Patches::Patches(const ConvShape& s) : outer_(s), inner_(s) {
  if (s.taps() == 1 || s.in_channels == 0) return;
  bool whole = false;
  for (int a = 0; a < 3; ++a) {
    const bool one = s.kernel[a] == s.in[a], side_by_side = s.stride[a] == s.kernel[a] && s.dilation[a] == 1;
    if (s.kernel[a] == 1 || s.padding[a] != 0 || !(one || side_by_side)) continue;
    whole = whole || one;
    fold_[a] = s.kernel[a];
    inner_.in_channels *= s.kernel[a];
    inner_.in[a] = s.out[a];
    inner_.kernel[a] = inner_.stride[a] = inner_.dilation[a] = 1;
  }
  // one channel per group is better off with kernels of its own, but for one long column of it per position
  worthwhile_ = volume(fold_) > 1 && (s.in_per_group() > 1 || s.groups == 1 || (whole && s.out_plane() > 1));
  moves_source_ = moves(fold_, inner_.in);
  moves_weight_ = moves(fold_, inner_.kernel);
  for (int a = 0; a < 3; ++a)
    if (fold_[a] > 1 && s.in[a] != fold_[a] * s.out[a]) moves_source_ = true;
}

void Patches::source(Index itemsize, const void* x, void* inner) const {
  const Order o(itemsize, outer_.batch * outer_.in_channels, outer_.in, fold_, inner_.in);
  copy_strided(itemsize, 7, o.shape, static_cast<const char*>(x), o.outer, static_cast<char*>(inner), o.inner);
}

void Patches::source_back(Index itemsize, const void* inner, void* x) const {
  const Index rows = outer_.batch * outer_.in_channels;
  if (volume(fold_) * volume(inner_.in) != outer_.in_plane()) std::memset(x, 0, rows * outer_.in_plane() * itemsize);
  const Order o(itemsize, rows, outer_.in, fold_, inner_.in);
  copy_strided(itemsize, 7, o.shape, static_cast<const char*>(inner), o.inner, static_cast<char*>(x), o.outer);
}

void Patches::weight(Index itemsize, const void* w, void* inner) const {
  const Order o(itemsize, outer_.out_channels * outer_.in_per_group(), outer_.kernel, fold_, inner_.kernel);
  copy_strided(itemsize, 7, o.shape, static_cast<const char*>(w), o.outer, static_cast<char*>(inner), o.inner);
}

void Patches::weight_back(Index itemsize, const void* inner, void* w) const {
  const Order o(itemsize, outer_.out_channels * outer_.in_per_group(), outer_.kernel, fold_, inner_.kernel);
  copy_strided(itemsize, 7, o.shape, static_cast<const char*>(inner), o.inner, static_cast<char*>(w), o.outer);
}

}  // namespace tg
