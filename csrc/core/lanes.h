// Vectors as wide as the instruction set this build of the module is for, as the compiler's own vector type.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "dtype.h"

namespace tg::lanes {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <class T>
struct Lanes {
  static constexpr int count = kVectorBytes / sizeof(T);
  using Word = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
  typedef T Vec __attribute__((vector_size(kVectorBytes)));
  typedef T Unaligned __attribute__((vector_size(kVectorBytes), aligned(alignof(T)), may_alias));
  typedef Word Int __attribute__((vector_size(kVectorBytes)));
};
template <class T>
using Vec = typename Lanes<T>::Vec;

template <class T>
inline Vec<T> load(const T* p) { return *reinterpret_cast<const typename Lanes<T>::Unaligned*>(p); }
template <class T>
inline void store(T* p, Vec<T> v) { *reinterpret_cast<typename Lanes<T>::Unaligned*>(p) = v; }

// The first elements of a vector, `count` of them or all.
template <class T>
inline Vec<T> load_first(const T* from, Index count) {
  if (count >= Lanes<T>::count) return load(from);
  T some[Lanes<T>::count] = {};
  std::copy_n(from, count, some);
  return load(some);
}
template <class T>
inline void store_first(T* to, Vec<T> v, Index count) {
  if (count >= Lanes<T>::count) return store(to, v);
  T some[Lanes<T>::count];
  store(some, v);
  std::copy_n(some, count, to);
}

// A product as it is rounded: the compiler contracts it with no sum, which it would do in one copy of a loop and not in
// another.
template <class V>
inline V rounded(V product) {
#if defined(__x86_64__)
  asm("" : "+v"(product));
#elif defined(__aarch64__)
  asm("" : "+w"(product));
#endif
  return product;
}

}  // namespace tg::lanes
