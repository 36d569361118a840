// Element types, and the only switches from a run-time type to a template parameter.
#pragma once

#include <complex>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>

namespace tg {

using Index = std::int64_t;
constexpr int kMaxDims = 64;
using c64 = std::complex<float>;
using c128 = std::complex<double>;

enum class DType : std::uint8_t {
  Bool, UInt8, Int8, Int16, Int32, Int64, Float16, BFloat16, Float32, Float64, Complex64, Complex128
};

inline float bits_to_float(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
inline std::uint32_t float_to_bits(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}

#if defined(__F16C__)
// Not by way of _Float16, which GCC 11 and Clang 14 do not have on x86; <immintrin.h> would cost every source half a
// second to compile.
typedef float FloatsOfHalf __attribute__((vector_size(16)));
typedef short BitsOfHalf __attribute__((vector_size(16)));
#endif

// IEEE binary16, stored; computed in float. Conversions round to nearest, ties to even.
struct half {
  std::uint16_t bits;
  half() = default;
  explicit half(float value) {
#if defined(__F16C__)
    bits = static_cast<std::uint16_t>(__builtin_ia32_vcvtps2ph(FloatsOfHalf{value}, 0)[0]);
#else
    const std::uint32_t x = float_to_bits(value);
    const std::uint32_t sign = (x >> 16) & 0x8000u;
    const std::uint32_t magnitude = x & 0x7fffffffu;
    if (magnitude >= 0x7f800000u) {
      bits = static_cast<std::uint16_t>(sign | 0x7c00u | (magnitude > 0x7f800000u ? 0x0200u : 0u));
    } else if (magnitude >= 0x477ff000u) {
      bits = static_cast<std::uint16_t>(sign | 0x7c00u);
    } else if (magnitude >= 0x38800000u) {
      const std::uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
      bits = static_cast<std::uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
    } else {
      // subnormal: adding 0.5 aligns the last kept bit with float's last bit and rounds in hardware
      const float aligned = bits_to_float(magnitude) + 0.5f;
      bits = static_cast<std::uint16_t>(sign | (float_to_bits(aligned) - 0x3f000000u));
    }
#endif
  }
  explicit operator float() const {
#if defined(__F16C__)
    return __builtin_ia32_vcvtph2ps(BitsOfHalf{static_cast<short>(bits)})[0];
#else
    const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000u) << 16;
    const std::uint32_t exponent = (bits >> 10) & 0x1fu, fraction = bits & 0x3ffu;
    if (exponent == 31) return bits_to_float(sign | 0x7f800000u | (fraction << 13));
    if (exponent) return bits_to_float(sign | ((exponent + 112u) << 23) | (fraction << 13));
    const float value = static_cast<float>(fraction) * 5.9604644775390625e-8f;  // 2^-24
    return sign ? -value : value;
#endif
  }
};

// The upper half of a float.
struct bfloat16 {
  std::uint16_t bits;
  bfloat16() = default;
  explicit bfloat16(float value) {
    // by selection rather than a branch, so that loops vectorize
    const std::uint32_t x = float_to_bits(value), nan = (x >> 16) | 0x40u;
    const std::uint32_t rounded = (x + 0x7fffu + ((x >> 16) & 1u)) >> 16;
    bits = static_cast<std::uint16_t>((x & 0x7fffffffu) > 0x7f800000u ? nan : rounded);
  }
  explicit operator float() const { return bits_to_float(static_cast<std::uint32_t>(bits) << 16); }
};

template <class T>
struct TypeOf {
  using value = T;
};

constexpr Index size_of(DType type) {
  switch (type) {
    case DType::Bool: case DType::UInt8: case DType::Int8: return 1;
    case DType::Int16: case DType::Float16: case DType::BFloat16: return 2;
    case DType::Int32: case DType::Float32: return 4;
    case DType::Int64: case DType::Float64: case DType::Complex64: return 8;
    case DType::Complex128: return 16;
  }
  return 0;
}

constexpr const char* name_of(DType type) {
  switch (type) {
    case DType::Bool: return "bool";
    case DType::UInt8: return "uint8";
    case DType::Int8: return "int8";
    case DType::Int16: return "int16";
    case DType::Int32: return "int32";
    case DType::Int64: return "int64";
    case DType::Float16: return "float16";
    case DType::BFloat16: return "bfloat16";
    case DType::Float32: return "float32";
    case DType::Float64: return "float64";
    case DType::Complex64: return "complex64";
    case DType::Complex128: return "complex128";
  }
  return "?";
}

[[noreturn]] inline void unsupported(const char* what, DType type) {
  throw std::invalid_argument(std::string(what) + ": not defined for " + name_of(type));
}

// f(TypeOf<float>{}) or f(TypeOf<double>{}).
template <class F>
decltype(auto) visit_real(const char* what, DType type, F&& f) {
  switch (type) {
    case DType::Float32: return f(TypeOf<float>{});
    case DType::Float64: return f(TypeOf<double>{});
    default: unsupported(what, type);
  }
}

// The four floating types as stored.
template <class F>
decltype(auto) visit_float(const char* what, DType type, F&& f) {
  switch (type) {
    case DType::Float16: return f(TypeOf<half>{});
    case DType::BFloat16: return f(TypeOf<bfloat16>{});
    case DType::Float32: return f(TypeOf<float>{});
    case DType::Float64: return f(TypeOf<double>{});
    default: unsupported(what, type);
  }
}

template <class F>
decltype(auto) visit_integer(const char* what, DType type, F&& f) {
  switch (type) {
    case DType::Bool: return f(TypeOf<bool>{});
    case DType::UInt8: return f(TypeOf<std::uint8_t>{});
    case DType::Int8: return f(TypeOf<std::int8_t>{});
    case DType::Int16: return f(TypeOf<std::int16_t>{});
    case DType::Int32: return f(TypeOf<std::int32_t>{});
    case DType::Int64: return f(TypeOf<std::int64_t>{});
    default: unsupported(what, type);
  }
}

template <class F>
decltype(auto) visit_any(const char* what, DType type, F&& f) {
  switch (type) {
    case DType::Float16: case DType::BFloat16: case DType::Float32: case DType::Float64:
      return visit_float(what, type, f);
    case DType::Complex64: return f(TypeOf<c64>{});
    case DType::Complex128: return f(TypeOf<c128>{});
    default: return visit_integer(what, type, f);
  }
}

// What sums of T are kept in.
template <class T> struct AccumulateOf { using type = T; };
template <> struct AccumulateOf<half> { using type = float; };
template <> struct AccumulateOf<bfloat16> { using type = float; };
template <> struct AccumulateOf<bool> { using type = std::int64_t; };
template <> struct AccumulateOf<std::uint8_t> { using type = std::int64_t; };
template <> struct AccumulateOf<std::int8_t> { using type = std::int64_t; };
template <> struct AccumulateOf<std::int16_t> { using type = std::int64_t; };
template <> struct AccumulateOf<std::int32_t> { using type = std::int64_t; };
template <class T> using Accumulate = typename AccumulateOf<T>::type;

}  // namespace tg
