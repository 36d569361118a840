// Scalar formulas over arrays: a typed program becomes a list of loops over blocks that stay in the first-level cache.
//
// The program comes in static single assignment form. The assembler (formula_assemble.cpp) gives each value a slot:
// - values that are one number for the whole run (constants, Python numbers, 0-d arrays and what follows from them) are
//   computed once, before the first block;
// - the others live in registers of one block, reused as soon as a value has had its last reader. Inputs of the compute
//   type are read where they are, and the last loop of a result writes straight into the output.
// The runner (formula_run.cpp) walks the blocks, gathers what is not contiguous, and hands stretches of blocks to the
// pool. Every loop works element by element, so the bits depend neither on the blocks nor on the threads.
#pragma once

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "formula_kernels.h"
#include "formula_machine.h"
#include "reduce.h"

namespace tg {
namespace formula {

// A number of any compute type.
struct Number {
  alignas(16) unsigned char bytes[16] = {};
};

struct Instruction {
  std::string op;
  Type type = Type::F32;
  std::vector<int> args;           // values; for "load" the input
  Number constant;                 // "const"
  DType width = DType::Int64;      // "wrap"
};

// What an input is, apart from its shape.
struct Input {
  enum Kind : std::uint8_t { Array, Scalar, Python } kind;  // Scalar: a 0-d array
  DType dtype;                                              // of arrays
};

struct Output {
  int value;
  DType dtype;   // of the program
  DType stored;  // of the array; differs from dtype when an array of another type was given to write to
};

struct Source {
  std::vector<Instruction> code;
  std::vector<Input> inputs;
  std::vector<Output> outputs;
};

// Lets programs of narrow integers of one width compute in it.
void narrow_integers(Source& source);

struct Step {
  Loop loop;
  int to, a, b, c;
  const Kernel* kernel = nullptr;  // where there are others for operands that are one value, and
  int mask = 0;                    // which of this one's are
  const Machine* machine = nullptr;  // instead of all that
};

// A slot is a pointer: first one per input, then one per output, then the rest.
class Program {
 public:
  explicit Program(const Source& source);  // throws std::invalid_argument for what is not a program

  struct PythonNumber {
    int input;
    Type type;
    int at;  // in numbers
  };
  struct Buffer {  // of one block, at an offset counted in bytes per element
    int slot;
    int offset;
  };
  struct Spread {  // one number over a block
    int slot, from;
    Loop fill;
  };
  struct Port {  // an input or output array
    DType dtype;
    int item_size;
    int staging;       // offset of the buffer it is packed into where it isn't contiguous
    bool varies;       // an array with dimensions
    bool in_place_ok;  // output: written by the loop that computes it
  };

  const std::vector<Input>& inputs() const { return inputs_; }
  int input_count() const { return static_cast<int>(inputs_.size()); }
  int output_count() const { return static_cast<int>(outputs_.size()); }
  const Port& port(int i) const { return ports_[i]; }  // inputs, then outputs
  DType output_dtype(int i) const { return outputs_[i]; }
  int work() const { return static_cast<int>(body_.size()); }

  // One number per slot that holds one: constants are filled in, the caller adds Python numbers and 0-d arrays.
  const std::vector<Number>& numbers() const { return numbers_; }
  const std::vector<PythonNumber>& python_numbers() const { return python_numbers_; }
  int number_of_scalar_input(int i) const { return scalar_at_[i]; }

  // Stretches of loops that can be compiled: the last loop of that which starts here (-1 inside of it; itself outside).
  int last_compiled(int at) const { return stretch_ends_[static_cast<std::size_t>(at)]; }
  bool is_compiled(int at) const { return last_compiled(at) != at; }
  bool can_compile(int at) const { return compiles(meanings_[static_cast<std::size_t>(at)]); }
  Index block_for(const Machines::Body& body) const;

 private:
  friend class Assembler;
  friend class Reader;
  friend class PlacedOperands;
  friend class Runner;
  friend class MatrixSums;

  std::vector<Input> inputs_;
  std::vector<DType> outputs_;
  std::vector<Port> ports_;
  std::vector<Number> numbers_;
  std::vector<int> number_slots_;  // slot of each number
  std::vector<PythonNumber> python_numbers_;
  std::vector<int> scalar_at_;
  std::vector<Step> prologue_, body_;
  std::vector<Meaning> meanings_;  // of the body's loops
  std::vector<int> stretch_ends_;  // by loop: -1 inside of a stretch
  mutable Machines machines_;
  std::vector<Buffer> buffers_;
  std::vector<Spread> spreads_;
  int slots_ = 0;
  int bytes_per_element_ = 0;
  int block_ = 1024;
  static constexpr Index kHeavy = 16;
  Index cost_ = 0;  // of an element, of which a plain loop is one
};

// One array of a run, seen in the broadcast shape.
struct Operand {
  char* data;
  const Index* strides;  // bytes; 0 where it is broadcast. Null: one contiguous run over the whole shape
  bool aligned;
  // Of an input that is rolled, with strides then: element i of an axis is read at i - shift, from 0 to before the axis's
  // size, around its end. Null of others. Nothing may be written where it lies.
  const Index* shifts;
};

// Runs the program over `shape`. `numbers` are the program's, completed; results of the prologue are written to them.
// `operands` are the inputs and then the outputs (entries of inputs that do not vary are not read). With `defer`
// results are stored after a block's last loop, so that an output may be the same memory as an input.
void run(const Program& program, Number* numbers, const Operand* operands, int ndim, const Index* shape, bool defer);

// The same call, without `defer`, of which all but elements and numbers stays from run to run: what it points to has to.
class Repeated {
 public:
  Repeated(const Program& program, Number* numbers, const Operand* operands, int ndim, const Index* shape);
  ~Repeated();
  void run();

 private:
  std::unique_ptr<class Runner> runner_;
};

// Outputs that are reduced along rows and not stored, rows of `length` elements that follow each other; 0 where none are. With
// `columns` they are reduced down the columns of matrices of `length` rows instead, if sums_columns() says so.
// The bits are those of a stored output's, but for sums and means of floats that machine code takes (formula_machine.h): by
// lanes, in an order of their own, which depends on the program, the shape and how operands lie.
struct Rows {
  struct Of {
    Reduce kind;
    char* to;  // a value for each row; null of an output that is stored
  };
  Index length = 0, columns = 0;
  std::vector<Of> outputs;
};
bool sums_columns(const Program& program, const Operand* operands, int ndim, const Index* shape, const Rows& rows);

// The same in parts, as often as asked: begin(), pieces that start at multiples of kUnit, by several threads, then end().
// Where there are sums, pieces from one multiple of `grain` (kUnit; kWideUnit with sums of doubles) to the next come in
// order and from one thread.
// Some outputs may be summed and not stored: `totals[i]`, if not null, receives the sum of output i, float or double, of
// which no operand is read. The bits are those of the stored output's sum (reduce.h). Where rows are reduced instead, pieces
// are of whole rows.
class Run {
 public:
  static constexpr Index kUnit = 16384, kWideUnit = 4 * kUnit;
  Run(const Program& program, Number* numbers, const Operand* operands, int ndim, const Index* shape,
      std::vector<double*> totals = {}, Rows rows = {});
  ~Run();
  void begin();
  void piece(Index first, Index last);
  void end();
  Index size() const;
  Index grain() const;

 private:
  std::unique_ptr<class Runner> runner_;
};

// The sum of the only output, which is float or double, over `shape`; of the operands only the inputs.
double sum(const Program& program, Number* numbers, const Operand* inputs, int ndim, const Index* shape);

}  // namespace formula
}  // namespace tg
