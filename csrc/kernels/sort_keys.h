// A value becomes an unsigned key that orders like it (floats: flip the sign bit, or all bits of a negative; every NaN
// becomes the largest key), inverted for a descending order. An entry carries the position, so ties keep their order.
#pragma once

#include <cstring>
#include <type_traits>

#include "../core/allocator.h"
#include "../core/dtype.h"

namespace tg {

template <size_t Size>
struct KeyOf;
template <>
struct KeyOf<1> { using Type = uint8_t; };
template <>
struct KeyOf<2> { using Type = uint16_t; };
template <>
struct KeyOf<4> { using Type = uint32_t; };
template <>
struct KeyOf<8> { using Type = uint64_t; };

template <class T>
using Key = typename KeyOf<sizeof(T)>::Type;

template <class T>
constexpr Key<T> kTopBit = Key<T>(Key<T>(1) << (8 * sizeof(T) - 1));

template <class T>
inline Key<T> key_of(T x) {
  using K = Key<T>;
  constexpr K top = kTopBit<T>;
  if constexpr (std::is_floating_point_v<T>) {
    K bits;
    std::memcpy(&bits, &x, sizeof(x));
    const K key = bits & top ? K(~bits) : K(bits | top);
    const K plain = x == 0 ? top : key;  // -0 and 0 are equal
    return x != x ? K(~K(0)) : plain;
  } else if constexpr (std::is_signed_v<T>) {
    return K(K(x) ^ top);
  } else {
    return K(x);
  }
}

// Whether value_of gives back the value that a key was made of: not for zeros, whose sign is lost, and NaN.
template <class T>
inline bool reversible(Key<T> key) {
  if constexpr (std::is_floating_point_v<T>) return key != kTopBit<T> && key != Key<T>(~Key<T>(0));
  else return true;
}

template <class T>
inline T value_of(Key<T> key) {
  using K = Key<T>;
  if constexpr (std::is_floating_point_v<T>) {
    const K bits = key & kTopBit<T> ? K(key ^ kTopBit<T>) : K(~key);
    T x;
    std::memcpy(&x, &bits, sizeof(x));
    return x;
  } else if constexpr (std::is_signed_v<T>) {
    return T(K(key ^ kTopBit<T>));
  } else {
    return T(key);
  }
}

template <class T>
struct Entry {
  Key<T> key;
  uint32_t at;
};

// An object, since the library's algorithms call a function through its address.
template <class T>
struct Before {
  bool operator()(const Entry<T>& a, const Entry<T>& b) const {
    if constexpr (sizeof(T) <= 4)  // in one comparison: branches on random keys are mispredicted half of the time
      return ((uint64_t(a.key) << 32) | a.at) < ((uint64_t(b.key) << 32) | b.at);
    else
      return a.key < b.key || (a.key == b.key && a.at < b.at);
  }
};
template <class T>
constexpr Before<T> before{};

// What keys are turned by for a descending order.
template <class T>
inline Key<T> flip_of(bool descending) {
  return descending ? Key<T>(~Key<T>(0)) : Key<T>(0);
}

constexpr int kDigitBits = 11;  // digits of 8 bits for less than kWideFrom keys: their counters would outnumber the keys
constexpr Index kWideFrom = 4096;
constexpr Index kCounters = (64 / 8) << 8 > (64 / kDigitBits + 1) << kDigitBits ? (64 / 8) << 8
                                                                               : (64 / kDigitBits + 1) << kDigitBits;

// Sorts entries stably by their keys, from the lowest digit up, over the bits in which keys differ. `spare` is of the
// same length, `counts` of kCounters. Returns where the result lies.
template <class T>
Entry<T>* radix_sort(Entry<T>* e, Entry<T>* spare, Index n, uint32_t* counts) {
  using K = Key<T>;
  K differ = 0;
  for (Index i = 1; i < n; ++i) differ = K(differ | (e[i].key ^ e[0].key));
  if (!differ) return e;
  const uint64_t bits = differ;
  const int low = __builtin_ctzll(bits), width = 64 - __builtin_clzll(bits) - low;
  const int most = n < kWideFrom ? 8 : kDigitBits, passes = (width + most - 1) / most;
  const int digit = (width + passes - 1) / passes;
  const K mask = K((uint64_t(1) << digit) - 1);
  std::memset(counts, 0, (size_t(passes) << digit) * sizeof(uint32_t));
  for (Index i = 0; i < n; ++i)
    for (int p = 0; p < passes; ++p) ++counts[(Index(p) << digit) + Index((e[i].key >> (low + p * digit)) & mask)];
  for (int p = 0; p < passes; ++p) {
    uint32_t* count = counts + (Index(p) << digit);
    const int shift = low + p * digit;
    uint32_t start = 0;
    for (Index d = 0; d <= Index(mask); ++d) {
      const uint32_t c = count[d];
      count[d] = start;
      start += c;
    }
    for (Index i = 0; i < n; ++i) spare[count[(e[i].key >> shift) & mask]++] = e[i];
    Entry<T>* const other = e;
    e = spare;
    spare = other;
  }
  return e;
}

// Sorts one line of at least kLongLine elements on all threads; sort_long.cpp.
constexpr Index kLongLine = 65536;
template <class T>
void sort_long(Index n, bool descending, const T* x, T* values, int64_t* indices);

}  // namespace tg
