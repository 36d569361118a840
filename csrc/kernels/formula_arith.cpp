// Arithmetic, comparisons, bits and selection on bool, i64, f32 and f64; the table of all kernels.
//
// Integers wrap and never trap: they go through unsigned, and x / 0 is 0.
#include <cmath>
#include <limits>
#include <stdexcept>

#define TG_BRIEF_LOOPS
#include "formula_kernels.h"

namespace tg {
namespace formula {
namespace {

using I64 = std::int64_t;
using U64 = std::uint64_t;
constexpr I64 kSmallest = std::numeric_limits<I64>::min();

// Narrow integers wrap as they are stored.
template <class T>
constexpr bool is_small_v = std::is_integral_v<T> && sizeof(T) < 8;

struct Add {
  static I64 of(I64 a, I64 b) { return static_cast<I64>(static_cast<U64>(a) + static_cast<U64>(b)); }
  template <class T> static T of(T a, T b) {
    if constexpr (is_small_v<T>) return static_cast<T>(static_cast<std::uint32_t>(a) + static_cast<std::uint32_t>(b));
    else return a + b;
  }
};
struct Sub {
  static I64 of(I64 a, I64 b) { return static_cast<I64>(static_cast<U64>(a) - static_cast<U64>(b)); }
  template <class T> static T of(T a, T b) {
    if constexpr (is_small_v<T>) return static_cast<T>(static_cast<std::uint32_t>(a) - static_cast<std::uint32_t>(b));
    else return a - b;
  }
};
struct Mul {
  static I64 of(I64 a, I64 b) { return static_cast<I64>(static_cast<U64>(a) * static_cast<U64>(b)); }
  template <class T> static T of(T a, T b) {
    if constexpr (is_small_v<T>) return static_cast<T>(static_cast<std::uint32_t>(a) * static_cast<std::uint32_t>(b));
    else return a * b;
  }
};
struct Div {
  template <class T> static T of(T a, T b) { return a / b; }
};
struct Neg {
  static I64 of(I64 a) { return static_cast<I64>(U64(0) - static_cast<U64>(a)); }
  template <class T> static T of(T a) {
    if constexpr (is_small_v<T>) return static_cast<T>(0u - static_cast<std::uint32_t>(a));
    else return -a;
  }
};
struct Abs {
  static I64 of(I64 a) { return a < 0 ? Neg::of(a) : a; }
  template <class T> static T of(T a) {
    if constexpr (is_small_v<T>) return a < 0 ? Neg::of(a) : a;
    else return std::fabs(a);
  }
};
// By a mask: a select becomes a minimum, for which AVX2 has no instruction and the loop stays scalar.
struct Min {
  static I64 of(I64 a, I64 b) {
    const I64 first = -static_cast<I64>(a < b);
    return (a & first) | (b & ~first);
  }
  template <class T> static T of(T a, T b) { return nan_if(a < b ? a : b, a); }
};
struct Max {
  static I64 of(I64 a, I64 b) {
    const I64 first = -static_cast<I64>(a > b);
    return (a & first) | (b & ~first);
  }
  template <class T> static T of(T a, T b) { return nan_if(a > b ? a : b, a); }
};
struct Sign {
  static I64 of(I64 a) { return (a > 0) - (a < 0); }
  template <class T> static T of(T a) {
    const T whole = a > T(0) ? T(1) : (a < T(0) ? T(-1) : T(0));
    return a != a ? a : whole;
  }
};

struct Eq { template <class T> static Truth of(T a, T b) { return a == b; } };
struct Ne { template <class T> static Truth of(T a, T b) { return a != b; } };
struct Lt { template <class T> static Truth of(T a, T b) { return a < b; } };
struct Le { template <class T> static Truth of(T a, T b) { return a <= b; } };
struct Gt { template <class T> static Truth of(T a, T b) { return a > b; } };
struct Ge { template <class T> static Truth of(T a, T b) { return a >= b; } };

struct And { template <class T> static T of(T a, T b) { return a & b; } };
struct Or { template <class T> static T of(T a, T b) { return a | b; } };
struct Xor { template <class T> static T of(T a, T b) { return a ^ b; } };
struct Not {
  static Truth of(Truth a) { return a == 0; }
  static I64 of(I64 a) { return ~a; }
};
struct Shl { static I64 of(I64 a, I64 b) { return static_cast<U64>(b) < 64 ? static_cast<I64>(static_cast<U64>(a) << b) : 0; } };
struct Shr { static I64 of(I64 a, I64 b) { return static_cast<U64>(b) < 64 ? a >> b : (a < 0 ? -1 : 0); } };

struct IntDiv {
  static I64 of(I64 a, I64 b) {
    if (b == 0) return 0;
    return b == -1 ? Neg::of(a) : a / b;
  }
};
struct IntMod {
  static I64 of(I64 a, I64 b) { return b == 0 || b == -1 ? 0 : a % b; }
};
// A block by one power of two needs no division: the quotient goes towards zero, so what is negative goes up by mask first.
// 32,768 numbers, with what the sign of % asks for: 47 to 19 us.
template <class F>
void division_loop(void* to, const void* a, const void* b, const void*, Index n) {
  if (n == 0) return;
  const I64 *x = static_cast<const I64*>(a), *y = static_cast<const I64*>(b);
  const I64 mask = y[0] > 0 ? y[0] - 1 : 0;
  I64 differ = y[0] > 0 ? y[0] & mask : 1;
  for (Index i = 0; i < n; ++i) differ |= y[i] ^ y[0];
  if (differ) return loop2<0, F, I64, I64, I64>(to, a, b, nullptr, n);
  I64* r = static_cast<I64*>(to);
  const int shift = __builtin_ctzll(static_cast<U64>(mask) + 1);
  for (Index i = 0; i < n; ++i) {
    const I64 up = (x[i] >> 63) & mask;
    if constexpr (std::is_same_v<F, IntDiv>) r[i] = (x[i] + up) >> shift;
    else r[i] = ((x[i] + up) & mask) - up;
  }
}
template <class F>
void add_division(KernelTable& table, const char* op) {
  Kernel& k = table[kernel_key(op, TypeFor<I64>::value)];
  k.operands = 2;
  k.by_mask[0] = division_loop<F>;
}
struct IntPow {
  static I64 of(I64 a, I64 b) {
    if (b < 0) return a == 1 ? 1 : (a == -1 ? ((b & 1) ? -1 : 1) : 0);  // 1 / a^|b| towards zero
    U64 base = static_cast<U64>(a), result = 1;
    for (U64 left = static_cast<U64>(b); left; left >>= 1) {
      if (left & 1) result *= base;
      base *= base;
    }
    return static_cast<I64>(result);
  }
};

struct Where {
  template <class T> static T of(Truth condition, T a, T b) { return condition ? a : b; }
};

struct Floor { template <class T> static T of(T a) { return std::floor(a); } };
struct Ceil { template <class T> static T of(T a) { return std::ceil(a); } };
struct Trunc { template <class T> static T of(T a) { return std::trunc(a); } };
struct Round { template <class T> static T of(T a) { return std::nearbyint(a); } };  // half to even
struct Sqrt { template <class T> static T of(T a) { return std::sqrt(a); } };
struct Rsqrt { template <class T> static T of(T a) { return T(1) / std::sqrt(a); } };
struct IsNan { template <class T> static Truth of(T a) { return a != a; } };
struct IsInf { template <class T> static Truth of(T a) { return std::fabs(a) == std::numeric_limits<T>::infinity(); } };
struct IsFinite { template <class T> static Truth of(T a) { return std::fabs(a) <= std::numeric_limits<T>::max(); } };

// Of narrow integers, for which the templates above mean floats or truth values.
struct Smaller { template <class T> static T of(T a, T b) { return a < b ? a : b; } };
struct Larger { template <class T> static T of(T a, T b) { return a > b ? a : b; } };
struct SignOf { template <class T> static T of(T a) { return static_cast<T>((a > 0) - (a < 0)); } };
struct Invert { template <class T> static T of(T a) { return static_cast<T>(~a); } };

template <class T>
void add_where(KernelTable& table, Type type = TypeFor<T>::value) {
  Kernel& k = table[kernel_key("where", type)];
  k.operands = 3;
  k.by_mask[0] = loop3<0, Where, T, Truth, T, T>;
  k.by_mask[2] = loop3<2, Where, T, Truth, T, T>;
  k.by_mask[4] = loop3<4, Where, T, Truth, T, T>;
  k.by_mask[6] = loop3<6, Where, T, Truth, T, T>;
}

template <class T>
void add_comparisons(KernelTable& table) {
  add2_masks<Eq, Truth, T>(table, "eq");
  add2_masks<Ne, Truth, T>(table, "ne");
  add2_masks<Lt, Truth, T>(table, "lt");
  add2_masks<Le, Truth, T>(table, "le");
  add2_masks<Gt, Truth, T>(table, "gt");
  add2_masks<Ge, Truth, T>(table, "ge");
  add_where<T>(table);
}

template <class T>
void add_numbers(KernelTable& table) {
  add_comparisons<T>(table);
  add2_masks<Add, T, T>(table, "add");
  add2_masks<Sub, T, T>(table, "sub");
  add2_masks<Mul, T, T>(table, "mul");
  add2_masks<Min, T, T>(table, "min");
  add2_masks<Max, T, T>(table, "max");
  add1<Neg, T, T>(table, "neg");
  add1<Abs, T, T>(table, "abs");
  add1<Sign, T, T>(table, "sign");
}

template <class T>
void add_bits(KernelTable& table) {
  add2_masks<And, T, T>(table, "and");
  add2_masks<Or, T, T>(table, "or");
  add2_masks<Xor, T, T>(table, "xor");
  add1<Not, T, T>(table, "not");
}

template <class T>
void add_floats(KernelTable& table) {
  add_numbers<T>(table);
  add2_masks<Div, T, T>(table, "div");
  add1<Floor, T, T>(table, "floor");
  add1<Ceil, T, T>(table, "ceil");
  add1<Trunc, T, T>(table, "trunc");
  add1<Round, T, T>(table, "round");
  add1<Sqrt, T, T>(table, "sqrt");
  add1<Rsqrt, T, T>(table, "rsqrt");
  add1<IsNan, Truth, T>(table, "isnan");
  add1<IsInf, Truth, T>(table, "isinf");
  add1<IsFinite, Truth, T>(table, "isfinite");
}

KernelTable make_table() {
  KernelTable table;
  add_arithmetic(table);
  add_math(table);
  add_special(table);
  add_complex(table);
  add_pairs(table);
  add_narrow(table);
  return table;
}

constexpr const char* kTypeNames[] = {"bool", "i64", "f32", "f64", "c64", "c128", "u8", "i8", "i16", "i32"};

}  // namespace

template <class T>
void add_narrow(KernelTable& table, Type type = TypeFor<T>::value) {
  add2_masks<Eq, Truth, T>(table, "eq", type);
  add2_masks<Ne, Truth, T>(table, "ne", type);
  add2_masks<Lt, Truth, T>(table, "lt", type);
  add2_masks<Le, Truth, T>(table, "le", type);
  add2_masks<Gt, Truth, T>(table, "gt", type);
  add2_masks<Ge, Truth, T>(table, "ge", type);
  add2_masks<Add, T, T>(table, "add", type);
  add2_masks<Sub, T, T>(table, "sub", type);
  add2_masks<Mul, T, T>(table, "mul", type);
  add2_masks<Smaller, T, T>(table, "min", type);
  add2_masks<Larger, T, T>(table, "max", type);
  add2_masks<And, T, T>(table, "and", type);
  add2_masks<Or, T, T>(table, "or", type);
  add2_masks<Xor, T, T>(table, "xor", type);
  add1<Neg, T, T>(table, "neg", type);
  add1<Abs, T, T>(table, "abs", type);
  add1<SignOf, T, T>(table, "sign", type);
  add1<Invert, T, T>(table, "not", type);
  add_where<T>(table, type);
}

void add_narrow(KernelTable& table) {
  add_narrow<std::uint8_t>(table, Type::U8);
  add_narrow<std::int8_t>(table);
  add_narrow<std::int16_t>(table);
  add_narrow<std::int32_t>(table);
}

void add_arithmetic(KernelTable& table) {
  add_comparisons<Truth>(table);
  add_bits<Truth>(table);
  add_numbers<I64>(table);
  add_bits<I64>(table);
  add2_masks<Shl, I64, I64>(table, "shl");
  add2_masks<Shr, I64, I64>(table, "shr");
  add_division<IntDiv>(table, "idiv");
  add_division<IntMod>(table, "fmod");
  add2<IntPow, I64, I64>(table, "pow");
  add_floats<float>(table);
  add_floats<double>(table);
}

const Kernel* find_kernel(const std::string& op, Type operand) {
  static const KernelTable table = make_table();
  const auto found = table.find(kernel_key(op, operand));
  return found == table.end() ? nullptr : &found->second;
}

const char* name_of(Type type) { return kTypeNames[static_cast<int>(type)]; }

Type type_named(const std::string& name) {
  for (int i = 0; i < 6; ++i) {
    if (name == kTypeNames[i]) return static_cast<Type>(i);
  }
  throw std::invalid_argument("unknown compute type " + name + "; the types are bool, i64, f32, f64, c64, c128");
}

Type compute_type(DType stored) {
  switch (stored) {
    case DType::Bool: return Type::Bool;
    case DType::UInt8: case DType::Int8: case DType::Int16: case DType::Int32: case DType::Int64: return Type::I64;
    case DType::Float16: case DType::BFloat16: case DType::Float32: return Type::F32;
    case DType::Float64: return Type::F64;
    case DType::Complex64: return Type::C64;
    case DType::Complex128: return Type::C128;
  }
  return Type::F32;
}

DType native_storage(Type type) {
  constexpr DType stored[] = {DType::Bool,    DType::Int64,     DType::Float32,
                              DType::Float64, DType::Complex64, DType::Complex128,
                              DType::UInt8,   DType::Int8,      DType::Int16,
                              DType::Int32};
  return stored[static_cast<int>(type)];
}

}  // namespace formula
}  // namespace tg
