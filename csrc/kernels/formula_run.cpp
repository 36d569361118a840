// Walks the blocks of a formula. See formula.h.
#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include "../core/allocator.h"
#include "../core/parallel.h"
#include "formula.h"
#include "formula_columns.h"
#include "formula_operands.h"
#include "formula_sums.h"
#include "reduce_walk.h"

namespace tg {
namespace formula {
namespace {

constexpr Index kLongRow = 256, kShortRow = 64;
constexpr Index kVeryLongRow = 1024;  // where rows are rolled, or shorter ones would repeat within a block
constexpr Index kStretch = 32768;  // elements that are summed as one, by one thread

// Slots and block buffers of the calling thread, kept from run to run.
class Workspace {
 public:
  ~Workspace() { release(memory_); }
  char* at_least(std::size_t bytes) {
    if (bytes > size_) {
      release(memory_);
      memory_ = nullptr;
      size_ = 0;
      memory_ = static_cast<char*>(allocate(bytes));
      size_ = bytes;
    }
    return memory_;
  }

 private:
  char* memory_ = nullptr;
  std::size_t size_ = 0;
};

Workspace& workspace() {
  thread_local Workspace mine;
  return mine;
}

// What is summed of a stretch, in the second-level cache.
Workspace& scratch() {
  thread_local Workspace mine;
  return mine;
}

// Machine code computes what loops with fused multiply-adds do. Below so many elements loops take as long.
#if defined(__FMA__)
constexpr bool kCompiles = true;
#else
constexpr bool kCompiles = false;
#endif
constexpr Index kWorthCompiling = 256;
bool is_compiled_for(Index elements) { return kCompiles && elements >= kWorthCompiling && writes_machine_code(); }
constexpr Index kTaskUnit = 64;  // elements: tasks begin at a line of every array
constexpr Index kLine = 64;  // bytes of a cache line
// Arrays from this size on are fetched a block ahead, by programs of this many loops: shorter ones wait for memory anyhow.
constexpr Index kFar = Index(1) << 20;
constexpr std::size_t kWorthAhead = 4;
constexpr Index kUnit = Run::kUnit;  // elements that a sum takes at a time
constexpr Index kHeld = 4096;  // elements of all results that are reduced along rows, in the first-level cache
constexpr Index kHeldRows = 256;  // of which machine code has the sums
constexpr Index kShortestSummed = 17;  // elements of such a row: shorter ones are summed sooner where they were stored
constexpr Index kShortestRow = 16, kWorthRowLoop = 4096;  // elements of rows, and of all, for code that goes over them
constexpr Index kApart = 5 * 64;  // bytes between what is held of one and of the next, which else share their cache's lines
static_assert(kUnit == kReducePiece / 4 && Run::kWideUnit == kReducePiece);  // as reduce_walk.h does

}  // namespace

class Runner : PlacedOperands {
 public:
  // `operands` has the inputs, and the outputs where results are stored.
  Runner(const Program& program, Number* numbers, const Operand* operands, int ndim, const Index* shape, bool defer,
         bool stores = true)
      : PlacedOperands(program, operands, ndim, shape, defer, stores), numbers_(numbers) {
    // rows long enough to be blocks of their own leave operands in place that are contiguous along them only; shorter
    // ones where a single loop is all there is to do, and nothing else is in its way
    by_rows_ = inner_ >= (p_.body_.size() == 1 && !defer ? kShortRow : kLongRow) && (ndim > 1 || has_row_value());
    if (by_rows_ && inner_ < kVeryLongRow) by_rows_ = !rolls_rows() && !only_repeats();
    const bool compiles = is_compiled_for(total_);
    if (by_rows_) find_row_values(compiles);
    if (by_rows_ && inner_ < kLongRow) by_rows_ = alone_ = all_in_place();
    if (!by_rows_) row_values_ = 0, body_ = &p_.body_;
    if (!compiles || alone_) return;
    if (const auto* compiled = p_.machines_.body(p_, *body_, {row_values_})) {
      body_ = &compiled->steps;
      block_ = compiled->block;
    } else if (by_rows_) {  // with the row values that loops can read
      row_values_ = 0;
      find_row_values(false);
    }
  }

