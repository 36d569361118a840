// Arrays as the bindings of this family take them: half types widened to float, matrices by their strides.
#pragma once

#include <stdexcept>
#include <string>

#include "../core/launch.h"
#include "../kernels/linear.h"

namespace tg {

// Throws ValueError.
[[noreturn]] inline void bad_value(const std::string& text) { throw std::invalid_argument(text); }

inline bool is_half(DType type) { return type == DType::Float16 || type == DType::BFloat16; }
inline DType compute_dtype(DType type) { return is_half(type) ? DType::Float32 : type; }

// The array, or a contiguous float32 copy of one that stores half floats.
py::object widened(py::handle array, const char* what);
// A float32 result in the dtype asked for.
py::object narrowed(const py::object& array, DType dtype);
// widened(), C-contiguous and aligned; TypeError unless it is `dtype` to begin with.
py::object dense(py::handle array, DType dtype, const char* what);
void require_dtype(const View& v, DType dtype, const char* what);

// Strides counted in elements; false where they are not whole or memory is not aligned.
bool element_strides(const View& v, Index* strides);

Shape shape_of(py::handle array);
Index product(const Shape& shape);
// A sequence of integers.
std::vector<Index> numbers(py::handle given);

}  // namespace tg
