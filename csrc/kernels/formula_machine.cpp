// See formula_machine.h. Loops become values (formula_values.h), which are given registers and written.
#include "formula_machine.h"

#include <algorithm>
#include <cstring>

#include "formula.h"
#include "formula_registers.h"

namespace tg {
namespace formula {
namespace {

constexpr std::size_t kMostValues = 4096;
constexpr Index kMostCompiledBlock = 2048, kFirstLevel = 32 << 10;
constexpr std::size_t kMostBodies = 16;  // of one program
constexpr int kMostSums = 8;            // a register at least for each, which leaves six

}  // namespace

// Loops as values: what was written to a slot is what is read from it.
class Reader {
 public:
  Reader(const Program& program, int first, int last, const Purpose& purpose)
      : p_(program), last_(last), purpose_(purpose), values_(lanes_of(program, first, last)) {
    const auto slots = static_cast<std::size_t>(p_.slots_);
    written_.assign(slots, -1), loaded_.assign(slots, -1), ones_.assign(slots, -1);
    for (const Program::Spread& s : p_.spreads_) at(ones_, s.slot) = s.from;
    for (const int slot : p_.number_slots_) at(ones_, slot) = slot;
    for (int at = first; at <= last; ++at) read(p_.body_[static_cast<std::size_t>(at)], p_.meanings_[static_cast<std::size_t>(at)]);
  }

  static Type lanes_of(const Program& program, int first, int last) {
    for (int at = first; at <= last; ++at) {
      const Type type = program.meanings_[static_cast<std::size_t>(at)].type;
      if (type != Type::Bool) return type;
    }
    return Type::F32;
  }

  std::unique_ptr<Machine> machine(std::uint64_t& sums) {
    std::vector<Result> results;
    std::vector<Machine::Touched> touched;
    const int size = values_.lanes() == Type::F64 ? 8 : 4;
    for (int slot = 0; slot < p_.slots_; ++slot)
      if (at(written_, slot) >= 0 && is_read_later(slot)) results.push_back({at(written_, slot), slot});
    sums = sum_up(results, purpose_.sums);
    const auto touch = [&](int slot, Type type, bool stored) {
      for (Machine::Touched& t : touched)
        if (t.slot == slot) return static_cast<void>(t.stored |= stored);
      touched.push_back({slot, type == Type::Bool ? 1 : size, stored});
    };
    for (const Value& x : values_.all())
      if (x.kind == Value::Load) touch(x.code, x.type, false);
    for (const Result& r : results) touch(r.slot, values_.all()[static_cast<std::size_t>(r.value)].type, true);
    if (values_.all().size() > kMostValues || touched.size() > Machine::kMostTouched || results.empty()) return nullptr;
    const bool bytes = std::any_of(touched.begin(), touched.end(), [](const Machine::Touched& t) { return t.size == 1; });
    Encoder code;
    RowLoop rows;
    if (purpose_.row_loop || sums) rows = {p_.slots_, p_.input_count() + p_.output_count(), purpose_.columns};
    if (purpose_.row_loop && bytes) return nullptr;
    if (!write(values_.all(), std::move(results), values_.lanes() == Type::F64, !bytes, rows, code)) return nullptr;
    return Machine::with(code.code, std::move(touched), bytes ? 0 : size);
  }

 private:
  void read(const Step& s, const Meaning& meaning) {
    const bool floats = meaning.op != "number" && meaning.type != Type::Bool;
    const Type type = floats ? meaning.type : Type::Bool;
    int args[3] = {-1, -1, -1};
    const int slots[] = {s.a, s.b, s.c};
    for (int k = 0; k < meaning.operands; ++k) args[k] = of(slots[k], k == 0 && meaning.op == "where" ? Type::Bool : type);
    at(written_, s.to) = values_.apply(meaning.op, meaning.type, args[0], args[1], args[2]);
  }

  int of(int slot, Type type) {
    if (at(written_, slot) >= 0) return at(written_, slot);
    int& known = at(loaded_, slot);
    if (known >= 0) return known;
    const bool row = slot < 64 && (purpose_.row_values >> slot & 1);
    const int one = row ? slot : at(ones_, slot);
    known = one >= 0 ? values_.one(one, type) : values_.load(slot, type);
    return known;
  }
  static int& at(std::vector<int>& of, int slot) { return of[static_cast<std::size_t>(slot)]; }

  // Marks those of `wanted` that are; not where there are bytes, the last of which are taken by way of other memory.
  std::uint64_t sum_up(std::vector<Result>& results, std::uint64_t wanted) {
    std::uint64_t found = 0;
    int count = 0;
    const auto& all = values_.all();
    const auto is_mask = [&](int i) { return all[static_cast<std::size_t>(i)].type == Type::Bool; };
    if (!wanted || values_.lanes() != Type::F32) return 0;
    for (const Value& x : all)
      if (x.kind == Value::Load && x.type == Type::Bool) return 0;
    if (std::any_of(results.begin(), results.end(), [&](const Result& r) { return is_mask(r.value); })) return 0;
    for (Result& r : results) {
      const int output = r.slot - p_.input_count();
      if (output < 0 || output >= 64 || !(wanted >> output & 1) || is_touched_later(r.slot) || count == kMostSums) continue;
      r.summed = true, ++count;
      r.extreme = (purpose_.largest >> output & 1) ? 1 : (purpose_.smallest >> output & 1) ? -1 : 0;
      found |= std::uint64_t(1) << output;
    }
    return found;
  }
  bool is_touched_later(int slot) const {
    return std::any_of(p_.body_.begin() + last_ + 1, p_.body_.end(),
                       [slot](const Step& s) { return s.a == slot || s.b == slot || s.c == slot || s.to == slot; });
  }

