// One element's conversion between any two dtypes, with every case defined, and loops over blocks of them.
//
// Float to integer truncates; NaN and what does not fit give the smallest int32 (types up to 32 bits, then cut to their
// width) or int64, which is what x86 instructions, and so NumPy there, give. Anything to bool is != 0. Complex to real
// takes the real part.
#pragma once

#include <cmath>
#include <complex>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "../core/dtype.h"
#include "../core/lanes.h"

#if defined(__F16C__)
#include <immintrin.h>
#endif

namespace tg {

template <class T>
constexpr bool is_complex_v = std::is_same_v<T, c64> || std::is_same_v<T, c128>;
template <class T>
constexpr bool is_narrow_float_v = std::is_same_v<T, half> || std::is_same_v<T, bfloat16>;

template <class To, class From>
inline To convert(From x) {
  if constexpr (std::is_same_v<To, From>) {
    return x;
  } else if constexpr (is_narrow_float_v<From>) {
    return convert<To>(float(x));
  } else if constexpr (is_complex_v<From>) {
    if constexpr (is_complex_v<To>) return To(typename To::value_type(x.real()), typename To::value_type(x.imag()));
    else if constexpr (std::is_same_v<To, bool>) return x.real() != 0 || x.imag() != 0;
    else return convert<To>(x.real());
  } else if constexpr (is_complex_v<To>) {
    return To(typename To::value_type(x), 0);
  } else if constexpr (std::is_same_v<To, bool>) {
    return x != 0;
  } else if constexpr (is_narrow_float_v<To>) {
    return To(float(x));
  } else if constexpr (std::is_floating_point_v<From> && std::is_integral_v<To>) {
#if defined(__x86_64__)
    // the instructions' own answer; comparing first takes as long again
    if constexpr (sizeof(To) == 8) return To(x);
    else return To(int32_t(x));
#endif
    if constexpr (sizeof(To) == 8) {
      return x >= From(-9223372036854775808.0) && x < From(9223372036854775808.0) ? To(x) : std::numeric_limits<To>::min();
    } else {
      // The limits are exact in double; a float has no value between 2^31 - 128 and 2^31.
      const bool fits = x > From(-2147483649.0) && x < From(2147483648.0) && x >= From(-2147483648.0);
      return To(fits ? int32_t(x) : std::numeric_limits<int32_t>::min());
    }
  } else {
    return To(x);
  }
}

// Between int64 and a float below 2^51, where adding 1.5 * 2^52 puts the one into the bits of the other: what AVX2 has no
// instruction for. Other numbers one by one.
template <class To>
void from_integers(To* to, const int64_t* from, Index n) {
  uint64_t high = 0;
  for (Index i = 0; i < n; ++i) high |= uint64_t(from[i]) + (uint64_t(1) << 51);
  if (high >> 52) {
    for (Index i = 0; i < n; ++i) to[i] = To(from[i]);
    return;
  }
  for (Index i = 0; i < n; ++i) {
    const int64_t bits = int64_t(uint64_t(from[i]) + 0x4338000000000000u);
    double wide;
    std::memcpy(&wide, &bits, 8);
    to[i] = To(wide - 6755399441055744.0);
  }
}
template <class From>
void to_integers(int64_t* to, const From* from, Index n) {
  int large = 0;
  for (Index i = 0; i < n; ++i) large |= !(std::fabs(from[i]) < From(2251799813685248.0));
  if (large) {
    for (Index i = 0; i < n; ++i) to[i] = convert<int64_t>(from[i]);
    return;
  }
  for (Index i = 0; i < n; ++i) {
    const double wide = std::trunc(double(from[i])) + 6755399441055744.0;
    int64_t bits;
    std::memcpy(&bits, &wide, 8);
    to[i] = bits - 0x4338000000000000;
  }
}

template <class S>
inline S load_item(const char* p) {  // any alignment; a bool is any nonzero byte
  if constexpr (std::is_same_v<S, bool>) {
    return *p != 0;
  } else {
    S x;
    std::memcpy(&x, p, sizeof(S));
    return x;
  }
}

#if defined(__F16C__)
// Compilers do not vectorize these conversions on their own.
inline void widen_halves(float* to, const char* from, Index n) {
  Index i = 0;
  for (; i + 8 <= n; i += 8)
    _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + 2 * i))));
  for (; i < n; ++i) to[i] = float(load_item<half>(from + 2 * i));
}
inline void narrow_to_halves(half* to, const float* from, Index n) {
  Index i = 0;
  for (; i + 8 <= n; i += 8)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i),
                     _mm256_cvtps_ph(_mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  for (; i < n; ++i) to[i] = half(from[i]);
}
#endif

template <class Half, size_t... I>
inline Half even_lanes(Half a, Half b, std::index_sequence<I...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, (2 * int(I))...);
#else
  return __builtin_shuffle(a, b, Half{std::uint16_t(2 * I)...});
#endif
}

// Two vectors side by side, NaN by a float comparison: 1e6 floats in 125 us on one core; the plain loop takes 264.
inline void narrow_to_bfloats(bfloat16* to, const float* from, Index n) {
  using Lane = lanes::Lanes<float>;
  typedef std::uint32_t Words __attribute__((vector_size(lanes::kVectorBytes)));
  typedef std::uint16_t Halves __attribute__((vector_size(lanes::kVectorBytes)));
  typedef std::uint16_t Unaligned __attribute__((vector_size(lanes::kVectorBytes), aligned(2), may_alias));
  const auto rounded = [](Lane::Vec x) {
    const Words bits = Words(x);
    const auto kept = Lane::Int(bits | 0x400000u), up = Lane::Int(bits + 0x7fffu + ((bits >> 16) & 1u));
    return Halves(Words(x != x ? kept : up) >> 16);
  };
  Index i = 0;
  for (; i + 2 * Lane::count <= n; i += 2 * Lane::count)
    *reinterpret_cast<Unaligned*>(to + i) =
        even_lanes(rounded(lanes::load(from + i)), rounded(lanes::load(from + i + Lane::count)),
                   std::make_index_sequence<size_t(2 * Lane::count)>());
  for (; i < n; ++i) to[i] = bfloat16(from[i]);
}

// to[i] = the item at from + i * stride.
template <class To, class From>
void load_block(To* to, const char* from, Index stride, Index n) {
#if defined(__F16C__)
  if constexpr (std::is_same_v<To, float> && std::is_same_v<From, half>) {
    if (stride == 2) return widen_halves(to, from, n);
  }
#endif
  if (stride == Index(sizeof(From))) {
    for (Index i = 0; i < n; ++i) to[i] = convert<To>(load_item<From>(from + i * Index(sizeof(From))));
  } else {
    for (Index i = 0; i < n; ++i) to[i] = convert<To>(load_item<From>(from + i * stride));
  }
}

template <class To>
using LoadBlock = void (*)(To* to, const char* from, Index stride, Index n);

template <class To>
LoadBlock<To> loader_for(DType from) {
  return visit_any("load", from, [](auto type) -> LoadBlock<To> { return &load_block<To, typename decltype(type)::value>; });
}

// Values of every dtype are computed in one of float, double, int64 and complex double.
template <class T>
struct ComputeOf {
  using Type = std::conditional_t<std::is_integral_v<T>, int64_t, T>;
};
template <>
struct ComputeOf<half> { using Type = float; };
template <>
struct ComputeOf<bfloat16> { using Type = float; };
template <>
struct ComputeOf<c64> { using Type = c128; };

}  // namespace tg
