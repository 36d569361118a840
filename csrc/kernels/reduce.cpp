// Joins what is reduced (reduce_ops.h), how memory is walked (reduce_walk.h) and the dtypes at both ends, for floats.
#include "reduce_fold.h"

namespace tg {
namespace {

bool is_floating(DType type) {
  return type == DType::Float16 || type == DType::BFloat16 || type == DType::Float32 || type == DType::Float64;
}

template <int Sign, class C>
void extreme(const ReducePlan& plan, DType type, const char* data, DType out_type, char* out) {
  fold<ExtremeOp<C, Sign>>(plan, data, reader_for<C>(type), out_type, out, [](C a) { return a; });
}

}  // namespace

void reduce(Reduce kind, const ReducePlan& plan, DType type, const char* data, DType out_type, char* out,
            double correction) {
  if (!is_floating(type) || kind == Reduce::any || kind == Reduce::all || kind == Reduce::count_nonzero)
    return reduce_rare(kind, plan, type, data, out_type, out);
  visit_float("reduce", type, [&](auto t) {
    using C = typename ComputeOf<typename decltype(t)::value>::Type;
    const Reader<C> reader = reader_for<C>(type);
    switch (kind) {
      case Reduce::sum:
      case Reduce::mean: {
        const bool mean = kind == Reduce::mean;  // asked for each output: a division takes longer
        const double count = double(plan.reduced);
        return fold<SumOp<C>>(plan, data, reader, out_type, out,
                              [=](const auto& a) { return mean ? value_of(a) / count : value_of(a); });
      }
      case Reduce::prod:
        return fold<ProdOp<C>>(plan, data, reader, out_type, out, [](const auto& a) { return value_of(a); });
      case Reduce::amax: return extreme<1, C>(plan, type, data, out_type, out);
      case Reduce::amin: return extreme<-1, C>(plan, type, data, out_type, out);
      case Reduce::var:
        return fold<VarOp<C>>(plan, data, reader, out_type, out, [correction](const Moments& m) {
          // No degrees of freedom left: NaN where nothing varies, infinity otherwise, as 0 / 0 and x / 0 are.
          return m.m2 / std::max(m.count - correction, 0.0);
        });
      case Reduce::std:
        return fold<VarOp<C>>(plan, data, reader, out_type, out, [correction](const Moments& m) {
          return std::sqrt(m.m2 / std::max(m.count - correction, 0.0));
        });
      case Reduce::norm1:
        return fold<NormOp<C, 1>>(plan, data, reader, out_type, out, [](double a) { return a; });
      case Reduce::norm2:
        return fold<NormOp<C, 2>>(plan, data, reader, out_type, out, [](double a) { return std::sqrt(a); });
      case Reduce::logsumexp:
        return fold<LogSumExpOp<C>>(plan, data, reader, out_type, out, [](const ScaledExpSum& a) { return a.value(); });
      case Reduce::any:
      case Reduce::all:
      case Reduce::count_nonzero: break;
    }
  });
}

}  // namespace tg
