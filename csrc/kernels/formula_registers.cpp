// A value keeps a register from when it is computed until it has been read last; where there are too few, the one that is
// read last of all goes to the frame. Constants get the registers that are left over.
#include "formula_registers.h"

#include <algorithm>
#include <cstring>

namespace tg {
namespace formula {
namespace {

constexpr int kRegisters = 14;           // for values; two more for what lies in memory
constexpr int kFirst = 15, kOther = 14;  // those
constexpr int kMostHomes = 100;          // of 32 bytes: a frame is less than a page
constexpr int kMaskHome = 0;             // where the frame has the mask of the last vector's elements

constexpr int kMostPointers = 9;         // of sums of columns: one more register counts rows
constexpr int kSumsAtOnce = 4;           // that many, of few results from several vectors: one waits for the one before

constexpr Encoder::Operation kMove{1, 0, 0, 0x10}, kStore{1, 0, 0, 0x11}, kMaskedMove{2, 1, 0, 0x2C}, kMaskedStore{2, 1, 0, 0x2E};

class Writer {
 public:
  Writer(std::vector<Value> values, std::vector<Result> results, bool wide, RowLoop rows)
      : v_(std::move(values)), results_(std::move(results)), wide_(wide), rows_(rows) {
    fold();
    find_last();
  }

  // False if there are too many values at a time.
  bool write(Encoder& into, bool masks_last) {
    reserve_sums();
    if (!body(false)) return false;
    pin();
    if (rows_.columns) return masks_last && write_columns(into);
    std::vector<std::uint8_t> several;
    for (copy_ = copies_ - 1; copy_ > 0; --copy_) {
      body(false);
      several.insert(several.end(), e_.code.begin(), e_.code.end());
    }
    if (!body(false)) return false;
    const std::vector<std::uint8_t> whole = e_.code;
    int homes = homes_;
    if (masks_last) body(true), homes = std::max(homes, homes_);
    if (homes > kMostHomes) return false;
    const int saved = Encoder::saved_by(static_cast<int>(slots_.size()));
    into.prologue(32 * homes, saved);
    if (masks_last) {
      into.vector_op(kMove, kFirst, 0, in_array(Encoder::kMaskBase, 0));
      into.vector_op(kStore, kFirst, 0, in_frame(kMaskHome));
    }
    for (const Value& x : v_)
      if (x.uses && x.kind == Value::Literal) spread(into, x);
    for (int k = 0; k < static_cast<int>(slots_.size()); ++k)
      if (Encoder::base_register(k) >= 0) into.load_base(Encoder::base_register(k), slots_[static_cast<std::size_t>(k)]);
    const std::size_t row = into.code.size();
    for (const Value& x : v_)
      if (x.uses && x.kind == Value::One) spread(into, x);
    for (int r = kRegisters - sums_ * copies_; r < kRegisters; ++r) into.vector_op({1, 0, 0, kXor}, r, r, vector_register(r));
    if (!several.empty()) {
      several.insert(several.end(), whole.begin(), whole.end());
      into.repeat(several, 8 * copies_);
    }
    into.repeat(whole, wide_ ? 4 : 8);
    if (masks_last) into.unless_zero(kMaskHome, e_.code);
    if (rows_.slots) next_row(into, row);
    into.epilogue(saved);
    return true;
  }

 private:
  bool write_columns(Encoder& into) {
    pointers_ = slots_;
    for (const Value& x : v_)
      if (is_row_value(x) && std::find(pointers_.begin(), pointers_.end(), x.code) == pointers_.end()) pointers_.push_back(x.code);
    if (static_cast<int>(pointers_.size()) > kMostPointers) return false;
    int homes = 0;
    std::vector<std::vector<std::uint8_t>> wholes;
    for (int vectors = copies_; vectors; vectors /= 2) wholes.push_back(columns(vectors, false, homes));
    const std::vector<std::uint8_t> last = columns(1, true, homes);
    if (homes > kMostHomes) return false;
    const int saved = Encoder::saved_by(kMostPointers + 1);
    into.prologue(32 * homes, saved);
    into.vector_op(kMove, kFirst, 0, in_array(Encoder::kMaskBase, 0));
    into.vector_op(kStore, kFirst, 0, in_frame(kMaskHome));
    for (const Value& x : v_)
      if (x.uses && is_constant(x) && !is_row_value(x)) spread(into, x);
    int vectors = copies_;
    for (const auto& whole : wholes) into.repeat(whole, 8 * vectors), vectors /= 2;
    into.unless_zero(kMaskHome, last);
    into.epilogue(saved);
    return true;
  }

