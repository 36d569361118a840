// A square of vectors transposed in registers.
//
// First squares 128 bits wide, which every instruction set interleaves with one instruction for each vector, then halves
// of wider and wider vectors are exchanged: 24 instructions for 8 x 8 floats. Exchanging single elements at first takes
// two for each vector.
#pragma once

#include <cstdint>
#include <utility>

#include "lanes.h"

namespace tg::lanes {
namespace detail {

// Element i of the result is element Pick::at(i) of a and b, counted as one.
template <class T, class Pick, std::size_t... I>
inline Vec<T> picked(const Vec<T>& a, const Vec<T>& b, std::index_sequence<I...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, Pick::at(int(I))...);
#else
  return __builtin_shuffle(a, b, typename Lanes<T>::Int{Pick::at(int(I))...});
#endif
}
template <class T, class Pick>
inline Vec<T> picked(const Vec<T>& a, const Vec<T>& b) {
  return picked<T, Pick>(a, b, std::make_index_sequence<Lanes<T>::count>{});
}

// Within each 128 bits (P elements), groups of G elements: the lower (or upper) half of a's and b's, alternating.
template <class T, int G, bool Upper>
struct Interleave {
  static constexpr int L = Lanes<T>::count, P = 16 / int(sizeof(T));
  static constexpr int at(int i) {
    const int lane = i / P * P, group = i % P / G, inside = i % G;
    return lane + (Upper ? P / 2 : 0) + group / 2 * G + inside + (group % 2 ? L : 0);
  }
};

// Blocks of H elements: a's even ones with b's even ones between them, or the odd ones of both.
template <class T, int H, bool Odd>
struct Blocks {
  static constexpr int L = Lanes<T>::count;
  static constexpr int at(int i) {
    const bool second = i & H;
    return (i & ~H) + (Odd ? H : 0) + (second ? L : 0);
  }
};

template <class T, int H>
inline void exchange_blocks(Vec<T>* r) {
  constexpr int L = Lanes<T>::count;
  if constexpr (H < L) {
#pragma GCC unroll 16
    for (int i = 0; i < L; ++i) {
      if (i & H) continue;
      const Vec<T> low = picked<T, Blocks<T, H, false>>(r[i], r[i + H]);
      r[i + H] = picked<T, Blocks<T, H, true>>(r[i], r[i + H]);
      r[i] = low;
    }
    exchange_blocks<T, H * 2>(r);
  }
}

}  // namespace detail

// r[i][j] becomes r[j][i].
template <class T>
inline void transpose(Vec<T>* r) {
  constexpr int L = Lanes<T>::count, P = 16 / int(sizeof(T));
  static_assert(P == 4 || P == 2, "float and double");
#pragma GCC unroll 16
  for (int i = 0; i < L; i += P) {
    if constexpr (P == 4) {
      const Vec<T> ab = detail::picked<T, detail::Interleave<T, 1, false>>(r[i], r[i + 1]);
      const Vec<T> ab_upper = detail::picked<T, detail::Interleave<T, 1, true>>(r[i], r[i + 1]);
      const Vec<T> cd = detail::picked<T, detail::Interleave<T, 1, false>>(r[i + 2], r[i + 3]);
      const Vec<T> cd_upper = detail::picked<T, detail::Interleave<T, 1, true>>(r[i + 2], r[i + 3]);
      r[i] = detail::picked<T, detail::Interleave<T, 2, false>>(ab, cd);
      r[i + 1] = detail::picked<T, detail::Interleave<T, 2, true>>(ab, cd);
      r[i + 2] = detail::picked<T, detail::Interleave<T, 2, false>>(ab_upper, cd_upper);
      r[i + 3] = detail::picked<T, detail::Interleave<T, 2, true>>(ab_upper, cd_upper);
    } else {
      const Vec<T> low = detail::picked<T, detail::Interleave<T, 1, false>>(r[i], r[i + 1]);
      r[i + 1] = detail::picked<T, detail::Interleave<T, 1, true>>(r[i], r[i + 1]);
      r[i] = low;
    }
  }
  detail::exchange_blocks<T, P>(r);
}

}  // namespace tg::lanes
