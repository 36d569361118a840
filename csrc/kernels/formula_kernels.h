// The loops that formulas are made of: one per operation and type, each over a block that stays in L1.
//
// A loop reads up to three operands and writes one result of n elements. An operand may be one value for the whole
// block; for the operations where that is common there is a loop per combination (by_mask, bit i: operand i is one
// value), elsewhere the value is spread over a block first. Source and result may be the same memory.
#pragma once

#include <cstring>
#include <string>
#include <type_traits>
#include <unordered_map>

#include "../core/dtype.h"

namespace tg {
namespace formula {

// What formulas compute in; integers of every width in I64 (or, where that gives the same, in their own: formula_narrow.cpp),
// the narrow floats in F32. Bool is a byte, 0 or 1.
enum class Type : std::uint8_t { Bool, I64, F32, F64, C64, C128, U8, I8, I16, I32 };
constexpr bool is_narrow(Type type) { return type >= Type::U8; }
using Truth = std::uint8_t;

constexpr int size_of(Type type) {
  constexpr int sizes[] = {1, 8, 4, 8, 8, 16, 1, 1, 2, 4};
  return sizes[static_cast<int>(type)];
}
const char* name_of(Type type);
Type type_named(const std::string& name);    // throws std::invalid_argument
Type compute_type(DType stored);
DType native_storage(Type type);             // the dtype whose elements are those of the type
inline bool is_native(DType stored) { return native_storage(compute_type(stored)) == stored; }

using Loop = void (*)(void* to, const void* a, const void* b, const void* c, Index n);

struct Kernel {
  int operands = 0;
  bool swaps = false;  // the first two operands may change places
  Loop by_mask[8] = {};
};

// The kernel of an operation on operands of this type (the last operand's, for `where`); null if there is none.
const Kernel* find_kernel(const std::string& op, Type operand);
// (a first b) second c in one loop; the operations are add, sub, mul and rsub (b - a), or max and min; the types f32 and
// f64. Beside them: larger_or(a, b, c) is a > b ? a : c, if_larger(a, b, c) is a > b ? c : b.
inline std::string pair_name(const std::string& first, const std::string& second) { return first + '>' + second; }

// Two functions of one operand in one loop, which writes the second's result to where its last operand points; of f32.
inline std::string twins_name(const std::string& first, const std::string& second) { return first + '&' + second; }

// A function of the first operand times the second, in one loop; of f32.
inline std::string times_name(const std::string& function) { return function + '*'; }

Loop find_cast(Type from, Type to);
Loop find_wrap(DType width);
Loop find_load(DType stored);             // to compute_type(stored)
Loop find_store(DType stored);            // from compute_type(stored)
Loop find_copy(int item_size);            // n items
Loop find_fill(int item_size);            // n copies of one item
Loop find_gather(int item_size);          // n items that lie b[0] bytes apart
Loop find_scatter(int item_size);         // the way back

// ---- for the files that define loops ------------------------------------------------------------------------------

using KernelTable = std::unordered_map<std::string, Kernel>;
// Cold: each is called once, and compilers write out every look-up of theirs in line.
[[gnu::cold]] void add_arithmetic(KernelTable& table);
[[gnu::cold]] void add_math(KernelTable& table);
[[gnu::cold]] void add_special(KernelTable& table);
[[gnu::cold]] void add_complex(KernelTable& table);
[[gnu::cold]] void add_pairs(KernelTable& table);
[[gnu::cold]] void add_narrow(KernelTable& table);

template <class T> struct TypeFor;
template <> struct TypeFor<Truth> { static constexpr Type value = Type::Bool; };
template <> struct TypeFor<std::int64_t> { static constexpr Type value = Type::I64; };
template <> struct TypeFor<float> { static constexpr Type value = Type::F32; };
template <> struct TypeFor<double> { static constexpr Type value = Type::F64; };
template <> struct TypeFor<std::int8_t> { static constexpr Type value = Type::I8; };
template <> struct TypeFor<std::int16_t> { static constexpr Type value = Type::I16; };
template <> struct TypeFor<std::int32_t> { static constexpr Type value = Type::I32; };
template <> struct TypeFor<c64> { static constexpr Type value = Type::C64; };
template <> struct TypeFor<c128> { static constexpr Type value = Type::C128; };

inline std::string kernel_key(const std::string& op, Type operand) { return op + '.' + name_of(operand); }

// x, or NaN where a is: by bits, since compilers take a second select apart into a dozen.
template <class T>
inline T nan_if(T x, T a) {
  using Bits = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
  Bits bits;
  std::memcpy(&bits, &x, sizeof(T));
  bits |= -static_cast<Bits>(a != a);
  std::memcpy(&x, &bits, sizeof(T));
  return x;
}

// A file whose loops are an instruction or two long asks for four vectors a turn: half of such a loop is its counting. The
// step of the chain benchmark takes 0.92 to 0.95 of the time; everywhere the code would grow by 250 kB. So only floats'
// and doubles' do: integers and truth values gain nothing (0.97 to 1.05 of the time), and were 170 kB.
#if defined(TG_BRIEF_LOOPS) && defined(__AVX__)
#define TG_UNROLLED _Pragma("GCC unroll 4")
template <class R>
constexpr bool kUnrolls = std::is_floating_point_v<R>;
#else
#define TG_UNROLLED
template <class R>
constexpr bool kUnrolls = false;
#endif

template <class F, class R, class A>
void loop1(void* to, const void* a, const void*, const void*, Index n) {
  R* r = static_cast<R*>(to);
  const A* x = static_cast<const A*>(a);
#pragma GCC ivdep
  for (Index i = 0; i < n; ++i) r[i] = F::of(x[i]);
}

template <int mask, class F, class R, class A, class B>
void loop2(void* to, const void* a, const void* b, const void*, Index n) {
  R* r = static_cast<R*>(to);
  const A* x = static_cast<const A*>(a);
  const B* y = static_cast<const B*>(b);
  const A one_x = *x;
  const B one_y = *y;
  const auto at = [=](Index i) { return F::of((mask & 1) ? one_x : x[i], (mask & 2) ? one_y : y[i]); };
  if constexpr (kUnrolls<R>) {
#pragma GCC ivdep
    TG_UNROLLED
    for (Index i = 0; i < n; ++i) r[i] = at(i);
  } else {
#pragma GCC ivdep
    for (Index i = 0; i < n; ++i) r[i] = at(i);
  }
}

template <int mask, class F, class R, class A, class B, class C>
void loop3(void* to, const void* a, const void* b, const void* c, Index n) {
  R* r = static_cast<R*>(to);
  const A* x = static_cast<const A*>(a);
  const B* y = static_cast<const B*>(b);
  const C* z = static_cast<const C*>(c);
  const A one_x = *x;
  const B one_y = *y;
  const C one_z = *z;
  const auto at = [=](Index i) { return F::of((mask & 1) ? one_x : x[i], (mask & 2) ? one_y : y[i], (mask & 4) ? one_z : z[i]); };
  if constexpr (kUnrolls<R>) {
#pragma GCC ivdep
    TG_UNROLLED
    for (Index i = 0; i < n; ++i) r[i] = at(i);
  } else {
#pragma GCC ivdep
    for (Index i = 0; i < n; ++i) r[i] = at(i);
  }
}

template <class F, class R, class A>
void add1(KernelTable& table, const char* op, Type type = TypeFor<A>::value) {
  Kernel& k = table[kernel_key(op, type)];
  k.operands = 1;
  k.by_mask[0] = loop1<F, R, A>;
}

// Both operands vary, or the block is spread.
template <class F, class R, class A>
void add2(KernelTable& table, const char* op) {
  Kernel& k = table[kernel_key(op, TypeFor<A>::value)];
  k.operands = 2;
  k.by_mask[0] = loop2<0, F, R, A, A>;
}

template <class F, class R, class A>
void add2_masks(KernelTable& table, const char* op, Type type = TypeFor<A>::value) {
  Kernel& k = table[kernel_key(op, type)];
  k.operands = 2;
  k.by_mask[0] = loop2<0, F, R, A, A>;
  k.by_mask[1] = loop2<1, F, R, A, A>;
  k.by_mask[2] = loop2<2, F, R, A, A>;
}

}  // namespace formula
}  // namespace tg
