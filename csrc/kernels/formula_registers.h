// Values of a formula, given registers and written as machine code. For formula_machine.cpp.
#pragma once

#include <vector>

#include "../core/machine_code.h"
#include "formula_values.h"

namespace tg {
namespace formula {

struct Result {
  int value, slot;
  int at = 0;  // after which value it is stored
};

// A loop over whole vectors, of doubles if `wide`, of floats otherwise; with `masks_last` then what of the last vector is
// there. False if too many values are needed at a time.
bool write(std::vector<Value> values, std::vector<Result> results, bool wide, bool masks_last, Encoder& into);

}  // namespace formula
}  // namespace tg
