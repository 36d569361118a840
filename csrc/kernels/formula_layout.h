// How the arrays of one call lie in the shape that they are broadcast to.
#pragma once

#include <vector>

#include "formula.h"

namespace tg {
namespace formula {

// Fewest dimensions that describe all operands together: axes of size 1 dropped, neighbours merged where every operand
// runs on from one into the other. Given outputs set the order of the axes, so that they are written as they lie.
class Layout {
 public:
  Layout(const Index* shape, int ndim, int operands)
      : ndim_(ndim), operands_(operands), shape_(shape, shape + ndim), strides_(static_cast<std::size_t>(operands * ndim)) {}

  // The array's axes are the last of the shape's, its sizes those of the shape or 1.
  template <class Size>  // Index, or what NumPy counts in
  void place(int operand, const Size* sizes, const Size* strides, int ndim) {
    for (int axis = 0; axis < ndim; ++axis)
      stride(operand, ndim_ - ndim + axis) = sizes[axis] == 1 ? 0 : static_cast<Index>(strides[axis]);
  }
  // By how much an operand of the shape's own axes is rolled along each.
  void roll(int operand, const Index* shifts);
  // Where the output lies in memory says in which order to walk.
  void order_by(int operand);
  void collapse();

  int ndim() const { return ndim_; }
  const Index* shape() const { return shape_.data(); }
  // The operand's strides, or null if it is one contiguous run.
  const Index* strides(int operand, Index item_size) const;
  // Null if it is not rolled.
  const Index* shifts(int operand) const;

 private:
  bool rolled(int operand) const;
  Index& stride(int operand, int axis) { return strides_[static_cast<std::size_t>(operand * width_ + axis)]; }
  Index& shift(int operand, int axis) { return shifts_[static_cast<std::size_t>(operand * width_ + axis)]; }
  Index stride(int operand, int axis) const { return strides_[static_cast<std::size_t>(operand * width_ + axis)]; }

  int ndim_, width_ = ndim_, operands_;
  std::vector<Index> shape_, strides_;
  std::vector<Index> shifts_;  // as the strides; empty where no operand is rolled
};

}  // namespace formula
}  // namespace tg
