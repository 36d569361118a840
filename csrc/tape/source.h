// What the methods share whose results are views: the tensor they look at, and the keys of its parts.
#pragma once

#include "method.h"

namespace tape {

struct Source {
  PyArrayObject* array = nullptr;
  Ref held;  // the array: another thread may give the tensor another
  bool track = false;
};

// Whether the first argument is a tensor whose views may be made here: of a NumPy array, behind a door that nobody listens at
// and whose kernel is this module's.
bool open(MethodObject* self, PyObject* const* args, Py_ssize_t n, Source& source);
// The view as a tensor; `name` and `value` are the op's attribute.
PyObject* give(MethodObject* self, PyObject* const* args, const Source& source, const Form& form, PyObject* name, Ref value);
PyObject* give_part(MethodObject* self, PyObject* const* args, const Source& source, Ref key);

PyObject* whole();  // slice(None)
Ref slice_from(Py_ssize_t start, Py_ssize_t stop, Py_ssize_t step);
// All of the first `dim` dimensions, then `part`.
Ref key_at(int dim, Ref part);
// One part of a key in the words of the op, for a dimension of this size; null without an error where Python must look.
Ref part_of(PyObject* given, npy_intp size, bool within);

// The methods of each file, by the names of Python's functions; `dim`: the position of an argument of that name.
struct Named {
  const char* name;
  Fast fast;
  Py_ssize_t dim;
};
extern const Named shape_methods[], part_methods[], key_methods[];  // the last has no name

}  // namespace tape
