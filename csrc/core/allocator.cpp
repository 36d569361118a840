#include "allocator.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>

#if defined(__linux__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace tg {
namespace {

constexpr std::size_t kHeader = 64;  // keeps the block aligned, and remembers its class
constexpr std::size_t kSmallest = 64;
constexpr int kClasses = 4 * 44;  // four per power of two, from 64 bytes to beyond any address space
constexpr std::size_t kKeepAtLeast = std::size_t(32) << 20;

// Class c holds blocks of (4 + c % 4) * 2^(c / 4 + 4) bytes: 64, 80, 96, 112, 128, 160, ...
std::size_t class_bytes(int c) { return static_cast<std::size_t>(4 + c % 4) << (c / 4 + 4); }

int class_of(std::size_t bytes) {
  if (bytes <= kSmallest) return 0;
  const int log2 = 63 - __builtin_clzll(bytes - 1);  // 2^log2 < bytes <= 2^(log2 + 1)
  const int quarter = static_cast<int>((bytes - 1) >> (log2 - 2)) & 3;
  return (log2 - 6) * 4 + quarter + 1;
}

struct Header {
  int size_class;
};

struct Cache {
  std::mutex guard;
  std::array<std::vector<void*>, kClasses> free;
  std::size_t in_use = 0, cached = 0, peak = 0;

  void trim_to(std::size_t keep) {
    for (int c = kClasses - 1; c >= 0 && cached > keep; --c) {
      while (!free[c].empty() && cached > keep) {
        std::free(free[c].back());
        free[c].pop_back();
        cached -= class_bytes(c);
      }
    }
  }
};

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
  const int c = class_of(bytes);
  const std::size_t size = class_bytes(c);
  Cache& all = cache();
  void* raw = nullptr;
  {
    std::lock_guard<std::mutex> lock(all.guard);
    if (!all.free[c].empty()) {
      raw = all.free[c].back();
      all.free[c].pop_back();
      all.cached -= size;
    }
    all.in_use += size;
    all.peak = std::max(all.peak, all.in_use + all.cached);
  }
  if (!raw && posix_memalign(&raw, 64, size + kHeader) != 0) {
    trim_memory();
    if (posix_memalign(&raw, 64, size + kHeader) != 0) {
      std::lock_guard<std::mutex> lock(all.guard);
      all.in_use -= size;
      throw std::bad_alloc();
    }
  }
  static_cast<Header*>(raw)->size_class = c;
  return static_cast<char*>(raw) + kHeader;
}

void release(void* block) noexcept {
  if (!block) return;
  void* raw = static_cast<char*>(block) - kHeader;
  const int c = static_cast<Header*>(raw)->size_class;
  const std::size_t size = class_bytes(c);
  Cache& all = cache();
  std::lock_guard<std::mutex> lock(all.guard);
  all.in_use -= size;
  try {
    all.free[c].push_back(raw);
    all.cached += size;
  } catch (...) {
    std::free(raw);
  }
  // what a step uses and frees is reused by the next: keep as much as the peak saw, and no more
  if (all.cached > kKeepAtLeast && all.cached > all.peak / 2 + all.in_use) all.trim_to(all.peak / 2);
}

MemoryStats memory_stats() {
  Cache& all = cache();
  std::lock_guard<std::mutex> lock(all.guard);
  return {all.in_use, all.cached, all.peak};
}

void trim_memory() {
  Cache& all = cache();
  std::lock_guard<std::mutex> lock(all.guard);
  all.trim_to(0);
  all.peak = all.in_use;
}

}  // namespace tg
