// The numbers of an optimizer's step, written where its kernel reads them.
#include "tape.h"

#include <cstddef>
#include <initializer_list>

namespace tape {

// write_numbers(array, ...): the elements of a float64 array become these numbers.
PyObject* write_numbers(PyObject*, PyObject* const* args, Py_ssize_t count) {
  PyArrayObject* array = count && PyArray_CheckExact(args[0]) ? as_array(args[0]) : nullptr;
  if (!array || PyArray_TYPE(array) != NPY_DOUBLE || PyArray_NDIM(array) != 1 || PyArray_DIM(array, 0) != count - 1 ||
      !PyArray_ISCARRAY(array))
    return PyErr_Format(PyExc_TypeError, "write_numbers: expected a contiguous float64 array, and a number for each element");
  for (Py_ssize_t i = 1; i < count; ++i) {
    const double number = PyFloat_AsDouble(args[i]);
    if (number == -1 && PyErr_Occurred()) return nullptr;
    static_cast<double*>(PyArray_DATA(array))[i - 1] = number;
  }
  Py_RETURN_NONE;
}

namespace {

// Numbers(array, settings, names, fresh, name): called, it writes what a dictionary has under the names into a float64 array, and
// behind them whether it is the first time. An optimizer's step does so each time.
struct NumbersObject {
  PyObject_HEAD
  PyObject *array, *settings, *names, *name;
  char fresh;
};

NumbersObject* as_numbers(PyObject* p) { return reinterpret_cast<NumbersObject*>(p); }

PyObject* new_numbers(PyTypeObject* type, PyObject* args, PyObject* keywords) {
  PyObject *array, *settings, *names, *name;
  int fresh;
  if ((keywords && PyDict_GET_SIZE(keywords)) ||
      !PyArg_ParseTuple(args, "O!O!O!pU", &PyArray_Type, &array, &PyDict_Type, &settings, &PyTuple_Type, &names, &fresh, &name))
    return PyErr_Occurred() ? nullptr : PyErr_Format(PyExc_TypeError, "Numbers: expected no keywords");
  PyArrayObject* to = as_array(array);
  if (PyArray_TYPE(to) != NPY_DOUBLE || PyArray_NDIM(to) != 1 || PyArray_DIM(to, 0) != PyTuple_GET_SIZE(names) + 1 ||
      !PyArray_ISCARRAY(to))
    return PyErr_Format(PyExc_TypeError, "Numbers: expected a contiguous float64 array, one longer than the names");
  PyObject* made = type->tp_alloc(type, 0);
  if (!made) return nullptr;
  auto* self = as_numbers(made);
  PyObject** const fields[] = {&self->array, &self->settings, &self->names, &self->name};
  PyObject* const values[] = {array, settings, names, name};
  for (int i = 0; i < 4; ++i) {
    Py_INCREF(values[i]);
    *fields[i] = values[i];
  }
  self->fresh = static_cast<char>(fresh);
  return made;
}

int traverse_numbers(PyObject* p, visitproc visit, void* arg) {
  auto* self = as_numbers(p);
  for (PyObject* field : {self->array, self->settings, self->names, self->name}) Py_VISIT(field);
  return 0;
}

int clear_numbers(PyObject* p) {
  auto* self = as_numbers(p);
  for (PyObject** field : {&self->array, &self->settings, &self->names, &self->name}) Py_CLEAR(*field);
  return 0;
}

void free_numbers(PyObject* p) {
  PyObject_GC_UnTrack(p);
  clear_numbers(p);
  Py_TYPE(p)->tp_free(p);
}

PyObject* call_numbers(PyObject* p, PyObject* args, PyObject* keywords) {
  auto* self = as_numbers(p);
  if (PyTuple_GET_SIZE(args) || (keywords && PyDict_GET_SIZE(keywords)))
    return PyErr_Format(PyExc_TypeError, "%U: expected no arguments", self->name);
  const Py_ssize_t n = PyTuple_GET_SIZE(self->names);
  auto* to = static_cast<double*>(PyArray_DATA(as_array(self->array)));
  for (Py_ssize_t i = 0; i < n; ++i) {
    PyObject* key = PyTuple_GET_ITEM(self->names, i);
    const Ref value = Ref::borrowed(PyDict_GetItemWithError(self->settings, key));
    if (!value) return PyErr_Occurred() ? nullptr : PyErr_Format(PyExc_KeyError, "%U", key);
    const double number = PyFloat_AsDouble(value.get());
    if (number == -1 && PyErr_Occurred()) return nullptr;
    to[i] = number;
  }
  to[n] = self->fresh;
  self->fresh = 0;
  Py_RETURN_NONE;
}

PyMemberDef numbers_members[] = {{"__qualname__", T_OBJECT, offsetof(NumbersObject, name), READONLY, nullptr}, {}};

PyTypeObject NumbersType = {PyVarObject_HEAD_INIT(nullptr, 0)};

}  // namespace

bool add_numbers(PyObject* module) {
  PyTypeObject& type = NumbersType;
  type.tp_name = "tensorgrad._tape.Numbers";
  type.tp_basicsize = sizeof(NumbersObject);
  type.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC;
  type.tp_new = new_numbers;
  type.tp_dealloc = free_numbers;
  type.tp_traverse = traverse_numbers;
  type.tp_clear = clear_numbers;
  type.tp_members = numbers_members;
  type.tp_call = call_numbers;
  if (PyType_Ready(&type) < 0) return false;
  Py_INCREF(&type);
  return PyModule_AddObject(module, "Numbers", reinterpret_cast<PyObject*>(&type)) == 0;
}

}  // namespace tape
