#include "amx_tiles.h"

#include <atomic>
#include <cstdint>

#ifdef TG_AMX
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace tg::amx {
namespace {

std::atomic<bool> used{false};

#ifdef TG_AMX
// Tiles are a process's only that asked for them, once; the system refuses where a thread's stack for signals is too small.
bool granted() {
  constexpr unsigned kSavesMore = 1u << 27, kBfloat = 1u << 22, kHasTiles = 1u << 24;  // OSXSAVE, AMX-BF16, AMX-TILE
  constexpr unsigned kState = 3u << 17;                  // XTILECFG and XTILEDATA, as the system saves them
  constexpr long kRequest = 0x1023, kTileData = 18;      // ARCH_REQ_XCOMP_PERM
  unsigned a, b, c, d, high;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & kSavesMore)) return false;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & kBfloat) || !(d & kHasTiles)) return false;
  asm("xgetbv" : "=a"(a), "=d"(high) : "c"(0));
  return (a & kState) == kState && syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
}
#else
bool granted() { return false; }
#endif

}  // namespace

bool use(bool wanted) {
  used = wanted && granted();
  return used;
}
bool in_use() { return used.load(std::memory_order_relaxed); }

#ifdef TG_AMX
Tiles::Tiles() {
  struct alignas(64) {
    std::uint8_t palette = 1, start = 0, reserved[14] = {};
    std::uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  } config;
  asm volatile("ldtilecfg %0" : : "m"(config));
}
#endif

}  // namespace tg::amx
