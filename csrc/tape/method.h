// What the callables of this module have in common that stand before a function of Python.
#pragma once

#include "view.h"

namespace tape {

struct MethodObject;
// The result; null without an error where the function of Python must look.
using Fast = PyObject* (*)(MethodObject* self, PyObject* const* args, Py_ssize_t n);

struct MethodObject {
  PyObject_HEAD
  vectorcallfunc call;
  PyObject* otherwise;
  PyObject* op;      // a record, or None
  PyObject* names;   // of renamed arguments
  Fast fast;
  Py_ssize_t dim;    // the position of an argument `dim` that is often given by name; 0: none
  bool reflected;
};

inline MethodObject* as_method(PyObject* p) { return reinterpret_cast<MethodObject*>(p); }

PyObject* new_method(PyTypeObject* type, vectorcallfunc call, PyObject* otherwise, PyObject* op, PyObject* names);
PyTypeObject make_method_type(const char* name, newfunc make, Py_ssize_t size = sizeof(MethodObject));

Ref integers_of(const npy_intp* values, int count);
bool one_integer(PyObject* given, npy_intp& out);
bool one_dim(PyObject* given, int ndim, int& out);
// Whether the error that is set is one that Python's function may say better.
bool expected_error();
// One more write to the tensor's storage. False with an error set.
bool bump_version(PyObject* x);

}  // namespace tape
