// Axes along which a convolution cuts its input into patches: windows that lie side by side, or one that is the whole axis.
#pragma once

#include "conv_shape.h"

namespace tg {

// What such an axis has inside a patch is channels in all but name, so the convolution is one of fewer taps:
//
//   x (n, c, o0 k0, o1 k1) -> (n, c k0 k1, o0, o1),   w (o, c, k0, k1) -> (o, c k0 k1, 1, 1)
//
// and axes that overlap stay as they are. Arrays are copied to that order where it isn't theirs already (an axis in front
// that is one patch is a matter of names). Examples: patch embeddings, 2x2 /2 and its transpose, text as (words, features)
// under a kernel as wide as the features.
class Patches {
 public:
  explicit Patches(const ConvShape& s);

  // For the gradient to the input, which the walk makes position by position of the patch; and for the other two, which
  // lose less and gain a copy back only where one tap is left.
  bool worthwhile() const { return worthwhile_; }
  bool worth_reading() const { return worthwhile_ && (!moves_source_ || inner_.taps() == 1); }
  const ConvShape& shape() const { return inner_; }  // the convolution that is left
  bool moves_source() const { return moves_source_; }
  bool moves_weight() const { return moves_weight_; }
  Index source_size() const { return inner_.batch * inner_.in_channels * inner_.in_plane(); }
  Index weight_size() const { return inner_.out_channels * inner_.in_per_group() * inner_.taps(); }

  // Items of 4 or 8 bytes from the order given to the inner one, and back. What no patch holds becomes zero.
  void source(Index itemsize, const void* x, void* inner) const;
  void source_back(Index itemsize, const void* inner, void* x) const;
  void weight(Index itemsize, const void* w, void* inner) const;
  void weight_back(Index itemsize, const void* inner, void* w) const;

 private:
  ConvShape outer_, inner_;
  Triple fold_{1, 1, 1};  // elements of a patch along each axis
  bool worthwhile_ = false, moves_source_ = false, moves_weight_ = false;
};

}  // namespace tg
