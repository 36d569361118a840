// How two elements become one where several are written to one place.
#pragma once

#include <algorithm>
#include <type_traits>

#include "../core/lanes.h"
#include "index.h"

namespace tg {

struct Sum {
  template <class V>
  V operator()(V a, V b) const {
    return V(a + b);
  }
};
struct Product {
  template <class V>
  V operator()(V a, V b) const {
    return V(a * b);
  }
};
// NaN wins: it is asked for by itself, so that the rest is one instruction and no jump that depends on the data.
template <bool Largest>
struct Extreme {
  template <class V>
  V operator()(V a, V b) const {
    if constexpr (std::is_same_v<V, uint64_t>) {
      return V(Largest ? std::max(int64_t(a), int64_t(b)) : std::min(int64_t(a), int64_t(b)));
    } else if constexpr (std::is_arithmetic_v<V>) {
      if (b != b) return b;
      return (Largest ? b > a : b < a) ? b : a;
    } else {
      return ((Largest ? b > a : b < a) | (b != b)) ? b : a;
    }
  }
};

// use(combine): combine(a, b) of two T, or of two vectors of floating-point numbers.
template <class T, class Use>
auto with_combine(Combine how, Use use) {
  if constexpr (!std::is_same_v<T, c64> && !std::is_same_v<T, c128>) {
    if (how == Combine::multiply) return use(Product{});
    if (how == Combine::largest) return use(Extreme<true>{});
    if (how == Combine::smallest) return use(Extreme<false>{});
  }
  return use(Sum{});
}

}  // namespace tg
