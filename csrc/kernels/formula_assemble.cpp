// From a typed program to loops and slots.
#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "formula.h"

namespace tg {
namespace formula {

class Assembler {
 public:
  Assembler(const Source& source, Program& program) : source_(source), code_(source.code), p_(program) {}

  void assemble() {
    p_.inputs_ = source_.inputs;
    inputs_ = static_cast<int>(source_.inputs.size());
    outputs_ = static_cast<int>(source_.outputs.size());
    p_.slots_ = inputs_ + outputs_;
    p_.scalar_at_.assign(inputs_, -1);
    for (const Input& input : source_.inputs) add_port(input.dtype, input.kind == Input::Array);
    for (const Output& output : source_.outputs) {
      p_.outputs_.push_back(output.stored);
      add_port(output.stored, true);
    }
    for (int i = 0; i < inputs_; ++i) {
      if (source_.inputs[i].kind == Input::Scalar) p_.scalar_at_[i] = new_number(i);
    }
    check();
    count_readers();
    join_pairs();
    find_twins();
    join_products();
    find_last_readers();
    for (position_ = 0; position_ < count(); ++position_) {
      define(code_[position_]);
      release_ended();
    }
    for (int i = 0; i < outputs_; ++i) store(i);
    find_stretches();
    choose_block();
    add_up_costs();
  }

 private:
  struct Value {
    int slot = -1;
    Type type = Type::F32;
    bool one = false;       // one number for the whole run
    int reg = -1;           // register that it occupies
  };
  struct Register {
    int slot, size;
  };

  int count() const { return static_cast<int>(code_.size()); }

  void add_port(DType dtype, bool varies) {
    const int size = static_cast<int>(tg::size_of(dtype));
    p_.ports_.push_back({dtype, size, varies ? reserve(size) : 0, varies, false});
  }

  // Bytes per element, in order of request; a block is a multiple of 64 elements, so every buffer is aligned.
  int reserve(int size) {
    const int offset = p_.bytes_per_element_;
    p_.bytes_per_element_ += size;
    return offset;
  }

  int new_number(int slot) {
    p_.numbers_.emplace_back();
    p_.number_slots_.push_back(slot);
    return static_cast<int>(p_.numbers_.size()) - 1;
  }
  int new_number_slot() {
    const int slot = p_.slots_++;
    new_number(slot);
    return slot;
  }

  static bool reads_values(const Instruction& x) { return x.op != "load" && x.op != "const" && x.op != "joined"; }

  void check() const {
    for (int i = 0; i < count(); ++i) {
      const Instruction& x = code_[i];
      if (!reads_values(x)) continue;
      if (x.args.empty() || x.args.size() > 3) {
        throw std::invalid_argument("formula: " + x.op + " with " + std::to_string(x.args.size()) + " operands");
      }
      for (int arg : x.args) {
        if (arg >= 0 && arg < i) continue;
        throw std::invalid_argument("formula: value " + std::to_string(i) + " reads value " + std::to_string(arg));
      }
    }
    for (const Output& output : source_.outputs) {
      if (output.value < 0 || output.value >= count()) {
        throw std::invalid_argument("formula: no value " + std::to_string(output.value));
      }
    }
  }

  static bool is_arithmetic(const Instruction& x) { return x.op == "add" || x.op == "sub" || x.op == "mul"; }

  // Whether `second`, whose operand on this side is `first`, can be one loop with it.
  bool can_join(const Instruction& first, const Instruction& second, int side) const {
    if (first.args.size() != 2 || first.type != second.type) return false;
    return (is_arithmetic(first) && is_arithmetic(second)) || (first.op == "max" && second.op == "min" && side == 0);
  }

  void count_readers() {
    readers_.assign(count(), 0);
    one_.assign(count(), 0);
    for (int i = 0; i < count(); ++i) {
      const Instruction& x = code_[i];
      one_[i] = x.op == "load" ? !x.args.empty() && x.args[0] >= 0 && x.args[0] < inputs_ &&
                                     source_.inputs[x.args[0]].kind != Input::Array
                               : 1;
      if (!reads_values(x)) continue;
      for (int arg : x.args) {
        ++readers_[arg];
        one_[i] &= one_[arg];
      }
    }
    for (const Output& output : source_.outputs) ++readers_[output.value];
  }