  // All rows of so many vectors of columns; of the `last` one what the mask says.
  std::vector<std::uint8_t> columns(int vectors, bool last, int& homes) {
    std::vector<std::uint8_t> each;
    for (copy_ = vectors - 1; copy_ >= 0; --copy_) {
      body(last);
      each.insert(each.end(), e_.code.begin(), e_.code.end());
    }
    copy_ = 0;
    homes = std::max(homes, homes_);
    Encoder made;
    for (const int slot : pointers_) made.load_base(pointer(slot), slot);
    made.load_base(pointer(-1), 2 * rows_.slots);
    const auto each_sum = [&](auto whole, auto part) {  // of each result's vectors
      if (last) made.vector_op(kMove, kOther, 0, in_frame(kMaskHome));
      int sum = 0;
      for (const Result& r : results_) {
        const int first = kRegisters - 1 - sum++;
        made.load_base(Encoder::kTemporary, r.slot);
        if (last) made.vector_op(part, first, kOther, in_array(Encoder::kTemporary, 2));
        for (int k = 0; k < vectors && !last; ++k) made.vector_op(whole, first - k * sums_, 0, in_array(Encoder::kTemporary, 2, 32 * k));
      }
    };
    each_sum(kMove, kMaskedMove);
    const std::size_t row = made.code.size();
    for (const Value& x : v_)
      if (is_row_value(x)) spread(made, x);
    made.code.insert(made.code.end(), each.begin(), each.end());
    for (const int slot : pointers_) made.add_to_base(pointer(slot), rows_.slots + slot);
    made.count_down(pointer(-1), row);
    each_sum(kStore, kMaskedStore);
    return std::move(made.code);
  }
  // The register that goes along what the slot points to; that which counts the rows for -1.
  int pointer(int slot) const {
    const auto found = std::find(pointers_.begin(), pointers_.end(), slot);
    return Encoder::base_register(slot < 0 ? kMostPointers : static_cast<int>(found - pointers_.begin()));
  }
  bool is_row_value(const Value& x) const { return x.uses && x.kind == Value::One && x.code < rows_.ports; }

  static bool is_constant(const Value& x) { return x.kind == Value::One || x.kind == Value::Literal; }
  static bool commutes(const Value& x) {
    return x.kind == Value::Two && (x.code == kAdd || x.code == kMul || x.code == kAnd || x.code == kOr || x.code == kXor);
  }
  Value& value(int i) { return v_[static_cast<std::size_t>(i)]; }
  int count() const { return static_cast<int>(v_.size()); }

  // `last` of a value counts in half steps: to be read by value i is 2i, to be stored after it 2i + 1.

  // Who reads what; arrays that are read once come with the instruction that needs them.
  void fold() {
    for (int i = count(); i-- > 0;) {
      Value& x = value(i);
      for (const Result& r : results_) x.uses += r.value == i;
      for (int arg : x.args)
        if (arg >= 0 && x.uses) ++value(arg).uses;
      if (x.uses && x.kind == Value::Load && x.type == Type::Bool) ++value(Values::kZero).uses;
    }
    for (const Result& r : results_) value(Values::kOnes).uses += value(r.value).type == Type::Bool;
    const auto foldable = [&](int i) {
      const Value& x = value(i);
      return x.kind == Value::Load && x.type != Type::Bool && x.uses == 1 &&
             std::none_of(results_.begin(), results_.end(), [&](const Result& r) { return r.value == i; });
    };
    for (Value& x : v_) {
      if (!x.uses) continue;
      const bool pair = x.kind == Value::Two || x.kind == Value::Compare;
      if (commutes(x) && (foldable(x.args[0]) || is_constant(value(x.args[0]))) && !foldable(x.args[1]) && !is_constant(value(x.args[1])))
        std::swap(x.args[0], x.args[1]);
      if (!pair && x.kind != Value::Root && x.kind != Value::Rounded) continue;
      Value& read = value(x.args[pair]);
      read.folded = foldable(x.args[pair]);
    }
  }

  // Nothing is stored before all is read: arrays may lie in one place.
  void find_last() {
    int last_read = 0;
    for (int i = 0; i < count(); ++i) {
      if (!value(i).uses) continue;
      if (value(i).kind == Value::Load) last_read = i;
      for (int arg : value(i).args) {
        if (arg < 0) continue;
        value(arg).last = 2 * i;
        if (value(arg).folded) last_read = i;
      }
    }
    for (Result& r : results_) {
      r.at = r.summed ? r.value : std::max(r.value, last_read);
      value(r.value).last = std::max(value(r.value).last, 2 * r.at + 1);
    }
  }

