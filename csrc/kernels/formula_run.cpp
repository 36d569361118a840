// Walks the blocks of a formula. See formula.h.
#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include "../core/allocator.h"
#include "../core/parallel.h"
#include "formula.h"
#include "formula_course.h"
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
constexpr Index kTaskUnit = 64;  // elements: tasks begin at a line of every array
constexpr Index kWorthCompiling = 256;
constexpr Index kWholeVectors = 16;  // elements that leave none for a last vector
constexpr Index kLine = 64;  // bytes of a cache line
// Arrays from this size on are fetched a block ahead, by programs of this many loops: shorter ones wait for memory anyhow.
constexpr Index kFar = Index(1) << 20;
constexpr std::size_t kWorthAhead = 4;
constexpr Index kUnit = Run::kUnit;  // elements that a sum takes at a time
constexpr Index kHeld = 4096;  // elements of all results that are reduced along rows, in the first-level cache
constexpr Index kApart = 5 * 64;  // bytes between what is held of one and of the next, which else share their cache's lines
static_assert(kUnit == kReducePiece / 4 && Run::kWideUnit == kReducePiece);  // as reduce_walk.h does

// Whether an item of this size may be read as a number of its type at this address and stride.
bool fits_in_place(const Operand& operand, Index stride, int size) { return operand.aligned && stride == size; }

}  // namespace

class Runner {
 public:
  // `operands` has the inputs, and the outputs where results are stored.
  Runner(const Program& program, Number* numbers, const Operand* operands, int ndim, const Index* shape, bool defer,
         bool stores = true)
      : p_(program), numbers_(numbers), operands_(operands), ndim_(ndim), shape_(shape), defer_(defer) {
    total_ = 1;
    for (int i = 0; i < ndim; ++i) total_ *= shape[i];
    inner_ = ndim ? shape[ndim - 1] : 1;
    ports_ = static_cast<int>(p_.ports_.size());
    block_ = p_.block_;
    given_ = stores ? ports_ : p_.input_count();
    // rows long enough to be blocks of their own leave operands in place that are contiguous along them only; shorter
    // ones where a single loop is all there is to do, and nothing else is in its way
    by_rows_ = inner_ >= (p_.body_.size() == 1 && !defer ? kShortRow : kLongRow) && (ndim > 1 || has_row_value());
    if (by_rows_ && inner_ < kVeryLongRow) by_rows_ = !rolls_rows() && !only_repeats();
    const bool compiles = kCompiles && total_ >= kWorthCompiling && writes_machine_code();
    if (by_rows_) find_row_values(compiles);
    if (by_rows_ && inner_ < kLongRow) by_rows_ = alone_ = all_in_place();
    if (!by_rows_) row_values_ = 0, body_ = &p_.body_;
    if (!compiles || alone_) return;
    if (const auto* compiled = p_.machines_.body(p_, *body_, row_values_)) {
      body_ = &compiled->steps;
      block_ = compiled->block;
    } else if (by_rows_) {  // with the row values that loops can read
      row_values_ = 0;
      find_row_values(false);
    }
  }

  __attribute__((noinline)) void prepare() {
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
    prepare();
    if (rows_.length) hold_rows();
  }

  void begin() {
    for (double* total : totals_)
      if (total) *total = 0;
    if (total_ == 0) return;
    prologue();
    if (summing_) parts_.assign(totals_.size() * static_cast<std::size_t>((total_ + grain_ - 1) / grain_), CompensatedSum{});
  }

  void piece(Index begin, Index end) {
    if (!summing_ || rows_.length) return stretch(begin, end, nullptr);
    const std::size_t inputs = static_cast<std::size_t>(p_.input_count()), outputs = totals_.size();
    for (Index first = begin; first < end; first += kUnit) {
      const Index n = std::min(end - first, kUnit);
      stretch(first, first + n, nullptr);
      CompensatedSum* mine = parts_.data() + static_cast<std::size_t>(first / grain_) * outputs;
      for (std::size_t k = 0; k < outputs; ++k) {
        if (!totals_[k]) continue;
        const char* from = place_of_sums() + static_cast<Index>(k) * bytes_of_sum();
        if (p_.ports_[inputs + k].dtype == DType::Float64) SumOp<double>::run(mine[k], reinterpret_cast<const double*>(from), n);
        else SumOp<float>::run(mine[k].high, reinterpret_cast<const float*>(from), n);
      }
    }
  }

