// CompiledCore: the call of a compiled function. Of its entries (compiler/entry.py) the first, which has served last, is replayed
// without a frame of Python; whatever it does not serve goes to `_served`, which asks them all.
#include "tape.h"

#include <cstddef>

namespace tape {
namespace {

struct CompiledObject {
  PyObject_HEAD
  PyObject* entries;  // a list; null until it is set
  Py_ssize_t replays;
};

CompiledObject* as_compiled(PyObject* p) { return reinterpret_cast<CompiledObject*>(p); }

int traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(as_compiled(self)->entries);
  return 0;
}

int clear(PyObject* self) {
  Py_CLEAR(as_compiled(self)->entries);
  return 0;
}

void dealloc(PyObject* self) {
  PyObject_GC_UnTrack(self);
  clear(self);
  Py_TYPE(self)->tp_free(self);
}

PyObject* call(PyObject* self, PyObject* args, PyObject* keywords) {
  static PyObject *fast = PyUnicode_InternFromString("fast"), *direct = PyUnicode_InternFromString("direct"),
                  *finished = PyUnicode_InternFromString("finished"), *served = PyUnicode_InternFromString("_served"),
                  *nothing = PyDict_New();  // never written to
  PyObject* entries = as_compiled(self)->entries;
  if (entries && PyList_Check(entries) && PyList_GET_SIZE(entries)) {
    const Ref entry = Ref::borrowed(PyList_GET_ITEM(entries, 0));
    const Ref packed(PyObject_GetAttr(entry.get(), fast));
    if (!packed) return nullptr;
    if (packed.get() != Py_None) {
      PyObject* const all[] = {packed.get(), args, keywords ? keywords : nothing};
      Ref found(replay(nullptr, all, 3));
      if (!found) return nullptr;
      if (found.get() != Py_NotImplemented && found.get() != Py_None) {
        ++as_compiled(self)->replays;
        const Ref is_result(PyObject_GetAttr(entry.get(), direct));
        if (!is_result) return nullptr;
        return is_result.get() == Py_True ? found.release() : PyObject_CallMethodOneArg(entry.get(), finished, found.get());
      }
    }
  }
  const Ref other(PyObject_GetAttr(self, served));
  return other ? PyObject_Call(other.get(), args, keywords) : nullptr;
}

PyMemberDef members[] = {{"entries", T_OBJECT_EX, offsetof(CompiledObject, entries), 0, nullptr},
                         {"replays", T_PYSSIZET, offsetof(CompiledObject, replays), 0, nullptr}, {}};

PyTypeObject CompiledType = {PyVarObject_HEAD_INIT(nullptr, 0)};

}  // namespace

bool add_compiled(PyObject* module) {
  PyTypeObject& type = CompiledType;
  type.tp_name = "tensorgrad._tape.CompiledCore";
  type.tp_basicsize = sizeof(CompiledObject);
  type.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC;
  type.tp_new = PyType_GenericNew;
  type.tp_dealloc = dealloc;
  type.tp_traverse = traverse;
  type.tp_clear = clear;
  type.tp_members = members;
  type.tp_call = call;
  if (PyType_Ready(&type) < 0) return false;
  Py_INCREF(&type);
  return PyModule_AddObject(module, "CompiledCore", reinterpret_cast<PyObject*>(&type)) == 0;
}

}  // namespace tape
