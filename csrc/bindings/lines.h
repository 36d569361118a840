// What bindings of kernels over axes share: checked axes, arrays made contiguous, the (outer, length, inner) view.
#pragma once

#include <string>

#include "../core/array.h"
#include "../core/launch.h"
#include "../kernels/copy.h"

namespace tg {

// "softmax: dim 3 is out of range for shape (2, 3); valid: 0 to 1" as IndexError.
inline int checked_axis(const char* op, Index dim, const View& x) {
  if (dim >= 0 && dim < x.ndim) return int(dim);
  throw py::index_error(std::string(op) + ": dim " + std::to_string(dim) + " is out of range for shape " +
                        to_string(x.shape_vector()) +
                        (x.ndim ? "; valid: 0 to " + std::to_string(x.ndim - 1) : "; it has no axes"));
}

// A tuple of integers; at most as many as an array has dimensions.
inline int read_integers(const char* op, py::handle given, Index* out) {
  const py::tuple all = py::reinterpret_steal<py::tuple>(PySequence_Tuple(given.ptr()));
  if (!all) throw py::error_already_set();
  if (all.size() > size_t(kMaxDims)) throw py::value_error(std::string(op) + ": arrays have at most 64 dimensions");
  for (size_t k = 0; k < all.size(); ++k) {
    out[k] = PyLong_AsSsize_t(PyTuple_GET_ITEM(all.ptr(), Py_ssize_t(k)));
    if (out[k] == -1 && PyErr_Occurred()) throw py::error_already_set();
  }
  return int(all.size());
}

// Pairs of (before, after).
inline int read_pads(const char* op, py::handle given, Index* before, Index* after) {
  if (!PyTuple_Check(given.ptr()) || PyTuple_GET_SIZE(given.ptr()) > kMaxDims)
    throw py::type_error(std::string(op) + ": pads must be a tuple of pairs");
  const int count = int(PyTuple_GET_SIZE(given.ptr()));
  Index pair[kMaxDims];
  for (int k = 0; k < count; ++k) {
    if (read_integers(op, PyTuple_GET_ITEM(given.ptr(), k), pair) != 2)
      throw py::type_error(std::string(op) + ": pads must be a tuple of pairs");
    before[k] = pair[0];
    after[k] = pair[1];
  }
  return count;
}

inline void c_strides(DType type, const Index* shape, int ndim, Index* strides) {
  Index step = size_of(type);
  for (int k = ndim - 1; k >= 0; --k) {
    strides[k] = step;
    step *= shape[k];
  }
}

// A copy from where a view lies to other strides: of its own numbers, so that a launch can hold it.
struct Copy {
  template <class Stride>  // Index, or what NumPy counts in
  Copy(const View& x, char* target, const Stride* to_strides) : item(size_of(x.dtype)), ndim(x.ndim), source(x.data), to(target) {
    for (int k = 0; k < ndim; ++k) {
      shape[k] = x.shape[k];
      from_strides[k] = x.strides[k];
      strides[k] = to_strides[k];
    }
  }
  void run() const { copy_strided(item, ndim, shape, source, from_strides, to, strides); }

  Index item;
  int ndim;
  const char* source;
  char* to;
  Index shape[kMaxDims], from_strides[kMaxDims], strides[kMaxDims];
};

// Copies x into memory of these strides.
inline void copy_into(const View& x, char* to, const Index* to_strides) { Copy(x, to, to_strides).run(); }

inline py::object contiguous_copy(const View& x) {
  Index shape[kMaxDims], strides[kMaxDims], n = 1;
  for (int k = 0; k < x.ndim; ++k) n *= shape[k] = x.shape[k];
  py::object out = empty(x.dtype, shape, x.ndim);
  c_strides(x.dtype, shape, x.ndim, strides);
  char* to = data_of<char>(out);
  if (n) launch(n, [copy = Copy(x, to, strides)] { copy.run(); });
  return out;
}

// A contiguous, aligned array of this dtype: the argument itself, or a converted copy.
inline py::object ready(const View& x, DType dtype) {
  const bool plain = x.contiguous() && x.aligned();
  if (plain && x.dtype == dtype) return py::reinterpret_borrow<py::object>(x.array);
  py::object source = plain ? py::reinterpret_borrow<py::object>(x.array) : contiguous_copy(x);
  if (x.dtype == dtype) return source;
  py::object made = empty(dtype, x.shape_vector());
  const char* from = data_of<char>(source);
  char* target = data_of<char>(made);
  const DType have = x.dtype;
  const Index n = x.size();
  launch(n, [=] { cast_items(have, from, dtype, target, n); });
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
