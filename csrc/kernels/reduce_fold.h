// What the two halves of reduce share: the dtypes at both ends of a walk.
#pragma once

#include "copy_convert.h"
#include "reduce.h"
#include "reduce_walk.h"

namespace tg {

// Out of line: it is called from every order of every walk, and twelve conversions in each would be most of this file.
template <class V>
__attribute__((noinline)) void put_rare(DType type, char* out, Index at, V value) {
  visit_any("reduce", type, [&](auto t) {
    using S = typename decltype(t)::value;
    reinterpret_cast<S*>(out)[at] = convert<S>(value);
  });
}

// The dtype of what values are computed in, and of truth values.
template <class T>
constexpr DType dtype_for = std::is_same_v<T, float>     ? DType::Float32
                           : std::is_same_v<T, double>  ? DType::Float64
                           : std::is_same_v<T, int64_t> ? DType::Int64
                           : std::is_same_v<T, bool>    ? DType::Bool
                                                        : DType::Complex128;

// out[at + i] = value(a[i]), out of line for the same reason: in a loop of its own where `out` is of type Result.
template <class Result, class Acc, class Value>
__attribute__((noinline)) void put(DType type, char* out, Index at, const Acc* a, Index n, Value value) {
  if (type == dtype_for<Result>)
    for (Index i = 0; i < n; ++i) reinterpret_cast<Result*>(out)[at + i] = convert<Result>(value(a[i]));
  else
    for (Index i = 0; i < n; ++i) put_rare(type, out, at + i, value(a[i]));
}

// Where the storage is the compute type, memory is read in place.
template <class C>
Reader<C> reader_for(DType type) {
  Reader<C> reader;
  reader.convert = loader_for<C>(type);
  reader.same_type = type == dtype_for<C>;
  return reader;
}

inline double value_of(double a) { return a; }
inline double value_of(const CompensatedSum& a) { return a.value(); }
inline int64_t value_of(uint64_t a) { return int64_t(a); }
inline c128 value_of(const SumOp<c128>::Acc& a) { return {a.re.value(), a.im.value()}; }
inline c128 value_of(const c128& a) { return a; }

template <class Op, class Result = typename Op::C, class Value>
void fold(const ReducePlan& plan, const char* data, const Reader<typename Op::C>& reader, DType out_type, char* out,
          Value value) {
  ReduceWalk<Op> walk(plan, data, reader);
  walk([&](Index o, const typename Op::Acc* a, Index n) { put<Result>(out_type, out, o, a, n, value); });
}

// Integers, truth values and complex numbers (reduce_rare.cpp, which is compiled once for all instruction sets).
void reduce_rare(Reduce kind, const ReducePlan& plan, DType type, const char* data, DType out_type, char* out);

}  // namespace tg
