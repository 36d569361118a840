// A program as Python hands it over, and Python numbers as operands.
#pragma once

#include "../core/array.h"
#include "../kernels/formula.h"

namespace tg {
namespace formula {

// The instructions and outputs of `(code, outputs)`. Throws ValueError or TypeError for anything else.
Source read_source(py::handle program, const std::vector<Input>& inputs);

// A Python bool, int, float or complex as a number of this type. Throws what Python raises: OverflowError for an
// integer beyond int64.
Number number_of(PyObject* value, Type type);

DType dtype_named(const std::string& name);

}  // namespace formula
}  // namespace tg