  void reserve_sums() {
    for (const Result& r : results_) sums_ += r.summed;
    copies_ = sums_ ? std::max(1, kSumsAtOnce / sums_) : 1;
  }
  // Of the first registers, which values have.
  int limit() const { return kRegisters - sums_ * copies_ - pinned_; }

  // The constants that are read most stay in the registers that nothing else needs.
  void pin() {
    while (most_ < limit()) {
      int found = -1;
      for (int i = 0; i < count(); ++i) {
        const Value& x = value(i);
        if (is_constant(x) && x.uses && x.pinned < 0 && (found < 0 || x.uses > value(found).uses)) found = i;
      }
      if (found < 0) return;
      ++pinned_;
      value(found).pinned = limit();
    }
  }

  // ---- the loop's body

  // `last`: of a vector of which the mask says how much there is. Otherwise the same, in the same registers.
  bool body(bool last) {
    e_.code.clear();
    if (!last) slots_.clear();
    masked_ = last;
    homes_ = 1;
    most_ = 0;
    std::fill(holds_, holds_ + kRegisters, -1);
    for (Value& x : v_) {
      x.reg = x.pinned;
      x.home = -1;
      if (x.uses && is_constant(x) && x.pinned < 0) x.home = homes_++;
    }
    for (at_ = 0; at_ < count(); ++at_) {
      const Value& x = value(at_);
      if (x.uses && !is_constant(x) && !x.folded && !is_added_product(at_)) compute(at_);
      int sum = 0;
      for (const Result& r : results_) {
        if (r.at == at_) r.summed ? add(r, kRegisters - 1 - copy_ * sums_ - sum) : store(r);
        sum += r.summed;
      }
      release(2 * at_ + 1);
    }
    return homes_ <= kMostHomes;
  }

  void compute(int i) {
    const Value x = value(i);
    const std::uint8_t p = wide_, wide = 0;
    switch (x.kind) {
      case Value::Load: {
        const int to = take(i);
        if (x.type != Type::Bool) return move(to, x.code);
        e_.vector_op({2, 1, wide, static_cast<std::uint8_t>(wide_ ? 0x32 : 0x31)}, to, 0, array(x.code, 0));  // vpmovzxb
        const Encoder::Operation larger{static_cast<std::uint8_t>(wide_ ? 2 : 1), 1, wide, static_cast<std::uint8_t>(wide_ ? 0x37 : 0x66)};
        return e_.vector_op(larger, to, to, place(Values::kZero));
      }
      case Value::Two:
      case Value::Compare: {
        const int a = in_register(x.args[0], kFirst);
        const Place b = place(x.args[1]);
        release(2 * at_);
        const int to = take(i);
        e_.vector_op({1, p, wide, static_cast<std::uint8_t>(x.kind == Value::Two ? x.code : 0xC2)}, to, a, b);
        if (x.kind == Value::Compare) e_.byte(x.code);
        return;
      }
      case Value::Root:
      case Value::Rounded: {
        const Place a = place(x.args[0]);
        release(2 * at_);
        const int to = take(i);
        if (x.kind == Value::Root) return e_.vector_op({1, p, wide, 0x51}, to, 0, a);
        e_.vector_op({3, 1, wide, static_cast<std::uint8_t>(0x08 + p)}, to, 0, a);
        return e_.byte(x.code);
      }
      case Value::Choose: {
        const int mask = in_register(x.args[0], kOther), no = in_register(x.args[2], kFirst);
        const Place yes = place(x.args[1]);
        release(2 * at_);
        const int to = take(i);
        e_.vector_op({3, 1, wide, static_cast<std::uint8_t>(0x4A + p)}, to, no, yes);
        return e_.byte(mask << 4);
      }
      case Value::SquareFromOne: {  // it adds to what it writes
        const int a = in_register(x.args[0], kFirst), to = take(i);
        e_.vector_op(kMove, to, 0, place(x.args[1]));
        return e_.vector_op({2, 1, p, 0xBC}, to, a, vector_register(a));
      }
      case Value::One:
      case Value::Literal: return;
    }
  }

  // A product that nothing reads but a sum.
  bool is_added_product(int i) const {
    const Value& x = v_[static_cast<std::size_t>(i)];
    return (!masked_ || rows_.columns) && x.kind == Value::Two && x.code == kMul && x.uses == 1 &&
           std::any_of(results_.begin(), results_.end(), [i](const Result& r) { return r.summed && !r.extreme && r.value == i; });
  }

