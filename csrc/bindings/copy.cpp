// cast, contiguous, cat, pad, tril, triu and filled arrays: fresh C-contiguous arrays from arrays of any layout.
#include "../kernels/copy.h"

#include <pybind11/stl.h>

#include <cmath>

#include "../core/fastcall.h"
#include "lines.h"

namespace tg {
namespace {

PyObject* one() {
  static PyObject* made = PyLong_FromLong(1);
  return made;
}

DType dtype_named(py::handle dtype) {
  if (PyArray_DescrCheck(dtype.ptr())) return dtype_of(reinterpret_cast<PyArray_Descr*>(dtype.ptr()));
  std::string name;
  if (py::isinstance<py::str>(dtype)) name = py::cast<std::string>(dtype);
  else throw py::type_error(std::string("cast: dtype must be a numpy.dtype or its name, got ") + Py_TYPE(dtype.ptr())->tp_name);
  for (int k = 0; k <= int(DType::Complex128); ++k)
    if (name == name_of(DType(k))) return DType(k);
  throw py::type_error("cast: dtype " + name + " is not supported");
}

void c_strides(DType type, const Shape& shape, Index* strides) {
  Index step = size_of(type);
  for (size_t k = shape.size(); k-- > 0;) {
    strides[k] = step;
    step *= shape[k];
  }
}

// Copies x into memory of these strides.
void copy_into(const View& x, char* to, const Index* to_strides) {
  Index shape[kMaxDims], from[kMaxDims];
  for (int k = 0; k < x.ndim; ++k) {
    shape[k] = x.shape[k];
    from[k] = x.strides[k];
  }
  copy_strided(size_of(x.dtype), x.ndim, shape, x.data, from, to, to_strides);
}

py::object fresh(const View& x) {
  const Shape shape = x.shape_vector();
  py::object out = empty(x.dtype, shape);
  Index strides[kMaxDims];
  c_strides(x.dtype, shape, strides);
  char* to = data_of<char>(out);
  MaybeRelease unlock(x.size());
  copy_into(x, to, strides);
  return out;
}

py::object cast_(py::handle array, py::handle dtype) {
  const View x = view(array, "cast");
  const DType type = dtype_named(dtype);
  return type == x.dtype ? fresh(x) : ready(x, type);
}

// cat(*arrays, dim): one after another along the dimension. stack(*arrays, dim): all of one shape, along a new one.
py::object joined(const char* op, PyObject* const* arrays, size_t count, Index dim, bool along_new) {
  if (!count) throw py::value_error(std::string(op) + ": needs at least one array");
  std::vector<View> views;
  views.reserve(count);
  views.push_back(view(arrays[0], op));
  const View first = views[0];
  Shape shape = first.shape_vector();
  if (along_new) {
    if (dim < 0 || dim > first.ndim || first.ndim == kMaxDims)
      throw py::value_error(std::string(op) + ": there can be no new dim " + std::to_string(dim));
    shape.insert(shape.begin() + dim, Index(count));
  }
  const int axis = along_new ? int(dim) : checked_axis(op, dim, first);
  for (size_t i = 1; i < count; ++i) {
    const View v = view(arrays[i], op);
    if (v.dtype != first.dtype) require_dtype(op, ("array " + std::to_string(i)).c_str(), v, first.dtype);
    bool fits = v.ndim == first.ndim;
    for (int k = 0; fits && k < v.ndim; ++k) fits = (!along_new && k == axis) || v.shape[k] == first.shape[k];
    if (!fits)
      throw py::value_error(std::string(op) + ": array " + std::to_string(i) + " has shape " + to_string(v.shape_vector()) +
                            ", array 0 has " + to_string(first.shape_vector()) +
                            (along_new ? "; they must be equal"
                                       : "; they may differ along dim " + std::to_string(axis) + " only"));
    if (!along_new && __builtin_add_overflow(shape[size_t(axis)], v.shape[axis], &shape[size_t(axis)])) throw std::bad_alloc();
    views.push_back(v);
  }
  py::object out = empty(first.dtype, shape);
  Index strides[kMaxDims], within[kMaxDims];  // of the result, and of one array's place in it
  c_strides(first.dtype, shape, strides);
  std::copy_n(strides, first.ndim, within);
  if (along_new) std::copy(strides + axis + 1, strides + first.ndim + 1, within + axis);
  char* to = data_of<char>(out);
  MaybeRelease unlock(view(out).size());
  for (const View& v : views) {
    copy_into(v, to, within);
    to += (along_new ? 1 : v.shape[axis]) * strides[axis];
  }
  return out;
}

template <bool along_new>
PyObject* call_joined(PyObject*, PyObject* const* args, Py_ssize_t count, PyObject* keywords) {
  const char* op = along_new ? "stack" : "cat";
  return guarded([&] {
    if (!keywords || PyTuple_GET_SIZE(keywords) != 1 || PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(keywords, 0), "dim"))
      throw py::type_error(std::string(op) + ": expected arrays and dim=");
    return joined(op, args, size_t(count), py::cast<Index>(py::handle(args[count])), along_new).release().ptr();
  });
}

PyMethodDef fast_cat = {"cat", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(call_joined<false>)),
                        METH_FASTCALL | METH_KEYWORDS, nullptr};
