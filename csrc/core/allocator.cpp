#include "allocator.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>

#if defined(__linux__) || defined(__APPLE__)
#include <pthread.h>
#endif
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace tg {
namespace {

constexpr std::size_t kHeader = 64;  // keeps the block aligned, and remembers its class
constexpr std::size_t kSmallest = 64;
constexpr int kClasses = 4 * 44;  // four per power of two, from 64 bytes to beyond any address space
constexpr std::size_t kKeepAtLeast = std::size_t(64) << 20;
constexpr std::size_t kLargePagesFrom = std::size_t(4) << 20;
constexpr auto kWindow = std::chrono::seconds(5);
// The system's large blocks, NumPy's among them, all start at about the same place of a page. Where the result lies 16 to
// 128 bytes beyond its operand there, loads wait for stores of the same low address bits: 1 M floats negated took 118 us,
// at other distances 105. So our large blocks start elsewhere, and one after another in different places.
constexpr std::size_t kStaggerFrom = std::size_t(1) << 20, kStagger = 512, kPlaces = 7;

// Class c holds blocks of (4 + c % 4) * 2^(c / 4 + 4) bytes: 64, 80, 96, 112, 128, 160, ...
std::size_t class_bytes(int c) { return static_cast<std::size_t>(4 + c % 4) << (c / 4 + 4); }

int class_of(std::size_t bytes) {
  if (bytes <= kSmallest) return 0;
  const int log2 = 63 - __builtin_clzll(bytes - 1);  // 2^log2 < bytes <= 2^(log2 + 1)
  const int quarter = static_cast<int>((bytes - 1) >> (log2 - 2)) & 3;
  return (log2 - 6) * 4 + quarter + 1;
}

constexpr int kExact = -1;

struct Header {
  int size_class;  // or kExact
  int shift;  // bytes of the system's block before the header
  std::size_t bytes;  // of an exact one
};

void give_back(void* raw) { std::free(static_cast<char*>(raw) - static_cast<Header*>(raw)->shift); }

// AddressSanitizer sees where a block ends, and that it is used no more, if each is the system's and of exact size.
#if defined(__SANITIZE_ADDRESS__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

struct Cache {
  std::mutex guard;
  std::array<std::vector<void*>, kClasses> free;
  std::size_t in_use = 0, cached = 0, peak = 0, peak_in_use = 0, staggered = 0;
  // The most in use at once in this window of time and in the one before.
  std::size_t recent = 0, before = 0;
  std::chrono::steady_clock::time_point window_end = std::chrono::steady_clock::now() + kWindow;

  // What a step uses and frees the next uses again: as much is kept as recent steps had in use, and half of it for
  // sizes that do not meet again. Trimming below that gave back half of every step's memory, and cost 4,000 page faults a
  // step of 16 MB arrays.
  void bound() {
    if (in_use + cached <= kKeepAtLeast) return;
    const auto now = std::chrono::steady_clock::now();
    if (now >= window_end) {
      before = now >= window_end + kWindow ? in_use : recent;
      recent = in_use;
      window_end = now + kWindow;
    }
    const std::size_t most = std::max(recent, before), limit = std::max(most + most / 2, kKeepAtLeast);
    if (in_use + cached > limit) trim_to(limit > in_use ? limit - in_use : 0);
  }

  void note() {
    recent = std::max(recent, in_use);
    peak_in_use = std::max(peak_in_use, in_use);
    peak = std::max(peak, in_use + cached);
  }

  void trim_to(std::size_t keep) {
    for (int c = kClasses - 1; c >= 0 && cached > keep; --c) {
      while (!free[c].empty() && cached > keep) {
        give_back(free[c].back());
        free[c].pop_back();
        cached -= class_bytes(c);
      }
    }
  }
};

// Large blocks on large pages where the system leaves the choice to programs: fewer faults and fewer TLB misses.
void prefer_large_pages(void* raw, std::size_t size) {
#if defined(__linux__)
  constexpr std::uintptr_t kPage = 4096;
  const auto start = (reinterpret_cast<std::uintptr_t>(raw) + kPage - 1) / kPage * kPage;
  const auto end = (reinterpret_cast<std::uintptr_t>(raw) + size) / kPage * kPage;
  madvise(reinterpret_cast<void*>(start), end - start, MADV_HUGEPAGE);  // a wish: where it is refused nothing is lost
#else
  (void)raw, (void)size;
#endif
}

Cache& cache() {
  static Cache* made = [] {
#if defined(__linux__) || defined(__APPLE__)
    pthread_atfork([] { cache().guard.lock(); }, [] { cache().guard.unlock(); }, [] { cache().guard.unlock(); });
#endif
    return new Cache;  // never destroyed: arrays may die after the module
  }();
  return *made;
}

}  // namespace

void* allocate(std::size_t bytes) {
  if (bytes > (std::size_t(1) << 46)) throw std::bad_alloc();
  int c = class_of(bytes);
  Cache& all = cache();
  void* raw = nullptr;
  std::size_t shift = 0;
  {
    std::lock_guard<std::mutex> lock(all.guard);
    // a block up to half as large again serves too: it was touched before, and a new one might push it out
    for (int larger = c; larger < std::min(c + 3, kClasses) && !raw && !kSanitized; ++larger) {
      if (all.free[larger].empty()) continue;
      c = larger;
      raw = all.free[c].back();
      all.free[c].pop_back();
      all.cached -= class_bytes(c);
    }
    if (!raw && bytes >= kStaggerFrom) shift = kStagger * (1 + all.staggered++ % kPlaces);
    all.in_use += class_bytes(c);
    all.note();
  }
  if (!raw) {
    const std::size_t size = kSanitized ? bytes : class_bytes(c);
    if (posix_memalign(&raw, 64, shift + kHeader + size) != 0) {
      trim_memory();
      if (posix_memalign(&raw, 64, shift + kHeader + size) != 0) {
        std::lock_guard<std::mutex> lock(all.guard);
        all.in_use -= class_bytes(c);
        throw std::bad_alloc();
      }
    }
    if (size >= kLargePagesFrom) prefer_large_pages(raw, size);
    raw = static_cast<char*>(raw) + shift;
    static_cast<Header*>(raw)->shift = static_cast<int>(shift);
  }
  static_cast<Header*>(raw)->size_class = c;
  return static_cast<char*>(raw) + kHeader;
}

void* allocate_lasting(std::size_t bytes) {
  if (bytes > (std::size_t(1) << 46)) throw std::bad_alloc();
  void* raw = nullptr;
  if (posix_memalign(&raw, 64, kHeader + bytes) != 0) {
    trim_memory();
    if (posix_memalign(&raw, 64, kHeader + bytes) != 0) throw std::bad_alloc();
  }
  if (bytes >= kLargePagesFrom) prefer_large_pages(raw, kHeader + bytes);
  *static_cast<Header*>(raw) = {kExact, 0, bytes};
  Cache& all = cache();
  std::lock_guard<std::mutex> lock(all.guard);
  all.in_use += bytes;
  all.note();
  return static_cast<char*>(raw) + kHeader;
}

void release(void* block) noexcept {
  if (!block) return;
  void* raw = static_cast<char*>(block) - kHeader;
  if (static_cast<Header*>(raw)->size_class == kExact) {
    Cache& all = cache();
    {
      std::lock_guard<std::mutex> lock(all.guard);
      all.in_use -= static_cast<Header*>(raw)->bytes;
    }
    return give_back(raw);
  }
  const int c = static_cast<Header*>(raw)->size_class;
  const std::size_t size = class_bytes(c);
  Cache& all = cache();
  std::lock_guard<std::mutex> lock(all.guard);
  all.in_use -= size;
  if (kSanitized) return give_back(raw);
  try {
    all.free[c].push_back(raw);
    all.cached += size;
  } catch (...) {
    give_back(raw);
  }
  all.bound();
}

MemoryStats memory_stats() {
  Cache& all = cache();
  std::lock_guard<std::mutex> lock(all.guard);
  return {all.in_use, all.cached, all.peak, all.peak_in_use};
}

void trim_memory() {
  Cache& all = cache();
  std::lock_guard<std::mutex> lock(all.guard);
  all.trim_to(0);
  all.peak = all.peak_in_use = all.recent = all.before = all.in_use;
}

}  // namespace tg
