#include "formula_values.h"

#include <cstring>
#include <limits>

#include "formula_machine.h"

namespace tg {
namespace formula {

bool compiles(const Meaning& meaning) {
  if (meaning.op.empty()) return false;
  Values trial(meaning.type == Type::F64 ? Type::F64 : Type::F32);
  const bool floats = meaning.type == Type::F32 || meaning.type == Type::F64;
  if (!floats && meaning.type != Type::Bool) return false;
  const auto operand = [&](bool mask) { return trial.load(0, mask ? Type::Bool : meaning.type); };
  const int a = operand(meaning.op == "where" || meaning.op == "number"), b = operand(false), c = operand(false);
  return trial.apply(meaning.op, meaning.type, a, b, c) >= 0;
}

int Values::add(Value::Kind kind, Type type, int code, int a, int b, int c) {
  Value x;
  x.kind = kind, x.type = type, x.code = code;
  x.args[0] = a, x.args[1] = b, x.args[2] = c;
  values_.push_back(x);
  return static_cast<int>(values_.size()) - 1;
}

int Values::two(Opcode op, int a, int b) {
  const bool mask = values_[static_cast<std::size_t>(a)].type == Type::Bool && values_[static_cast<std::size_t>(b)].type == Type::Bool;
  return add(Value::Two, mask ? Type::Bool : lanes_, op, a, b);
}

int Values::bits(std::uint64_t bits, Type type) {
  for (std::size_t i = 0; i < values_.size(); ++i)
    if (values_[i].kind == Value::Literal && values_[i].bits == bits && values_[i].type == type) return static_cast<int>(i);
  const int made = add(Value::Literal, type, 0);
  values_.back().bits = bits;
  return made;
}

int Values::number(double x) {
  std::uint64_t found = 0;
  if (lanes_ == Type::F64) {
    std::memcpy(&found, &x, sizeof(x));
  } else {
    const float narrow = static_cast<float>(x);
    std::memcpy(&found, &narrow, sizeof(narrow));
  }
  return bits(found, lanes_);
}

int Values::size(int x) { return two(kAnd, x, bits(lanes_ == Type::F64 ? ~std::uint64_t(0) >> 1 : 0x7FFFFFFFu, lanes_)); }

int Values::apply(const std::string& op, Type type, int a, int b, int c) {
  if (op == "copy") return a;
  if (op == "number") return two(kAnd, a, number(1));
  if (type == Type::Bool) return of_masks(op, a, b, c);
  const auto between = op.find('>');
  if (between == std::string::npos) return of_floats(op, a, b, c);
  const int first = of_floats(op.substr(0, between), a, b, -1);
  return first < 0 ? first : of_floats(op.substr(between + 1), first, c, -1);
}

int Values::of_masks(const std::string& op, int a, int b, int c) {
  if (op == "and") return two(kAnd, a, b);
  if (op == "or") return two(kOr, a, b);
  if (op == "xor" || op == "ne") return two(kXor, a, b);
  if (op == "eq") return two(kXor, two(kXor, a, b), bits(~std::uint64_t(0), Type::Bool));
  if (op == "not") return two(kXor, a, bits(~std::uint64_t(0), Type::Bool));
  if (op == "where") return choose(a, b, c);
  return -1;
}

int Values::of_floats(const std::string& op, int a, int b, int c) {
  const std::uint64_t sign = lanes_ == Type::F64 ? std::uint64_t(1) << 63 : 0x80000000u;
  if (op == "add") return two(kAdd, a, b);
  if (op == "sub") return two(kSub, a, b);
  if (op == "rsub") return two(kSub, b, a);
  if (op == "mul") return two(kMul, a, b);
  if (op == "div") return two(kDiv, a, b);
  if (op == "neg") return two(kXor, a, bits(sign, lanes_));
  if (op == "abs") return size(a);
  // the instructions give the second operand where one is NaN; a mask of ones is a NaN
  if (op == "min") return two(kOr, two(kMin, a, b), compare(kUnordered, a, a));
  if (op == "max") return two(kOr, two(kMax, a, b), compare(kUnordered, a, a));
  if (op == "sqrt") return add(Value::Root, lanes_, 0, a);
  if (op == "rsqrt") return two(kDiv, number(1), add(Value::Root, lanes_, 0, a));
  if (op == "floor") return add(Value::Rounded, lanes_, 0x9, a);
  if (op == "ceil") return add(Value::Rounded, lanes_, 0xA, a);
  if (op == "trunc") return add(Value::Rounded, lanes_, 0xB, a);
  if (op == "round") return add(Value::Rounded, lanes_, 0xC, a);
  if (op == "sign") {
    const int whole = two(kOr, two(kAnd, a, bits(sign, lanes_)), number(1));
    return choose(compare(kUnordered, a, a), a, two(kAnd, whole, compare(kNotEqual, a, number(0))));
  }
  if (op == "one_minus_square") return add(Value::SquareFromOne, lanes_, 0, a, number(1));
  if (op == "eq") return compare(kEqual, a, b);
  if (op == "ne") return compare(kNotEqual, a, b);
  if (op == "lt") return compare(kLess, a, b);
  if (op == "le") return compare(kAtMost, a, b);
  if (op == "gt") return compare(kMore, a, b);
  if (op == "ge") return compare(kAtLeast, a, b);
  if (op == "truth") return compare(kNotEqual, a, number(0));
  if (op == "isnan") return compare(kUnordered, a, a);
  if (op == "isinf") return compare(kEqual, size(a), number(std::numeric_limits<double>::infinity()));
  if (op == "isfinite") {
    const double most = lanes_ == Type::F64 ? std::numeric_limits<double>::max() : std::numeric_limits<float>::max();
    return compare(kAtMost, size(a), number(most));
  }
  if (op == "where") return choose(a, b, c);
  if (op == "larger_or") return choose(compare(kMore, a, b), a, c);
  if (op == "if_larger") return choose(compare(kMore, a, b), c, b);
  if (op == "lerp") {
    const int near = compare(kLess, size(c), number(0.5));
    const int way = choose(near, c, two(kSub, c, number(1)));
    return two(kAdd, choose(near, a, b), two(kMul, way, two(kSub, b, a)));
  }
  return -1;
}

}  // namespace formula
}  // namespace tg