  __attribute__((noinline)) void prepare() {
    if (!stretch_ && given_ == ports_) find_row_loop();
    find_far(given_);
    find_steady(given_);
    find_courses(given_);
    find_repeated();
  }
  // After prepare(), as often as asked.
  void run() {
    if (total_ == 0) return;
    prologue();
    parallel_for(total_, task_size(), [this](Index first, Index last) { stretch(first, last, nullptr); });
  }

  // ---- in parts: see Run

  void want(std::vector<double*> totals, Rows rows) {
    totals_ = std::move(totals);
    rows_ = std::move(rows);
    bool wide = false;
    for (std::size_t k = 0; k < totals_.size(); ++k) {
      if (!totals_[k]) continue;
      summing_ = true;
      wide |= p_.ports_[static_cast<std::size_t>(p_.input_count()) + k].dtype == DType::Float64;
    }
    // floats' units are added up in the order of a sum's pieces at the end, doubles are compensated within a piece
    grain_ = wide ? Run::kWideUnit : kUnit;
    if (total_ == 0) return;
    if (rows_.columns || (rows_.length && is_compiled_for(total_)))
      matrices_ = MatrixSums::of(p_, numbers_, operands_, ndim_, shape_, rows_);
    if (rows_.columns && !matrices_) throw std::runtime_error("Run: these columns are not summed");
    if (matrices_) {
      grain_ = matrices_->grain() * (rows_.columns ? 1 : rows_.length);
      return;
    }
    if (rows_.length) find_lane_sums();
    prepare();
    if (rows_.length) hold_rows();
    else if (summing_) hold_sums();
  }

  void begin() {
    for (double* total : totals_)
      if (total) *total = 0;
    if (total_ == 0) return;
    prologue();
    if (matrices_) matrices_->begin();
    if (summing_) parts_.assign(totals_.size() * static_cast<std::size_t>((total_ + grain_ - 1) / grain_), CompensatedSum{});
  }

  void piece(Index begin, Index end) {
    if (const Index each = rows_.columns ? 1 : rows_.length; matrices_) return matrices_->run(begin / each, end / each);
    if (!summing_ || rows_.length) return stretch(begin, end, nullptr);
    for (Index first = begin; first < end; first += kUnit) stretch(first, std::min(end, first + kUnit), nullptr);
  }

  void end() {
    if (matrices_) return matrices_->end();
    const std::size_t outputs = totals_.size(), tasks = outputs ? parts_.size() / outputs : 0;
    const std::size_t group = static_cast<std::size_t>(kReducePiece / grain_);
    for (std::size_t k = 0; k < outputs && tasks; ++k) {
      if (!totals_[k]) continue;
      const bool compensated = p_.ports_[static_cast<std::size_t>(p_.input_count()) + k].dtype == DType::Float64;
      CompensatedSum total;
      for (std::size_t t = 0; t < tasks; t += group) {
        CompensatedSum piece = parts_[t * outputs + k];
        for (std::size_t u = t + 1; u < std::min(tasks, t + group); ++u) piece.high += parts_[u * outputs + k].high;
        if (t == 0) total = piece;
        else if (compensated) SumOp<double>::merge(total, piece);
        else total.high += piece.high;
      }
      *totals_[k] = compensated ? total.value() : total.high;
    }
  }
  Index size() const { return rows_.columns && matrices_ ? matrices_->parts() : total_; }
  Index grain() const { return grain_; }

  // Nothing is stored: blocks are summed where they were computed, in their own type and then in double, and stretches in
  // the order of the elements.
  double sum() {
    if (total_ == 0) return 0;
    prologue();
    prepare();
    std::vector<double> parts(static_cast<std::size_t>((total_ + kStretch - 1) / kStretch));
    parallel_for(total_, kStretch, [&](Index first, Index last) {
      double part = 0;  // not in the vector: threads would take its cache lines from each other block by block
      stretch(first, last, &part);
      parts[static_cast<std::size_t>(first / kStretch)] = part;
    });
    double total = 0;
    for (const double part : parts) total += part;
    return total;
  }

 private:
  // Elements of a task: as many as take some 10 us, and tasks of one size, for with a short one at the end a thread would
  // wait. An operand that is gathered costs as much as an exponential. (A step of 40 normalizations of a 100 x 120 matrix,
  // ms: 32,768 elements a task, 0.95, by this 0.81.)
  __attribute__((noinline)) Index task_size() const {
    Index cost = std::max<Index>(1, p_.cost_);
    for (int i = 0; i < given_ && !by_rows_; ++i)
      if (p_.ports_[i].varies && operands_[i].strides && !is_repeated(i)) cost += Program::kHeavy;
    const Index most = std::clamp(16 * kStretch / cost, kStretch / 8, kStretch);
    const Index tasks = (total_ + most - 1) / most, size = (total_ + tasks - 1) / tasks;
    return (size + kTaskUnit - 1) / kTaskUnit * kTaskUnit;
  }

