// Neighbouring loops of a formula compiled into one that keeps what is between them in registers (machine_code.h).
//
// Of loops of f32 or f64, with bool between them, that take a few instructions each: arithmetic, comparisons, choices,
// roots, rounding. An element goes through the same operations, each rounded alone, so the bits are those of the loops.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "../core/machine_code.h"
#include "formula_kernels.h"

namespace tg {
namespace formula {

class Program;
struct Step;

// What a loop of a program does; no name where it stays a loop. The type is that of the last operand, of "number" (a
// truth value as a float) that of the result.
struct Meaning {
  std::string op;
  Type type = Type::Bool;
  int operands = 1;
};
// Whether it can be compiled.
bool compiles(const Meaning& meaning);

// What a body is compiled for.
struct Purpose {
  std::uint64_t row_values = 0, sums = 0;  // which inputs are row values, which outputs are to be summed up
  bool row_loop = false;                   // all of it is one piece of code that goes from row to row
  bool columns = false;                    // sums are of columns
  std::uint64_t largest = 0, smallest = 0;  // of these, which are no sums, but the largest or smallest
  bool operator==(const Purpose& other) const {
    return row_values == other.row_values && sums == other.sums && row_loop == other.row_loop && columns == other.columns &&
           largest == other.largest && smallest == other.smallest;
  }
};

class Machine {
 public:
  static constexpr Index kLanes = 8;
  static constexpr std::size_t kMostTouched = 64;
  struct Touched {  // memory that it reads or writes
    int slot, size;
    bool stored;
  };
  // Loops `first` to `last` of the program; inputs that are row values are one value for all elements. Null if they need too
  // many values at a time. Of outputs to be summed it takes those that it can sum up: kLanes floats are stored of them, whose
  // sum is that of all elements. With those, or a row loop, it goes on from row to row as formula_registers.h says; or adds
  // these up, by columns.
  static std::unique_ptr<Machine> of(const Program& program, int first, int last, const Purpose& purpose, std::uint64_t& sums);
  static std::unique_ptr<Machine> with(const std::vector<std::uint8_t>& code, std::vector<Touched> touched, int masked_size);
  void run(void** slots, Index n) const;
  const std::vector<Touched>& touched() const { return touched_; }

 private:
  Machine() = default;
  void run_last(void** slots, Index done, Index n) const;
  std::unique_ptr<CodePages> pages_;
  void (*code_)(void** slots, Index whole, const void* mask) = nullptr;
  std::vector<Touched> touched_;
  int masked_size_ = 0;  // of elements that the code masks where fewer than a vector are left
};

// The bodies of one program with what can be compiled in it compiled.
class Machines {
 public:
  struct Body {
    Purpose purpose;
    std::uint64_t sums = 0;  // of those wanted the ones that are
    Index block = 0;  // elements at a time
    std::vector<Step> steps;
    std::vector<std::unique_ptr<Machine>> machines;
  };
  // `loops`: what the program does without. Null where it stays so.
  const Body* body(const Program& program, const std::vector<Step>& loops, const Purpose& purpose);

 private:
  static std::unique_ptr<Body> make(const Program& program, const std::vector<Step>& loops, const Purpose& purpose);
  std::mutex busy_;
  std::vector<std::unique_ptr<Body>> bodies_;
  std::atomic<const Body*> plain_{nullptr};  // for no purpose of these
};

}  // namespace formula
}  // namespace tg
