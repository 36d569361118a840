// Joins what is reduced (reduce_ops.h), how memory is walked (reduce_walk.h) and the dtypes at both ends, for floats.
#include "column_strips.h"
#include "logsumexp.h"
#include "reduce_fold.h"

namespace tg {
namespace {

bool is_floating(DType type) {
  return type == DType::Float16 || type == DType::BFloat16 || type == DType::Float32 || type == DType::Float64;
}

// Short rows are columns, turned: 104,857 rows of 10 floats take 0.13 of the time that they take one by one (AVX2: 0.47).
template <int Sign>
void extreme_rows(Index rows, Index length, const float* x, float* y) {
  over_columns<float>(rows, length, 1, {x}, y, 1, [](const auto& strip, const auto& in, float* to) {
    using S = std::decay_t<decltype(strip)>;
    typename S::Vector most[S::vectors];
    strip.template extreme<Sign>(in[0], most);
    strip.store(to, 0, most);
  });
}

// Rows of a few vectors: a lane for each of as many rows as a vector has lanes. The last rows stand in for those that are not
// there, so that each row's bits are those that it has among others. 32,768 rows of 33, two Zen 4 cores, AVX-512: 150 us one by
// one and 48 so; of 64 140 and 64.
constexpr Index kExtremeVectors = 8;
template <int Sign>
void extreme_of_lanes(const float* x, Index count, Index length, float* y) {
  using namespace lanes::detail;
  constexpr Index L = Wide<float>::lanes;
  const auto pick = extreme_lanes<Sign, float>;
  Wide<float>::Vector v[L];
  for (Index k = 0; k < L; ++k) {
    const float* row = x + std::min(k, count - 1) * length;
    auto most = pick(Wide<float>::load(row), Wide<float>::load(row + length - L));
    for (Index i = L; i < length - L; i += L) most = pick(most, Wide<float>::load(row + i));
    v[k] = most;
  }
  // as a transposition goes, of which each step leaves half as many vectors
  for (Index k = 0; k < L / 2; ++k)
    v[k] = pick(picked<float, Interleave<float, 1, false>>(v[2 * k], v[2 * k + 1]),
                picked<float, Interleave<float, 1, true>>(v[2 * k], v[2 * k + 1]));
  for (Index k = 0; k < L / 4; ++k)
    v[k] = pick(picked<float, Interleave<float, 2, false>>(v[2 * k], v[2 * k + 1]),
                picked<float, Interleave<float, 2, true>>(v[2 * k], v[2 * k + 1]));
  if constexpr (L >= 8)
    for (Index k = 0; k < L / 8; ++k)
      v[k] = pick(picked<float, Blocks<float, 4, false>>(v[2 * k], v[2 * k + 1]),
                  picked<float, Blocks<float, 4, true>>(v[2 * k], v[2 * k + 1]));
  if constexpr (L >= 16)
    v[0] = pick(picked<float, Blocks<float, 8, false>>(v[0], v[1]), picked<float, Blocks<float, 8, true>>(v[0], v[1]));
  if (count == L) return Wide<float>::store(y, v[0]);
  alignas(64) float most[L];
  Wide<float>::store(most, v[0]);
  std::copy_n(most, count, y);
}

template <int Sign, class C>
void extreme(const ReducePlan& plan, DType type, const char* data, DType out_type, char* out) {
  if constexpr (std::is_same_v<C, float>) {
    constexpr Index L = Wide<C>::lanes;
    if (type == DType::Float32 && out_type == type && reinterpret_cast<uintptr_t>(data) % alignof(C) == 0) {
      const C* x = reinterpret_cast<const C*>(data);
      C* y = reinterpret_cast<C*>(out);
      const Index length = plan.reduced;
      if (are_turned_rows(plan, sizeof(C))) return extreme_rows<Sign>(plan.outputs, length, x, y);
      if (plan.rn == 1 && plan.rstride[0] == sizeof(C) && plan.kn == 1 && plan.kstride[0] == length * Index(sizeof(C)) &&
          length >= L && length <= kExtremeVectors * L)
        return parallel_for(plan.outputs, std::max<Index>(1, kReducePiece / length / L) * L, [&](Index first, Index last) {
          for (Index r = first; r < last; r += L) extreme_of_lanes<Sign>(x + r * length, std::min(L, last - r), length, y + r);
        });
    }
  }
  fold<ExtremeOp<C, Sign>>(plan, data, reader_for<C>(type), out_type, out, [](C a) { return a; });
}

#if defined(__AVX__)
// A lane for each of as many rows as a vector has, of at least as many floats each.
inline Wide<float>::Vector sums_of_rows(const float* x, Index length) {
  constexpr int w = int(Wide<float>::lanes);
  const auto row = [&](int k) {
    return sums_of_lanes<float>(length, [=](Index i) { return Wide<float>::load(x + k * length + i); });
  };
  // upper half onto lower, as sum_lanes does it
#if defined(__AVX512F__)
  constexpr auto all = __mmask16(-1);  // GCC 12 warns of the forms without a mask
  __m512 quarter[w / 4];               // of the sums of rows k, k + 4, k + 8 and k + 12
  for (int k = 0; k < w / 4; ++k) {
    __m512 half[2];
    for (int l = 0; l < 2; ++l) {
      const auto p = __m512(row(k + 8 * l)), q = __m512(row(k + 8 * l + 4));
      half[l] = _mm512_add_ps(_mm512_maskz_shuffle_f32x4(all, p, q, 0x44), _mm512_maskz_shuffle_f32x4(all, p, q, 0xee));
    }
    quarter[k] = _mm512_add_ps(_mm512_maskz_shuffle_f32x4(all, half[0], half[1], 0x88),
                               _mm512_maskz_shuffle_f32x4(all, half[0], half[1], 0xdd));
  }
  const auto pairs = [](__m512 p, __m512 q, auto low, auto high) {
    return _mm512_add_ps(_mm512_maskz_shuffle_ps(all, p, q, decltype(low)::value), _mm512_maskz_shuffle_ps(all, p, q, decltype(high)::value));
  };
  using Low = std::integral_constant<int, 0x44>;
  using High = std::integral_constant<int, 0xee>;
  using Even = std::integral_constant<int, 0x88>;
  using Odd = std::integral_constant<int, 0xdd>;
  return Wide<float>::Vector(pairs(pairs(quarter[0], quarter[1], Low{}, High{}), pairs(quarter[2], quarter[3], Low{}, High{}), Even{}, Odd{}));
#else
  __m256 h[w / 2], q[w / 4];
  for (int k = 0; k < w / 2; ++k) {
    const auto low = __m256(row(k)), high = __m256(row(k + 4));
    h[k] = _mm256_add_ps(_mm256_permute2f128_ps(low, high, 0x20), _mm256_permute2f128_ps(low, high, 0x31));
  }
  for (int k = 0; k < w / 4; ++k)
    q[k] = _mm256_add_ps(_mm256_shuffle_ps(h[2 * k], h[2 * k + 1], 0x44), _mm256_shuffle_ps(h[2 * k], h[2 * k + 1], 0xee));
  return Wide<float>::Vector(_mm256_add_ps(_mm256_shuffle_ps(q[0], q[1], 0x88), _mm256_shuffle_ps(q[0], q[1], 0xdd)));
#endif
}
#endif

// Of rows that are shorter than a vector, whose length the compiler knows: it makes vectors across them.
template <int length, class C, class Value>
void sum_few(const C* x, Index rows, C* y, Value value) {
  for (Index r = 0; r < rows; ++r) {
    C sum = 0;
    for (int i = 0; i < length; ++i) sum += x[r * length + i];
    y[r] = value(double(sum));
  }
}

// The sums of rows that lie one behind the other, as many of them as a vector has lanes into one: 65,536 rows of 16 in a third
// of the time that they take one by one. Each has the bits that it has alone (sum_run).
template <class C>
void sum_rows(const C* x, Index rows, Index length, C* y, double count) {
  const auto value = [count](double sum) { return C(count == 1 ? sum : sum / count); };
  switch (length < Wide<C>::lanes ? length : 0) {
    case 2: return sum_few<2>(x, rows, y, value);
    case 3: return sum_few<3>(x, rows, y, value);
    case 4: return sum_few<4>(x, rows, y, value);
    case 5: return sum_few<5>(x, rows, y, value);
    case 6: return sum_few<6>(x, rows, y, value);
    case 7: return sum_few<7>(x, rows, y, value);
  }
  Index r = 0;
#if defined(__AVX__)
  if constexpr (std::is_same_v<C, float>) {
    constexpr Index w = Wide<float>::lanes;
    for (; r + w <= rows && length >= w; r += w) {
      const auto sums = sums_of_rows(x + r * length, length);
      Wide<float>::store(y + r, sums);
      for (Index k = 0; k < w && count != 1; ++k) y[r + k] = value(double(y[r + k]));
    }
  }
#endif
  for (; r < rows; ++r) y[r] = value(double(sum_run(x + r * length, length)));
}

// Products of rows of 2, 3 or 4, with the bits that ProdOp gives.
template <class C>
void multiply_rows(const C* x, Index first, Index last, Index length, C* y) {
  using Acc = typename ProdOp<C>::Acc;
  for (Index r = first; r < last; ++r) {
    const C* row = x + r * length;
    const Acc two = Acc(row[0]) * Acc(row[1]);
    y[r] = C(length == 2 ? two : length == 3 ? two * Acc(row[2]) : two * (Acc(row[2]) * Acc(row[3])));
  }
}

}  // namespace

void reduce(Reduce kind, const ReducePlan& plan, DType type, const char* data, DType out_type, char* out,
            double correction) {
  if (!is_floating(type) || kind == Reduce::any || kind == Reduce::all || kind == Reduce::count_nonzero)
    return reduce_rare(kind, plan, type, data, out_type, out);
  const auto computed_in = [&](auto t) {  // float also where halves are stored
    using C = typename decltype(t)::value;
    const Reader<C> reader = reader_for<C>(type);
    switch (kind) {
      case Reduce::sum:
      case Reduce::mean: {
        const bool mean = kind == Reduce::mean;  // asked for each output: a division takes longer
        const double count = double(plan.reduced);
        if (reader.same_type && out_type == type && are_short_rows(kind, plan, sizeof(C)) &&
            reinterpret_cast<uintptr_t>(data) % alignof(C) == 0) {
          const Index length = plan.reduced;
          return parallel_for(plan.outputs, kReducePiece / length, [&](Index first, Index last) {
            sum_rows(reinterpret_cast<const C*>(data) + first * length, last - first, length,
                     reinterpret_cast<C*>(out) + first, mean ? count : 1.0);
          });
        }
        return fold<SumOp<C>>(plan, data, reader, out_type, out,
                              [=](const auto& a) { return mean ? value_of(a) / count : value_of(a); });
      }
      case Reduce::prod:
        if (reader.same_type && out_type == type && are_short_rows(kind, plan, sizeof(C)) &&
            reinterpret_cast<uintptr_t>(data) % alignof(C) == 0) {
          const Index length = plan.reduced;
          return parallel_for(plan.outputs, kReducePiece / length, [&](Index first, Index last) {
            multiply_rows(reinterpret_cast<const C*>(data), first, last, length, reinterpret_cast<C*>(out));
          });
        }
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
        if (reader.same_type && out_type == type && is_plain_axis(plan, sizeof(C)) &&
            reinterpret_cast<uintptr_t>(data) % alignof(C) == 0)
          return logsumexp_columns(plan, reinterpret_cast<const C*>(data), reinterpret_cast<C*>(out));
        return fold<LogSumExpOp<C>>(plan, data, reader, out_type, out, [](const ScaledExpSum& a) { return a.value(); });
      case Reduce::any:
      case Reduce::all:
      case Reduce::count_nonzero: break;
    }
  };
  if (type == DType::Float64) computed_in(TypeOf<double>{});
  else computed_in(TypeOf<float>{});
}

namespace {

__attribute__((noinline)) ReducePlan plan_of_rows(Index rows, Index length, Index item) {
  const Index shape[] = {rows, length}, strides[] = {length * item, item};
  const bool folded[] = {false, true};
  return ReducePlan(2, shape, strides, folded);
}

}  // namespace

bool takes_rows(Reduce kind, Index length, Index item) {
  if (length < 2) return false;
  const ReducePlan plan = plan_of_rows(2, length, item);
  return are_short_rows(kind, plan, item) || rows_stand_alone(plan);
}

void reduce_rows(Reduce kind, DType type, Index rows, Index length, const char* data, char* out) {
  if (kind != Reduce::mean && kind != Reduce::sum)
    return reduce(kind, plan_of_rows(rows, length, type == DType::Float64 ? 8 : 4), type, data, type, out);
  const auto sum = [&](auto t) {  // without a plan, which takes as long as a row
    using C = typename decltype(t)::value;
    const C* x = reinterpret_cast<const C*>(data);
    C* y = reinterpret_cast<C*>(out);
    const double count = kind == Reduce::mean ? double(length) : 1;
    if (length <= 256) return sum_rows(x, rows, length, y, count);
    for (Index r = 0; r < rows; ++r) {
      auto a = SumOp<C>::init();
      SumOp<C>::run(a, x + r * length, length);
      y[r] = C(value_of(a) / count);
    }
  };
  if (type == DType::Float64) sum(TypeOf<double>{});
  else sum(TypeOf<float>{});
}

// As ReduceWalk::columns does it.
namespace {

template <class C>
class ColumnRun final : public RowRun {
 public:
  using Op = SumOp<C>;
  explicit ColumnRun(const ColumnSums& sums)
      : a_(sums), order_(sums.order()), pieces_((a_.rows + order_ - 1) / order_), parts_(size_t(pieces_ * a_.width), Op::init()) {}

