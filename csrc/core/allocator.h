// Memory for arrays and scratch: 64-byte aligned blocks in size classes, kept for reuse.
//
// A training step asks for the same sizes again and again; handing back a block that was touched before costs no page
// fault. What is kept unused is bounded: beyond what the last seconds had in use at once, and half of it again, freed
// blocks return to the system, the largest first. Thread-safe.
#pragma once

#include <cstddef>

#include "dtype.h"

namespace tg {

void* allocate(std::size_t bytes);  // throws std::bad_alloc
void* allocate_lasting(std::size_t bytes);  // of exactly that size: for a block that lives for many steps
void release(void* block) noexcept;

struct MemoryStats {
  std::size_t in_use, cached, peak, peak_in_use;  // peak: of both together
};
MemoryStats memory_stats();
void trim_memory();  // gives everything unused back to the system; peaks are counted from here on

// Scratch of n elements of T, uninitialized, for the lifetime of the object. Up to kOwn bytes lie in the object itself: to ask
// for a block takes as long as a product of small matrices.
template <class T, std::size_t kOwn = 0>
class Scratch {
 public:
  explicit Scratch(Index n) {
    const std::size_t bytes = static_cast<std::size_t>(n) * sizeof(T);
    if (n == 0) return;
    if constexpr (kOwn > 0) data_ = reinterpret_cast<T*>(own_);
    if (bytes > kOwn) data_ = static_cast<T*>(allocate(bytes));
  }
  ~Scratch() {
    if (reinterpret_cast<char*>(data_) != own_) release(data_);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  T* data() const { return data_; }
  T& operator[](Index i) const { return data_[i]; }

 private:
  T* data_ = nullptr;
  alignas(kOwn > 0 ? 64 : 1) char own_[kOwn > 0 ? kOwn : 1];
};

constexpr std::size_t kOnStack = 8192;  // bytes of scratch that small products have on the stack

}  // namespace tg
