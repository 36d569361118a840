// What bindings of kernels over axes share: checked axes, arrays made contiguous, the (outer, length, inner) view.
#pragma once

#include <string>

#include "../core/array.h"
#include "../core/bind.h"
#include "../kernels/copy.h"

namespace tg {

// "softmax: dim 3 is out of range for shape (2, 3); valid: 0 to 1" as IndexError.
inline int checked_axis(const char* op, Index dim, const View& x) {
  if (dim >= 0 && dim < x.ndim) return int(dim);
  throw py::index_error(std::string(op) + ": dim " + std::to_string(dim) + " is out of range for shape " +
                        to_string(x.shape_vector()) +
                        (x.ndim ? "; valid: 0 to " + std::to_string(x.ndim - 1) : "; it has no axes"));
}

// A contiguous, aligned array of this dtype: the argument itself, or a converted copy.
inline py::object ready(const View& x, DType dtype) {
  const bool plain = x.contiguous() && x.aligned();
  if (plain && x.dtype == dtype) return py::reinterpret_borrow<py::object>(x.array);
  py::object source = py::reinterpret_borrow<py::object>(x.array);
  if (!plain) {
    source = empty(x.dtype, x.shape_vector());
    Index shape[kMaxDims], from[kMaxDims], to[kMaxDims], step = size_of(x.dtype);
    for (int k = x.ndim - 1; k >= 0; --k) {
      shape[k] = x.shape[k];
      from[k] = x.strides[k];
      to[k] = step;
      step *= x.shape[k];
    }
    char* target = data_of<char>(source);
    MaybeRelease unlock(x.size());
    copy_strided(size_of(x.dtype), x.ndim, shape, x.data, from, target, to);
  }
  if (x.dtype == dtype) return source;
  py::object made = empty(dtype, x.shape_vector());
  const char* from = data_of<char>(source);
  char* target = data_of<char>(made);
  MaybeRelease unlock(x.size());
  cast_items(x.dtype, from, dtype, target, x.size());
  return made;
}

inline py::object ready(const View& x) { return ready(x, x.dtype); }

inline py::object ready_as(py::object array, DType dtype) { return ready(view(array), dtype); }

struct Lines {
  Index outer = 1, length = 1, inner = 1;
  Lines(const View& x, int dim) {
    for (int k = 0; k < dim; ++k) outer *= x.shape[k];
    length = x.ndim ? x.shape[dim] : 1;
    for (int k = dim + 1; k < x.ndim; ++k) inner *= x.shape[k];
  }
  Index size() const { return outer * length * inner; }
};

inline bool is_narrow_float(DType t) { return t == DType::Float16 || t == DType::BFloat16; }
inline bool is_floating(DType t) { return is_narrow_float(t) || t == DType::Float32 || t == DType::Float64; }
inline bool is_complex(DType t) { return t == DType::Complex64 || t == DType::Complex128; }

// float for the narrow floats, which are computed there; TypeError for what is not floating point.
inline DType float_compute(const char* op, const View& x) {
  if (!is_floating(x.dtype))
    throw py::type_error(std::string(op) + ": needs a floating point array, got " + name_of(x.dtype) +
                         "; cast it to float32 first");
  return x.dtype == DType::Float64 ? DType::Float64 : DType::Float32;
}

inline void require_shape(const char* op, const char* what, const View& x, const Shape& expected) {
  bool same = x.ndim == int(expected.size());
  for (int k = 0; same && k < x.ndim; ++k) same = x.shape[k] == expected[size_t(k)];
  if (!same)
    throw py::value_error(std::string(op) + ": " + what + " has shape " + to_string(x.shape_vector()) + ", expected " +
                          to_string(expected));
}

inline void require_dtype(const char* op, const char* what, const View& x, DType expected) {
  if (x.dtype != expected)
    throw py::type_error(std::string(op) + ": " + what + " is " + name_of(x.dtype) + ", expected " + name_of(expected));
}

}  // namespace tg
