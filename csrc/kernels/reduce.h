// Reductions over any axes of an array of any strides and dtype.
#pragma once

#include <memory>

#include "reduce_plan.h"
#include "row_run.h"

namespace tg {

constexpr Index kWholeRow = 16384;  // elements of a row that is folded at once, whatever lies beside it

enum class Reduce { sum, prod, amax, amin, any, all, mean, var, logsumexp, std, norm1, norm2, count_nonzero };

constexpr const char* name_of(Reduce kind) {
  switch (kind) {
    case Reduce::sum: return "sum";
    case Reduce::prod: return "prod";
    case Reduce::amax: return "amax";
    case Reduce::amin: return "amin";
    case Reduce::any: return "any";
    case Reduce::all: return "all";
    case Reduce::mean: return "mean";
    case Reduce::var: return "var";
    case Reduce::logsumexp: return "logsumexp";
    case Reduce::std: return "std";
    case Reduce::norm1:
    case Reduce::norm2: return "vector_norm";
    case Reduce::count_nonzero: return "count_nonzero";
  }
  return "?";
}

// `out` is contiguous, plan.outputs values of `out_type`:
//   sum, prod         the input's floating type, or int64 for integers and bool
//   amax, amin        the input's type; not complex
//   any, all          bool, or uint8 (0 and 1)
//   mean              the input's floating or complex type
//   var, std, logsumexp, norm1, norm2   the input's floating type; var and std divide by count - correction
//   count_nonzero     int64
void reduce(Reduce kind, const ReducePlan& plan, DType type, const char* data, DType out_type, char* out,
            double correction = 0);

// Whether an output's value has the bits that it has where other outputs are left out, or taken from elsewhere: then rows may
// be reduced a few at a time. Of `length` elements each, which lie contiguous one behind the other.
inline bool rows_stand_alone(const ReducePlan& plan) {
  return plan.kn <= 1 && plan.rn == 1 && !plan.columns && plan.rshape[0] > 8 && plan.rshape[0] <= kWholeRow;
}

// Sums, means and products of such rows are taken several at a time up to this length.
inline bool are_short_rows(Reduce kind, const ReducePlan& plan, Index item) {
  const Index most = kind == Reduce::sum || kind == Reduce::mean ? 64 : kind == Reduce::prod ? 4 : 0;
  return plan.rn == 1 && plan.rstride[0] == item && plan.rshape[0] >= 2 && plan.rshape[0] <= most && (plan.kn == 0 || (plan.kn == 1 && plan.kstride[0] == plan.rshape[0] * item));
}

// The same of a kind, for rows of floats or doubles that lie one behind the other; and reducing some of them, by the calling
// thread.
bool takes_rows(Reduce kind, Index length, Index item);
void reduce_rows(Reduce kind, DType type, Index rows, Index length, const char* data, char* out);

// Whether sums of the columns of several matrices are those of each one's: in one piece, and with none beside it.
bool matrices_stand_alone(const ReducePlan& plan);

// Sums or means of columns, of (rows, width) floats or doubles that lie contiguous, in parts: `unit` rows at a time, or
// several times that, and those between multiples of `order` in their order and from one thread.
struct ColumnSums {
  DType type;
  bool mean;
  Index rows, width;
  const char* data;
  char* out;
  Index unit() const { return 8; }
  Index order() const;
};
bool sums_in_parts(const ReducePlan& plan);
std::unique_ptr<RowRun> run_of(const ColumnSums& a);

}  // namespace tg