  void end() {
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
  Index size() const { return total_; }
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

  // Whether what is not contiguous is one row, again and again: kept beside the block it costs less than a block for each row
  // (two squared distances from a row of 512, 2048 times: 139 us by rows, so 112).
  bool only_repeats() const {
    if (defer_ || p_.body_.size() == 1 || 2 * inner_ > block_) return false;
    for (int i = 0; i < given_; ++i) {
      const Index* strides = p_.ports_[i].varies ? operands_[i].strides : nullptr;
      if (!strides) continue;
      if (i >= p_.input_count() || strides[ndim_ - 1] != p_.ports_[i].item_size) return false;
      if (std::any_of(strides, strides + ndim_ - 1, [](Index stride) { return stride != 0; })) return false;
    }
    return true;
  }
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

  std::size_t slot_bytes() const { return (static_cast<std::size_t>(p_.slots_) * sizeof(void*) + 63) / 64 * 64; }

  void set_numbers(void** slots) const {
    for (std::size_t i = 0; i < p_.number_slots_.size(); ++i) slots[p_.number_slots_[i]] = numbers_ + i;
  }

  // The calling thread's memory of what is summed, and how many bytes of it are an output's.
  char* place_of_sums() const { return scratch().at_least(static_cast<std::size_t>((ports_ - p_.input_count()) * bytes_of_sum())); }
  Index bytes_of_sum() const { return held_ * 8 + kApart; }
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
    chunk_ = held_;
    grain_ = (task_size() + held_ - 1) / held_ * held_;
  }

  // Rows that were held are reduced.
  __attribute__((noinline)) void reduce_held(Index begin, Index end, const char* sums) const {
    const int inputs = p_.input_count();
    const Index first = begin / rows_.length, count = end / rows_.length - first;
    for (int k = 0; k < ports_ - inputs; ++k) {
      const Rows::Of& each = rows_.outputs[static_cast<std::size_t>(k)];
      const Program::Port& port = p_.ports_[inputs + k];
      if (each.to) reduce_rows(each.kind, port.dtype, count, rows_.length, sums + k * bytes_of_sum(), each.to + first * port.item_size);
    }
  }

  // With `sum` the results are added to it and go nowhere else.
  void stretch(Index first, Index last, double* sum) const {
    const Index longest = std::min(block_, (last - first + 63) / 64 * 64);
    char* memory = workspace().at_least(slot_bytes() + static_cast<std::size_t>(p_.bytes_per_element_ * longest));
    void** slots = reinterpret_cast<void**>(memory);
    char* buffers = memory + slot_bytes();
    std::fill(slots, slots + p_.slots_, nullptr);
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
        n = rows(i, until, at, slots, held, sums);
      } else {
        if (by_rows_) n = std::min(n, inner_ - at[ndim_ - 1]);
        block(i, at, n, slots, buffers, longest, sum, first, held, sums);
      }
      i += n;
      if (i == until) {
        if (rows_.length) reduce_held(held, i, sums);
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
    if (!by_rows_ || defer_ || !far_.empty() || inner_ > block_) return;
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

  // As many elements from `first` on, before `until`, as are in the rows of one matrix, or in part of one row.
  Index rows(Index first, Index until, const Index* at, void** slots, Index held, char* sums) const {
    const int inputs = p_.input_count();
    for (int i = 0; i < ports_; ++i) {
      const Operand& operand = operands_[i];
      const Index size = p_.ports_[i].item_size;
      if (!p_.ports_[i].varies) continue;
      if (i >= inputs && is_summed(i - inputs)) slots[i] = sums + (i - inputs) * bytes_of_sum() + (first - held) * size;
      else slots[i] = operand.data + (operand.strides ? offset(operand, at) : first * size);
    }
    const Index whole = at[ndim_ - 1] ? 0 : (until - first) / inner_;
    const Index count = ndim_ > 1 ? std::min(whole, shape_[ndim_ - 2] - at[ndim_ - 2]) : whole;
    const Index n = count ? inner_ : std::min(inner_ - at[ndim_ - 1], until - first);
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
  Number* numbers_;
  const Operand* operands_;
  int ndim_, ports_ = 0, given_ = 0;
  const Index* shape_;
  bool defer_, by_rows_ = false;
  bool alone_ = false;  // by rows, with one loop and nothing to move
  bool steady_ = false;  // by rows, with nothing to move
  std::vector<std::pair<int, Index>> row_steps_;  // of slots, in bytes
  std::vector<int> far_;  // ports
  std::vector<Course> courses_;
  std::vector<int> course_of_;  // by port; -1 for one contiguous run
  static constexpr int kPartBits = 32;
  Index part_ = 0;  // one loop's share of a block
  Index total_ = 1, inner_ = 1, block_;
  std::uint64_t row_values_ = 0;  // by input
  std::uint64_t repeated_ = 0;    // likewise
  Index period_ = 1;              // of all of these
  std::vector<Step> steps_;       // the program's, with loops for those
  const std::vector<Step>* body_ = &p_.body_;
  bool summing_ = false;
  std::vector<double*> totals_;
  std::vector<CompensatedSum> parts_;
  Rows rows_;
  Index grain_ = kUnit, held_ = kUnit;
  Index chunk_ = std::numeric_limits<Index>::max();  // elements after which rows are reduced
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

double sum(const Program& program, Number* numbers, const Operand* inputs, int ndim, const Index* shape) {
  return Runner(program, numbers, inputs, ndim, shape, false, false).sum();
}

}  // namespace formula
}  // namespace tg
