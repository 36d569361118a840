// What is said of indices that are not there: of those that may be negative, as in x[index], and of those that may not.
#pragma once

#include <string>

#include "../core/array.h"
#include "../kernels/index.h"

namespace tg {

inline void check_range(const char* op, const IndexRange& range, Index size, int axis) {
  if (range.low >= -size && range.high < size) return;
  throw py::index_error(
      std::string(op) + ": index " + std::to_string(range.high >= size ? range.high : range.low) +
      " is out of bounds for dimension " + std::to_string(axis) + " with size " + std::to_string(size) +
      (size ? "; it must be from " + std::to_string(-size) + " to " + std::to_string(size - 1) + "." : "."));
}

// One of them is.
[[noreturn]] inline void out_of_range(const char* op, const int64_t* at, Index n, Index limit) {
  const IndexRange range = range_of(at, n);
  throw py::index_error(std::string(op) + ": index " + std::to_string(range.low < 0 ? range.low : range.high) +
                        " is out of range for an axis of length " + std::to_string(limit) +
                        (limit ? "; valid: 0 to " + std::to_string(limit - 1) : ""));
}

inline void require_vector(const char* op, const View& index) {
  if (index.ndim > 1)
    throw py::value_error(std::string(op) + ": index has shape " + to_string(index.shape_vector()) + ", expected one axis");
}

}  // namespace tg
