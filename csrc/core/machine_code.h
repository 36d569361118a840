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

// Where an operand is: in a vector register, in the frame, or in an array at the counter (in rax) times 2^scale.
struct Place {
  enum Kind : std::uint8_t { Vector, Frame, Array } kind;
  int number;     // of the vector register; of the array's base register
  int at = 0;     // frame: bytes from its start
  int scale = 0;  // array
};
inline Place vector_register(int number) { return {Place::Vector, number}; }
inline Place in_frame(int at) { return {Place::Frame, 0, at}; }
inline Place in_array(int base, int scale) { return {Place::Array, base, 0, scale}; }

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
  void literal(std::uint64_t bits, bool wide);  // into kTemporary
  // A function of (rdi: pointers, rsi: how many elements, rdx: a mask): its frame, and the counter at zero; its end.
  void prologue(int frame, int saved);
  void epilogue(int saved);
  // The body as often as there are stretches of this many elements.
  void repeat(const std::vector<std::uint8_t>& body, int elements);
  // The body once, if the four bytes at this place of the frame are not zero.
  void unless_zero(int at, const std::vector<std::uint8_t>& body);

  static int base_register(int number);  // of arrays; -1 beyond the last
  static int saved_by(int bases);        // registers that must be kept for callers if this many bases are used
  static constexpr int kTemporary = 11, kMaskBase = 2;

 private:
  void word(std::uint32_t value) {
    for (int i = 0; i < 4; ++i) byte(static_cast<int>(value >> (8 * i) & 255));
  }
};

}  // namespace tg
