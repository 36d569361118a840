// See formula_columns.h. What takes the time is machine code, so one build serves all.
#include "formula_columns.h"

#include <algorithm>
#include <limits>

#include "../core/parallel.h"
#include "copy.h"
#include "reduce_lanes.h"

namespace tg {
namespace formula {
namespace {

constexpr Index kItem = sizeof(float), kLine = 64;
constexpr Index kFewest = 16, kWorth = 64;  // columns, elements of a matrix, of which it is worth to exchange axes
constexpr Index kShare = 8;       // so many times more is summed than moved
constexpr Index kSummed = 64;     // rows that are added up in floats; these sums are added up in doubles
constexpr Index kFollowed = 16;   // rows that are read side by side, from as many places
constexpr Index kColumns = 1024;  // of a task: their sums are in the first-level cache
constexpr Index kTask = 32768;    // elements
constexpr int kMostOutputs = 64;

bool takes(Reduce kind) { return kind == Reduce::sum || kind == Reduce::mean || kind == Reduce::amax || kind == Reduce::amin; }

}  // namespace

Matrices::Matrices(const Program& program, const Operand* given, int ndim, const Index* sizes, const Rows& rows)
    : shape(sizes, sizes + ndim), operands(given, given + program.input_count()) {
  for (std::size_t i = 0; i < operands.size(); ++i) {
    const Program::Port& port = program.port(static_cast<int>(i));
    const Index* known = port.varies ? operands[i].strides : nullptr;
    strides.emplace_back(known ? std::vector<Index>(known, known + ndim) : std::vector<Index>(shape.size()));
    Index step = port.varies && !known ? port.item_size : 0;
    for (int d = ndim; d-- > 0 && step; step *= sizes[d]) strides[i][static_cast<std::size_t>(d)] = step;
  }
  if (!rows.columns) exchange();
  else if (!ends_with(rows.columns, 0) || !ends_with(rows.length, 1)) shape.clear();
  for (std::size_t i = 0; i < operands.size(); ++i) operands[i].strides = strides[i].data();
}

void Matrices::exchange() {
  const std::size_t n = shape.size();
  std::swap(shape[n - 1], shape[n - 2]);
  for (auto& each : strides) std::swap(each[n - 1], each[n - 2]);
}

// Makes the last axis but `behind` one of this size: what it has more becomes an axis before it.
bool Matrices::ends_with(Index size, std::size_t behind) {
  if (shape.size() <= behind) return false;
  const std::size_t d = shape.size() - 1 - behind;
  if (shape[d] == size) return true;
  if (shape[d] < size || shape[d] % size) return false;
  shape.insert(shape.begin() + static_cast<std::ptrdiff_t>(d), shape[d] / size);
  shape[d + 1] = size;
  for (auto& each : strides) each.insert(each.begin() + static_cast<std::ptrdiff_t>(d), each[d] * size);
  return true;
}

std::unique_ptr<MatrixSums> MatrixSums::of(const Program& program, Number* numbers, const Operand* operands, int ndim, const Index* shape,
                                           const Rows& rows) {
  const Index pairs = ndim < 2 ? 0 : shape[ndim - 2];
  if (!rows.columns && (pairs < kFewest || shape[ndim - 1] != rows.length || rows.length > kSummed || rows.length * pairs < kWorth))
    return nullptr;
  if (program.last_compiled(0) != program.work() - 1 || program.output_count() > kMostOutputs) return nullptr;
  for (int i = 0; i < program.output_count(); ++i) {
    const Rows::Of& each = rows.outputs[static_cast<std::size_t>(i)];
    if (!each.to || !takes(each.kind) || program.output_dtype(i) != DType::Float32) return nullptr;
  }
  std::unique_ptr<MatrixSums> made(new MatrixSums(program, numbers, operands, ndim, shape, rows));
  return made->can_be_taken() ? std::move(made) : nullptr;
}

MatrixSums::MatrixSums(const Program& program, Number* numbers, const Operand* operands, int ndim, const Index* shape, const Rows& rows)
    : Matrices(program, operands, ndim, shape, rows),
      PlacedOperands(program, Matrices::operands.data(), static_cast<int>(Matrices::shape.size()), Matrices::shape.data(), false, false),
      numbers_(numbers),
      rows_(rows) {}

bool MatrixSums::can_be_taken() {
  if (ndim_ < 2 || ndim_ > kMaxDims) return false;
  Index moved = 0;
  for (int i = 0; i < given_; ++i) {
    const Operand& operand = operands_[i];
    if (!p_.ports_[i].varies) continue;
    const Index along = operand.strides[ndim_ - 1];
    const bool flag = along == 0 && p_.ports_[i].dtype == DType::Bool;
    if (!operand.aligned || operand.shifts || i >= 64 || (p_.ports_[i].item_size != kItem && !flag)) return false;
    if (along == 0) row_values_ |= std::uint64_t(1) << i;
    else if (along != kItem) moved += move(i);
  }
  if (moved * kShare > total_) return false;
  const std::uint64_t all = ~std::uint64_t(0) >> (64 - p_.output_count());
  std::uint64_t largest = 0, smallest = 0;
  for (int k = 0; k < p_.output_count(); ++k) {
    largest |= std::uint64_t(kind(k) == Reduce::amax) << k;
    smallest |= std::uint64_t(kind(k) == Reduce::amin) << k;
  }
  const Machines::Body* compiled = p_.machines_.body(p_, p_.body_, {row_values_, all, true, true, largest, smallest});
  if (!compiled || compiled->sums != all) return false;
  machine_ = compiled->steps.front().machine;
  chunks_ = (inner_ + kColumns - 1) / kColumns;
  const Index wide = std::max<Index>(1, kTask / std::min(inner_, kColumns));
  block_rows_ = (wide + kSummed - 1) / kSummed * kSummed;
  blocks_ = (rows() + block_rows_ - 1) / block_rows_;
  return true;
}

// Notes how the input is to be moved; of how many elements.
Index MatrixSums::move(int input) {
  std::vector<Index>& strides = Matrices::strides[static_cast<std::size_t>(input)];
  Moved made{input, operands_[input].data, {}, {}, {}, kItem};
  for (int d = ndim_ - 1; d >= 0; --d) {
    Index& step = strides[static_cast<std::size_t>(d)];
    if (step == 0 || shape_[d] == 1) continue;
    made.shape.insert(made.shape.begin(), shape_[d]);
    made.lie.insert(made.lie.begin(), step);
    made.go.insert(made.go.begin(), made.bytes);
    step = made.bytes;
    made.bytes *= shape_[d];
    // rows of an even number of lines would be in few of the sets of the cache
    if (d == ndim_ - 1) made.bytes = ((made.bytes + kLine - 1) / kLine | 1) * kLine;
  }
  moved_.push_back(std::move(made));
  return moved_.back().bytes / kItem;
}

void MatrixSums::begin() {
  Index bytes = 0;
  for (const Moved& each : moved_) bytes += each.bytes;
  if (bytes) memory_.reset(static_cast<char*>(allocate(static_cast<std::size_t>(bytes))));
  char* to = memory_.get();
  for (const Moved& each : moved_) {
    copy_strided(kItem, static_cast<int>(each.shape.size()), each.shape.data(), each.from, each.lie.data(), to, each.go.data());
    Matrices::operands[static_cast<std::size_t>(each.input)].data = to;
    to += each.bytes;
  }
  if (blocks_ > 1) parts_.resize(static_cast<std::size_t>(blocks_ * p_.output_count() * results()));
}

void MatrixSums::end() {
  memory_.reset();
  if (blocks_ == 1) return;
  const Index all = results();
  parallel_for(all, std::max<Index>(1, kTask / blocks_), [&](Index first, Index last) {
    for (int k = 0; k < p_.output_count(); ++k) {
      const auto part = [&](Index block) { return parts_.data() + (block * p_.output_count() + k) * all; };
      for (Index b = 1; b < blocks_; ++b) join(part(0) + first, part(b) + first, last - first, k);
      for (Index i = first; i < last; ++i) results_of(k)[i] = static_cast<float>(part(0)[i] / divisor(k));
    }
  });
}

Index MatrixSums::parts() const { return rows() <= kSummed ? results() : results() / inner_ * blocks_ * chunks_; }

Index MatrixSums::grain() const { return std::max<Index>(1, kTask / (total_ / parts())); }

void MatrixSums::run(Index first, Index last) {
  if (rows() <= kSummed) return of_few_rows(first, last);
  for (Index i = first; i < last; ++i) task(i);
}

void MatrixSums::of_few_rows(Index first, Index last) const {
  Index at[kMaxDims];
  locate(first / inner_ * rows() * inner_ + first % inner_, at);
  while (first < last) {
    Index& column = at[ndim_ - 1];
    const Index n = std::min({inner_ - column, last - first, kColumns});
    float* to[kMostOutputs];
    for (int k = 0; k < p_.output_count(); ++k) to[k] = results_of(k) + first;
    add(at, 0, rows(), n, to);
    for (int k = 0; k < p_.output_count(); ++k) {
      const float all = static_cast<float>(divisor(k));
      for (Index j = 0; j < n && all != 1; ++j) to[k][j] /= all;
    }
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

// Some of the rows of some of the columns of one matrix.
void MatrixSums::task(Index number) {
  const Index column = number % chunks_ * kColumns, block = number / chunks_ % blocks_, matrix = number / chunks_ / blocks_;
  const Index n = std::min(kColumns, inner_ - column), last = std::min(rows(), (block + 1) * block_rows_);
  const int outputs = p_.output_count();
  Scratch<float, 4096> sums(outputs * n);
  Scratch<double, 8192> totals(outputs * n);
  for (int k = 0; k < outputs; ++k) std::fill_n(totals.data() + k * n, n, static_cast<double>(before(k)));
  float* to[kMostOutputs];
  for (int k = 0; k < outputs; ++k) to[k] = sums.data() + k * n;
  Index at[kMaxDims];
  locate(matrix * rows() * inner_ + column, at);
  for (Index row = block * block_rows_; row < last; row += kSummed) {
    add(at, row, std::min(kSummed, last - row), n, to);
    for (int k = 0; k < outputs; ++k) join(totals.data() + k * n, to[k], n, k);
  }
  const Index first = matrix * inner_ + column;
  for (int k = 0; k < outputs; ++k) {
    const double* from = totals.data() + k * n;
    if (blocks_ > 1) std::copy_n(from, n, &parts_[static_cast<std::size_t>((block * outputs + k) * results() + first)]);
    for (Index j = 0; j < n && blocks_ == 1; ++j) results_of(k)[first + j] = static_cast<float>(from[j] / divisor(k));
  }
}

// The sums of n columns over some rows, of each output where `sums` says.
void MatrixSums::add(const Index* at, Index row, Index count, Index n, float* const* sums) const {
  thread_local std::vector<void*> slots;
  slots.resize(std::max(slots.size(), static_cast<std::size_t>(2 * p_.slots_ + 1)));
  Index* steps = reinterpret_cast<Index*>(slots.data()) + p_.slots_;
  std::fill_n(steps, ports_, 0);  // of what is one number for all too
  for (std::size_t i = 0; i < p_.number_slots_.size(); ++i) slots[static_cast<std::size_t>(p_.number_slots_[i])] = numbers_ + i;
  for (int i = 0; i < given_; ++i) {
    if (!p_.ports_[i].varies) continue;
    const Index step = operands_[i].strides[ndim_ - 2];
    slots[static_cast<std::size_t>(i)] = operands_[i].data + offset(operands_[i], at) + row * step;
    steps[i] = step;
  }
  for (int k = 0; k < p_.output_count(); ++k) {
    slots[static_cast<std::size_t>(given_ + k)] = sums[k];
    std::fill_n(sums[k], n, before(k));
  }
  for (Index left = count; left > 0; left -= kFollowed) {
    steps[p_.slots_] = std::min(left, kFollowed);
    machine_->run(slots.data(), n);
    for (int i = 0; i < given_; ++i)
      if (p_.ports_[i].varies) slots[static_cast<std::size_t>(i)] = static_cast<char*>(slots[static_cast<std::size_t>(i)]) + kFollowed * steps[i];
  }
}

float MatrixSums::before(int output) const {  // all rows
  constexpr float infinity = std::numeric_limits<float>::infinity();
  return kind(output) == Reduce::amax ? -infinity : kind(output) == Reduce::amin ? infinity : 0;
}

// Each of n parts to what there is of it.
template <class Part>
void MatrixSums::join(double* totals, const Part* parts, Index n, int output) const {
  const auto each = [=](auto joined) {
    for (Index j = 0; j < n; ++j) totals[j] = joined(totals[j], static_cast<double>(parts[j]));
  };
  if (kind(output) == Reduce::amax) each([](double a, double b) { return max_nan(a, b); });
  else if (kind(output) == Reduce::amin) each([](double a, double b) { return min_nan(a, b); });
  else each([](double a, double b) { return a + b; });
}

}  // namespace formula
}  // namespace tg
