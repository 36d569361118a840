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

  // One row of one channel in place; its first element is the result's `element`. Members are copied first: for all that a
  // compiler knows what is stored may lie over them, and it would read them again for each number.
  void finish(T* row, Index count, Index channel, Index element) const {
    constexpr int L = lanes::Lanes<T>::count;
    using V = lanes::Vec<T>;
    Tail bounds;
    bounds.clamps = true;
    if (clamps) bounds.low = low, bounds.high = high;
    const T by = scale ? scale[channel] : T(1), plus = shift ? shift[channel] : T(0);
    const V factor = by - V{}, term = plus - V{};
    const T* more = other ? other + element : nullptr;
    Index i = 0;
    if (more) {
      for (; i + L <= count; i += L)
        lanes::store<T>(row + i, bounds.clamped(lanes::load(row + i) * factor + term + lanes::load(more + i)));
      for (; i < count; ++i) row[i] = bounds.clamped(row[i] * by + plus + more[i]);
    } else {
      for (; i + L <= count; i += L) lanes::store<T>(row + i, bounds.clamped(lanes::load(row + i) * factor + term));
      for (; i < count; ++i) row[i] = bounds.clamped(row[i] * by + plus);
    }
  }
};

}  // namespace tg
