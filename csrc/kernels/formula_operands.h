// Where a formula's operands lie as its blocks are walked: in place, one value for a row, the same again and again, or
// elsewhere, to be moved. For formula_run.cpp.
#pragma once

#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

#include "formula.h"
#include "formula_course.h"

namespace tg {
namespace formula {

// Whether an item of this size may be read as a number of its type at this address and stride.
inline bool fits_in_place(const Operand& operand, Index stride, int size) { return operand.aligned && stride == size; }

class PlacedOperands {
 protected:
  static constexpr Index kWholeVectors = 16;  // elements that leave none for a last vector

  // `operands` has the inputs, and the outputs where results are stored.
  PlacedOperands(const Program& program, const Operand* operands, int ndim, const Index* shape, bool defer, bool stores)
      : p_(program), operands_(operands), ndim_(ndim), shape_(shape), defer_(defer), block_(program.block_) {
    for (int i = 0; i < ndim; ++i) total_ *= shape[i];
    inner_ = ndim ? shape[ndim - 1] : 1;
    ports_ = static_cast<int>(p_.ports_.size());
    given_ = stores ? ports_ : p_.input_count();
  }

  bool repeats_rows() const {
    if (defer_ || 2 * inner_ > block_) return false;
    for (int i = 0; i < given_; ++i) {
      const Index* strides = p_.ports_[i].varies ? operands_[i].strides : nullptr;
      if (!strides) continue;
      if (i >= p_.input_count() || strides[ndim_ - 1] != p_.ports_[i].item_size) return false;
      if (std::any_of(strides, strides + ndim_ - 1, [](Index stride) { return stride != 0; })) return false;
    }
    return true;
  }

  // Whether what is not contiguous is one row, again and again: kept beside the block it costs less than a block for each row
  // (two squared distances from a row of 512, 2048 times: 139 us by rows, so 112).
  bool only_repeats() const { return p_.body_.size() != 1 && repeats_rows(); }

  bool rolls_rows() const {
    for (int i = 0; i < p_.input_count(); ++i)
      if (p_.ports_[i].varies && operands_[i].shifts && operands_[i].shifts[ndim_ - 1]) return true;
    return false;
  }

  bool has_row_value() const {
    for (int i = 0; i < p_.input_count() && ndim_; ++i)
      if (p_.ports_[i].varies && operands_[i].strides && operands_[i].strides[ndim_ - 1] == 0) return true;
    return false;
  }

  // Inputs that do not change along a row and of which every reader has a loop for one value: they need no copies.
  void find_row_values(bool compiles) {
    const int inputs = std::min(p_.input_count(), 64);
    for (int i = 0; i < inputs; ++i) {
      const Operand& operand = operands_[i];
      if (p_.ports_[i].varies && operand.strides && operand.strides[ndim_ - 1] == 0 && operand.aligned)
        row_values_ |= std::uint64_t(1) << i;
    }
    if (!row_values_) return;
    for (bool again = true; again;) {
      again = false;
      steps_ = p_.body_;
      for (std::size_t at = 0; at < steps_.size(); ++at) {
        if (compiles && p_.is_compiled(static_cast<int>(at))) continue;
        Step& s = steps_[at];
        const int slots[] = {s.a, s.b, s.c}, count = s.kernel ? s.kernel->operands : 1;
        int mask = s.mask;
        for (int j = 0; j < count; ++j) mask |= is_row_value(slots[j]) << j;
        if (mask == s.mask) continue;
        if (s.kernel && !s.kernel->by_mask[mask] && s.kernel->swaps && (mask & 3) == 1) {
          std::swap(s.a, s.b);
          mask ^= 3;
        }
        if (s.kernel && s.kernel->by_mask[mask]) {
          s.loop = s.kernel->by_mask[mask];
          continue;
        }
        for (int j = 0; j < count; ++j)
          if (is_row_value(slots[j])) row_values_ &= ~(std::uint64_t(1) << slots[j]);
        again = true;
      }
    }
    body_ = &steps_;
  }

  bool all_in_place() const {
    for (int i = 0; i < given_; ++i) {
      const Program::Port& port = p_.ports_[i];
      const Operand& operand = operands_[i];
      if (!port.varies || is_row_value(i)) continue;
      if (operand.shifts) return false;
      if (operand.strides ? !fits_in_place(operand, operand.strides[ndim_ - 1], port.item_size) : !operand.aligned) return false;
    }
    return true;
  }
  bool is_row_value(int slot) const { return slot < 64 && (row_values_ >> slot & 1); }