  // Joins sums, differences and products to the one that alone reads them, and a maximum to its minimum.
  void join_pairs() {
    for (Instruction& x : code_)
      if (x.op == "add" && (x.type == Type::F32 || x.type == Type::F64)) join_lerp(x);
    for (int i = 0; i < count(); ++i) {
      if (code_[i].type != Type::F32 && code_[i].type != Type::F64) continue;
      if (code_[i].op == "where" && readers_[code_[i].args[0]] == 1 && !one_[code_[i].args[0]]) join_choice(code_[i]);
      if (code_[i].args.size() != 2) continue;
      for (int side = 0; side < 2; ++side) {
        const int t = code_[i].args[side], c = code_[i].args[1 - side];
        if (readers_[t] != 1 || one_[t] || !can_join(code_[t], code_[i], side)) continue;
        std::string first = code_[t].op, second = code_[i].op;
        int a = code_[t].args[0], b = code_[t].args[1];
        if (one_[a]) {  // the first operand varies
          std::swap(a, b);
          if (first == "sub") first = "rsub";
        }
        if (side == 1 && second == "sub") second = "rsub";
        code_[i].op = pair_name(first, second);
        code_[i].args = {a, b, c};
        code_[t].op = "joined";
        code_[t].args.clear();
        break;
      }
    }
  }

  // Joins functions to the product that alone reads them: but for twins, which share more than that.
  void join_products() {
    for (Instruction& x : code_) {
      if (x.op != "mul" || x.type != Type::F32 || x.args.size() != 2) continue;
      for (int side = 0; side < 2; ++side) {
        const int at = x.args[side];
        Instruction& function = code_[at];
        if (readers_[at] != 1 || one_[at] || twin_of_[at] >= 0) continue;
        if (function.type != Type::F32 || function.args.size() != 1) continue;
        if (!find_kernel(times_name(function.op), Type::F32)) continue;
        x.op = times_name(function.op);
        x.args = {function.args[0], x.args[1 - side]};
        function.op = "joined";
        function.args.clear();
        break;
      }
    }
  }

  // where(a > b, ...) that chooses between what is compared and one other value.
  void join_choice(Instruction& x) {
    Instruction& test = code_[x.args[0]];
    if (test.op != "gt" || code_[test.args[0]].type != x.type) return;
    const int a = test.args[0], b = test.args[1], yes = x.args[1], no = x.args[2];
    if (yes == a) x.op = "larger_or", x.args = {a, b, no};
    else if (same_value(no, b)) x.op = "if_larger", x.args = {a, b, yes};
    else return;
    test.op = "joined";
    test.args.clear();
  }
  // where(c, a, b) + where(c, w, w - 1) * (b - a) with c = |w| < 0.5: from the nearer end.
  void join_lerp(Instruction& x) {
    const auto is = [&](int value, const char* op, int count) {
      return code_[value].op == op && code_[value].type == x.type && readers_[value] == count;
    };
    const int start = x.args[0], step = x.args[1];
    if (!is(start, "where", 1) || !is(step, "mul", 1)) return;
    const int near = code_[start].args[0], a = code_[start].args[1], b = code_[start].args[2];
    const int weight = code_[step].args[0], way = code_[step].args[1];
    if (!is(weight, "where", 1) || !is(way, "sub", 1) || code_[way].args != std::vector<int>{b, a}) return;
    const int w = code_[weight].args[1], rest = code_[weight].args[2];
    if (code_[weight].args[0] != near || code_[near].op != "lt" || readers_[near] != 2 || !is(rest, "sub", 1)) return;
    const int size = code_[near].args[0];
    if (!is(size, "abs", 1) || code_[size].args[0] != w || code_[rest].args[0] != w) return;
    if (!is_number(code_[near].args[1], 0.5) || !is_number(code_[rest].args[1], 1)) return;
    x.op = "lerp", x.args = {a, b, w};
    for (int value : {start, step, near, weight, way, rest, size}) {
      code_[value].op = "joined";
      code_[value].args.clear();
    }
  }
  bool is_number(int value, double number) const {
    const Instruction& x = code_[value];
    if (x.op != "const") return false;
    float single;
    double wide;
    std::memcpy(&single, x.constant.bytes, sizeof(single));
    std::memcpy(&wide, x.constant.bytes, sizeof(wide));
    return (x.type == Type::F32 ? static_cast<double>(single) : wide) == number;
  }
  bool same_value(int a, int b) const {
    const Instruction &x = code_[a], &y = code_[b];
    return a == b || (x.op == "const" && y.op == "const" && x.type == y.type &&
                      std::memcmp(x.constant.bytes, y.constant.bytes, sizeof(x.constant.bytes)) == 0);
  }

