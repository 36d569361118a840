// Sums along the last axis of what is broadcast: of distances of (I, 1, K) from (J, K), say. Taken with J last, machine code adds
// row to row, and a vector has the sums of as many columns; of rows of K each would have to be added up lane by lane.
// For formula_run.cpp.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "../core/allocator.h"
#include "copy.h"
#include "formula_operands.h"

namespace tg {
namespace formula {

// Operands with the last two axes exchanged.
struct Turned {
  std::vector<Index> shape, strides;
  std::vector<Operand> operands;

  Turned(int ports, const Operand* given, int ndim, const Index* sizes) : shape(sizes, sizes + ndim), operands(given, given + ports) {
    std::swap(shape[shape.size() - 1], shape[shape.size() - 2]);
    const std::size_t n = shape.size();
    strides.reserve(operands.size() * n);
    for (Operand& operand : operands) {
      if (!operand.strides) continue;
      strides.insert(strides.end(), operand.strides, operand.strides + n);
      operand.strides = strides.data() + strides.size() - n;
      std::swap(strides[strides.size() - 1], strides[strides.size() - 2]);
    }
  }
};

class TurnedSums : Turned, PlacedOperands {
 public:
  // Null where it can't be done, or where what has to lie otherwise is not much less than what is summed.
  static std::unique_ptr<TurnedSums> of(const Program& program, Number* numbers, const Operand* operands, int ndim, const Index* shape,
                                        const Rows& rows) {
    const Index length = rows.length, columns = ndim < 2 ? 0 : shape[ndim - 2];
    if (columns < kFewest || shape[ndim - 1] != length || length > kMost || length * columns < kWorth) return nullptr;
    if (program.last_compiled(0) != program.work() - 1) return nullptr;
    for (int i = 0; i < program.output_count(); ++i) {
      const Rows::Of& each = rows.outputs[static_cast<std::size_t>(i)];
      const bool sum = each.to && (each.kind == Reduce::sum || each.kind == Reduce::mean);
      if (!sum || program.output_dtype(i) != DType::Float32) return nullptr;
    }
    std::unique_ptr<TurnedSums> made(new TurnedSums(program, numbers, operands, ndim, shape, rows));
    return made->can_be_taken() ? std::move(made) : nullptr;
  }

  void begin() {
    Index bytes = 0;
    for (const Moved& each : moved_) bytes += each.bytes;
    if (!bytes) return;
    memory_.reset(static_cast<char*>(allocate(static_cast<std::size_t>(bytes))));
    char* to = memory_.get();
    for (const Moved& each : moved_) {
      copy_strided(kItem, static_cast<int>(each.shape.size()), each.shape.data(), each.from, each.lie.data(), to, each.go.data());
      Turned::operands[static_cast<std::size_t>(each.input)].data = to;
      to += each.bytes;
    }
  }
  void end() { memory_.reset(); }

  // Results number `first` to before `last`.
  void results(Index first, Index last) const {
    thread_local std::vector<void*> slots;
    slots.resize(std::max(slots.size(), static_cast<std::size_t>(2 * p_.slots_ + 1)));
    for (std::size_t i = 0; i < p_.number_slots_.size(); ++i) slots[static_cast<std::size_t>(p_.number_slots_[i])] = numbers_ + i;
    Index at[kMaxDims];
    locate(first / inner_ * shape_[ndim_ - 2] * inner_ + first % inner_, at);
    while (first < last) {
      Index& column = at[ndim_ - 1];
      const Index n = std::min(inner_ - column, last - first);
      sum(slots.data(), at, n, first);
      first += n;
      column += n;
      if (column < inner_) continue;
      column = 0;
      for (int d = ndim_ - 3; d >= 0; --d) {
        if (++at[d] < shape_[d]) break;
        at[d] = 0;
      }
    }
  }

