// FloatsFirst(native, inherited, whole=False): calls the one where the first argument is an array of a floating type (with
// `whole`: or of integers or truth values), the other elsewhere. Kernels written for floats leave every other dtype to
// those they override, as they do by NotImplemented; in Python the question would cost as much as a small kernel. The tape asks for `native` and puts
// the question itself.
#include "../core/bind.h"

#include <structmember.h>

namespace tg {
namespace {

struct FloatsFirst {
  PyObject_HEAD
  vectorcallfunc call;
  PyObject* native;
  PyObject* inherited;
  int whole;
};

bool takes(const FloatsFirst* self, PyObject* first) {
  if (!PyArray_Check(first)) return false;
  const int type = PyArray_TYPE(reinterpret_cast<PyArrayObject*>(first));
  // beyond NumPy's own types there is bfloat16
  return PyTypeNum_ISFLOAT(type) || PyTypeNum_ISUSERDEF(type) ||
         (self->whole && (PyTypeNum_ISINTEGER(type) || PyTypeNum_ISBOOL(type)));
}

PyObject* call_floats_first(PyObject* object, PyObject* const* args, std::size_t flags, PyObject* names) {
  const auto* self = reinterpret_cast<FloatsFirst*>(object);
  if (PyVectorcall_NARGS(flags) && takes(self, args[0])) {
    PyObject* result = PyObject_Vectorcall(self->native, args, flags, names);
    if (result != Py_NotImplemented) return result;
    Py_DECREF(result);
  }
  return PyObject_Vectorcall(self->inherited, args, flags, names);
}

// The kernel that a call with this first argument asks first.
PyObject* chosen(PyObject* object, PyObject* first) {
  const auto* self = reinterpret_cast<FloatsFirst*>(object);
  PyObject* found = takes(self, first) ? self->native : self->inherited;
  Py_INCREF(found);
  return found;
}

PyMethodDef floats_first_methods[] = {
    {"chosen", chosen, METH_O, "The kernel that a call with this first argument asks first."},
    {nullptr, nullptr, 0, nullptr},
};

PyObject* make_floats_first(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
  static const char* names[] = {"native", "inherited", "whole", nullptr};
  PyObject *native, *inherited;
  int whole = 0;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|p:FloatsFirst", const_cast<char**>(names), &native, &inherited, &whole))
    return nullptr;
  if (!PyCallable_Check(native) || !PyCallable_Check(inherited)) {
    PyErr_SetString(PyExc_TypeError, "FloatsFirst: native and inherited must be callable");
    return nullptr;
  }
  auto* self = reinterpret_cast<FloatsFirst*>(type->tp_alloc(type, 0));
  if (!self) return nullptr;
  self->call = call_floats_first;
  Py_INCREF(native);
  self->native = native;
  Py_INCREF(inherited);
  self->inherited = inherited;
  self->whole = whole;
  return reinterpret_cast<PyObject*>(self);
}

int traverse_floats_first(PyObject* object, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(object));
  Py_VISIT(reinterpret_cast<FloatsFirst*>(object)->native);
  Py_VISIT(reinterpret_cast<FloatsFirst*>(object)->inherited);
  return 0;
}

int clear_floats_first(PyObject* object) {
  Py_CLEAR(reinterpret_cast<FloatsFirst*>(object)->native);
  Py_CLEAR(reinterpret_cast<FloatsFirst*>(object)->inherited);
  return 0;
}

void free_floats_first(PyObject* object) {
  PyTypeObject* type = Py_TYPE(object);
  PyObject_GC_UnTrack(object);
  clear_floats_first(object);
  type->tp_free(object);
  Py_DECREF(type);
}

PyMemberDef floats_first_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(FloatsFirst, call), READONLY, nullptr},
    {"native", T_OBJECT_EX, offsetof(FloatsFirst, native), READONLY, nullptr},
    {"inherited", T_OBJECT_EX, offsetof(FloatsFirst, inherited), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr},
};

PyType_Slot floats_first_slots[] = {
    {Py_tp_new, reinterpret_cast<void*>(make_floats_first)},
    {Py_tp_dealloc, reinterpret_cast<void*>(free_floats_first)},
    {Py_tp_traverse, reinterpret_cast<void*>(traverse_floats_first)},
    {Py_tp_clear, reinterpret_cast<void*>(clear_floats_first)},
    {Py_tp_call, reinterpret_cast<void*>(PyVectorcall_Call)},
    {Py_tp_members, floats_first_members},
    {Py_tp_methods, floats_first_methods},
    {0, nullptr},
};

PyType_Spec floats_first_spec = {
    "tensorgrad._C.FloatsFirst",
    sizeof(FloatsFirst),
    0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL,
    floats_first_slots,
};

}  // namespace

TG_BINDINGS(floats_first) {
  py::object type = py::reinterpret_steal<py::object>(PyType_FromSpec(&floats_first_spec));
  if (!type) throw py::error_already_set();
  m.attr("FloatsFirst") = type;
}

}  // namespace tg
