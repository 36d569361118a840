#include "formula_layout.h"

#include <algorithm>
#include <cstdlib>
#include <numeric>

namespace tg {
namespace formula {

void Layout::roll(int operand, const Index* shifts) {
  if (shifts_.empty()) shifts_.resize(strides_.size()), rolled_.resize(static_cast<std::size_t>(operands_));
  rolled_[static_cast<std::size_t>(operand)] = true;
  std::copy(shifts, shifts + ndim_, &shift(operand, 0));
}

void Layout::order_by(int operand) {
  std::vector<int> order(static_cast<std::size_t>(ndim_));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int a, int b) { return std::abs(stride(operand, a)) > std::abs(stride(operand, b)); });
  const std::vector<Index> shape = shape_, strides = strides_, shifts = shifts_;
  for (int axis = 0; axis < ndim_; ++axis) {
    const int from = order[static_cast<std::size_t>(axis)];
    shape_[static_cast<std::size_t>(axis)] = shape[static_cast<std::size_t>(from)];
    for (int i = 0; i < operands_; ++i) {
      stride(i, axis) = strides[static_cast<std::size_t>(i * width_ + from)];
      if (rolled(i)) shift(i, axis) = shifts[static_cast<std::size_t>(i * width_ + from)];
    }
  }
}

void Layout::collapse() {
  int kept = 0;
  for (int axis = 0; axis < ndim_; ++axis) {
    const Index size = shape_[static_cast<std::size_t>(axis)];
    if (size == 1) continue;
    bool joins = kept > 0;
    for (int i = 0; joins && i < operands_; ++i)
      joins = stride(i, kept - 1) == stride(i, axis) * size && !(rolled(i) && shift(i, axis));
    if (joins) {
      shape_[static_cast<std::size_t>(kept - 1)] *= size;
      for (int i = 0; i < operands_; ++i) {
        stride(i, kept - 1) = stride(i, axis);
        if (rolled(i)) shift(i, kept - 1) *= size;
      }
    } else {
      shape_[static_cast<std::size_t>(kept)] = size;
      for (int i = 0; i < operands_; ++i) {
        stride(i, kept) = stride(i, axis);
        if (rolled(i)) shift(i, kept) = shift(i, axis);
      }
      ++kept;
    }
  }
  ndim_ = kept;
}

const Index* Layout::strides(int operand, Index item_size) const {
  if (rolled(operand)) return strides_.data() + operand * width_;
  Index expected = item_size;
  for (int axis = ndim_ - 1; axis >= 0; --axis) {
    if (stride(operand, axis) != expected) return strides_.data() + operand * width_;
    expected *= shape_[static_cast<std::size_t>(axis)];
  }
  return nullptr;
}

const Index* Layout::shifts(int operand) const { return rolled(operand) ? shifts_.data() + operand * width_ : nullptr; }

}  // namespace formula
}  // namespace tg
