// Reductions over any axes of an array of any strides and dtype.
#pragma once

#include "../core/dtype.h"
#include "reduce_plan.h"

namespace tg {

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

}  // namespace tg
