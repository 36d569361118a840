// Programs of narrow integers in their own width.
//
// A program computes integers in i64 and wraps every result to its width. Where all of them have one width, and every
// operation's low bits depend on its operands' low bits alone or its operands are wrapped themselves, computing in that
// width gives the same numbers: a vector of int8 holds 8 times as many, and nothing is converted on the way in and out
// (u8 + u8 takes a twelfth of the time, i32 + i32 a fifth).
#include "formula.h"

#include <algorithm>

namespace tg {
namespace formula {
namespace {

bool one_of(const std::string& op, std::initializer_list<const char*> list) {
  return std::any_of(list.begin(), list.end(), [&](const char* each) { return op == each; });
}
// Right in the low bits, if the operands are; the result is wrapped by the instruction that reads it.
bool wraps(const std::string& op) { return one_of(op, {"add", "sub", "mul", "neg", "abs", "not"}); }
// The result is one of the operands or made of their bits. (and, or, xor of wrapped numbers are wrapped.)
bool stays(const std::string& op) { return one_of(op, {"and", "or", "xor", "min", "max", "sign"}); }
bool compares(const std::string& op) { return one_of(op, {"eq", "ne", "lt", "le", "gt", "ge"}); }

Type narrow_type(DType width) {
  switch (width) {
    case DType::UInt8: return Type::U8;
    case DType::Int8: return Type::I8;
    case DType::Int16: return Type::I16;
    case DType::Int32: return Type::I32;
    default: return Type::I64;
  }
}

class Narrowing {
 public:
  explicit Narrowing(Source& source) : source_(source), code_(source.code) {}

  void apply() {
    if (!find_width() || !possible()) return;
    rewrite();
  }

 private:
  int count() const { return static_cast<int>(code_.size()); }
  bool is_array(int input) const { return source_.inputs[static_cast<std::size_t>(input)].kind != Input::Python; }

  // The one width that integer arrays have here.
  bool find_width() {
    for (const Instruction& x : code_) {
      if (x.op != "load" || x.type != Type::I64 || x.args.empty()) continue;
      const int k = x.args[0];
      if (k < 0 || k >= static_cast<int>(source_.inputs.size())) return false;
      if (!is_array(k)) continue;
      const DType dtype = source_.inputs[static_cast<std::size_t>(k)].dtype;
      if (narrow_type(dtype) == Type::I64 || (type_ != Type::I64 && dtype != width_)) return false;
      width_ = dtype;
      type_ = narrow_type(dtype);
    }
    return type_ != Type::I64;
  }

  // Marks what becomes narrow; false if something can't.
  bool possible() {
    number_.assign(code_.size(), 0);
    narrow_.assign(code_.size(), 0);
    wrapped_.assign(code_.size(), 0);
    for (int i = 0; i < count(); ++i) {
      const Instruction& x = code_[static_cast<std::size_t>(i)];
      const auto at = static_cast<std::size_t>(i);
      if (x.op == "const") {
        number_[at] = 1;
        continue;
      }
      if (x.op == "load") {
        if (x.args.empty() || x.args[0] < 0 || x.args[0] >= static_cast<int>(source_.inputs.size())) return false;
        if (!is_array(x.args[0])) number_[at] = 1;
        else narrow_[at] = wrapped_[at] = x.type == Type::I64;
        continue;
      }
      bool numbers = true, any_narrow = false;
      for (int arg : x.args) {
        if (arg < 0 || arg >= i) return false;
        numbers &= number_[static_cast<std::size_t>(arg)];
        any_narrow |= narrow_[static_cast<std::size_t>(arg)];
      }
      if (numbers) {
        number_[at] = 1;
        wrapped_[at] = x.op == "wrap" && x.width == width_;
        continue;
      }
      if (!any_narrow) {
        if (x.type == Type::I64) return false;  // an integer made of something else
        continue;
      }
      if (x.op == "wrap") {
        if (x.width != width_) return false;
        narrow_[at] = wrapped_[at] = 1;
        continue;
      }
      const bool first_is_condition = x.op == "where";
      for (std::size_t k = first_is_condition ? 1 : 0; k < x.args.size(); ++k) {
        const auto arg = static_cast<std::size_t>(x.args[k]);
        if (!wrapped_[arg] && !(number_[arg] && (wraps(x.op) || fits(code_[arg])))) return false;
      }
      if (wraps(x.op)) narrow_[at] = 1;
      else if (stays(x.op) || first_is_condition) narrow_[at] = wrapped_[at] = 1;
      else if (!compares(x.op) && x.op != "cast") return false;
    }
    for (const Output& output : source_.outputs) {
      const auto value = static_cast<std::size_t>(output.value);
      if (output.value < 0 || output.value >= count()) return false;
      if (narrow_[value] && (!wrapped_[value] || output.dtype != width_ || output.stored != width_)) return false;
      if (!narrow_[value] && code_[value].type == Type::I64) return false;
    }
    return true;
  }

  // Whether a constant is a number of the width.
  bool fits(const Instruction& x) const {
    if (x.op != "const" || x.type != Type::I64) return false;
    std::int64_t value;
    std::memcpy(&value, x.constant.bytes, sizeof value);
    switch (width_) {
      case DType::UInt8: return value == static_cast<std::uint8_t>(value);
      case DType::Int8: return value == static_cast<std::int8_t>(value);
      case DType::Int16: return value == static_cast<std::int16_t>(value);
      default: return value == static_cast<std::int32_t>(value);
    }
  }

  void rewrite() {
    std::vector<Instruction> made;
    std::vector<int> place(code_.size(), -1), as_narrow(code_.size(), -1);
    for (int i = 0; i < count(); ++i) {
      const auto at = static_cast<std::size_t>(i);
      Instruction x = code_[at];
      if (x.op == "wrap" && narrow_[at]) {
        place[at] = place[static_cast<std::size_t>(x.args[0])];
        continue;
      }
      if (x.op != "load" && x.op != "const") {
        bool any_narrow = false;
        for (int arg : x.args) any_narrow |= narrow_[static_cast<std::size_t>(arg)] != 0;
        for (std::size_t k = 0; k < x.args.size(); ++k) {
          const auto arg = static_cast<std::size_t>(x.args[k]);
          const bool operand = any_narrow && number_[arg] && !(x.op == "where" && k == 0);
          if (operand && as_narrow[arg] < 0) {
            as_narrow[arg] = static_cast<int>(made.size());
            Instruction convert;
            convert.op = "narrow";
            convert.type = type_;
            convert.args = {place[arg]};
            made.push_back(convert);
          }
          x.args[k] = operand ? as_narrow[arg] : place[arg];
        }
      }
      if (narrow_[at]) x.type = type_;
      place[at] = static_cast<int>(made.size());
      made.push_back(std::move(x));
    }
    for (Output& output : source_.outputs) output.value = place[static_cast<std::size_t>(output.value)];
    source_.code = std::move(made);
  }

  Source& source_;
  const std::vector<Instruction> code_;
  DType width_ = DType::Int64;
  Type type_ = Type::I64;
  std::vector<char> number_, narrow_, wrapped_;  // of each value: made of numbers alone, of that width, and wrapped to it
};

}  // namespace

void narrow_integers(Source& source) { Narrowing(source).apply(); }

}  // namespace formula
}  // namespace tg
