// Runs of bytes by pieces of one cache line, of which the last may overlap the one before.
//
// memcpy of glibc turns to `rep movsb` from 4 KB on, which on Zen 3 is slow where the two sides are not aligned alike:
// 4 MB by runs of 128 KB from an address 4 bytes off took 416 us, by these loops 147 (16-byte moves; 134 with 32). Rows
// of 64 and 128 bytes save the call.
#pragma once

#include <cstring>
#include <type_traits>

#include "dtype.h"

namespace tg {

inline void copy_bytes(char* to, const char* from, Index n) {
  constexpr Index kPiece = 64;
  if (n < kPiece) {
    std::memcpy(to, from, static_cast<std::size_t>(n));
    return;
  }
  for (Index i = 0; i + kPiece < n; i += kPiece) std::memcpy(to + i, from + i, kPiece);
  std::memcpy(to + n - kPiece, from + n - kPiece, kPiece);
}

// Pieces of n bytes, `count` of them, each `offset` behind from[i], one behind the other.
[[gnu::noinline]] inline void gather_bytes(char* to, const char* const* from, Index count, Index offset, Index n) {
  const auto whole = [=](auto bytes) {
    for (Index i = 0; i < count; ++i) std::memcpy(to + i * bytes, from[i] + offset, bytes);
  };
  switch (n) {
    case 4: return whole(std::integral_constant<int, 4>{});
    case 8: return whole(std::integral_constant<int, 8>{});
    case 12: return whole(std::integral_constant<int, 12>{});
    case 16: return whole(std::integral_constant<int, 16>{});
    case 20: return whole(std::integral_constant<int, 20>{});
    case 24: return whole(std::integral_constant<int, 24>{});
    case 32: return whole(std::integral_constant<int, 32>{});
  }
  for (Index i = 0; i < count; ++i) {
    char* piece = to + i * n;
    const char* x = from[i] + offset;
    if (n < 16 || n >= 64) {
      copy_bytes(piece, x, n);
      continue;
    }
    for (Index k = 0; k + 16 < n; k += 16) std::memcpy(piece + k, x + k, 16);
    std::memcpy(piece + n - 16, x + n - 16, 16);
  }
}

}  // namespace tg