  void add(const Result& r, int sum) {
    if (r.extreme) {  // NaN stays: the instruction gives its second operand where one is
      e_.vector_op({1, 0, 0, 0xC2}, kOther, sum, vector_register(sum)), e_.byte(kUnordered);
      e_.vector_op({1, 0, 0, static_cast<std::uint8_t>(r.extreme > 0 ? kMax : kMin)}, kFirst, sum, place(r.value));
      e_.vector_op({3, 1, 0, 0x4A}, sum, kFirst, vector_register(sum));
      return e_.byte(kOther << 4);
    }
    if (is_added_product(r.value)) {
      const Value& x = value(r.value);
      const int a = in_register(x.args[0], kFirst);
      return e_.vector_op({2, 1, 0, 0xB8}, sum, a, place(x.args[1]));
    }
    if (!masked_ || rows_.columns) return e_.vector_op({1, 0, 0, kAdd}, sum, sum, place(r.value));
    e_.vector_op({1, 0, 0, kAnd}, kFirst, in_register(r.value, kFirst), in_frame(kMaskHome));
    e_.vector_op({1, 0, 0, kAdd}, sum, sum, vector_register(kFirst));
  }

  // The sums of a row go to memory, those of several vectors added in pairs.
  void store_sums(Encoder& into) const {
    int sum = 0;
    for (const Result& r : results_) {
      if (!r.summed) continue;
      const int first = kRegisters - 1 - sum++;
      for (int apart = 1; apart < copies_; apart *= 2)
        for (int k = 0; k + apart < copies_; k += 2 * apart)
          into.vector_op({1, 0, 0, kAdd}, first - k * sums_, first - k * sums_, vector_register(first - (k + apart) * sums_));
      into.load_base(Encoder::kTemporary, r.slot);
      into.vector_op(kStore, first, 0, in_array(Encoder::kTemporary, 0));
    }
  }

  void next_row(Encoder& into, std::size_t start) const {
    into.count_from_zero();
    store_sums(into);
    const auto step = [&](int slot) {
      const auto found = std::find(slots_.begin(), slots_.end(), slot);
      const int base = found == slots_.end() ? -1 : Encoder::base_register(static_cast<int>(found - slots_.begin()));
      if (slot >= rows_.ports) return;
      if (base >= 0) return into.add_to_base(base, rows_.slots + slot);
      into.load_base(Encoder::kTemporary, slot);
      into.add_to_base(Encoder::kTemporary, rows_.slots + slot);
      into.store_base(Encoder::kTemporary, slot);
    };
    for (const int slot : slots_) step(slot);
    for (const Result& r : results_)
      if (r.summed) step(r.slot);
    for (const Value& x : v_)
      if (x.uses && x.kind == Value::One) step(x.code);
    into.until_zero(2 * rows_.slots, start);
  }

  void store(const Result& r) {
    const bool mask = value(r.value).type == Type::Bool;
    const int from = in_register(r.value, kFirst);
    if (!mask && masked_) {
      e_.vector_op(kMove, kOther, 0, in_frame(kMaskHome));
      return e_.vector_op(kMaskedStore, from, kOther, array(r.slot, wide_ ? 3 : 2));
    }
    if (!mask) return e_.vector_op(kStore, from, 0, array(r.slot, wide_ ? 3 : 2));
    // lanes to bytes, packing halves by sign
    e_.vector_op({3, 1, 0, 0x39}, from, 0, vector_register(kOther)), e_.byte(1);
    e_.vector_op({1, 1, 0, 0x6B}, kOther, from, vector_register(kOther), false);
    if (wide_) e_.vector_op({1, 1, 0, 0x6B}, kOther, kOther, vector_register(kOther), false);
    e_.vector_op({1, 1, 0, 0x63}, kOther, kOther, vector_register(kOther), false);
    e_.vector_op({1, 1, 0, 0xDB}, kOther, kOther, place(Values::kOnes), false);
    e_.vector_op({1, 1, 0, static_cast<std::uint8_t>(wide_ ? 0x7E : 0xD6)}, kOther, 0, array(r.slot, 0), false);
  }

  // ---- where values are

