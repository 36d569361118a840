// Loops of a formula as values: each assigned once, by an instruction or two of a processor. For formula_machine.cpp.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "formula_kernels.h"

namespace tg {
namespace formula {

struct Value {
  enum Kind : std::uint8_t {
    Load,     // elements of the array in `code`, a slot
    One,      // one value that the slot points to
    Literal,  // `bits`
    Two,      // an instruction of two operands: its opcode
    Root,
    Rounded,  // `code` says how
    Compare,  // likewise; gives a mask
    Choose,   // where a mask is set the second operand, else the third
    SquareFromOne,  // 1 - x^2, rounded once; x, 1
  } kind = Literal;
  Type type = Type::F32;  // Bool: a mask, bits of a lane that are all set or all not
  int args[3] = {-1, -1, -1};
  int code = 0;
  std::uint64_t bits = 0;
  // for who gives it a register
  int uses = 0, last = -1;
  int reg = -1, pinned = -1, home = -1;
  bool folded = false;
};

enum Opcode { kAdd = 0x58, kMul = 0x59, kSub = 0x5C, kMin = 0x5D, kDiv = 0x5E, kMax = 0x5F, kAnd = 0x54, kOr = 0x56, kXor = 0x57 };
// Of VCMPPS: ordered ones are false for NaN, kNotEqual and kUnordered true.
enum Predicate { kEqual = 0x00, kUnordered = 0x03, kNotEqual = 0x04, kLess = 0x11, kAtMost = 0x12, kAtLeast = 0x1D, kMore = 0x1E };

class Values {
 public:
  explicit Values(Type lanes) : lanes_(lanes) {
    bits(0x0101010101010101u, Type::Bool);
    bits(0, Type::Bool);
  }
  static constexpr int kOnes = 0, kZero = 1;  // for bytes that are truth values

  Type lanes() const { return lanes_; }

  // What `op` does with these operands (-1: none); -1 if it can't be told.
  int apply(const std::string& op, Type type, int a, int b, int c);
  int load(int slot, Type type) { return add(Value::Load, type, slot); }
  int one(int slot, Type type) { return add(Value::One, type, slot); }
  std::vector<Value>& all() { return values_; }

 private:
  int add(Value::Kind kind, Type type, int code, int a = -1, int b = -1, int c = -1);
  int two(Opcode op, int a, int b);
  int compare(Predicate how, int a, int b) { return add(Value::Compare, Type::Bool, how, a, b); }
  int choose(int mask, int yes, int no) { return add(Value::Choose, values_[static_cast<std::size_t>(yes)].type, 0, mask, yes, no); }
  int bits(std::uint64_t bits, Type type);
  int number(double x);
  int size(int x);  // |x|
  int of_floats(const std::string& op, int a, int b, int c);
  int of_masks(const std::string& op, int a, int b, int c);

  Type lanes_;
  std::vector<Value> values_;
};

}  // namespace formula
}  // namespace tg
