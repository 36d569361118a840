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

template <class V>
void put(DType type, char* out, Index at, V value) {
  switch (type) {
    case DType::Float32: reinterpret_cast<float*>(out)[at] = convert<float>(value); break;
    case DType::Float64: reinterpret_cast<double*>(out)[at] = convert<double>(value); break;
    case DType::Int64: reinterpret_cast<int64_t*>(out)[at] = convert<int64_t>(value); break;
    default: put_rare(type, out, at, value);
  }
}

// Where the storage is the compute type, memory is read in place.
template <class C>
Reader<C> reader_for(DType type) {
  Reader<C> reader;
  reader.convert = loader_for<C>(type);
  if constexpr (std::is_same_v<C, float>) reader.same_type = type == DType::Float32;
  else if constexpr (std::is_same_v<C, double>) reader.same_type = type == DType::Float64;
  else if constexpr (std::is_same_v<C, int64_t>) reader.same_type = type == DType::Int64;
  else reader.same_type = type == DType::Complex128;
  return reader;
}

inline double value_of(double a) { return a; }
inline double value_of(const CompensatedSum& a) { return a.value(); }
inline int64_t value_of(uint64_t a) { return int64_t(a); }
inline c128 value_of(const SumOp<c128>::Acc& a) { return {a.re.value(), a.im.value()}; }
inline c128 value_of(const c128& a) { return a; }

template <class Op, class Value>
void fold(const ReducePlan& plan, const char* data, const Reader<typename Op::C>& reader, DType out_type, char* out,
          Value value) {
  ReduceWalk<Op> walk(plan, data, reader);
  walk([&](Index o, const typename Op::Acc& a) { put(out_type, out, o, value(a)); });
}

// Integers, truth values and complex numbers (reduce_rare.cpp, which is compiled once for all instruction sets).
void reduce_rare(Reduce kind, const ReducePlan& plan, DType type, const char* data, DType out_type, char* out);

}  // namespace tg