  void prologue() {
    if (p_.prologue_.empty()) return;
    void** slots = reinterpret_cast<void**>(workspace().at_least(slot_bytes()));
    set_numbers(slots);
    for (const Step& s : p_.prologue_) s.loop(slots[s.to], slots[s.a], slots[s.b], slots[s.c], 1);
  }

  // Behind the slots, where machine code goes on to the next row, are a row's steps of each of them and how many rows there are.
  std::size_t slot_words() const { return static_cast<std::size_t>(stretch_ || row_loop_ ? 2 * p_.slots_ + 1 : p_.slots_); }
  std::size_t slot_bytes() const { return (slot_words() * sizeof(void*) + 63) / 64 * 64; }

  void set_numbers(void** slots) const {
    for (std::size_t i = 0; i < p_.number_slots_.size(); ++i) slots[p_.number_slots_[i]] = numbers_ + i;
  }

  // The calling thread's memory of what is summed, and how many bytes of it are an output's.
  char* place_of_sums() const { return scratch().at_least(static_cast<std::size_t>((ports_ - p_.input_count()) * bytes_of_sum())); }
  Index bytes_of_sum() const { return sum_bytes_; }
  bool is_lane_sum(int output) const { return output < 64 && (lane_sums_ >> output & 1); }
  bool is_summed(int output) const {
    const std::size_t k = static_cast<std::size_t>(output);
    return rows_.length ? rows_.outputs[k].to != nullptr : summing_ && totals_[k];
  }

  // As many rows are held as stay near, and as begin where operands that come again do: with four times as many, short rows
  // took a quarter longer.
  __attribute__((noinline)) void hold_rows() {
    summing_ = true;
    Index wanted = 0;
    for (const Rows::Of& each : rows_.outputs) wanted += each.to != nullptr;
    Index unit = std::lcm(rows_.length, period_);
    if (unit > kUnit) unit = rows_.length, repeated_ = 0;
    held_ = std::max<Index>(1, std::min(block_, kHeld / wanted) / unit) * unit;
    sum_bytes_ = held_ * 8 + kApart;
    if (Index(__builtin_popcountll(lane_sums_)) == wanted) {  // what is held of a row is short
      const Index count = std::clamp<Index>(task_size() / rows_.length, 1, kHeldRows);
      held_ = count * rows_.length;
      sum_bytes_ = count * lanes_.row() * Index(sizeof(float)) + kApart;
    }
    chunk_ = held_;
    grain_ = (task_size() + held_ - 1) / held_ * held_;
  }

  // As many elements of what is summed stay near as are summed at a time anyway, or come again.
  __attribute__((noinline)) void hold_sums() {
    Index wanted = 0;
    for (const double* total : totals_) wanted += total != nullptr;
    const Index unit = std::lcm(kSumBlock, period_), held = std::max<Index>(1, kHeld / wanted / unit) * unit;
    if (held >= kUnit) return;
    chunk_ = held;
    sum_bytes_ = held * 8 + kApart;
  }

  // Elements that were held are summed. Nobody else has this unit.
  __attribute__((noinline)) void sum_held(Index begin, Index end, const char* sums) const {
    const std::size_t inputs = static_cast<std::size_t>(p_.input_count()), outputs = totals_.size();
    CompensatedSum* mine = parts_.data() + static_cast<std::size_t>(begin / grain_) * outputs;
    for (std::size_t k = 0; k < outputs; ++k) {
      if (!totals_[k]) continue;
      const char* from = sums + static_cast<Index>(k) * bytes_of_sum();
      if (p_.ports_[inputs + k].dtype == DType::Float64) SumOp<double>::run(mine[k], reinterpret_cast<const double*>(from), end - begin);
      else SumOp<float>::run(mine[k].high, reinterpret_cast<const float*>(from), end - begin);
    }
  }

