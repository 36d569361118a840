// A formula's call within a program: made as often as the program runs, at once or a piece at a time.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "../core/launch.h"
#include "../core/parallel.h"
#include "../kernels/formula.h"

namespace tg {
namespace formula {

inline Index size_of_shape(int ndim, const Index* shape) {
  Index n = 1;
  for (int d = 0; d < ndim; ++d) n *= shape[d];
  return n;
}
inline Index work_of(const Program& program, int ndim, const Index* shape) {
  return size_of_shape(ndim, shape) * (program.work() + 1);
}

// A call in a program: all that it reads but the elements of arrays is its own. The numbers of 0-d arrays are fetched
// when it runs.
struct Written {
  struct Fetched {
    int at;
    const void* from;
    std::size_t bytes;
  };
  py::object formula;  // whose the program is
  const Program* program;
  std::vector<Number> numbers;
  std::vector<Fetched> fetched;
  std::vector<Operand> operands;
  std::vector<Index> strides, shape;  // strides with the shifts of rolled operands

  int ndim() const { return static_cast<int>(shape.size()); }
  Index size() const { return size_of_shape(ndim(), shape.data()); }
  void fetch(Number* values) const {
    std::copy(numbers.begin(), numbers.end(), values);
    for (const auto& each : fetched) std::memcpy(values[static_cast<std::size_t>(each.at)].bytes, each.from, each.bytes);
  }
};

// Results of which the sum or mean is wanted, or something of each row: where it goes.
struct Total {
  bool wanted = false, mean = false, wide = false;
  char* to = nullptr;
  Reduce of_rows = Reduce::sum;
};
struct Totals {
  std::vector<Total> of;  // by result
  Index length = 0;       // of rows, where they are reduced
  Index columns = 0;      // of matrices of so many rows, where these are
  bool empty() const { return of.empty(); }
  Rows rows() const {
    Rows found{length, columns, {}};
    for (const Total& each : of) found.outputs.push_back({each.of_rows, each.to});
    return found;
  }
};

struct Summing {
  Totals totals;
  std::vector<double> sums;
  formula::Run run;

  Summing(const Program& program, Number* numbers, const Operand* operands, int ndim, const Index* shape, const Totals& wanted)
      : totals(wanted), sums(wanted.of.size()), run(program, numbers, operands, ndim, shape, places(), wanted.rows()) {}
  std::vector<double*> places() {
    std::vector<double*> found(sums.size(), nullptr);
    for (std::size_t i = 0; i < sums.size(); ++i)
      if (totals.of[i].wanted && !totals.length) found[i] = &sums[i];
    return found;
  }
  void all() {
    run.begin();
    parallel_for(run.size(), run.grain(), [this](Index first, Index last) { run.piece(first, last); });
    end();
  }
  void end() {
    run.end();
    if (totals.length) return;
    for (std::size_t i = 0; i < sums.size(); ++i) {
      const Total& t = totals.of[i];
      if (!t.wanted) continue;
      const double value = t.mean ? sums[i] / static_cast<double>(run.size()) : sums[i];
      if (t.wide) *reinterpret_cast<double*>(t.to) = value;
      else *reinterpret_cast<float*>(t.to) = static_cast<float>(value);
    }
  }
};

// A call that may be done in pieces together with others.
struct WrittenPieces final : PieceLaunch {
  std::shared_ptr<Written> call;
  std::vector<Number> values;
  Totals totals;
  // made once: anew each time a whole call takes 103 ns of 64 numbers, not 69
  std::unique_ptr<Summing> running;
  std::unique_ptr<Repeated> repeated;  // of a call that is made whole

  void begin() override {
    fetch();
    running->run.begin();
  }
  void piece(Index first, Index last) override { running->run.piece(first, last); }
  void end() override { running->end(); }
  void run() override {
    if (totals.empty()) {
      call->fetch(values.data());
      if (!repeated)
        repeated = std::make_unique<Repeated>(*call->program, values.data(), call->operands.data(), call->ndim(), call->shape.data());
      return repeated->run();
    }
    fetch();
    running->all();
  }

 private:
  void fetch() {
    call->fetch(values.data());
    if (!running)
      running = std::make_unique<Summing>(*call->program, values.data(), call->operands.data(), call->ndim(), call->shape.data(), totals);
  }
};

// Whether each of these operands is one contiguous run, so that a piece of the elements is a piece of it.
inline bool all_contiguous(const Program& program, const Operand* operands, int first, int last) {
  for (int i = first; i < last; ++i)
    if (program.port(i).varies && operands[i].strides) return false;
  return true;
}

// Of an operand that lies contiguous but for the axes that it is repeated along, its last ones: along how many elements;
// 0 of others.
inline Index repeated_along(const Operand& operand, Index item, int ndim, const Index* shape) {
  if (operand.shifts) return 0;
  int d = ndim;
  Index along = 1;
  while (d > 0 && operand.strides[d - 1] == 0) along *= shape[--d];
  if (d == 0 || d == ndim) return 0;
  for (Index step = item; d > 0; step *= shape[--d])
    if (operand.strides[d - 1] != step) return 0;
  return along;
}

// The memory that an operand's elements lie in, item by item where they lie as the results do, or each for a row of them.
inline PieceLaunch::Touch touch_of(const Operand& operand, Index item, int ndim, const Index* shape, bool written) {
  const Index n = size_of_shape(ndim, shape);
  if (!operand.strides) return {operand.data, n * item, item, written};
  if (const Index along = n ? repeated_along(operand, item, ndim, shape) : 0) return {operand.data, n / along * item, item, written, along};
  Index low = 0, high = item;
  for (int d = 0; d < ndim; ++d) {  // rolled or not: within the whole array
    if (shape[d] == 0) return {operand.data, 0, 0, written};
    (operand.strides[d] < 0 ? low : high) += (shape[d] - 1) * operand.strides[d];
  }
  return {operand.data + low, high - low, 0, written};
}

// The call, in pieces together with others where its results lie contiguous.
inline std::unique_ptr<WrittenPieces> in_pieces(std::shared_ptr<Written> call, const Totals& totals) {
  auto pieces = std::make_unique<WrittenPieces>();
  pieces->values = call->numbers;
  pieces->totals = totals;
  const Program& program = *call->program;
  const int inputs = program.input_count(), ports = static_cast<int>(call->operands.size());
  const Index* shape = call->shape.data();
  if (!totals.columns && all_contiguous(program, call->operands.data(), inputs, ports)) {
    pieces->n = call->size();
    pieces->anywhere = totals.empty();
    for (int i = 0; i < ports; ++i) {
      const Program::Port& port = program.port(i);
      const Operand& operand = call->operands[static_cast<std::size_t>(i)];
      if (port.varies && operand.data) pieces->touches.push_back(touch_of(operand, port.item_size, call->ndim(), shape, i >= inputs));
    }
    for (const auto& each : call->fetched)
      pieces->touches.push_back({static_cast<const char*>(each.from), static_cast<Index>(each.bytes), 0, false});
    for (const Total& each : totals.of) {
      if (!each.wanted) continue;
      const Index item = each.wide ? 8 : 4;
      if (totals.length) {
        pieces->touches.push_back({each.to, pieces->n / totals.length * item, item, true, totals.length});
        pieces->unit = totals.length;
        continue;
      }
      pieces->touches.push_back({each.to, item, 0, true});
      pieces->unit = Run::kUnit;
      pieces->order = std::max(pieces->order, each.wide ? Run::kWideUnit : Run::kUnit);
    }
  }
  pieces->call = std::move(call);
  return pieces;
}

}  // namespace formula
}  // namespace tg