  int in_register(int i, int otherwise) {
    if (value(i).reg >= 0) return value(i).reg;
    e_.vector_op(kMove, otherwise, 0, place(i));
    return otherwise;
  }
  Place place(int i) {
    const Value& x = value(i);
    if (x.reg >= 0) return vector_register(x.reg);
    if (!x.folded) return in_frame(32 * x.home);
    if (!masked_) return array(x.code, wide_ ? 3 : 2);
    move(kOther, x.code);
    return vector_register(kOther);
  }
  void move(int to, int slot) {
    if (!masked_) return e_.vector_op(kMove, to, 0, array(slot, wide_ ? 3 : 2));
    e_.vector_op(kMove, kOther, 0, in_frame(kMaskHome));
    e_.vector_op(kMaskedMove, to, kOther, array(slot, wide_ ? 3 : 2));
  }
  // The array's base, in a register of its own as long as there are any.
  Place array(int slot, int scale) {
    auto found = std::find(slots_.begin(), slots_.end(), slot);
    if (found == slots_.end()) found = slots_.insert(found, slot);
    const int base = Encoder::base_register(static_cast<int>(found - slots_.begin()));
    if (base >= 0) return in_array(base, scale, 32 * copy_);
    e_.load_base(Encoder::kTemporary, slot);
    return in_array(Encoder::kTemporary, scale, 32 * copy_);
  }

  int take(int i) {
    int found = -1;
    for (int r = 0; r < limit() && found < 0; ++r)
      if (holds_[r] < 0) found = r;
    if (found < 0) found = spill();
    holds_[found] = i;
    most_ = std::max(most_, found + 1);
    value(i).reg = found;
    return found;
  }
  // What is read last goes to the frame.
  int spill() {
    int found = -1, furthest = -1;
    for (int r = 0; r < limit(); ++r) {
      const int next = next_use(holds_[r]);
      if (next > furthest) furthest = next, found = r;
    }
    Value& x = value(holds_[found]);
    if (x.home < 0) {
      x.home = homes_++;
      e_.vector_op(kStore, found, 0, in_frame(32 * x.home));
    }
    x.reg = -1;
    return found;
  }
  // 0 for an operand of what is being computed, which is left alone.
  int next_use(int i) {
    for (int j = at_; j < count(); ++j) {
      const Value& x = value(j);
      if (x.uses && std::find(std::begin(x.args), std::end(x.args), i) != std::end(x.args)) return j == at_ ? 0 : j;
      for (const Result& r : results_)
        if (r.at == j && r.value == i) return j;
    }
    return count();
  }
  void release(int now) {
    for (int& held : holds_) {
      if (held < 0 || value(held).last > now) continue;
      value(held).reg = -1;
      held = -1;
    }
  }

  // One value in all lanes of a register, before the loop.
  void spread(Encoder& into, const Value& x) const {
    const int to = x.pinned >= 0 ? x.pinned : kFirst;
    const std::uint8_t wide = wide_, broadcast = static_cast<std::uint8_t>(0x18 + wide);
    if (x.kind == Value::Literal) {
      into.literal(x.bits, wide_);
      into.vector_op({1, 1, wide, 0x6E}, to, 0, vector_register(Encoder::kTemporary), false);
      into.vector_op({2, 1, 0, broadcast}, to, 0, vector_register(to));
    } else {
      const bool goes_along = rows_.columns && is_row_value(x);
      if (!goes_along) into.load_base(Encoder::kTemporary, x.code);
      const Place here = goes_along ? in_memory(pointer(x.code)) : in_array(Encoder::kTemporary, 0);
      if (x.type == Type::Bool) {
        into.vector_op({2, 1, 0, 0x78}, to, 0, here);
        into.vector_op({1, 1, 0, 0xEF}, kOther, kOther, vector_register(kOther));
        into.vector_op({1, 1, 0, 0x64}, to, to, vector_register(kOther));
      } else {
        into.vector_op({2, 1, 0, broadcast}, to, 0, here);
      }
    }
    if (x.home >= 0) into.vector_op(kStore, to, 0, in_frame(32 * x.home));
  }

  std::vector<Value> v_;
  std::vector<Result> results_;
  bool wide_, masked_ = false;
  RowLoop rows_;
  Encoder e_;
  std::vector<int> slots_, pointers_;
  int holds_[kRegisters];
  int at_ = 0, homes_ = 0, most_ = 0, pinned_ = 0;
  int sums_ = 0, copies_ = 1, copy_ = 0;  // registers at the end: of all sums of the first copy, then of the next
};

}  // namespace

bool write(std::vector<Value> values, std::vector<Result> results, bool wide, bool masks_last, RowLoop rows, Encoder& into) {
  return Writer(std::move(values), std::move(results), wide, rows).write(into, masks_last);
}

}  // namespace formula
}  // namespace tg
