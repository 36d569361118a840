// One operand of a formula in the order of the elements: where they lie, and runs of them into packed memory or back.
#pragma once

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <vector>

#include "formula.h"
#include "formula_kernels.h"

namespace tg {
namespace formula {

// Where element `i` of an axis is read that is rolled by `shift`.
inline Index back(Index i, Index shift, Index size) { return i < shift ? i - shift + size : i - shift; }

// An operand's own fewest dimensions: a matrix that is added to each of many lies in one run, whatever the others do.
class Course {
 public:
  Course(const Operand& operand, int item_size, int ndim, const Index* shape)
      : data_(operand.data), size_(item_size), aligned_(operand.aligned) {
    for (int d = 0; d < ndim; ++d) {
      const Index stride = operand.strides[d], shift = operand.shifts ? operand.shifts[d] : 0;
      if (!strides_.empty() && strides_.back() == stride * shape[d] && !shift) {
        shape_.back() *= shape[d];
        strides_.back() = stride;
        if (operand.shifts) shifts_.back() *= shape[d];
      } else {
        shape_.push_back(shape[d]);
        strides_.push_back(stride);
        if (operand.shifts) shifts_.push_back(shift);
      }
    }
    if (shape_.empty()) {
      shape_.push_back(1), strides_.push_back(size_);
      if (operand.shifts) shifts_.push_back(0);
    }
  }

  // After how many elements they come again, where each is read more than once; 0 where they never do.
  Index period() const {
    if (strides_[0] != 0) return 0;
    Index elements = 1;
    for (std::size_t d = 1; d < shape_.size(); ++d) elements *= shape_[d];
    return elements;
  }

  // The n elements from number `first` on, if they lie one after the other; null if not.
  char* in_place(Index first, Index n) const {
    if (strides_.back() != size_ || !aligned_ || n > shape_.back()) return nullptr;
    const Index outer = first / shape_.back(), inner = first % shape_.back();
    if (inner + n > shape_.back()) return nullptr;
    if (shifts_.empty()) return place(outer) + inner * size_;
    const Index from = back(inner, shifts_.back(), shape_.back());
    return from + n > shape_.back() ? nullptr : rolled_place(outer) + from * size_;
  }

  void move(Index first, Index n, char* packed, bool in) const {
    const int last = static_cast<int>(shape_.size()) - 1;
    const Index length = shape_.back(), stride = strides_.back(), bytes = length * size_;
    const Loop loop = in ? find_gather(size_) : find_scatter(size_);
    if (!shifts_.empty()) return move_rolled(loop, first, n, packed);
    const bool brief = last > 0 && bytes <= kShort;
    Index outer = first / length, inner = first % length;
    while (n > 0) {
      char* here = place(outer);
      if (brief && inner == 0) {
        const Index rows = std::min(brief_rows(bytes, n, in), left_beside(outer));
        if (rows > 0) {
          const Index step = strides_[static_cast<std::size_t>(last - 1)];
          if (stride == 0) spread_rows(rows, bytes, packed, here, step);
          else copy_pieces(rows, bytes, in ? packed : here, in ? bytes : step, in ? here : packed, in ? step : bytes);
          packed += rows * bytes;
          n -= rows * length;
          outer += rows;
          continue;
        }
      }
      if (last > 0 && inner == 0 && length <= kFewItems && n >= length) {
        const Index rows = std::min(n / length, left_beside(outer)), step = strides_[static_cast<std::size_t>(last - 1)];
        if (in && step == 0 && stride == size_) repeat_row(rows, bytes, packed, here);
        else if (in) by_items(rows, length, packed, size_, bytes, here, stride, step);
        else by_items(rows, length, here, stride, step, packed, size_, bytes);
        packed += rows * bytes;
        n -= rows * length;
        outer += rows;
        continue;
      }
      here += inner * stride;
      const Index run = std::min(length - inner, n);
      loop(in ? packed : here, in ? here : packed, &stride, nullptr, run);
      packed += run * size_;
      n -= run;
      inner = 0;
      ++outer;
    }
  }

 private:
  // Runs of a row end where it does, or where what is read does.
  void move_rolled(Loop gather, Index first, Index n, char* packed) const {
    const Index length = shape_.back(), stride = strides_.back();
    Index outer = first / length, inner = first % length;
    char* row = rolled_place(outer);
    while (n > 0) {
      const Index from = back(inner, shifts_.back(), length), run = std::min({n, length - inner, length - from});
      gather(packed, row + from * stride, &stride, nullptr, run);
      packed += run * size_;
      n -= run;
      inner += run;
      if (inner == length && n > 0) inner = 0, row = rolled_place(++outer);
    }
  }
  char* rolled_place(Index row) const {
    char* here = data_;
    for (std::size_t d = shape_.size() - 1; d-- > 0; row /= shape_[d])
      here += back(row % shape_[d], shifts_[d], shape_[d]) * strides_[d];
    return here;
  }