  void rows(Index first, Index last) override {
    const C* rows[kRowGroup];
    for (Index r = first; r < last;) {
      const Index piece = r / order_, count = std::min({kRowGroup, last - r, (piece + 1) * order_ - r});
      for (Index k = 0; k < count; ++k) rows[k] = reinterpret_cast<const C*>(a_.data) + (r + k) * a_.width;
      Op::columns(&parts_[size_t(piece * a_.width)], rows, count, a_.width);
      r += count;
    }
  }

  void end() override {
    for (Index j = 0; j < a_.width; ++j) {
      typename Op::Acc sum = parts_[size_t(j)];
      for (Index piece = 1; piece < pieces_; ++piece) Op::merge(sum, parts_[size_t(piece * a_.width + j)]);
      const double value = value_of(sum);
      reinterpret_cast<C*>(a_.out)[j] = C(a_.mean ? value / double(a_.rows) : value);
    }
  }

 private:
  const ColumnSums a_;
  Index order_, pieces_;
  std::vector<typename Op::Acc> parts_;
};

}  // namespace

Index ColumnSums::order() const { return rows_of_piece(width); }

bool matrices_stand_alone(const ReducePlan& plan) {
  if (!plan.columns || plan.kn != 2 || plan.rn != 1) return false;
  const Index width = plan.kshape[1];
  return plan.reduced * width > kReduceTile * kRowGroup && plan.reduced <= rows_of_piece(width);
}

bool sums_in_parts(const ReducePlan& plan) {
  return plan.columns && plan.kn == 1 && plan.rn == 1 && !are_stacked(plan.kshape[0]);
}

std::unique_ptr<RowRun> run_of(const ColumnSums& a) {
  if (a.type == DType::Float64) return std::make_unique<ColumnRun<double>>(a);
  return std::make_unique<ColumnRun<float>>(a);
}

}  // namespace tg