  // Functions of one value that share most of their work.
  void find_twins() {
    twin_of_.assign(count(), -1);
    for (int i = 0; i < count(); ++i)
      for (int j = 0; j < count(); ++j) {
        const Instruction &x = code_[i], &y = code_[j];
        if (x.type != Type::F32 || y.type != Type::F32 || x.args.size() != 1 || x.args != y.args || i == j) continue;
        if (!reads_values(x) || !reads_values(y) || twin_of_[i] >= 0 || twin_of_[j] >= 0) continue;
        if (find_kernel(twins_name(x.op, y.op), Type::F32)) twin_of_[i] = j, twin_of_[j] = i;
      }
  }

  // The first of two twins computes both.
  void define_twins(int other) {
    const int here = position_, from = values_[code_[here].args[0]].slot;
    const Kernel* kernel = find_kernel(twins_name(code_[here].op, code_[other].op), Type::F32);
    const bool in_order = kernel != nullptr;
    if (!in_order) kernel = find_kernel(twins_name(code_[other].op, code_[here].op), Type::F32);
    release_ended();
    for (const int at : {here, other}) {
      values_[at].type = Type::F32;
      values_[at].slot = destination(values_[at], at);
    }
    const int first = values_[in_order ? here : other].slot, second = values_[in_order ? other : here].slot;
    add_loop({kernel->by_mask[0], first, from, 0, second});
  }

  void find_last_readers() {
    std::vector<int> last(count(), -1);
    for (int i = 0; i < count(); ++i) {
      const Instruction& x = code_[i];
      if (!reads_values(x)) continue;
      for (int arg : x.args) last[arg] = i;
    }
    for (const Output& output : source_.outputs) last[output.value] = count();
    readers_end_.resize(count() + 1);
    for (int i = 0; i < count(); ++i) {
      if (last[i] >= 0 && last[i] < count()) readers_end_[last[i]].push_back(i);
    }
    values_.resize(count());
  }

  int take_register(int size) {
    for (std::size_t i = 0; i < free_.size(); ++i) {
      if (registers_[free_[i]].size == size) {
        const int reg = free_[i];
        free_.erase(free_.begin() + static_cast<std::ptrdiff_t>(i));
        return reg;
      }
    }
    registers_.push_back({p_.slots_++, size});
    p_.buffers_.push_back({registers_.back().slot, reserve(size)});
    return static_cast<int>(registers_.size()) - 1;
  }

  // The registers of values whose last reader is the current instruction.
  void release_ended() {
    for (int value : readers_end_[position_]) {
      if (values_[value].reg >= 0) free_.push_back(values_[value].reg);
      values_[value].reg = -1;
    }
  }

  // The output that this value is stored to as it is, or -1: then its last loop writes there.
  int direct_output(int value, Type type) const {
    for (int i = 0; i < outputs_; ++i) {
      const Output& output = source_.outputs[i];
      if (output.value == value && output.dtype == output.stored && native_storage(type) == output.stored) return i;
    }
    return -1;
  }

  void define(const Instruction& x) {
    Value& v = values_[position_];
    v.type = x.type;
    if (x.op == "joined") return;
    const int twin = twin_of_[position_];
    if (twin >= 0 && !values_[x.args[0]].one) {
      if (twin > position_) define_twins(twin);
      return;
    }
    if (x.op == "const") {
      v.one = true;
      v.slot = new_number_slot();
      p_.numbers_.back() = x.constant;
      return;
    }
    if (x.op == "load") return load(x, v);
    Type operand = Type::F32;
    for (int arg : x.args) operand = values_[arg].type;
    if (x.op == "cast" || x.op == "wrap" || x.op == "narrow") {
      const Loop loop = x.op == "cast"   ? find_cast(operand, x.type)
                        : x.op == "wrap" ? find_wrap(x.width)
                                         : find_store(native_storage(x.type));
      if (!loop) throw std::invalid_argument("formula: no width " + std::string(tg::name_of(x.width)) + " to wrap to");
      Kernel kernel;
      kernel.operands = 1;
      kernel.by_mask[0] = loop;
      return emit(kernel, x, v, x.op == "cast" ? cast_meaning(operand, x.type) : Meaning{});
    }
    const Kernel* kernel = find_kernel(x.op, operand);
    if (!kernel || kernel->operands != static_cast<int>(x.args.size())) {
      throw std::invalid_argument("formula: no operation " + x.op + " on " + std::to_string(x.args.size()) + " values of " + name_of(operand));
    }
    emit(*kernel, x, v, {x.op, operand, kernel->operands});
  }

