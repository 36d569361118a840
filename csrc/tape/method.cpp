// Functions and methods of tensors whose usual call needs no frame of Python: operators, views, renamed arguments.
//
// Each stands before a function of Python, which is its meaning and its documentation: what is rare, and what is wrong, is
// handed on to it as it came.
#include <cstddef>
#include <cstring>
#include <initializer_list>

#include "source.h"

namespace tape {

namespace {

// --- operators: Tensor's __add__ and its kind, which a record serves

PyObject* call_operator(PyObject* self, PyObject* const* args, std::size_t flags, PyObject* keywords) {
  auto* it = as_method(self);
  if (PyVectorcall_NARGS(flags) == 2 && !keywords && is_tensor(args[0]) && (is_tensor(args[1]) || is_number(args[1]))) {
    PyObject* swapped[] = {args[1], args[0]};
    return call_op(it->op, it->reflected ? swapped : args, 2, nullptr);
  }
  return PyObject_Vectorcall(it->otherwise, args, flags, keywords);
}

// --- functions that take NumPy's names of arguments too

PyObject* call_renamed(PyObject* self, PyObject* const* args, std::size_t flags, PyObject* keywords) {
  auto* it = as_method(self);
  const Py_ssize_t count = keywords ? PyTuple_GET_SIZE(keywords) : 0;
  Ref names;
  for (Py_ssize_t k = 0; k < count; ++k) {
    PyObject* meant = PyDict_GetItemWithError(it->names, PyTuple_GET_ITEM(keywords, k));
    if (!meant) {
      if (PyErr_Occurred()) return nullptr;
      continue;
    }
    if (PySequence_Contains(keywords, meant)) break;  // given under both names: Python says so
    if (!names) names = tuple_of(&PyTuple_GET_ITEM(keywords, 0), count);
    if (!names) return nullptr;
    PyObject* old = PyTuple_GET_ITEM(names.get(), k);
    Py_INCREF(meant);
    PyTuple_SET_ITEM(names.get(), k, meant);
    Py_DECREF(old);
  }
  return PyObject_Vectorcall(it->otherwise, args, flags, names ? names.get() : keywords);
}

// --- views

PyObject* call_view(PyObject* self, PyObject* const* args, std::size_t flags, PyObject* keywords) {
  auto* it = as_method(self);
  const Py_ssize_t n = PyVectorcall_NARGS(flags);
  const bool by_name = keywords && PyTuple_GET_SIZE(keywords) == 1 && n == it->dim &&
                       PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(keywords, 0), "dim") == 0;
  if (!keywords || by_name) {
    PyObject* result = it->fast(it, args, n + by_name);
    if (result || (PyErr_Occurred() && !expected_error())) return result;
    PyErr_Clear();  // an index that is wrong, said in the function's words
  }
  return PyObject_Vectorcall(it->otherwise, args, flags, keywords);
}

}  // namespace

bool open(MethodObject* self, PyObject* const* args, Py_ssize_t n, Source& source) {
  PyArrayObject* array = n < 1 ? nullptr : array_of(args[0]);
  if (!array || is_behind(as_tensor(args[0]))) return false;
  PyObject* door = door_of(&PyArray_Type);
  Ref kernel = door ? kernel_of(as_op(self->op), door) : Ref();
  if (!kernel || !is_view_kernel(kernel.get())) {
    PyErr_Clear();
    return false;
  }
  source.held = Ref::borrowed(reinterpret_cast<PyObject*>(array));
  source.array = array;
  source.track = as_tensor(args[0])->f[TensorObject::kTracked] == Py_True && switches.recording;
  return true;
}

PyObject* give(MethodObject* self, PyObject* const* args, const Source& source, const Form& form, PyObject* name, Ref value) {
  Ref array(value ? made_view(source.array, form) : nullptr);
  Ref attrs(array ? PyDict_New() : nullptr);
  if (!attrs || PyDict_SetItem(attrs.get(), name, value.get()) < 0) return nullptr;
  PyObject* held = source.held.get();
  return view_result(as_op(self->op), args, &held, array.get(), attrs.get(), source.track);
}

Ref integers_of(const npy_intp* values, int count) {
  Ref made(PyTuple_New(count));
  for (int i = 0; made && i < count; ++i) {
    PyObject* value = PyLong_FromSsize_t(values[i]);
    if (!value) return Ref();
    PyTuple_SET_ITEM(made.get(), i, value);
  }
  return made;
}

bool bump_version(PyObject* x) {
  PyObject* cell = version_of(as_tensor(x));
  PyObject* next = cell ? PyLong_FromLongLong(PyLong_AsLongLong(PyList_GET_ITEM(cell, 0)) + 1) : nullptr;
  return next && PyList_SetItem(cell, 0, next) == 0;
}

bool one_integer(PyObject* given, npy_intp& out) {
  if (!PyLong_CheckExact(given)) return false;
  out = PyLong_AsSsize_t(given);
  if (out != -1 || !PyErr_Occurred()) return true;
  PyErr_Clear();
  return false;
}

bool expected_error() {
  return PyErr_ExceptionMatches(PyExc_Exception) && !PyErr_ExceptionMatches(PyExc_MemoryError);
}

bool one_dim(PyObject* given, int ndim, int& out) {
  npy_intp dim;
  if (!one_integer(given, dim) || dim < -ndim || dim >= ndim) return false;
  out = static_cast<int>(dim < 0 ? dim + ndim : dim);
  return true;
}

