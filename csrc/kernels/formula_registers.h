// Values of a formula, given registers and written as machine code. For formula_machine.cpp.
#pragma once

#include <vector>

#include "../core/machine_code.h"
#include "formula_values.h"

namespace tg {
namespace formula {

struct Result {
  int value, slot;
  bool summed = false;  // lane by lane, in floats: the sums go to where the slot points, once, after the last element
  int at = 0;           // after which value it is stored or added
  int extreme = 0;      // instead of a sum the largest (1) or smallest (-1)
};

// Code for row after row, as many as slot 2 `slots` says, which is zero then: slot `slots` + i has the bytes from a row to the
// next of what slot i points to, one of the first `ports`. No slots: for one row, without sums. By `columns` all results are
// summed, and sums are of columns: all rows of a few vectors of them come first, and are added to what there is of each column.
struct RowLoop {
  int slots = 0, ports = 0;
  bool columns = false;
};

// A loop over whole vectors, of doubles if `wide`, of floats otherwise; with `masks_last` then what of the last vector is
// there. False if too many values are needed at a time.
bool write(std::vector<Value> values, std::vector<Result> results, bool wide, bool masks_last, RowLoop rows, Encoder& into);

}  // namespace formula
}  // namespace tg