  // Sums of rows that machine code takes as it goes, where it does all that is to be done with a row and needs nothing
  // moved: what would be stored and read again stays in registers.
  __attribute__((noinline)) void find_lane_sums() {
    const Index length = rows_.length;
    const int inputs = p_.input_count();
    std::uint64_t wanted = 0;
    for (int k = 0; k < std::min(ports_ - inputs, 64); ++k) {
      const Rows::Of& each = rows_.outputs[static_cast<std::size_t>(k)];
      const bool sum = each.to && (each.kind == Reduce::sum || each.kind == Reduce::mean);
      if (sum && p_.ports_[inputs + k].dtype == DType::Float32) wanted |= std::uint64_t(1) << k;
    }
    if (!wanted || length < kShortestSummed || inner_ % length || !is_compiled_for(total_)) return;
    const Machines::Body* compiled = use_body({0, wanted, false});
    if (!compiled) return;
    lane_sums_ = compiled->sums;
    stretch_ = std::min({length, block_, kSummedStretch});
    lanes_.stretches = (length + stretch_ - 1) / stretch_;
    steady_ = true;
    const Index before = lanes_.stretches - 1;  // of a row's last
    for (int i = 0; i < ports_; ++i) {
      const Index size = p_.ports_[i].item_size;
      if (!p_.ports_[i].varies) continue;
      const bool reduced = i >= inputs && is_summed(i - inputs), summed = reduced && is_lane_sum(i - inputs);
      const Index* strides = reduced ? nullptr : operands_[i].strides;
      Index along = stretch_ * size, row = length * size;
      if (summed) along = lanes_.kLanes * size, row = lanes_.row() * size;
      if (is_row_value(i)) along = row = 0;
      if (strides && inner_ == length) row = ndim_ > 1 ? strides[ndim_ - 2] : 0;
      if (along) stretch_steps_.push_back({i, along});
      if (row != along * before) row_steps_.push_back({i, row - along * before});
    }
  }

  // The body for this, if there is one and all rows lie where they can be read and written: then it is by rows from now on.
  const Machines::Body* use_body(Purpose purpose) {
    const auto steps = steps_;
    const auto row_values = row_values_;
    const auto* body = body_ == &steps_ ? nullptr : body_;
    row_values_ = 0, body_ = &p_.body_;
    find_row_values(true);
    purpose.row_values = row_values_;
    const Machines::Body* compiled = rows_lie() ? p_.machines_.body(p_, *body_, purpose) : nullptr;
    if (!compiled || (purpose.sums && !compiled->sums)) {
      steps_ = steps, row_values_ = row_values, body_ = body ? body : &steps_;
      return nullptr;
    }
    body_ = &compiled->steps;
    block_ = compiled->block;
    by_rows_ = true;
    alone_ = false;
    return compiled;
  }

  // Code that goes from row to row: a short one costs as much as it has elements, and none is moved to be contiguous.
  __attribute__((noinline)) void find_row_loop() {
    if (!kCompiles || defer_ || ndim_ < 2 || inner_ < kShortestRow || inner_ > block_ || total_ < kWorthRowLoop) return;
    if (p_.last_compiled(0) != static_cast<int>(p_.body_.size()) - 1 || !writes_machine_code()) return;
    if (!by_rows_ && repeats_rows()) return;
    row_loop_ = use_body({0, 0, true}) != nullptr;
  }

  // Whether each row's elements lie one after the other where they can be read and written.
  bool rows_lie() const {
    for (int i = 0; i < ports_; ++i) {
      const Program::Port& port = p_.ports_[i];
      const Operand& operand = operands_[i];
      if (!port.varies || is_row_value(i)) continue;
      if (i >= p_.input_count() && is_summed(i - p_.input_count())) continue;
      if (operand.shifts) return false;
      if (operand.strides ? !fits_in_place(operand, operand.strides[ndim_ - 1], port.item_size) : !operand.aligned) return false;
    }
    return true;
  }

  // Rows that were held are reduced.
  __attribute__((noinline)) void reduce_held(Index begin, Index end, const char* sums) const {
    const int inputs = p_.input_count();
    const Index first = begin / rows_.length, count = end / rows_.length - first;
    for (int k = 0; k < ports_ - inputs; ++k) {
      const Rows::Of& each = rows_.outputs[static_cast<std::size_t>(k)];
      const Program::Port& port = p_.ports_[inputs + k];
      if (each.to && is_lane_sum(k)) {
        LaneSums sum = lanes_;
        if (each.kind == Reduce::mean) sum.count = static_cast<double>(rows_.length);
        sum(reinterpret_cast<const float*>(sums + k * bytes_of_sum()), count, reinterpret_cast<float*>(each.to) + first);
        continue;
      }
      if (each.to) reduce_rows(each.kind, port.dtype, count, rows_.length, sums + k * bytes_of_sum(), each.to + first * port.item_size);
    }
  }

