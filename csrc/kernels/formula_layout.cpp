#include "formula_layout.h"

#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <utility>

namespace tg {
namespace formula {

void Layout::roll(int operand, const Index* shifts) {
  shifts_.resize(strides_.size());
  for (int axis = 0; axis < ndim_; ++axis) {
    const Index size = std::max<Index>(shape_[static_cast<std::size_t>(axis)], 1);
    shift(operand, axis) = (shifts[axis] % size + size) % size;
  }
}

void Layout::order_by(int operand) {
  std::vector<int> order(static_cast<std::size_t>(ndim_));
  std::iota(order.begin(), order.end(), 0);
  for (std::size_t k = 1; k < order.size(); ++k)  // stable, of a few
    for (std::size_t at = k; at > 0 && std::abs(stride(operand, order[at - 1])) < std::abs(stride(operand, order[at])); --at)
      std::swap(order[at - 1], order[at]);
  const std::vector<Index> shape = shape_, strides = strides_, shifts = shifts_;
  for (int axis = 0; axis < ndim_; ++axis) {
    const int from = order[static_cast<std::size_t>(axis)];
    shape_[static_cast<std::size_t>(axis)] = shape[static_cast<std::size_t>(from)];
    for (int i = 0; i < operands_; ++i) {
      stride(i, axis) = strides[static_cast<std::size_t>(i * width_ + from)];
      if (!shifts.empty()) shift(i, axis) = shifts[static_cast<std::size_t>(i * width_ + from)];
    }
  }
}

void Layout::collapse() {
  const int rolls = shifts_.empty() ? 0 : operands_;
  int kept = 0;
  for (int axis = 0; axis < ndim_; ++axis) {
    const Index size = shape_[static_cast<std::size_t>(axis)];
    if (size == 1) continue;
    bool joins = kept > 0;
    for (int i = 0; joins && i < operands_; ++i) joins = stride(i, kept - 1) == stride(i, axis) * size;
    for (int i = 0; joins && i < rolls; ++i) joins = shift(i, axis) == 0;
    if (joins) {
      shape_[static_cast<std::size_t>(kept - 1)] *= size;
      for (int i = 0; i < operands_; ++i) stride(i, kept - 1) = stride(i, axis);
      for (int i = 0; i < rolls; ++i) shift(i, kept - 1) *= size;
    } else {
      shape_[static_cast<std::size_t>(kept)] = size;
      for (int i = 0; i < operands_; ++i) stride(i, kept) = stride(i, axis);
      for (int i = 0; i < rolls; ++i) shift(i, kept) = shift(i, axis);
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

bool Layout::rolled(int operand) const {
  if (shifts_.empty()) return false;
  const Index* mine = shifts_.data() + operand * width_;
  return std::any_of(mine, mine + ndim_, [](Index shift) { return shift != 0; });
}

const Index* Layout::shifts(int operand) const { return rolled(operand) ? shifts_.data() + operand * width_ : nullptr; }

}  // namespace formula
}  // namespace tg
