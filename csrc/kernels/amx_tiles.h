// Intel's AMX: tiles of sixteen rows of 64 bytes, and products of two of bfloat16 in sixteen cycles, where vectors of float
// take sixteen times as long. To these products what is below 2^-126 is zero.
#pragma once

#if defined(__AVX512F__) && defined(__x86_64__) && defined(__linux__) && (__GNUC__ >= 11 || __clang_major__ >= 12)
#define TG_AMX 1
#endif

#include "../core/dtype.h"

namespace tg::amx {

constexpr Index kTile = 1024;  // bytes

// Asks the system for tiles, or does without them; whether they are used from here on: where processor and system have them.
bool use(bool wanted);
bool in_use();

#ifdef TG_AMX
// Eight whole tiles of the calling thread while this lives: after that the system has none to save when threads change.
struct Tiles {
  Tiles();
  ~Tiles() { asm volatile("tilerelease"); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;
};

// Of tiles 0 to 7; rows are `step` bytes apart.
template <int T>
[[gnu::always_inline]] inline void zero() {
  asm volatile("tilezero %%tmm%c0" : : "i"(T));
}
template <int T>
[[gnu::always_inline]] inline void load(const void* from, Index step = 64) {
  asm volatile("tileloadd (%1,%2,1), %%tmm%c0" : : "i"(T), "r"(from), "r"(step) : "memory");
}
template <int T>
[[gnu::always_inline]] inline void store(void* to) {
  asm volatile("tilestored %%tmm%c0, (%1,%2,1)" : : "i"(T), "r"(to), "r"(Index(64)) : "memory");
}
// sum += a b of bfloat16: a row of a is 16 pairs of terms, row k of b the k-th pairs of its 16 columns.
template <int Sum, int A, int B>
[[gnu::always_inline]] inline void multiply() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(Sum), "i"(A), "i"(B));
}
#else
struct Tiles {};
#endif

}  // namespace tg::amx
