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

// Scratch of n elements of T, uninitialized, for the lifetime of the object.
template <class T>
class Scratch {
 public:
  explicit Scratch(Index n) : data_(static_cast<T*>(allocate(static_cast<std::size_t>(n) * sizeof(T)))) {}
  ~Scratch() { release(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  T* data() const { return data_; }
  T& operator[](Index i) const { return data_[i]; }

 private:
  T* data_;
};

}  // namespace tg