  bool is_read_later(int slot) const {
    if (slot < p_.input_count() + p_.output_count()) return true;
    for (std::size_t at = static_cast<std::size_t>(last_) + 1; at < p_.body_.size(); ++at) {
      const Step& s = p_.body_[at];
      if (s.a == slot || s.b == slot || s.c == slot) return true;  // or writes there, as twins do: stored for nothing
      if (s.to == slot) return false;
    }
    return false;
  }

  const Program& p_;
  int last_;
  const Purpose& purpose_;
  Values values_;
  std::vector<int> written_, loaded_;  // values by slot, -1: none
  std::vector<int> ones_;              // the slot of the one number that a slot has, -1: it has many
};

std::unique_ptr<Machine> Machine::of(const Program& program, int first, int last, const Purpose& purpose, std::uint64_t& sums) {
  return Reader(program, first, last, purpose).machine(sums);
}

std::unique_ptr<Machine> Machine::with(const std::vector<std::uint8_t>& code, std::vector<Touched> touched, int masked_size) {
  auto made = std::unique_ptr<Machine>(new Machine);
  made->pages_ = CodePages::with(code);
  if (!made->pages_) return nullptr;
  const void* start = made->pages_->start();
  std::memcpy(&made->code_, &start, sizeof(start));
  made->touched_ = std::move(touched);
  made->masked_size_ = masked_size;
  return made;
}

void Machine::run(void** slots, Index n) const {
  static constexpr std::int32_t masks[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
  if (masked_size_) {
    const int last = static_cast<int>(n & (masked_size_ == 8 ? 3 : 7));
    return code_(slots, n - last, masks + 8 - last * (masked_size_ / 4));
  }
  const Index whole = n / kLanes * kLanes;
  if (whole) code_(slots, whole, nullptr);
  if (whole < n) run_last(slots, whole, n - whole);
}

// The last few elements by way of memory that has room for a vector: of bytes there are no masked loads.
void Machine::run_last(void** slots, Index done, Index n) const {
  struct alignas(32) Vector {
    unsigned char bytes[kLanes * 8];
  };
  Vector room[kMostTouched] = {};
  void* there[kMostTouched];
  for (std::size_t k = 0; k < touched_.size(); ++k) {
    const auto [slot, size, stored] = touched_[k];
    there[k] = slots[slot];
    std::memcpy(room[k].bytes, static_cast<char*>(there[k]) + done * size, static_cast<std::size_t>(n * size));
    slots[slot] = room[k].bytes;
  }
  code_(slots, kLanes, nullptr);
  for (std::size_t k = 0; k < touched_.size(); ++k) {
    const auto [slot, size, stored] = touched_[k];
    if (stored) std::memcpy(static_cast<char*>(there[k]) + done * size, room[k].bytes, static_cast<std::size_t>(n * size));
    slots[slot] = there[k];
  }
}

// ---- bodies

// As choose_block() has it, for the memory that is still touched.
Index Program::block_for(const Machines::Body& body) const {
  if (body.machines.empty()) return 0;
  std::vector<char> touched(static_cast<std::size_t>(slots_), 0);
  for (const Step& s : body.steps) {
    if (!s.machine) {
      for (const int slot : {s.to, s.a, s.b, s.c}) touched[static_cast<std::size_t>(slot)] = 1;
      continue;
    }
    for (const Machine::Touched& t : s.machine->touched()) touched[static_cast<std::size_t>(t.slot)] = 1;
  }
  Index bytes = 0;
  for (const Port& port : ports_) bytes += port.varies ? port.item_size : 0;
  for (const Buffer& buffer : buffers_)
    if (touched[static_cast<std::size_t>(buffer.slot)]) bytes += 8;
  Index block = kMostCompiledBlock;
  while (block > block_ && block * bytes > kFirstLevel) block /= 2;
  return std::max<Index>(block, block_);
}

std::unique_ptr<Machines::Body> Machines::make(const Program& program, const std::vector<Step>& loops, const Purpose& purpose) {
  auto made = std::make_unique<Body>();
  made->purpose = purpose;
  const int count = static_cast<int>(loops.size());
  const bool alone = purpose.sums || purpose.row_loop;  // loops are compiled alone as well
  if (purpose.row_loop && program.last_compiled(0) != count - 1) return made;
  for (int at = 0; at < count;) {
    const int last = program.last_compiled(at);
    std::uint64_t summed = 0;
    std::unique_ptr<Machine> machine;
    if (last > at || (alone && program.can_compile(at)))
      machine = Machine::of(program, at, last, purpose, summed);
    if (last > at && !machine) return made;  // all or none: what is a row value was chosen for these
    if (machine && (last > at || summed || purpose.row_loop)) {
      made->sums |= summed;
      Step step{nullptr, 0, 0, 0, 0};
      step.machine = machine.get();
      made->steps.push_back(step);
      made->machines.push_back(std::move(machine));
      at = last + 1;
    } else {
      made->steps.push_back(loops[static_cast<std::size_t>(at++)]);
    }
  }
  made->block = program.block_for(*made);
  return made;
}

const Machines::Body* Machines::body(const Program& program, const std::vector<Step>& loops, const Purpose& purpose) {
  const bool plain = purpose == Purpose{};
  const Body* found = plain ? plain_.load(std::memory_order_acquire) : nullptr;
  if (!found) {
    const std::lock_guard<std::mutex> lock(busy_);
    for (const auto& body : bodies_)
      if (body->purpose == purpose) found = body.get();
    if (!found) {
      if (bodies_.size() == kMostBodies) return nullptr;
      bodies_.push_back(make(program, loops, purpose));
      found = bodies_.back().get();
      if (plain) plain_.store(found, std::memory_order_release);
    }
  }
  return found->block ? found : nullptr;
}

}  // namespace formula
}  // namespace tg
