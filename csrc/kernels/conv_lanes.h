// Pixels with channels along the vector: what kernels read that work on one channel like on the next. Maps of any size
// fill the vector so; the turn from planes and back happens a few rows at a time, in L1.
#pragma once

#include <algorithm>

#include "../core/dtype.h"
#include "../core/lanes.h"
#include "conv_tile.h"

namespace tg {

// The plane of the first lane's channel, and how far it is to the next lane's.
template <class T>
struct Plane {
  const T* first;
  const T* end;  // of the whole array: no load passes it
  Index height, width, lane;
};

// A vector of what is stored there; bfloat16 is widened.
template <class T, class Stored>
Vec<T> load_stored(const Stored* from) {
  if constexpr (std::is_same_v<T, Stored>) {
    return load(from);
  } else {
    static_assert(std::is_same_v<T, float> && std::is_same_v<Stored, bfloat16>);
    typedef std::uint16_t Halves __attribute__((vector_size(lanes::kVectorBytes / 2), aligned(2), may_alias));
    return Vec<T>(__builtin_convertvector(*reinterpret_cast<const Halves*>(from), typename Lanes<T>::Int) << 16);
  }
}

// to[row][column][lane] for a box of pixels of `channels` planes, at most a vector of them; zero outside.
template <class T, class Stored>
[[gnu::noinline]] void gather_box(const Plane<Stored>& plane, Index channels, Index y, Index rows, Index x, Index cols, T* to) {
  constexpr int L = Lanes<T>::count;
  const Index first = std::clamp<Index>(-x, 0, cols), last = std::clamp<Index>(plane.width - x, first, cols);
  for (Index r = 0; r < rows; ++r, to += cols * L) {
    if (y + r < 0 || y + r >= plane.height) {
      std::fill_n(to, cols * L, T(0));
      continue;
    }
    std::fill_n(to, first * L, T(0));
    std::fill_n(to + last * L, (cols - last) * L, T(0));
    const Stored* from = plane.first + (y + r) * plane.width + x;
    Index i = first;
    // the last piece of a row reads into the next one, and stores what belongs here
    for (; i < last && from + (channels - 1) * plane.lane + i + L <= plane.end; i += L) {
      Vec<T> v[L];
      if (channels == L) {
#pragma GCC unroll 16
        for (int j = 0; j < L; ++j) v[j] = load_stored<T>(from + j * plane.lane + i);
      } else {
        for (int j = 0; j < L; ++j) v[j] = j < channels ? load_stored<T>(from + j * plane.lane + i) : Vec<T>{};
      }
      lanes::transpose<T>(v);
      const Index count = std::min<Index>(L, last - i);
      if (count == L) {
#pragma GCC unroll 16
        for (int j = 0; j < L; ++j) store(to + (i + j) * L, v[j]);
      } else {
#pragma GCC unroll 16
        for (int j = 0; j < L; ++j)
          if (j < count) store(to + (i + j) * L, v[j]);
      }
    }
    for (; i < last; ++i)
      for (Index c = 0; c < L; ++c) to[i * L + c] = c < channels ? T(from[c * plane.lane + i]) : T(0);
  }
}

}  // namespace tg
