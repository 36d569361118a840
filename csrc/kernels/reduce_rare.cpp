// Reductions of integers, truth values and complex numbers, and any and all of every dtype.
#include "reduce_fold.h"

namespace tg {
namespace {

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

template <int Sign>
void extreme(const ReducePlan& plan, DType type, const char* data, DType out_type, char* out) {
  fold<ExtremeOp<int64_t, Sign>>(plan, data, reader_for<int64_t>(type), out_type, out, [](int64_t a) { return a; });
}

}  // namespace

void reduce_rare(Reduce kind, const ReducePlan& plan, DType type, const char* data, DType out_type, char* out) {
  const bool complex = type == DType::Complex64 || type == DType::Complex128;
  if (kind == Reduce::sum && type == DType::Bool) kind = Reduce::count_nonzero;
  if (kind == Reduce::any)
    return fold<AnyOp, bool>(plan, data, truth_reader(type), out_type, out, [](uint8_t a) { return a != 0; });
  if (kind == Reduce::all)
    return fold<AllOp, bool>(plan, data, truth_reader(type), out_type, out, [](uint8_t a) { return a != 0; });
  if (kind == Reduce::count_nonzero)
    return fold<CountOp, int64_t>(plan, data, truth_reader(type), out_type, out, [](int64_t a) { return a; });
  if (complex && (kind == Reduce::sum || kind == Reduce::mean)) {
    const double count = kind == Reduce::sum ? 1.0 : double(plan.reduced);
    return fold<SumOp<c128>>(plan, data, reader_for<c128>(type), out_type, out,
                             [count](const auto& a) { return value_of(a) / count; });
  }
  if (complex && kind == Reduce::prod)
    return fold<ProdOp<c128>>(plan, data, reader_for<c128>(type), out_type, out, [](const c128& a) { return a; });
  if (!complex && kind == Reduce::sum)
    return fold<SumOp<int64_t>>(plan, data, reader_for<int64_t>(type), out_type, out, [](uint64_t a) { return value_of(a); });
  if (!complex && kind == Reduce::prod)
    return fold<ProdOp<int64_t>>(plan, data, reader_for<int64_t>(type), out_type, out, [](uint64_t a) { return value_of(a); });
  if (!complex && kind == Reduce::amax) return extreme<1>(plan, type, data, out_type, out);
  if (!complex && kind == Reduce::amin) return extreme<-1>(plan, type, data, out_type, out);
  unsupported(name_of(kind), type);
}

}  // namespace tg