  // With `sum` the results are added to it and go nowhere else.
  void stretch(Index first, Index last, double* sum) const {
    const Index longest = std::min(block_, (last - first + 63) / 64 * 64);
    char* memory = workspace().at_least(slot_bytes() + static_cast<std::size_t>(p_.bytes_per_element_ * longest));
    void** slots = reinterpret_cast<void**>(memory);
    char* buffers = memory + slot_bytes();
    std::fill(slots, slots + slot_words(), nullptr);
    set_numbers(slots);
    for (const Program::Buffer& b : p_.buffers_) slots[b.slot] = buffers + b.offset * longest;
    for (const Program::Spread& s : p_.spreads_) s.fill(slots[s.slot], slots[s.from], nullptr, nullptr, longest);
    Index at[kMaxDims];
    locate(first, at);
    char* sums = summing_ ? place_of_sums() : nullptr;
    Index held = first, until = last - first > chunk_ ? first + chunk_ : last;
    for (Index i = first; i < last;) {
      Index n = std::min(longest, until - i);
      if (steady_ && !sum) {
        n = stretch_ ? summed_rows(i, until, at, slots, held, sums) : rows(i, until, at, slots, held, sums);
      } else {
        if (by_rows_) n = std::min(n, inner_ - at[ndim_ - 1]);
        block(i, at, n, slots, buffers, longest, sum, first, held, sums);
      }
      i += n;
      if (i == until) {
        if (rows_.length) reduce_held(held, i, sums);
        else if (summing_) sum_held(held, i, sums);
        held = i;
        until = last - i > chunk_ ? i + chunk_ : last;
      }
      if (i >= last) return;
      if (steady_) locate(i, at);
      else advance(at, n);
    }
  }

  // Rows that need nothing moved: from one to the next the addresses of these slots grow by the same bytes.
  __attribute__((noinline)) void find_steady(int ports) {
    if (steady_ || !by_rows_ || defer_ || !far_.empty()) return;
    if (inner_ > block_ && !row_loop_) return;  // what is between loops has the room of a block; code has nothing there
    std::vector<std::pair<int, Index>> steps;
    for (int i = 0; i < ports; ++i) {
      const Program::Port& port = p_.ports_[i];
      const Operand& operand = operands_[i];
      if (!port.varies) continue;
      const bool held = i >= p_.input_count() && is_summed(i - p_.input_count());
      const bool lies = operand.strides ? fits_in_place(operand, operand.strides[ndim_ - 1], port.item_size) : operand.aligned;
      if (!held && ((!lies && !is_row_value(i)) || operand.shifts)) return;
      const Index step = held || !operand.strides ? inner_ * port.item_size : ndim_ > 1 ? operand.strides[ndim_ - 2] : 0;
      if (step) steps.push_back({i, step});
    }
    row_steps_ = std::move(steps);
    steady_ = true;
  }

  void begin_rows(Index first, const Index* at, void** slots, Index held, char* sums) const {
    const int inputs = p_.input_count();
    for (int i = 0; i < ports_; ++i) {
      const Operand& operand = operands_[i];
      const Index size = p_.ports_[i].item_size;
      if (!p_.ports_[i].varies) continue;
      if (i >= inputs && is_summed(i - inputs)) {
        const Index before = is_lane_sum(i - inputs) ? (first - held) / rows_.length * lanes_.row() : first - held;
        slots[i] = sums + (i - inputs) * bytes_of_sum() + before * size;
      } else {
        slots[i] = operand.data + (operand.strides ? offset(operand, at) : first * size);
      }
    }
  }

  Index take_rows(void** slots, Index count, Index n) const {
    Index* steps = reinterpret_cast<Index*>(slots) + p_.slots_;
    for (const auto& [slot, step] : row_steps_) steps[slot] = step;
    steps[p_.slots_] = count;
    take(body_->front(), slots, n);
    return count * n;
  }

