// Between compute types, between storage and compute types, and between strided and packed memory.
#include <cstring>
#include <limits>
#include <type_traits>

#include "copy_convert.h"
#include "formula_kernels.h"

namespace tg {
namespace formula {
namespace {

template <class To>
struct Cast {
  template <class From>
  static To of(From x) {
    if constexpr (is_complex_v<From>) {
      if constexpr (is_complex_v<To>) {
        using R = typename To::value_type;
        return To(static_cast<R>(x.real()), static_cast<R>(x.imag()));
      } else if constexpr (std::is_same_v<To, Truth>) {
        return (x.real() != 0) | (x.imag() != 0);
      } else {
        return Cast::of(x.real());
      }
    } else if constexpr (is_complex_v<To>) {
      return To(static_cast<typename To::value_type>(x), 0);
    } else if constexpr (std::is_same_v<To, Truth>) {
      return x != 0;
    } else if constexpr (std::is_floating_point_v<From> && std::is_same_v<To, std::int64_t>) {
      return convert<To>(x);
    } else {
      return static_cast<To>(x);
    }
  }
};

template <class From>
void cast_integers(void* to, const void* a, const void*, const void*, Index n) {
  to_integers(static_cast<std::int64_t*>(to), static_cast<const From*>(a), n);
}
template <class To>
void cast_floats(void* to, const void* a, const void*, const void*, Index n) {
  from_integers(static_cast<To*>(to), static_cast<const std::int64_t*>(a), n);
}

template <class From>
Loop cast_from(Type to) {
  if constexpr (std::is_floating_point_v<From>) {
    if (to == Type::I64) return cast_integers<From>;
  }
  if constexpr (std::is_same_v<From, std::int64_t>) {
    if (to == Type::F32) return cast_floats<float>;
    if (to == Type::F64) return cast_floats<double>;
  }
  switch (to) {
    case Type::Bool: return loop1<Cast<Truth>, Truth, From>;
    case Type::I64: return loop1<Cast<std::int64_t>, std::int64_t, From>;
    case Type::F32: return loop1<Cast<float>, float, From>;
    case Type::F64: return loop1<Cast<double>, double, From>;
    case Type::C64: return loop1<Cast<c64>, c64, From>;
    case Type::C128: return loop1<Cast<c128>, c128, From>;
    default: return nullptr;  // nothing is made narrow but by a store
  }
}

// Truncation to the low bits and back.
template <class Narrow>
struct Wrap {
  static std::int64_t of(std::int64_t x) { return static_cast<Narrow>(static_cast<std::uint64_t>(x)); }
};
template <class Narrow>
struct Truncate {
  static Narrow of(std::int64_t x) { return static_cast<Narrow>(static_cast<std::uint64_t>(x)); }
};
struct Plain {
  template <class T> static std::int64_t of(T x) { return x; }
};
struct Widen {
  static float of(half x) { return static_cast<float>(x); }
  static float of(bfloat16 x) { return static_cast<float>(x); }
};
void load_half(void* to, const void* a, const void*, const void*, Index n) {
  load_block<float, half>(static_cast<float*>(to), static_cast<const char*>(a), 2, n);
}
void store_half(void* to, const void* a, const void*, const void*, Index n) {
#if defined(__F16C__)
  narrow_to_halves(static_cast<half*>(to), static_cast<const float*>(a), n);
#else
  for (Index i = 0; i < n; ++i) static_cast<half*>(to)[i] = half(static_cast<const float*>(a)[i]);
#endif
}

void store_bfloat(void* to, const void* a, const void*, const void*, Index n) {
  narrow_to_bfloats(static_cast<bfloat16*>(to), static_cast<const float*>(a), n);
}

// Items by size alone; memcpy of a fixed size is one move, at any alignment.
template <int size>
void copy(void* to, const void* a, const void*, const void*, Index n) {
  std::memmove(to, a, static_cast<std::size_t>(n) * size);
}

template <int size> struct Item { unsigned char bytes[size]; };
template <> struct Item<2> { std::uint16_t bits; };
template <> struct Item<4> { std::uint32_t bits; };
template <> struct Item<8> { std::uint64_t bits; };

template <int size>
void fill(void* to, const void* a, const void*, const void*, Index n) {
  Item<size> item;
  std::memcpy(&item, a, size);
  char* r = static_cast<char*>(to);
  for (Index i = 0; i < n; ++i) std::memcpy(r + i * size, &item, size);
}

template <int size>
void gather(void* to, const void* a, const void* b, const void*, Index n) {
  const Index stride = *static_cast<const Index*>(b);
  if (stride == size) return copy<size>(to, a, nullptr, nullptr, n);
  if (stride == 0) return fill<size>(to, a, nullptr, nullptr, n);
  char* r = static_cast<char*>(to);
  const char* x = static_cast<const char*>(a);
  for (Index i = 0; i < n; ++i) std::memcpy(r + i * size, x + i * stride, size);
}

template <int size>
void scatter(void* to, const void* a, const void* b, const void*, Index n) {
  const Index stride = *static_cast<const Index*>(b);
  if (stride == size) return copy<size>(to, a, nullptr, nullptr, n);
  char* r = static_cast<char*>(to);
  const char* x = static_cast<const char*>(a);
  for (Index i = 0; i < n; ++i) std::memcpy(r + i * stride, x + i * size, size);
}

#define TG_BY_SIZE(function)             \
  switch (item_size) {                   \
    case 1: return function<1>;          \
    case 2: return function<2>;          \
    case 4: return function<4>;          \
    case 8: return function<8>;          \
    default: return function<16>;        \
  }

}  // namespace

Loop find_copy(int item_size) { TG_BY_SIZE(copy) }
Loop find_fill(int item_size) { TG_BY_SIZE(fill) }
Loop find_gather(int item_size) { TG_BY_SIZE(gather) }
Loop find_scatter(int item_size) { TG_BY_SIZE(scatter) }

Loop find_cast(Type from, Type to) {
  switch (from) {
    case Type::Bool: return cast_from<Truth>(to);
    case Type::I64: return cast_from<std::int64_t>(to);
    case Type::F32: return cast_from<float>(to);
    case Type::F64: return cast_from<double>(to);
    case Type::C64: return cast_from<c64>(to);
    case Type::C128: return cast_from<c128>(to);
    case Type::U8: return cast_from<std::uint8_t>(to);
    case Type::I8: return cast_from<std::int8_t>(to);
    case Type::I16: return cast_from<std::int16_t>(to);
    case Type::I32: return cast_from<std::int32_t>(to);
  }
  return nullptr;
}

Loop find_wrap(DType width) {
  using I64 = std::int64_t;
  switch (width) {
    case DType::UInt8: return loop1<Wrap<std::uint8_t>, I64, I64>;
    case DType::Int8: return loop1<Wrap<std::int8_t>, I64, I64>;
    case DType::Int16: return loop1<Wrap<std::int16_t>, I64, I64>;
    case DType::Int32: return loop1<Wrap<std::int32_t>, I64, I64>;
    case DType::Int64: return copy<8>;
    default: return nullptr;
  }
}

Loop find_load(DType stored) {
  switch (stored) {
    case DType::UInt8: return loop1<Plain, std::int64_t, std::uint8_t>;
    case DType::Int8: return loop1<Plain, std::int64_t, std::int8_t>;
    case DType::Int16: return loop1<Plain, std::int64_t, std::int16_t>;
    case DType::Int32: return loop1<Plain, std::int64_t, std::int32_t>;
    case DType::Float16: return load_half;
    case DType::BFloat16: return loop1<Widen, float, bfloat16>;
    default: return find_copy(static_cast<int>(tg::size_of(stored)));
  }
}

Loop find_store(DType stored) {
  switch (stored) {
    case DType::UInt8: return loop1<Truncate<std::uint8_t>, std::uint8_t, std::int64_t>;
    case DType::Int8: return loop1<Truncate<std::int8_t>, std::int8_t, std::int64_t>;
    case DType::Int16: return loop1<Truncate<std::int16_t>, std::int16_t, std::int64_t>;
    case DType::Int32: return loop1<Truncate<std::int32_t>, std::int32_t, std::int64_t>;
    case DType::Float16: return store_half;
    case DType::BFloat16: return store_bfloat;
    default: return find_copy(static_cast<int>(tg::size_of(stored)));
  }
}

}  // namespace formula
}  // namespace tg
