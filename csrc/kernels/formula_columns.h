// Sums, or extremes, of a formula's results down the columns of matrices (rows, columns): machine code adds up all rows of a few
// vectors of columns in registers. Sums along a short last axis of what is broadcast along the one before it, of distances of
// (I, 1, K) from (J, K), say, are such sums with these two axes exchanged. For formula_run.cpp.
#pragma once

#include <memory>
#include <vector>

#include "../core/allocator.h"
#include "formula_operands.h"

namespace tg {
namespace formula {

// How operands lie in the shape (..., rows, columns). No shape where they don't.
struct Matrices {
  std::vector<Index> shape;
  std::vector<std::vector<Index>> strides;
  std::vector<Operand> operands;

  Matrices(const Program& program, const Operand* given, int ndim, const Index* sizes, const Rows& rows);

 private:
  void exchange();
  bool ends_with(Index size, std::size_t behind);
};

class MatrixSums : Matrices, PlacedOperands {
 public:
  // Null where it can't be done, or takes longer.
  static std::unique_ptr<MatrixSums> of(const Program& program, Number* numbers, const Operand* operands, int ndim, const Index* shape,
                                        const Rows& rows);
  // Between these, all parts, by several threads, `grain` of them or more at a time.
  void begin();
  void end();
  // A part is a result, one column of a matrix, or, where these have many rows, what `task` says.
  Index parts() const;
  Index grain() const;
  void run(Index first, Index last);

 private:
  struct Moved {
    int input;
    const char* from;
    std::vector<Index> shape, lie, go;
    Index bytes;
  };
  struct Release {
    void operator()(char* memory) const { release(memory); }
  };

  MatrixSums(const Program& program, Number* numbers, const Operand* operands, int ndim, const Index* shape, const Rows& rows);
  bool can_be_taken();
  Index move(int input);
  void of_few_rows(Index first, Index last) const;
  void task(Index number);
  void add(const Index* at, Index row, Index count, Index n, float* const* sums) const;
  template <class Part>
  void join(double* totals, const Part* parts, Index n, int output) const;

  Index rows() const { return shape_[ndim_ - 2]; }
  Index results() const { return total_ / rows(); }
  float* results_of(int output) const { return reinterpret_cast<float*>(rows_.outputs[static_cast<std::size_t>(output)].to); }
  Reduce kind(int output) const { return rows_.outputs[static_cast<std::size_t>(output)].kind; }
  double divisor(int output) const { return kind(output) == Reduce::mean ? static_cast<double>(rows()) : 1; }
  float before(int output) const;

  Number* numbers_;
  const Rows& rows_;
  const Machine* machine_ = nullptr;
  std::vector<Moved> moved_;
  std::unique_ptr<char, Release> memory_;
  Index chunks_ = 1, blocks_ = 1, block_rows_ = 1;
  std::vector<double> parts_;  // [block][output][result]
};

}  // namespace formula
}  // namespace tg