  // Whole rows from `first` on, before `until`, as many as are in one line of the innermost axis or in one matrix.
  Index summed_rows(Index first, Index until, const Index* at, void** slots, Index held, char* sums) const {
    begin_rows(first, at, slots, held, sums);
    const Index length = rows_.length;
    Index count = (inner_ - at[ndim_ - 1]) / length;
    if (inner_ == length && ndim_ > 1) count = shape_[ndim_ - 2] - at[ndim_ - 2];
    count = std::min((until - first) / length, count);
    if (stretch_ == length && body_->size() == 1) return take_rows(slots, count, length);
    Index& rows = reinterpret_cast<Index*>(slots)[2 * p_.slots_];
    for (Index row = 0;;) {
      for (Index left = length;; left -= stretch_) {
        for (const Step& s : *body_) {
          rows = 1;
          take(s, slots, std::min(left, stretch_));
        }
        if (left <= stretch_) break;
        for (const auto& [slot, step] : stretch_steps_) slots[slot] = static_cast<char*>(slots[slot]) + step;
      }
      if (++row >= count) return count * length;
      for (const auto& [slot, step] : row_steps_) slots[slot] = static_cast<char*>(slots[slot]) + step;
    }
  }

  // As many elements from `first` on, before `until`, as are in the rows of one matrix, or in part of one row.
  Index rows(Index first, Index until, const Index* at, void** slots, Index held, char* sums) const {
    begin_rows(first, at, slots, held, sums);
    const Index whole = at[ndim_ - 1] ? 0 : (until - first) / inner_;
    const Index count = ndim_ > 1 ? std::min(whole, shape_[ndim_ - 2] - at[ndim_ - 2]) : whole;
    const Index n = count ? inner_ : std::min(inner_ - at[ndim_ - 1], until - first);
    if (row_loop_) return take_rows(slots, std::max<Index>(count, 1), n);
    for (Index row = 0;;) {
      for (const Step& s : *body_) take(s, slots, n);
      if (++row >= count) return std::max<Index>(count, 1) * n;
      for (const auto& [slot, step] : row_steps_) slots[slot] = static_cast<char*>(slots[slot]) + step;
    }
  }

  // `start` is where the stretch begins, `held` the first element of what is summed that is still there, at `sums`.
  void block(Index first, const Index* at, Index n, void** slots, char* buffers, Index longest, double* sum, Index start,
             Index held, char* sums) const {
    const int inputs = p_.input_count();
    for (int i = 0; i < ports_; ++i) {
      const Program::Port& port = p_.ports_[i];
      if (!port.varies) continue;
      const bool output = i >= inputs;
      if (output && sum) {
        slots[i] = buffers + port.staging * longest;
        continue;
      }
      if (output && is_summed(i - inputs)) {
        slots[i] = sums + (i - inputs) * bytes_of_sum() + (first - held) * port.item_size;
        continue;
      }
      const Operand& operand = operands_[i];
      if (is_row_value(i)) {
        slots[i] = operand.data + offset(operand, at);
        continue;
      }
      if (is_repeated(i)) {
        slots[i] = buffers + port.staging * longest;
        if (first == start) move(i, first, n, static_cast<char*>(slots[i]), true);
        continue;
      }
      char* here = output && defer_ ? nullptr : in_place(i, first, at, n);
      slots[i] = here ? here : buffers + port.staging * longest;
      if (!output && !here) move(i, first, n, static_cast<char*>(slots[i]), true);
    }
    if (far_.empty()) {
      for (const Step& s : *body_) take(s, slots, n);
    } else {
      loops_and_fetches(first, n, slots);
    }
    if (sum) {
      const bool wide = p_.ports_[inputs].dtype == DType::Float64;
      *sum += wide ? sum_long(static_cast<double*>(slots[inputs]), n) : sum_long(static_cast<float*>(slots[inputs]), n);
      return;
    }
    for (int i = inputs; i < ports_; ++i) {
      const Program::Port& port = p_.ports_[i];
      char* staged = buffers + port.staging * longest;
      if (slots[i] == staged) move(i, first, n, staged, false);  // otherwise it was written, or is where sums are
    }
  }

  // Arrays that come from memory in order: with many loops to a block the processor does not foresee the next block.
  void find_far(int ports) {
    if (body_->size() < kWorthAhead) return;
    part_ = (Index(1) << kPartBits) / static_cast<Index>(body_->size());
    for (int i = 0; i < ports; ++i) {
      const Program::Port& port = p_.ports_[i];
      const bool stays = i >= p_.input_count() && is_summed(i - p_.input_count());
      if (port.varies && !stays && !operands_[i].strides && total_ * port.item_size >= kFar) far_.push_back(i);
    }
  }

