// Machine code that is written while the process runs: memory for it, and an encoder of the instructions that are needed.
//
// A piece of code lies in pages of its own, which can be written until they can be executed and never again. Where the
// system allows no such pages (hardened ones), or the processor has no AVX2, nothing is written: callers have loops that
// compute the same.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "dtype.h"

namespace tg {

// Whether code can be written here, for processors with AVX2 and FMA; found out once.
bool writes_machine_code();
// For those who don't want it. On by default.
void set_machine_code(bool wanted);

class CodePages {
 public:
  // Null if there is no memory.
  static std::unique_ptr<CodePages> with(const std::vector<std::uint8_t>& code);
  CodePages(const CodePages&) = delete;
  CodePages& operator=(const CodePages&) = delete;
  ~CodePages();
  const void* start() const { return memory_; }

 private:
  CodePages(void* memory, std::size_t size) : memory_(memory), size_(size) {}
  void* memory_;
  std::size_t size_;
};

// Where an operand is: in a vector register, in the frame, in memory that a register points to, or in an array, at the counter
// (in rax) times 2^scale.
struct Place {
  enum Kind : std::uint8_t { Vector, Frame, Memory, Array } kind;
  int number;     // of the vector register; of the base register
  int at = 0;     // frame: bytes from its start; array: bytes behind the counter, fewer than 128
  int scale = 0;  // array
};
inline Place vector_register(int number) { return {Place::Vector, number}; }
inline Place in_frame(int at) { return {Place::Frame, 0, at}; }
inline Place in_memory(int base) { return {Place::Memory, base}; }
inline Place in_array(int base, int scale, int behind = 0) { return {Place::Array, base, behind, scale}; }

// x86-64, three operands in VEX form: Intel's manual, volume 2, 2.3. General registers by number: rax 0, rcx 1, rdx 2,
// rbx 3, rsp 4, rbp 5, rsi 6, rdi 7, r8 to r15.
class Encoder {
 public:
  std::vector<std::uint8_t> code;

  struct Operation {
    std::uint8_t map, prefix, wide, opcode;  // prefix: 0 none, 1 66, 2 F3, 3 F2
  };
  // Of 256 bits, or of 128. Instructions of one source give 0 for the other.
  void vector_op(const Operation& op, int to, int first, const Place& second, bool all = true);
  void byte(int value) { code.push_back(static_cast<std::uint8_t>(value)); }

  void load_base(int to, int slot);            // mov to, [rdi + 8 slot]
  void add_to_base(int to, int slot);          // add to, [rdi + 8 slot]
  void store_base(int from, int slot);         // mov [rdi + 8 slot], from
  void literal(std::uint64_t bits, bool wide);  // into kTemporary
  // A function of (rdi: pointers, rsi: how many elements, rdx: a mask): its frame, and the counter at zero; its end.
  void prologue(int frame, int saved);
  void epilogue(int saved);
  // The body as long as there are this many elements more (up to 128).
  void repeat(const std::vector<std::uint8_t>& body, int elements);
  void count_from_zero();  // again
  // The body once, if the four bytes at this place of the frame are not zero.
  void unless_zero(int at, const std::vector<std::uint8_t>& body);

  // Back to this place of the code, until what the slot, or the register from r8 on, counts is zero.
  void until_zero(int slot, std::size_t start);
  void count_down(int reg, std::size_t start);

  static int base_register(int number);  // of arrays; -1 beyond the last
  static int saved_by(int bases);        // registers that must be kept for callers if this many bases are used
  static constexpr int kTemporary = 11, kMaskBase = 2;

 private:
  void back_to(std::size_t start);
  void at_slot(int opcode, int reg, int slot) {
    byte(0x48 | reg >> 3 << 2), byte(opcode), byte(0x80 | (reg & 7) << 3 | 7);
    word(static_cast<std::uint32_t>(8 * slot));
  }
  void word(std::uint32_t value) {
    for (int i = 0; i < 4; ++i) byte(static_cast<int>(value >> (8 * i) & 255));
  }
};

}  // namespace tg
