// Loops over an optimizer's parameters, which each would cost a microsecond in Python: their arrays and gradients.
#include "tape.h"

namespace tape {

// Whether an array is of this type and dtype; -1 with an error set.
static int fits(PyObject* array, PyObject* kind, PyObject* dtype) {
  if (!array || reinterpret_cast<PyObject*>(Py_TYPE(array)) != kind) return 0;
  if (PyArray_CheckExact(array) && PyArray_DescrCheck(dtype)) {
    PyArray_Descr* own = PyArray_DESCR(as_array(array));
    return reinterpret_cast<PyObject*>(own) == dtype || PyArray_EquivTypes(own, reinterpret_cast<PyArray_Descr*>(dtype));
  }
  Ref own(PyObject_GetAttrString(array, "dtype"));
  return own ? PyObject_RichCompareBool(own.get(), dtype, Py_EQ) : -1;
}

// collect(params, kind, dtype) -> (arrays, gradients); None unless all are arrays of that type and dtype and have a
// gradient.
PyObject* collect(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 3 || !PyList_Check(args[0])) return PyErr_Format(PyExc_TypeError, "collect: expected (list, type, dtype)");
  const Py_ssize_t n = PyList_GET_SIZE(args[0]);
  Ref arrays(PyList_New(n)), grads(PyList_New(n));
  if (!arrays || !grads) return nullptr;
  for (Py_ssize_t i = 0; i < n; ++i) {
    PyObject* p = PyList_GET_ITEM(args[0], i);
    PyObject* g = is_tensor(p) ? as_tensor(p)->f[TensorObject::kGrad] : nullptr;
    if (!g || !is_tensor(g)) Py_RETURN_NONE;
    PyObject *array = as_tensor(p)->f[TensorObject::kData], *grad = as_tensor(g)->f[TensorObject::kData];
    int fit = fits(array, args[1], args[2]);
    if (fit > 0) fit = fits(grad, args[1], args[2]);
    if (fit < 0) return nullptr;
    if (!fit) Py_RETURN_NONE;
    Py_INCREF(array);
    PyList_SET_ITEM(arrays.get(), i, array);
    Py_INCREF(grad);
    PyList_SET_ITEM(grads.get(), i, grad);
  }
  return PyTuple_Pack(2, arrays.get(), grads.get());
}

// bump(cells): one is added to the number in each list.
PyObject* bump(PyObject*, PyObject* cells) {
  if (!PyList_Check(cells)) return PyErr_Format(PyExc_TypeError, "bump: expected a list");
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(cells); ++i) {
    PyObject* cell = PyList_GET_ITEM(cells, i);
    const long long now = PyList_Check(cell) && PyList_GET_SIZE(cell) ? PyLong_AsLongLong(PyList_GET_ITEM(cell, 0)) : -1;
    if (now == -1 && !PyErr_Occurred()) PyErr_SetString(PyExc_TypeError, "bump: expected lists of a number");
    PyObject* next = PyErr_Occurred() ? nullptr : PyLong_FromLongLong(now + 1);
    if (!next || PyList_SetItem(cell, 0, next) < 0) return nullptr;
  }
  Py_RETURN_NONE;
}

// forget(params): their gradients become None.
PyObject* forget(PyObject*, PyObject* params) {
  if (!PyList_Check(params)) return PyErr_Format(PyExc_TypeError, "forget: expected a list");
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(params); ++i) {
    PyObject* p = PyList_GET_ITEM(params, i);
    if (!is_tensor(p)) return PyErr_Format(PyExc_TypeError, "forget: expected tensors");
    set_borrowed(as_tensor(p)->f[TensorObject::kGrad], Py_None);
  }
  Py_RETURN_NONE;
}

}  // namespace tape
