// Reductions over any axes of an array of any strides and dtype.
#pragma once

#include "../core/dtype.h"
#include "reduce_plan.h"

namespace tg {

enum class Reduce { sum, prod, amax, amin, any, all, mean, var, logsumexp };

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
  }
  return "?";
}

// `out` is contiguous, plan.outputs values of `out_type`:
//   sum, prod         the input's floating type, or int64 for integers and bool
//   amax, amin        the input's type; not complex
//   any, all          bool
//   mean              the input's floating or complex type
//   var, logsumexp    the input's floating type; var divides by count - correction
void reduce(Reduce kind, const ReducePlan& plan, DType type, const char* data, DType out_type, char* out,
            double correction = 0);

}  // namespace tg
