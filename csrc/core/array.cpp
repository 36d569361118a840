#include "array.h"

#include <cstring>

#include "../kernels/copy.h"
#include "launch.h"

namespace tg {
namespace {

// ml_dtypes registers bfloat16 with NumPy at run time; its number is learned from the first array of that type.
int bfloat16_number = -1;

int number_of(DType type) {
  switch (type) {
    case DType::Bool: return NPY_BOOL;
    case DType::UInt8: return NPY_UINT8;
    case DType::Int8: return NPY_INT8;
    case DType::Int16: return NPY_INT16;
    case DType::Int32: return NPY_INT32;
    case DType::Int64: return NPY_INT64;
    case DType::Float16: return NPY_FLOAT16;
    case DType::BFloat16: {
      if (bfloat16_number < 0) {
        py::object descr = py::module_::import("numpy").attr("dtype")(py::module_::import("ml_dtypes").attr("bfloat16"));
        bfloat16_number = reinterpret_cast<PyArray_Descr*>(descr.ptr())->type_num;
      }
      return bfloat16_number;
    }
    case DType::Float32: return NPY_FLOAT32;
    case DType::Float64: return NPY_FLOAT64;
    case DType::Complex64: return NPY_COMPLEX64;
    case DType::Complex128: return NPY_COMPLEX128;
  }
  return NPY_VOID;
}

// What contiguous() does, as launches: first into one piece, then to the other type.
void write_copy(const View& from, const py::object& to, DType dtype) {
  const Shape shape = from.shape_vector(), strides(from.strides, from.strides + from.ndim);
  const py::object dense = from.dtype == dtype ? to : empty(from.dtype, shape);
  const View middle = view(dense);
  const Shape steps(middle.strides, middle.strides + middle.ndim);
  const char* source = from.data;
  char *piece = middle.data, *target = data_of<char>(to);
  const DType have = from.dtype;
  const Index n = from.size();
  launch(n, [=] {
    if (n) copy_strided(size_of(have), int(shape.size()), shape.data(), source, strides.data(), piece, steps.data());
  });
  if (have != dtype) launch(n, [=] { cast_items(have, piece, dtype, target, n); });
}

void free_block(PyObject* capsule) { release(PyCapsule_GetPointer(capsule, "tensorgrad")); }

}  // namespace

DType dtype_of(PyArrayObject* array) { return dtype_of(PyArray_DESCR(array)); }

DType dtype_of(PyArray_Descr* descr) {
  if (!PyArray_ISNBO(descr->byteorder)) throw py::type_error("arrays of foreign byte order are not supported");
  switch (descr->type_num) {
    case NPY_BOOL: return DType::Bool;
    case NPY_UINT8: return DType::UInt8;
    case NPY_INT8: return DType::Int8;
    case NPY_INT16: return DType::Int16;
    case NPY_INT32: return DType::Int32;
    case NPY_LONG: return sizeof(long) == 8 ? DType::Int64 : DType::Int32;
    case NPY_LONGLONG: return DType::Int64;
    case NPY_FLOAT16: return DType::Float16;
    case NPY_FLOAT32: return DType::Float32;
    case NPY_FLOAT64: return DType::Float64;
    case NPY_COMPLEX64: return DType::Complex64;
    case NPY_COMPLEX128: return DType::Complex128;
    default: break;
  }
  if (descr->type_num == bfloat16_number) return DType::BFloat16;
  const char* name = descr->typeobj->tp_name;
  const char* dot = std::strrchr(name, '.');
  if (descr->type_num >= 256 && std::strcmp(dot ? dot + 1 : name, "bfloat16") == 0) {
    bfloat16_number = descr->type_num;
    return DType::BFloat16;
  }
  throw py::type_error(std::string("dtype ") + name + " is not supported");
}

View view(py::handle object, const char* what) {
  if (!PyArray_Check(object.ptr())) {
    throw py::type_error(std::string(what) + " must be a numpy.ndarray, got " + Py_TYPE(object.ptr())->tp_name);
  }
  auto* array = reinterpret_cast<PyArrayObject*>(object.ptr());
  View v;
  v.data = static_cast<char*>(PyArray_DATA(array));
  v.ndim = PyArray_NDIM(array);
  v.dtype = dtype_of(array);
  v.shape = PyArray_SHAPE(array);
  v.strides = PyArray_STRIDES(array);
  v.array = object;
  if (writing()) writing()->keep(object);
  return v;
}

// Throws MemoryError. `bytes` of less than 0 are more than 64 bits can count.
[[noreturn]] static void no_memory(DType dtype, const Index* shape, int ndim, Index bytes) {
  const std::string size = bytes < 0 ? "more than 2**63" : std::to_string(bytes);
  PyErr_SetString(PyExc_MemoryError, ("can't allocate " + size + " bytes for a tensor of shape " +
                                      to_string(Shape(shape, shape + ndim)) + " and dtype " + name_of(dtype)).c_str());
  throw py::error_already_set();
}

py::object empty(DType dtype, const Index* shape, int ndim) {
  if (ndim > kMaxDims) throw std::invalid_argument("arrays have at most 64 dimensions, got " + std::to_string(ndim));
  npy_intp dims[kMaxDims];
  Index bytes = size_of(dtype);
  bool none = false;
  for (int i = 0; i < ndim; ++i) {
    if (shape[i] < 0) throw std::invalid_argument("negative size in shape " + to_string(Shape(shape, shape + ndim)));
    dims[i] = static_cast<npy_intp>(shape[i]);
    none |= shape[i] == 0;
  }
  for (int i = 0; i < ndim && !none; ++i) {
    if (__builtin_mul_overflow(bytes, shape[i], &bytes)) no_memory(dtype, shape, ndim, -1);
  }
  const std::size_t size = none ? 0 : static_cast<std::size_t>(bytes);
  py::object keeper;
  void* block;
  try {
    block = writing() ? writing()->place(size, keeper) : allocate(size);
  } catch (const std::bad_alloc&) {
    no_memory(dtype, shape, ndim, bytes);
  }
  PyObject* array = PyArray_New(&PyArray_Type, ndim, dims, number_of(dtype), nullptr, block, 0, NPY_ARRAY_CARRAY, nullptr);
  if (!array) {
    if (!keeper) release(block);
    throw py::error_already_set();
  }
  PyObject* owner = keeper ? keeper.release().ptr() : PyCapsule_New(block, "tensorgrad", free_block);
  if (!owner || PyArray_SetBaseObject(reinterpret_cast<PyArrayObject*>(array), owner) < 0) {
    if (!owner) release(block);
    Py_DECREF(array);
    throw py::error_already_set();
  }
  if (writing()) writing()->keep(array);
  return py::reinterpret_steal<py::object>(array);
}

py::object zeros(DType dtype, const Shape& shape) {
  py::object made = empty(dtype, shape);
  auto* array = reinterpret_cast<PyArrayObject*>(made.ptr());
  void* start = PyArray_DATA(array);
  const auto bytes = static_cast<std::size_t>(PyArray_NBYTES(array));
  launch(static_cast<Index>(bytes / 4), [=] { std::memset(start, 0, bytes); });
  return made;
}

py::object contiguous(py::handle object, DType dtype, const char* what) {
  const View v = view(object, what);
  if (v.dtype == dtype && v.contiguous() && v.aligned()) return py::reinterpret_borrow<py::object>(object);
  py::object made = empty(dtype, v.shape_vector());
  if (writing()) {
    write_copy(v, made, dtype);
  } else if (PyArray_CopyInto(reinterpret_cast<PyArrayObject*>(made.ptr()), reinterpret_cast<PyArrayObject*>(object.ptr())) < 0) {
    throw py::error_already_set();
  }
  return made;
}

py::object contiguous(py::handle object, const char* what) { return contiguous(object, view(object, what).dtype, what); }

void require_writable(const View& v, const char* what) {
  if (!PyArray_ISWRITEABLE(reinterpret_cast<PyArrayObject*>(v.array.ptr()))) {
    throw std::invalid_argument(std::string(what) + " is read-only");
  }
}

std::string to_string(const Shape& shape) {
  std::string text = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    text += std::to_string(shape[i]) + (i + 1 < shape.size() ? ", " : shape.size() == 1 ? "," : "");
  }
  return text + ")";
}

}  // namespace tg