 private:
  static constexpr Index kItem = sizeof(float), kLine = 64;
  static constexpr Index kFewest = 16, kWorth = 64;  // columns, elements of a matrix
  static constexpr Index kMost = 64;  // rows: longer ones of the formula are summed as fast as they lie, and rounded less
  static constexpr Index kShare = 8;  // so many times more is summed than moved

  struct Moved {
    int input;
    const char* from;
    std::vector<Index> shape, lie, go;
    Index bytes;
  };
  struct Release {
    void operator()(char* memory) const { release(memory); }
  };

  TurnedSums(const Program& program, Number* numbers, const Operand* operands, int ndim, const Index* shape, const Rows& rows)
      : Turned(program.input_count(), operands, ndim, shape),
        PlacedOperands(program, Turned::operands.data(), ndim, Turned::shape.data(), false, false),
        numbers_(numbers),
        rows_(rows) {}

  bool can_be_taken() {
    Index moved = 0;
    for (int i = 0; i < given_; ++i) {
      const Operand& operand = operands_[i];
      if (!p_.ports_[i].varies) continue;
      if (!operand.strides || !operand.aligned || operand.shifts || p_.ports_[i].item_size != kItem || i >= 64) return false;
      const Index along = operand.strides[ndim_ - 1];
      if (along == 0) row_values_ |= std::uint64_t(1) << i;
      else if (along != kItem) moved += move(i);
    }
    const std::uint64_t all = ~std::uint64_t(0) >> (64 - p_.output_count());
    if (moved * kShare > total_) return false;
    const Machines::Body* compiled = p_.machines_.body(p_, p_.body_, {row_values_, all, true, true});
    if (!compiled || compiled->sums != all) return false;
    machine_ = compiled->steps.front().machine;
    return true;
  }

  // Notes how the input is to be moved; of how many elements.
  Index move(int input) {
    const Operand& operand = operands_[input];
    Moved made{input, operand.data, {}, {}, {}, kItem};
    Index* strides = Turned::strides.data() + (operand.strides - Turned::strides.data());
    for (int d = ndim_ - 1; d >= 0; --d) {
      if (strides[d] == 0 || shape_[d] == 1) continue;
      made.shape.insert(made.shape.begin(), shape_[d]);
      made.lie.insert(made.lie.begin(), strides[d]);
      made.go.insert(made.go.begin(), made.bytes);
      strides[d] = made.bytes;
      made.bytes *= shape_[d];
      // rows of an even number of lines would be in few of the sets of the cache
      if (d == ndim_ - 1) made.bytes = ((made.bytes + kLine - 1) / kLine | 1) * kLine;
    }
    moved_.push_back(std::move(made));
    return moved_.back().bytes / kItem;
  }

  // Of n columns, results from number `first` on.
  void sum(void** slots, const Index* at, Index n, Index first) const {
    Index* steps = reinterpret_cast<Index*>(slots) + p_.slots_;
    const Index rows = shape_[ndim_ - 2];
    for (int i = 0; i < given_; ++i) {
      if (!p_.ports_[i].varies) continue;
      slots[i] = operands_[i].data + offset(operands_[i], at);
      steps[i] = operands_[i].strides[ndim_ - 2];
    }
    for (int k = 0; k < p_.output_count(); ++k) slots[given_ + k] = results_of(k) + first;
    steps[p_.slots_] = rows;
    machine_->run(slots, n);
    for (int k = 0; k < p_.output_count(); ++k) {
      if (rows_.outputs[static_cast<std::size_t>(k)].kind != Reduce::mean) continue;
      for (float* y = results_of(k) + first; y < results_of(k) + first + n; ++y) *y = static_cast<float>(*y / static_cast<double>(rows));
    }
  }
  float* results_of(int output) const { return reinterpret_cast<float*>(rows_.outputs[static_cast<std::size_t>(output)].to); }

  Number* numbers_;
  const Rows& rows_;
  const Machine* machine_ = nullptr;
  std::vector<Moved> moved_;
  std::unique_ptr<char, Release> memory_;
};

}  // namespace formula
}  // namespace tg