// --- the type

PyObject* new_method(PyTypeObject* type, vectorcallfunc call, PyObject* otherwise, PyObject* op, PyObject* names) {
  PyObject* self = type->tp_alloc(type, 0);
  if (!self) return nullptr;
  auto* it = as_method(self);
  it->call = call;
  it->otherwise = (Py_INCREF(otherwise), otherwise);
  Py_XINCREF(op);
  Py_XINCREF(names);
  it->op = op;
  it->names = names;
  return self;
}

namespace {

PyObject* new_operator(PyTypeObject* type, PyObject* args, PyObject*) {
  PyObject *op, *otherwise;
  int reflected;
  if (!PyArg_ParseTuple(args, "O!Op:Operator", &OpType, &op, &otherwise, &reflected)) return nullptr;
  PyObject* self = new_method(type, call_operator, otherwise, op, nullptr);
  if (self) as_method(self)->reflected = reflected != 0;
  return self;
}

PyObject* new_renamed(PyTypeObject* type, PyObject* args, PyObject*) {
  PyObject *otherwise, *names;
  if (!PyArg_ParseTuple(args, "OO!:Renamed", &otherwise, &PyDict_Type, &names)) return nullptr;
  return new_method(type, call_renamed, otherwise, nullptr, names);
}

PyObject* new_view(PyTypeObject* type, PyObject* args, PyObject*) {
  const char* name;
  PyObject *op, *otherwise;
  if (!PyArg_ParseTuple(args, "sO!O:View", &name, &OpType, &op, &otherwise)) return nullptr;
  for (const Named* kind : {shape_methods, part_methods, key_methods})
    for (; kind->name; ++kind) {
      if (std::strcmp(kind->name, name)) continue;
      PyObject* self = new_method(type, call_view, otherwise, op, nullptr);
      if (!self) return nullptr;
      as_method(self)->fast = kind->fast;
      as_method(self)->dim = kind->dim;
      return self;
    }
  return PyErr_Format(PyExc_ValueError, "View: there is no view %s", name);
}

PyObject* bind_method(PyObject* self, PyObject* object, PyObject*) {
  if (object && object != Py_None) return PyMethod_New(self, object);
  Py_INCREF(self);
  return self;
}

void free_method(PyObject* self) {
  auto* it = as_method(self);
  Py_XDECREF(it->otherwise);
  Py_XDECREF(it->op);
  Py_XDECREF(it->names);
  Py_TYPE(self)->tp_free(self);
}

// What else is asked of it, its name and documentation, is the function's.
PyObject* method_attribute(PyObject* self, PyObject* name) {
  PyObject* own = PyObject_GenericGetAttr(self, name);
  if (own || !PyErr_ExceptionMatches(PyExc_AttributeError)) return own;
  PyErr_Clear();
  return PyObject_GetAttr(as_method(self)->otherwise, name);
}

PyObject* method_repr(PyObject* self) { return PyObject_Repr(as_method(self)->otherwise); }

// Found again, when it is pickled or copied, as what stands before the function, by its name in the function's module or as
// the method of that name.
PyObject* method_reduce(PyObject* self, PyObject*) {
  auto* it = as_method(self);
  if (it->names) return Py_BuildValue("(O(O))", known.accept, it->otherwise);
  Ref name(PyObject_GetAttrString(it->otherwise, "__name__")), home(PyObject_GetAttrString(it->otherwise, "__module__"));
  Ref module(name && home ? PyImport_Import(home.get()) : nullptr);
  if (!module) return nullptr;
  Ref found(PyObject_GetAttr(module.get(), name.get()));
  if (found.get() == self) return name.release();
  PyErr_Clear();
  return Py_BuildValue("(O(OO))", PyDict_GetItemString(PyEval_GetBuiltins(), "getattr"), known.tensor, name.get());
}

PyMethodDef method_methods[] = {{"__reduce__", method_reduce, METH_NOARGS, "How it is found again."}, {}};

PyMemberDef method_members[] = {{"__wrapped__", T_OBJECT_EX, offsetof(MethodObject, otherwise), READONLY, nullptr}, {}};

PyObject* method_doc(PyObject* self, void*) { return PyObject_GetAttrString(as_method(self)->otherwise, "__doc__"); }

PyGetSetDef method_getset[] = {{"__doc__", method_doc, nullptr, nullptr, nullptr}, {}};

}  // namespace

PyTypeObject make_method_type(const char* name, newfunc make, Py_ssize_t size) {
  PyTypeObject type = {PyVarObject_HEAD_INIT(nullptr, 0)};
  type.tp_name = name;
  type.tp_basicsize = size;
  type.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR;
  type.tp_vectorcall_offset = offsetof(MethodObject, call);
  type.tp_call = PyVectorcall_Call;
  type.tp_new = make;
  type.tp_dealloc = free_method;
  type.tp_descr_get = bind_method;
  type.tp_getattro = method_attribute;
  type.tp_repr = method_repr;
  type.tp_methods = method_methods;
  type.tp_members = method_members;
  type.tp_getset = method_getset;
  return type;
}

PyTypeObject OperatorType = make_method_type("tensorgrad._tape.Operator", new_operator);
PyTypeObject RenamedType = make_method_type("tensorgrad._tape.Renamed", new_renamed);
PyTypeObject ViewType = make_method_type("tensorgrad._tape.View", new_view);

}  // namespace tape
