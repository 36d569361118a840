// NumPy arrays as the kernels see them. Checks happen here and in the bindings, once; kernels trust.
#pragma once

#include <pybind11/pybind11.h>

#define NPY_NO_DEPRECATED_API NPY_1_7_API_VERSION
#define PY_ARRAY_UNIQUE_SYMBOL tensorgrad_numpy_api
#define NO_IMPORT_ARRAY
#include <numpy/arrayobject.h>

#include <initializer_list>
#include <string>
#include <vector>

#include "allocator.h"
#include "dtype.h"

namespace tg {

namespace py = pybind11;

using Shape = std::vector<Index>;

// A window on an array's memory: any strides (in bytes), any alignment.
struct View {
  char* data = nullptr;
  int ndim = 0;
  DType dtype = DType::Float32;
  const npy_intp* shape = nullptr;    // owned by the array: keep the array alive
  const npy_intp* strides = nullptr;  // bytes
  py::handle array;

  Index size() const {
    Index n = 1;
    for (int i = 0; i < ndim; ++i) n *= shape[i];
    return n;
  }
  Shape shape_vector() const { return Shape(shape, shape + ndim); }
  bool contiguous() const { return PyArray_IS_C_CONTIGUOUS(reinterpret_cast<PyArrayObject*>(array.ptr())); }
  bool aligned() const { return PyArray_ISALIGNED(reinterpret_cast<PyArrayObject*>(array.ptr())); }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data);
  }
};

// Fills NumPy's table of functions; negative, with a Python error set, if NumPy can't be imported.
int import_numpy();

// The dtype of a NumPy array. Throws TypeError for one that tensorgrad does not store, or of foreign byte order.
DType dtype_of(PyArrayObject* array);
DType dtype_of(PyArray_Descr* descr);

// `what` names the argument in errors, e.g. "softmax: x". Throws TypeError for anything but an ndarray.
View view(py::handle object, const char* what = "argument");
inline bool is_array(py::handle object) { return PyArray_Check(object.ptr()); }

// A fresh C-contiguous array from the allocator, elements uninitialized. Throws ValueError for negative sizes and
// MemoryError for sizes that can't be had.
py::object empty(DType dtype, const Index* shape, int ndim);
inline py::object empty(DType dtype, const Shape& shape) {
  return empty(dtype, shape.data(), static_cast<int>(shape.size()));
}
py::object zeros(DType dtype, const Shape& shape);

template <class T>
T* data_of(const py::object& array) {
  return static_cast<T*>(PyArray_DATA(reinterpret_cast<PyArrayObject*>(array.ptr())));
}

// The array itself if it is C-contiguous, aligned and of this dtype, else a converted copy.
py::object contiguous(py::handle array, DType dtype, const char* what = "argument");
py::object contiguous(py::handle array, const char* what = "argument");  // in its own dtype

// Throws ValueError if the array may not be written.
void require_writable(const View& v, const char* what);

std::string to_string(const Shape& shape);

}  // namespace tg