  void emit(const Kernel& kernel, const Instruction& x, Value& v, const Meaning& meaning) {
    const int n = static_cast<int>(x.args.size());
    v.one = true;
    int mask = 0;
    for (int i = 0; i < n; ++i) {
      if (values_[x.args[i]].one) mask |= 1 << i;
      else v.one = false;
    }
    Step step{kernel.by_mask[0], -1, 0, 0, 0};
    int* operands[] = {&step.a, &step.b, &step.c};
    for (int i = 0; i < n; ++i) *operands[i] = values_[x.args[i]].slot;
    if (v.one) {
      step.to = v.slot = new_number_slot();
      p_.prologue_.push_back(step);
      return;
    }
    if (n > 1) step.kernel = &kernel;
    if (kernel.by_mask[mask]) {
      step.loop = kernel.by_mask[mask];
      step.mask = mask;
    } else {
      for (int i = 0; i < n; ++i) {
        if (mask & (1 << i)) *operands[i] = spread(*operands[i], size_of(values_[x.args[i]].type));
      }
    }
    // loops go element by element, so the result may take the register of an operand of the same size that ends here
    release_ended();
    step.to = v.slot = destination(v, position_);
    add_loop(step, meaning);
  }

  void add_loop(const Step& step, const Meaning& meaning = {}) {
    p_.body_.push_back(step);
    p_.meanings_.push_back(meaning);
  }
  static bool is_float(Type type) { return type == Type::F32 || type == Type::F64; }
  static Meaning cast_meaning(Type from, Type to) {
    if (from == Type::Bool && is_float(to)) return {"number", to, 1};
    if (to == Type::Bool && is_float(from)) return {"truth", from, 1};
    return {};
  }

  // Neighbouring loops that can be compiled into one: their lanes are of one size.
  void find_stretches() {
    const int count = static_cast<int>(p_.body_.size());
    p_.stretch_ends_.resize(p_.body_.size());
    for (int at = 0; at < count;) {
      int end = at;  // past the last
      for (Type lanes = Type::Bool; end < count; ++end) {
        const Meaning& meaning = p_.meanings_[static_cast<std::size_t>(end)];
        if (!compiles(meaning)) break;
        if (meaning.type == Type::Bool) continue;
        if (lanes != Type::Bool && lanes != meaning.type) break;
        lanes = meaning.type;
      }
      if (end < at + 2) end = at + 1;
      for (int inside = at; inside < end; ++inside) p_.stretch_ends_[static_cast<std::size_t>(inside)] = -1;
      p_.stretch_ends_[static_cast<std::size_t>(at)] = end - 1;
      at = end;
    }
  }

  int destination(Value& v, int position) {
    const int output = direct_output(position, v.type);
    if (output >= 0) {
      p_.ports_[inputs_ + output].in_place_ok = true;
      return inputs_ + output;
    }
    v.reg = take_register(size_of(v.type));
    return registers_[v.reg].slot;
  }

  int spread(int from, int size) {
    for (const Program::Spread& known : p_.spreads_) {
      if (known.from == from) return known.slot;
    }
    const int slot = p_.slots_++;
    p_.buffers_.push_back({slot, reserve(size)});
    p_.spreads_.push_back({slot, from, find_fill(size)});
    return slot;
  }

  void load(const Instruction& x, Value& v) {
    const int k = x.args.empty() ? -1 : x.args[0];
    if (k < 0 || k >= inputs_) throw std::invalid_argument("formula: no input " + std::to_string(k));
    const Input& input = source_.inputs[k];
    v.one = input.kind != Input::Array;
    if (input.kind == Input::Python) {
      v.slot = new_number_slot();
      p_.python_numbers_.push_back({k, x.type, static_cast<int>(p_.numbers_.size()) - 1});
      return;
    }
    int slot = k;
    if (is_narrow(x.type)) {
      v.slot = slot;
      return;
    }
    const Type native = compute_type(input.dtype);
    if (!is_native(input.dtype)) slot = convert(find_load(input.dtype), slot, native, v);
    if (native != x.type) slot = convert(find_cast(native, x.type), slot, x.type, v, cast_meaning(native, x.type));
    v.slot = slot;
  }

