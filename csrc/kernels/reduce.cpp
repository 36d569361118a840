// Joins what is reduced (reduce_ops.h), how memory is walked (reduce_walk.h) and the dtypes at both ends.
#include "reduce.h"

#include "copy_convert.h"
#include "reduce_walk.h"

namespace tg {
namespace {

template <class F>
void visit_compute(const char* what, DType type, bool complex_too, F f) {
  visit_any(what, type, [&](auto t) {
    using C = typename ComputeOf<typename decltype(t)::value>::Type;
    if constexpr (is_complex_v<C>) {
      if (!complex_too) unsupported(what, type);
    }
    f(TypeOf<C>{});
  });
}

template <class V>
void put(DType type, char* out, Index at, V value) {
  switch (type) {
    case DType::Float32: reinterpret_cast<float*>(out)[at] = convert<float>(value); break;
    case DType::Float64: reinterpret_cast<double*>(out)[at] = convert<double>(value); break;
    case DType::Int64: reinterpret_cast<int64_t*>(out)[at] = convert<int64_t>(value); break;
    default:
      visit_any("reduce", type, [&](auto t) {
        using S = typename decltype(t)::value;
        reinterpret_cast<S*>(out)[at] = convert<S>(value);
      });
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

// Truth values as bytes; a bool array is read in place.
Reader<uint8_t> truth_reader(DType type) {
  Reader<uint8_t> reader;
  reader.same_type = type == DType::Bool;
  reader.convert = visit_any("any", type, [](auto t) -> LoadBlock<uint8_t> {
    using S = typename decltype(t)::value;
    return [](uint8_t* to, const char* from, Index stride, Index n) {
      for (Index i = 0; i < n; ++i) to[i] = uint8_t(convert<bool>(load_item<S>(from + i * stride)));
    };
  });
  return reader;
}

double value_of(double a) { return a; }
double value_of(const CompensatedSum& a) { return a.value(); }
int64_t value_of(uint64_t a) { return int64_t(a); }
c128 value_of(const SumOp<c128>::Acc& a) { return {a.re.value(), a.im.value()}; }
c128 value_of(const c128& a) { return a; }

template <class Op, class Value>
void fold(const ReducePlan& plan, const char* data, const Reader<typename Op::C>& reader, DType out_type, char* out,
          Value value) {
  ReduceWalk<Op> walk(plan, data, reader);
  walk([&](Index o, const typename Op::Acc& a) { put(out_type, out, o, value(a)); });
}

template <class F>
void visit_floating(const char* what, DType type, F f) {
  visit_float(what, type, [&](auto t) { f(TypeOf<typename ComputeOf<typename decltype(t)::value>::Type>{}); });
}

void extreme(bool largest, const ReducePlan& plan, DType type, const char* data, DType out_type, char* out) {
  visit_compute(largest ? "amax" : "amin", type, false, [&](auto t) {
    using C = typename decltype(t)::value;
    if constexpr (!is_complex_v<C>) {
      const auto same = [](C a) { return a; };
      if (largest) fold<ExtremeOp<C, 1>>(plan, data, reader_for<C>(type), out_type, out, same);
      else fold<ExtremeOp<C, -1>>(plan, data, reader_for<C>(type), out_type, out, same);
    }
  });
}

}  // namespace

void reduce(Reduce kind, const ReducePlan& plan, DType type, const char* data, DType out_type, char* out,
            double correction) {
  switch (kind) {
    case Reduce::sum:
      return visit_compute("sum", type, true, [&](auto t) {
        using C = typename decltype(t)::value;
        fold<SumOp<C>>(plan, data, reader_for<C>(type), out_type, out, [](const auto& a) { return value_of(a); });
      });
    case Reduce::mean: {
      const double count = double(plan.reduced);
      return visit_compute("mean", type, true, [&](auto t) {
        using C = typename decltype(t)::value;
        if constexpr (std::is_integral_v<C>) unsupported("mean", type);
        else
          fold<SumOp<C>>(plan, data, reader_for<C>(type), out_type, out,
                         [count](const auto& a) { return value_of(a) / count; });
      });
    }
    case Reduce::prod:
      return visit_compute("prod", type, true, [&](auto t) {
        using C = typename decltype(t)::value;
        fold<ProdOp<C>>(plan, data, reader_for<C>(type), out_type, out, [](const auto& a) { return value_of(a); });
      });
    case Reduce::amax: return extreme(true, plan, type, data, out_type, out);
    case Reduce::amin: return extreme(false, plan, type, data, out_type, out);
    case Reduce::any:
      return fold<AnyOp>(plan, data, truth_reader(type), out_type, out, [](uint8_t a) { return a != 0; });
    case Reduce::all:
      return fold<AllOp>(plan, data, truth_reader(type), out_type, out, [](uint8_t a) { return a != 0; });
    case Reduce::var:
      return visit_floating("var", type, [&](auto t) {
        using C = typename decltype(t)::value;
        fold<VarOp<C>>(plan, data, reader_for<C>(type), out_type, out, [correction](const Moments& m) {
          // No degrees of freedom left: NaN where nothing varies, infinity otherwise, as 0 / 0 and x / 0 are.
          return m.m2 / std::max(m.count - correction, 0.0);
        });
      });
    case Reduce::logsumexp:
      return visit_floating("logsumexp", type, [&](auto t) {
        using C = typename decltype(t)::value;
        fold<LogSumExpOp<C>>(plan, data, reader_for<C>(type), out_type, out,
                             [](const ScaledExpSum& a) { return a.value(); });
      });
  }
}

}  // namespace tg