PyMethodDef fast_stack = {"stack", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(call_joined<true>)),
                          METH_FASTCALL | METH_KEYWORDS, nullptr};

// One element of a dtype.
struct Filler {
  Filler(DType type, py::handle dtype, py::handle value) {
    PyObject* given = value.ptr();
    if (type == DType::Float32 && PyFloat_Check(given)) {
      set(float(PyFloat_AS_DOUBLE(given)));
    } else if (PyFloat_CheckExact(given) ? PyFloat_AS_DOUBLE(given) == 0 && !std::signbit(PyFloat_AS_DOUBLE(given))
                                         : PyLong_Check(given) && !PyObject_IsTrue(given)) {
      // zero is zero in every type
    } else if (type == DType::Float32 && given == one()) {
      set(1.0f);  // the seed of a backward pass
    } else {
      // by NumPy's own conversion, which refuses what does not fit
      const py::object made = py::module_::import("numpy").attr("array")(value, dtype);
      const View v = view(made);
      if (v.ndim != 0) throw py::value_error("the value must be one number");
      std::memcpy(bytes, v.data, size_t(size_of(type)));
    }
  }
  void set(float number) { std::memcpy(bytes, &number, sizeof(number)); }
  alignas(16) char bytes[16] = {};
};

py::object filled(DType type, const Index* shape, int ndim, const char* item) {
  py::object out = empty(type, shape, ndim);
  Index n = 1;
  for (int k = 0; k < ndim; ++k) n *= shape[k];
  char* to = data_of<char>(out);
  MaybeRelease unlock(n);
  if (n) fill_items(size_of(type), n, item, to);
  return out;
}

int read_shape(const char* op, py::handle given, Index* shape) {
  const py::tuple sizes = py::reinterpret_steal<py::tuple>(PySequence_Tuple(given.ptr()));
  if (!sizes) throw py::error_already_set();
  if (sizes.size() > size_t(kMaxDims)) throw py::value_error(std::string(op) + ": arrays have at most 64 dimensions");
  for (size_t k = 0; k < sizes.size(); ++k) {
    shape[k] = PyLong_AsSsize_t(PyTuple_GET_ITEM(sizes.ptr(), Py_ssize_t(k)));
    if (shape[k] == -1 && PyErr_Occurred()) throw py::error_already_set();
  }
  return int(sizes.size());
}

