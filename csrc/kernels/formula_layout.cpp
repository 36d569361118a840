#include "formula_layout.h"

#include <algorithm>
#include <cstdlib>
#include <numeric>

namespace tg {
namespace formula {

void Layout::order_by(int operand) {
  std::vector<int> order(static_cast<std::size_t>(ndim_));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int a, int b) { return std::abs(stride(operand, a)) > std::abs(stride(operand, b)); });
  const std::vector<Index> shape = shape_, strides = strides_;
  for (int axis = 0; axis < ndim_; ++axis) {
    const int from = order[static_cast<std::size_t>(axis)];
    shape_[static_cast<std::size_t>(axis)] = shape[static_cast<std::size_t>(from)];
    for (int i = 0; i < operands_; ++i) stride(i, axis) = strides[static_cast<std::size_t>(i * width_ + from)];
  }
}

void Layout::collapse() {
  int kept = 0;
  for (int axis = 0; axis < ndim_; ++axis) {
    const Index size = shape_[static_cast<std::size_t>(axis)];
    if (size == 1) continue;
    bool joins = kept > 0;
    for (int i = 0; joins && i < operands_; ++i) joins = stride(i, kept - 1) == stride(i, axis) * size;
    if (joins) {
      shape_[static_cast<std::size_t>(kept - 1)] *= size;
      for (int i = 0; i < operands_; ++i) stride(i, kept - 1) = stride(i, axis);
    } else {
      shape_[static_cast<std::size_t>(kept)] = size;
      for (int i = 0; i < operands_; ++i) stride(i, kept) = stride(i, axis);
      ++kept;
    }
  }
  ndim_ = kept;
}

const Index* Layout::strides(int operand, Index item_size) const {
  Index expected = item_size;
  for (int axis = ndim_ - 1; axis >= 0; --axis) {
    if (stride(operand, axis) != expected) return strides_.data() + operand * width_;
    expected *= shape_[static_cast<std::size_t>(axis)];
  }
  return nullptr;
}

}  // namespace formula
}  // namespace tg