  static constexpr Index kFewItems = 8;  // in a row, of which a call takes longer than to copy each
  static constexpr Index kShortest = 32, kShort = 512;  // bytes of a row for which a call takes longer than its copy

  // How many rows may be done at once, of n elements to do: neither way touches what lies behind those.
  Index brief_rows(Index bytes, Index n, bool in) const {
    if (strides_.back() == size_) return bytes < kShortest && bytes % 4 ? 0 : n * size_ / bytes;
    return strides_.back() == 0 && in ? (n * size_ - kShortest) / bytes : 0;
  }
  // Rows from number `row` on that lie a step apart.
  Index left_beside(Index row) const {
    const Index count = shape_[shape_.size() - 2];
    return count - row % count;
  }

  // Where a row starts.
  char* place(Index row) const {
    char* here = data_;
    for (int d = static_cast<int>(shape_.size()) - 2; d > 0; --d) {
      here += row % shape_[static_cast<std::size_t>(d)] * strides_[static_cast<std::size_t>(d)];
      row /= shape_[static_cast<std::size_t>(d)];
    }
    return shape_.size() > 1 ? here + row * strides_[0] : here;
  }

  // Rows of `bytes` each by pieces of fixed size, of which the last may overlap the one before. (8, 6, 96, 16) of 32
  // columns by (96, 16) takes 29 us so and 64 with a call for each row.
  static void copy_pieces(Index rows, Index bytes, char* to, Index to_step, const char* from, Index from_step) {
    switch (bytes) {
      case 4: return copy_fixed<4>(rows, to, to_step, from, from_step);
      case 8: return copy_fixed<8>(rows, to, to_step, from, from_step);
      case 12: return copy_fixed<12>(rows, to, to_step, from, from_step);
      case 16: return copy_fixed<16>(rows, to, to_step, from, from_step);
      case 20: return copy_fixed<20>(rows, to, to_step, from, from_step);
      case 24: return copy_fixed<24>(rows, to, to_step, from, from_step);
      case 28: return copy_fixed<28>(rows, to, to_step, from, from_step);
      default: break;
    }
    for (; rows > 0; --rows, to += to_step, from += from_step) {
      for (Index i = 0; i + kShortest < bytes; i += kShortest) std::memcpy(to + i, from + i, kShortest);
      std::memcpy(to + bytes - kShortest, from + bytes - kShortest, kShortest);
    }
  }

  template <int bytes>
  static void copy_fixed(Index rows, char* to, Index to_step, const char* from, Index from_step) {
    for (; rows > 0; --rows, to += to_step, from += from_step) std::memcpy(to, from, bytes);
  }

  // One item for each row, and up to kShortest bytes behind it, where the next one comes.
  void spread_rows(Index rows, Index bytes, char* to, const char* from, Index step) const {
    switch (size_) {
      case 4: return spread<4>(rows, bytes, to, from, step);
      case 8: return spread<8>(rows, bytes, to, from, step);
      case 1: return spread<1>(rows, bytes, to, from, step);
      case 2: return spread<2>(rows, bytes, to, from, step);
      default: return spread<16>(rows, bytes, to, from, step);
    }
  }
  template <int size>
  static void spread(Index rows, Index bytes, char* to, const char* from, Index step) {
    for (; rows > 0; --rows, to += bytes, from += step) {
      char piece[kShortest];
      for (Index i = 0; i < kShortest; i += size) std::memcpy(piece + i, from, size);
      for (Index i = 0; i < bytes; i += kShortest) std::memcpy(to + i, piece, kShortest);
    }
  }

  // The same row again and again, by as much as there is of it already.
  static void repeat_row(Index rows, Index bytes, char* to, const char* from) {
    std::memcpy(to, from, static_cast<std::size_t>(bytes));
    for (Index done = bytes, all = rows * bytes; done < all;) {
      const Index more = std::min(done, all - done);
      std::memcpy(to + done, to, static_cast<std::size_t>(more));
      done += more;
    }
  }

  void by_items(Index rows, Index length, char* to, Index to_stride, Index to_step, const char* from, Index stride, Index step) const {
    const auto copy = [&](auto size) {
      for (; rows > 0; --rows, to += to_step, from += step)
        for (Index i = 0; i < length; ++i) std::memcpy(to + i * to_stride, from + i * stride, decltype(size)::value);
    };
    switch (size_) {
      case 4: return copy(std::integral_constant<int, 4>());
      case 8: return copy(std::integral_constant<int, 8>());
      case 1: return copy(std::integral_constant<int, 1>());
      case 2: return copy(std::integral_constant<int, 2>());
      default: return copy(std::integral_constant<int, 16>());
    }
  }

  char* data_;
  Index size_;
  bool aligned_;
  std::vector<Index> shape_, strides_, shifts_;  // no shifts where it is not rolled
};

}  // namespace formula
}  // namespace tg
