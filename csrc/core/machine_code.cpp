#include "machine_code.h"

#include <atomic>
#include <cstring>

#if defined(__x86_64__) && defined(__linux__)
#define TG_WRITES_CODE
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace tg {
namespace {

std::atomic<bool> wanted_here{true};

// Code that returns a number, run.
bool works() {
#if defined(TG_WRITES_CODE)
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return false;
  const auto pages = CodePages::with({0xB8, 42, 0, 0, 0, 0xC3});  // mov eax, 42; ret
  if (!pages) return false;
  int (*run)();
  const void* start = pages->start();
  std::memcpy(&run, &start, sizeof(run));
  return run() == 42;
#else
  return false;
#endif
}

}  // namespace

bool writes_machine_code() {
  static const bool here = works();
  return here && wanted_here.load(std::memory_order_relaxed);
}

void set_machine_code(bool wanted) { wanted_here = wanted; }

std::unique_ptr<CodePages> CodePages::with(const std::vector<std::uint8_t>& code) {
#if defined(TG_WRITES_CODE)
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  const std::size_t size = (code.size() + page - 1) / page * page;
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  std::memcpy(memory, code.data(), code.size());
  if (mprotect(memory, size, PROT_READ | PROT_EXEC) != 0) {
    munmap(memory, size);
    return nullptr;
  }
  return std::unique_ptr<CodePages>(new CodePages(memory, size));
#else
  static_cast<void>(code);
  return nullptr;
#endif
}

CodePages::~CodePages() {
#if defined(TG_WRITES_CODE)
  munmap(memory_, size_);
#endif
}

void Encoder::vector_op(const Operation& op, int to, int first, const Place& second, bool all) {
  const int high = second.kind == Place::Frame ? 0 : second.number >> 3;
  byte(0xC4);
  byte((~(to >> 3) & 1) << 7 | 1 << 6 | (~high & 1) << 5 | op.map);
  byte(op.wide << 7 | (~first & 15) << 3 | (all ? 4 : 0) | op.prefix);
  byte(op.opcode);
  const int reg = (to & 7) << 3;
  switch (second.kind) {
    case Place::Vector: return byte(0xC0 | reg | (second.number & 7));
    case Place::Frame:
      byte(0x80 | reg | 4), byte(0x24);
      return word(static_cast<std::uint32_t>(second.at));
    case Place::Memory:
      byte(0x40 | reg | (second.number & 7));
      if ((second.number & 7) == 4) byte(0x24);
      return byte(0);
    case Place::Array: return byte(0x40 | reg | 4), byte(second.scale << 6 | (second.number & 7)), byte(second.at);
  }
}

void Encoder::load_base(int to, int slot) { at_slot(0x8B, to, slot); }
void Encoder::add_to_base(int to, int slot) { at_slot(0x03, to, slot); }
void Encoder::store_base(int from, int slot) { at_slot(0x89, from, slot); }

void Encoder::literal(std::uint64_t bits, bool wide) {
  byte(wide ? 0x49 : 0x41), byte(0xBB);
  word(static_cast<std::uint32_t>(bits));
  if (wide) word(static_cast<std::uint32_t>(bits >> 32));
}

namespace {
constexpr int kBases[] = {1, 2, 8, 9, 10, 3, 12, 13, 14, 15};
constexpr int kFree = 5, kCount = 10;  // the first of them are nobody's
}  // namespace

int Encoder::base_register(int number) { return number < kCount ? kBases[number] : -1; }
int Encoder::saved_by(int bases) { return bases <= kFree ? 0 : (bases < kCount ? bases : kCount) - kFree; }

void Encoder::prologue(int frame, int saved) {
  byte(0x55), byte(0x48), byte(0x89), byte(0xE5);  // push rbp; mov rbp, rsp
  for (int i = 0; i < saved; ++i) {
    const int r = kBases[kFree + i];
    if (r >= 8) byte(0x41);
    byte(0x50 | (r & 7));
  }
  byte(0x48), byte(0x81), byte(0xEC), word(static_cast<std::uint32_t>(frame));  // sub rsp, frame
  byte(0x48), byte(0x83), byte(0xE4), byte(0xE0);                               // and rsp, -32
  count_from_zero();
}

void Encoder::epilogue(int saved) {
  byte(0x48), byte(0x8D), byte(0x65), byte(-8 * saved & 255);  // lea rsp, [rbp - 8 saved]
  for (int i = saved; i-- > 0;) {
    const int r = kBases[kFree + i];
    if (r >= 8) byte(0x41);
    byte(0x58 | (r & 7));
  }
  byte(0x5D), byte(0xC5), byte(0xF8), byte(0x77), byte(0xC3);  // pop rbp; vzeroupper; ret
}

void Encoder::repeat(const std::vector<std::uint8_t>& body, int elements) {
  byte(0x48), byte(0x83), byte(0xEE), byte(elements - 1);  // sub rsi, elements - 1
  byte(0x48), byte(0x39), byte(0xF0);                      // cmp rax, rsi
  byte(0x0F), byte(0x8D);                                  // jge past it all
  const std::size_t past = code.size();
  word(0);
  while (code.size() % 32) byte(0x90);
  const std::size_t start = code.size();
  code.insert(code.end(), body.begin(), body.end());
  byte(0x48), byte(0x83), byte(0xC0), byte(elements);  // add rax, elements
  byte(0x48), byte(0x39), byte(0xF0);                  // cmp rax, rsi
  byte(0x0F), byte(0x8C);                              // jl start
  word(static_cast<std::uint32_t>(start) - static_cast<std::uint32_t>(code.size() + 4));
  const auto skipped = static_cast<std::uint32_t>(code.size() - past - 4);
  std::memcpy(code.data() + past, &skipped, sizeof(skipped));
  byte(0x48), byte(0x83), byte(0xC6), byte(elements - 1);  // add rsi, elements - 1
}

void Encoder::count_from_zero() { byte(0x31), byte(0xC0); }  // xor eax, eax

void Encoder::until_zero(int slot, std::size_t start) {
  at_slot(0xFF, 1, slot);  // dec qword [rdi + 8 slot]
  back_to(start);
}

void Encoder::count_down(int reg, std::size_t start) {
  byte(0x49), byte(0xFF), byte(0xC8 | (reg & 7));  // dec reg
  back_to(start);
}

void Encoder::back_to(std::size_t start) {
  byte(0x0F), byte(0x85);  // jnz start
  word(static_cast<std::uint32_t>(start) - static_cast<std::uint32_t>(code.size() + 4));
}

void Encoder::unless_zero(int at, const std::vector<std::uint8_t>& body) {
  byte(0x83), byte(0xBC), byte(0x24), word(static_cast<std::uint32_t>(at)), byte(0);  // cmp dword [rsp + at], 0
  byte(0x0F), byte(0x84), word(static_cast<std::uint32_t>(body.size()));              // je past it
  code.insert(code.end(), body.begin(), body.end());
}

}  // namespace tg
