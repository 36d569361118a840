// What follows a convolution's sums before they are stored: y = clamp(sum * scale[channel] + shift[channel] + other).
//
// So a batch norm by given statistics, a residual and a ReLU behind a convolution cost no pass over memory: kernels that turn
// their sums into planes apply it to the registers they store, others to rows that are still in L1.
#pragma once

#include <functional>
#include <limits>

#include "../core/lanes.h"

namespace tg {

template <class T>
struct Tail {
  const T* scale = nullptr;  // by channel, or null for one
  const T* shift = nullptr;  // by channel, or null for zero
  const T* other = nullptr;  // laid out as the result, or null
  bool clamps = false;
  T low = -std::numeric_limits<T>::infinity(), high = std::numeric_limits<T>::infinity();
  // Told of elements [first, last) of the result, which begins at `start`, by the thread that has just stored them, of each
  // once; or null.
  const std::function<void(Index, Index)>* finished = nullptr;
  const T* start = nullptr;

  void tell(const T* stored, Index count) const {
    if (finished) (*finished)(stored - start, stored - start + count);
  }
  bool plain() const { return !scale && !other && !clamps; }

  // From this channel and this element of the result on.
  Tail at(Index channel, Index element) const {
    Tail t = *this;
    if (scale) t.scale += channel;
    if (shift) t.shift += channel;
    if (other) t.other += element;
    return t;
  }

  // Of a value or a vector of them; NaN stays NaN.
  template <class V>
  V clamped(V v) const {
    if (clamps) {
      const V least = V{} + low, most = V{} + high;
      v = v < least ? least : v;
      v = v > most ? most : v;
    }
    return v;
  }

  // One row of one channel in place: the row's first element is the tail's.
  void finish(T* row, Index count, Index channel) const {
    const T by = scale ? scale[channel] : T(1), plus = shift ? shift[channel] : T(0);
    if (other)
      for (Index i = 0; i < count; ++i) row[i] = clamped(row[i] * by + plus + other[i]);
    else
      for (Index i = 0; i < count; ++i) row[i] = clamped(row[i] * by + plus);
  }
};

}  // namespace tg