  // A conversion outside the program's own code; v keeps the register of the last one.
  int convert(Loop loop, int from, Type to, Value& v, const Meaning& meaning = {}) {
    int slot;
    const int before = v.reg;
    if (v.one) {
      slot = new_number_slot();
      p_.prologue_.push_back({loop, slot, from, 0, 0});
    } else {
      v.reg = take_register(size_of(to));
      slot = registers_[v.reg].slot;
      add_loop({loop, slot, from, 0, 0}, meaning);
    }
    if (before >= 0) free_.push_back(before);
    return slot;
  }

  // Brings a value into an output that no loop has written to yet.
  void store(int i) {
    const Output& output = source_.outputs[i];
    const Value& value = values_[output.value];
    const int target = inputs_ + i;
    if (value.slot == target) return;
    Value now = value;
    now.reg = -1;
    int slot = value.slot;
    const Type made = is_narrow(value.type) ? value.type : compute_type(output.dtype);
    if (value.type != made) slot = convert(find_cast(value.type, made), slot, made, now, cast_meaning(value.type, made));
    if (output.stored != output.dtype) {
      if (!is_native(output.dtype)) {  // round to what the program would have stored
        slot = pass(find_store(output.dtype), slot, static_cast<int>(tg::size_of(output.dtype)), now);
        slot = pass(find_load(output.dtype), slot, size_of(made), now);
      }
      const Type wanted = compute_type(output.stored);
      if (wanted != made) slot = convert(find_cast(made, wanted), slot, wanted, now, cast_meaning(made, wanted));
    }
    const int size = static_cast<int>(tg::size_of(output.stored));
    const bool plain = is_native(output.stored) && !is_narrow(made);
    if (!now.one) {
      const Loop loop = is_narrow(made) ? find_copy(size) : find_store(output.stored);
      add_loop({loop, target, slot, 0, 0}, plain ? Meaning{"copy", compute_type(output.stored), 1} : Meaning{});
    } else {
      if (!is_native(output.stored) && !is_narrow(made)) slot = pass(find_store(output.stored), slot, size, now);
      add_loop({find_fill(size), target, slot, 0, 0});
    }
    p_.ports_[target].in_place_ok = true;
    if (now.reg >= 0) free_.push_back(now.reg);
  }

  int pass(Loop loop, int from, int size, Value& v) {
    if (v.one) {
      const int slot = new_number_slot();
      p_.prologue_.push_back({loop, slot, from, 0, 0});
      return slot;
    }
    const int before = v.reg;
    v.reg = take_register(size);
    if (before >= 0) free_.push_back(before);
    add_loop({loop, registers_[v.reg].slot, from, 0, 0});
    return registers_[v.reg].slot;
  }

  // Loops that can be compiled take a fortieth of a nanosecond for an element, those that can't (exponentials, powers,
  // conversions) several times that.
  void add_up_costs() {
    for (const Meaning& meaning : p_.meanings_) p_.cost_ += compiles(meaning) ? 1 : Program::kHeavy;
  }

  // A first-level cache for the arrays and buffers in use at a time; more blocks cost more calls.
  void choose_block() {
    p_.block_ = 8192;
    while (p_.block_ > 256 && p_.block_ * p_.bytes_per_element_ > (32 << 10)) p_.block_ /= 2;
  }

  const Source& source_;
  std::vector<Instruction> code_;
  Program& p_;
  int inputs_ = 0, outputs_ = 0, position_ = 0;
  std::vector<Value> values_;
  std::vector<Register> registers_;
  std::vector<int> free_;
  std::vector<std::vector<int>> readers_end_;
  std::vector<int> readers_, twin_of_;
  std::vector<char> one_;  // by value: whether it is one number for the whole run
};

Program::Program(const Source& given) {
  Source source = given;
  narrow_integers(source);
  Assembler(source, *this).assemble();
}

}  // namespace formula
}  // namespace tg
