// holds(data, facts, sizes): whether all that a program rests on is as it was, asked before each replay. The lists are those
// of compiler/reach.py, whose `changed` is the meaning, and gives the words.
#include "tape.h"

namespace tape {
namespace {

// Numbers, text and tuples may be other objects of the same value.
int same(PyObject* now, PyObject* then) {
  if (now == then) return 1;
  if (!now || Py_TYPE(now) != Py_TYPE(then)) return 0;
  if (PyFloat_CheckExact(now)) {
    const double a = PyFloat_AS_DOUBLE(now), b = PyFloat_AS_DOUBLE(then);
    return a == b || (a != a && b != b);
  }
  if (PyLong_Check(now) || PyUnicode_CheckExact(now) || PyBytes_CheckExact(now) || PyComplex_CheckExact(now))
    return PyObject_RichCompareBool(now, then, Py_EQ);
  return PyMethod_Check(now) ? PyObject_RichCompareBool(now, then, Py_EQ) : 0;
}

// What stands in a holder under a key, borrowed; null with or without an error.
PyObject* look(PyObject* holder, PyObject* key) {
  if (PyDict_Check(holder)) return PyDict_GetItemWithError(holder, key);
  if (PyCell_Check(holder)) return PyCell_GET(holder);
  if (!PyLong_Check(key)) return nullptr;
  const Py_ssize_t at = PyLong_AsSsize_t(key);
  if (PyList_Check(holder)) return at < PyList_GET_SIZE(holder) ? PyList_GET_ITEM(holder, at) : nullptr;
  if (PyTuple_Check(holder)) return at < PyTuple_GET_SIZE(holder) ? PyTuple_GET_ITEM(holder, at) : nullptr;
  return nullptr;
}

}  // namespace

PyObject* facts_hold(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 3 || !PyList_Check(args[0]) || !PyList_Check(args[1]) || !PyList_Check(args[2]))
    return PyErr_Format(PyExc_TypeError, "holds: expected three lists");
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(args[0]); ++i) {  // (path, tensor, array, tracked)
    PyObject* each = PyList_GET_ITEM(args[0], i);
    const TensorObject* t = as_tensor(PyTuple_GET_ITEM(each, 1));
    if (t->f[TensorObject::kData] != PyTuple_GET_ITEM(each, 2) || t->f[TensorObject::kTracked] != PyTuple_GET_ITEM(each, 3))
      Py_RETURN_FALSE;
  }
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(args[1]); ++i) {  // (path, holder, key, value)
    PyObject* each = PyList_GET_ITEM(args[1], i);
    PyObject* now = look(PyTuple_GET_ITEM(each, 1), PyTuple_GET_ITEM(each, 2));
    const int equal = same(now, PyTuple_GET_ITEM(each, 3));
    if (equal < 0 || PyErr_Occurred()) return nullptr;
    if (!equal) Py_RETURN_FALSE;
  }
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(args[2]); ++i) {  // (path, holder, size)
    PyObject* each = PyList_GET_ITEM(args[2], i);
    PyObject* holder = PyTuple_GET_ITEM(each, 1);
    const Py_ssize_t size = PyDict_Check(holder) ? PyDict_GET_SIZE(holder) : PyObject_Size(holder);
    if (size < 0) return nullptr;
    if (size != PyLong_AsSsize_t(PyTuple_GET_ITEM(each, 2))) Py_RETURN_FALSE;
  }
  Py_RETURN_TRUE;
}

}  // namespace tape