  // The next block's lines are asked for a few at a time between this one's loops, so that neither waits for the other.
  // Chain benchmark: 0.82 to 0.9 of the time; all of them before the first loop: no gain.
  void loops_and_fetches(Index first, Index n, void** slots) const {
    const Index next = first + n, count = std::min(n, total_ - next), steps = static_cast<Index>(body_->size());
    const auto lines_of = [&](int i) { return count * p_.ports_[i].item_size / kLine; };
    Index all = 0, done = 0;
    for (const int i : far_) all += lines_of(i);
    std::size_t array = 0;
    const char* from = nullptr;
    Index left = 0;  // lines of this array
    for (Index k = 0; k < steps; ++k) {
      const Index share = k + 1 < steps ? all * (k + 1) * part_ >> kPartBits : all;  // divisions took a fifth of the time
      for (; done < share; ++done, from += kLine, --left) {
        for (; left == 0; ++array) {
          const int i = far_[array];
          from = operands_[i].data + next * p_.ports_[i].item_size;
          left = lines_of(i);
        }
        __builtin_prefetch(from);
      }
      take((*body_)[static_cast<std::size_t>(k)], slots, n);
    }
  }
  static void take(const Step& s, void** slots, Index n) {
    if (s.machine) s.machine->run(slots, n);
    else s.loop(slots[s.to], slots[s.a], slots[s.b], slots[s.c], n);
  }

  Number* numbers_;
  bool alone_ = false;  // by rows, with one loop and nothing to move
  bool steady_ = false;  // by rows, with nothing to move
  std::vector<std::pair<int, Index>> row_steps_;  // of slots, in bytes
  std::vector<int> far_;  // ports
  static constexpr int kPartBits = 32;
  Index part_ = 0;  // one loop's share of a block
  bool summing_ = false;
  std::vector<double*> totals_;
  mutable std::vector<CompensatedSum> parts_;
  Rows rows_;
  Index grain_ = kUnit, held_ = kUnit, sum_bytes_ = kUnit * 8 + kApart;
  bool row_loop_ = false;
  std::uint64_t lane_sums_ = 0;  // outputs of which machine code takes sums of rows
  LaneSums lanes_;
  std::unique_ptr<MatrixSums> matrices_;  // does it all
  Index stretch_ = 0;  // of such a row
  std::vector<std::pair<int, Index>> stretch_steps_;
  Index chunk_ = std::numeric_limits<Index>::max();  // elements after which what is held is reduced
};

Run::Run(const Program& program, Number* numbers, const Operand* operands, int ndim, const Index* shape, std::vector<double*> totals,
         Rows rows)
    : runner_(std::make_unique<Runner>(program, numbers, operands, ndim, shape, false)) {
  runner_->want(std::move(totals), std::move(rows));
}
Run::~Run() = default;
void Run::begin() { runner_->begin(); }
void Run::piece(Index first, Index last) { runner_->piece(first, last); }
void Run::end() { runner_->end(); }
Index Run::size() const { return runner_->size(); }
Index Run::grain() const { return runner_->grain(); }

Repeated::Repeated(const Program& program, Number* numbers, const Operand* operands, int ndim, const Index* shape)
    : runner_(std::make_unique<Runner>(program, numbers, operands, ndim, shape, false)) {
  runner_->prepare();
}
Repeated::~Repeated() = default;
void Repeated::run() { runner_->run(); }

void run(const Program& program, Number* numbers, const Operand* operands, int ndim, const Index* shape, bool defer) {
  Runner runner(program, numbers, operands, ndim, shape, defer);
  runner.prepare();
  runner.run();
}

bool sums_columns(const Program& program, const Operand* operands, int ndim, const Index* shape, const Rows& rows) {
  Index total = 1;
  for (int d = 0; d < ndim; ++d) total *= shape[d];
  return is_compiled_for(total) && MatrixSums::of(program, nullptr, operands, ndim, shape, rows);
}

double sum(const Program& program, Number* numbers, const Operand* inputs, int ndim, const Index* shape) {
  return Runner(program, numbers, inputs, ndim, shape, false, false).sum();
}

}  // namespace formula
}  // namespace tg