py::object pad_(py::handle array, py::handle pads_, py::handle value) {
  const View x = view(array, "pad");
  const auto pads = py::cast<std::vector<std::pair<Index, Index>>>(pads_);
  if (int(pads.size()) != x.ndim)
    throw py::value_error("pad: " + std::to_string(pads.size()) + " pairs of pads for shape " +
                          to_string(x.shape_vector()) + "; give (before, after) for every axis");
  const Filler filler(x.dtype, x.array.attr("dtype"), value);
  const Index item = size_of(x.dtype);
  Shape shape = x.shape_vector();
  Index inner[kMaxDims], from[kMaxDims], strides[kMaxDims], read = 0;
  for (int k = 0; k < x.ndim; ++k) {
    const auto [before, after] = pads[size_t(k)];
    Index total;
    if (__builtin_add_overflow(shape[size_t(k)], before, &total) || __builtin_add_overflow(total, after, &total))
      throw std::bad_alloc();
    const Index cut = (before < 0 ? -before : 0) + (after < 0 ? -after : 0);
    if (total < 0 || cut > shape[size_t(k)])
      throw py::value_error("pad: (" + std::to_string(before) + ", " + std::to_string(after) + ") takes more than the " +
                            std::to_string(shape[size_t(k)]) + " elements of axis " + std::to_string(k));
    inner[k] = shape[size_t(k)] - cut;
    read += before < 0 ? -before * x.strides[k] : 0;
    from[k] = x.strides[k];
    shape[size_t(k)] = total;
  }
  py::object out = empty(x.dtype, shape);
  c_strides(x.dtype, shape, strides);
  const Index none[kMaxDims] = {};
  char* to = data_of<char>(out);
  MaybeRelease unlock(view(out).size());
  // the slabs around what is copied: those of axis k have the inner sizes along the axes before it
  Index slab[kMaxDims];
  for (int k = 0; k < x.ndim; ++k) slab[k] = shape[size_t(k)];
  for (int k = 0; k < x.ndim; ++k) {
    const Index before = std::max<Index>(0, pads[size_t(k)].first), after = std::max<Index>(0, pads[size_t(k)].second);
    if (before) {
      slab[k] = before;
      copy_strided(item, x.ndim, slab, filler.bytes, none, to, strides);
    }
    if (after) {
      slab[k] = after;
      copy_strided(item, x.ndim, slab, filler.bytes, none, to + (before + inner[k]) * strides[k], strides);
    }
    slab[k] = inner[k];
    to += before * strides[k];
  }
  copy_strided(item, x.ndim, inner, x.data + read, from, to, strides);
  return out;
}

py::object triangle(const char* op, bool upper, py::handle array, py::handle diagonal_) {
  const View x = view(array, op);
  if (x.ndim < 2) throw py::value_error(std::string(op) + ": needs matrices, got shape " + to_string(x.shape_vector()));
  const Index rows = x.shape[x.ndim - 2], columns = x.shape[x.ndim - 1], n = x.size();
  // beyond the corners nothing changes
  const Index diagonal = std::min(columns, std::max(-rows - 1, py::cast<Index>(diagonal_)));
  const py::object source = ready(x);
  py::object out = empty(x.dtype, x.shape_vector());
  const char* from = data_of<char>(source);
  char* to = data_of<char>(out);
  MaybeRelease unlock(n);
  if (n) copy_triangle(size_of(x.dtype), n / (rows * columns), rows, columns, diagonal, upper, from, to);
  return out;
}

}  // namespace

FAST_BINDING(full_as, 2, "x", "value") {
  const View x = view(a[0], "full_as");
  const Filler filler(x.dtype, py::handle(reinterpret_cast<PyObject*>(PyArray_DESCR(reinterpret_cast<PyArrayObject*>(a[0].ptr())))), a[1]);
  Index shape[kMaxDims];
  std::copy_n(x.shape, x.ndim, shape);
  return filled(x.dtype, shape, x.ndim, filler.bytes);
}
FAST_BINDING(full, 3, "shape", "value", "dtype") {
  Index shape[kMaxDims];
  const int ndim = read_shape("full", a[0], shape);
  const DType type = dtype_named(a[2]);
  const Filler filler(type, a[2], a[1]);
  return filled(type, shape, ndim, filler.bytes);
}
FAST_BINDING(zeros_as, 2, "x", "shape") {
  Index shape[kMaxDims];
  const int ndim = read_shape("zeros_as", a[1], shape);
  constexpr char none[16] = {};
  return filled(view(a[0], "zeros_as").dtype, shape, ndim, none);
}
FAST_BINDING(cast, 2, "x", "dtype") { return cast_(a[0], a[1]); }
FAST_BINDING(contiguous, 1, "x") { return fresh(view(a[0], "contiguous")); }
FAST_BINDING(pad, 3, "x", "pads", "value") { return pad_(a[0], a[1], a[2]); }
FAST_BINDING(tril, 2, "x", "diagonal") { return triangle("tril", false, a[0], a[1]); }
FAST_BINDING(triu, 2, "x", "diagonal") { return triangle("triu", true, a[0], a[1]); }

TG_BINDINGS(copy) {
  for (PyMethodDef* each : {&fast_full_as, &fast_full, &fast_zeros_as, &fast_cast, &fast_contiguous, &fast_cat,
                            &fast_stack, &fast_pad, &fast_tril, &fast_triu})
    add_fast(m, *each);
}

}  // namespace tg