  // Where a port's n elements lie one after the other; null if they do not.
  char* in_place(int i, Index first, const Index* at, Index n) const {
    const Operand& operand = operands_[i];
    const Index size = p_.ports_[i].item_size;
    if (!operand.strides) return operand.aligned ? operand.data + first * size : nullptr;
    if (by_rows_ && operand.shifts) return in_rolled_row(operand, at, n, size);
    if (by_rows_) return fits_in_place(operand, operand.strides[ndim_ - 1], size) ? operand.data + offset(operand, at) : nullptr;
    return courses_[static_cast<std::size_t>(course_of_[static_cast<std::size_t>(i)])].in_place(first, n);
  }

  __attribute__((noinline)) char* in_rolled_row(const Operand& operand, const Index* at, Index n, Index size) const {
    const Index from = back(at[ndim_ - 1], operand.shifts[ndim_ - 1], inner_);
    if (from + n > inner_ || !fits_in_place(operand, operand.strides[ndim_ - 1], size)) return nullptr;
    Index bytes = from * size;
    for (int d = 0; d + 1 < ndim_; ++d) bytes += back(at[d], operand.shifts[d], shape_[d]) * operand.strides[d];
    return operand.data + bytes;
  }

  // n elements from number `first` on into packed memory, or back.
  void move(int i, Index first, Index n, char* packed, bool in) const {
    const Operand& operand = operands_[i];
    const Index size = p_.ports_[i].item_size;
    if (operand.strides)
      return courses_[static_cast<std::size_t>(course_of_[static_cast<std::size_t>(i)])].move(first, n, packed, in);
    char* here = operand.data + first * size;
    std::memcpy(in ? packed : here, in ? here : packed, static_cast<std::size_t>(n * size));
  }

  void find_courses(int ports) {
    course_of_.assign(static_cast<std::size_t>(ports), -1);
    for (int i = 0; i < ports; ++i) {
      if (!p_.ports_[i].varies || !operands_[i].strides) continue;
      course_of_[static_cast<std::size_t>(i)] = static_cast<int>(courses_.size());
      courses_.emplace_back(operands_[i], p_.ports_[i].item_size, ndim_, shape_);
    }
  }

  // Inputs that come again after a few elements are the same in each block, where blocks are multiples of that: they are
  // gathered once for a stretch. (A sum of 8 products of (16, 1016, 1) with (16,) takes 0.2 ms so instead of 0.65.)
  void find_repeated() {
    if (by_rows_ || defer_) return;
    Index together = 1;
    for (int i = 0; i < std::min(p_.input_count(), 64); ++i) {
      const int course = course_of_[static_cast<std::size_t>(i)];
      const Index period = course < 0 ? 0 : courses_[static_cast<std::size_t>(course)].period();
      if (period == 0 || std::lcm(together, period) > block_) continue;
      together = std::lcm(together, period);
      repeated_ |= std::uint64_t(1) << i;
    }
    period_ = together;
    if (const Index whole = std::lcm(together, kWholeVectors); whole <= block_) together = whole;
    block_ -= block_ % together;
  }
  bool is_repeated(int slot) const { return slot < 64 && (repeated_ >> slot & 1); }

  void locate(Index first, Index* at) const {
    for (int d = ndim_ - 1; d >= 0; --d) {
      at[d] = first % shape_[d];
      first /= shape_[d];
    }
  }

  void advance(Index* at, Index n) const {
    for (int d = ndim_ - 1; d >= 0 && n; --d) {
      at[d] += n;
      n = 0;
      if (at[d] < shape_[d]) return;
      if (by_rows_) at[d] = 0, n = 1;  // blocks end with rows
      else n = at[d] / shape_[d], at[d] %= shape_[d];
    }
  }

  Index offset(const Operand& operand, const Index* at) const {
    Index bytes = 0;
    for (int d = 0; d < ndim_; ++d) bytes += at[d] * operand.strides[d];
    return bytes;
  }

  const Program& p_;
  const Operand* operands_;
  int ndim_, ports_ = 0, given_ = 0;
  const Index* shape_;
  bool defer_, by_rows_ = false;
  Index total_ = 1, inner_ = 1, block_;
  std::uint64_t row_values_ = 0;  // by input
  std::uint64_t repeated_ = 0;    // likewise
  Index period_ = 1;              // of all of these
  std::vector<Step> steps_;       // the program's, with loops for those
  const std::vector<Step>* body_ = &p_.body_;

 private:
  std::vector<Course> courses_;
  std::vector<int> course_of_;  // by port; -1 for one contiguous run
};

}  // namespace formula
}  // namespace tg
