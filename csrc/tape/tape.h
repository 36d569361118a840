// The tape's inner loops for NumPy arrays: what `Op.call`, `Elementwise.call`, `record` and `_Pass.go` say in Python,
// over objects whose fields lie in C. Python's text stays the meaning: whatever is rare (views of changed bases, hooks,
// anomaly mode, other arrays, errors) is handed to it, and where this module was not built all of it is.
//
// Measured, one small recorded op (x + 1, a chain of them), forward and backward: 4.1 us in Python, 1.1 us here, of
// which 0.4 are the kernel. Fields in C are what makes the loops short: read from objects of Python, each costs as much as
// in bytecode.
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <frameobject.h>
#include <structmember.h>

#include <cstdint>

#define NPY_NO_DEPRECATED_API NPY_1_7_API_VERSION
#define PY_ARRAY_UNIQUE_SYMBOL tensorgrad_tape_numpy_api
#ifndef TG_TAPE_IMPORTS_NUMPY
#define NO_IMPORT_ARRAY
#endif
#include <numpy/arrayobject.h>

namespace tape {

// A reference that is owned.
class Ref {
 public:
  Ref() = default;
  explicit Ref(PyObject* stolen) : p_(stolen) {}
  Ref(Ref&& other) noexcept : p_(other.release()) {}
  Ref& operator=(Ref&& other) noexcept {
    PyObject* old = p_;
    p_ = other.release();
    Py_XDECREF(old);
    return *this;
  }
  ~Ref() { Py_XDECREF(p_); }
  static Ref borrowed(PyObject* p) {
    Py_XINCREF(p);
    return Ref(p);
  }
  PyObject* get() const { return p_; }
  PyObject* release() {
    PyObject* p = p_;
    p_ = nullptr;
    return p;
  }
  explicit operator bool() const { return p_ != nullptr; }

 private:
  PyObject* p_ = nullptr;
};

struct TensorObject {
  enum Field {
    kData, kNode, kSlot, kTracked, kGrad, kVersion, kBase, kChain, kChanges, kGeneration, kFrozen, kHooks, kPostHooks,
    kInference, kKeepsGrad, kFields
  };
  PyObject_HEAD
  PyObject* f[kFields];
  PyObject* dict;
  PyObject* weak;
};

struct NodeObject {
  enum Field {
    kOp, kEdges, kAttrs, kPlan, kSaved, kSavedOutputs, kSlots, kVersions, kLine, kHooks, kPostHooks, kRetained, kPacked,
    kExtra, kFields
  };
  PyObject_HEAD
  PyObject* f[kFields];
  PyObject* weak;
  unsigned long long number;
  Py_ssize_t count;
  char watched;
};

struct PlanObject {
  enum Field { kKernel, kWrt, kUses, kUsesAll, kUsesOutput, kParts, kFields };
  PyObject_HEAD
  PyObject* f[kFields];
};

struct SpecObject {
  enum Field { kShape, kDtype, kFields };
  PyObject_HEAD
  PyObject* f[kFields];
};

struct OpObject {
  enum Field { kName, kPlans, kInfer, kRule, kView, kKeptInputs, kKeepsRest, kKeptOutputs, kNondiff, kDoor, kKernel, kFloats, kAdds, kFields };
  enum Kind : char { kUnknown, kPython, kOp, kFormula };
  PyObject_HEAD
  PyObject* f[kFields];
  vectorcallfunc call;
  Kind kind;
  bool expands;  // without a rule: a recorded call runs the definition
  bool checked;  // the extension's kernel checks what `infer` checks
};

extern PyTypeObject TensorType, NodeType, PlanType, SpecType, OpType, HeapType;

// What Python's side registers once, and each thread's switches.
struct Registered {
  PyObject *tensor, *node, *spec, *everywhere, *raw, *inside, *freed, *fit, *view_of, *op_record, *op_call, *op_differentiate,
      *formula_record, *formula_call, *formula_differentiate, *reshape, *permute, *index, *nonzero, *accept, *dtype, *standard, *place,
      *generator, *pair;
};
extern Registered known;

struct Switches {
  bool recording = true, inference = false, extras = false, casting = false;
  PyObject* doors = nullptr;  // null: those of every thread
  PyObject* lead = nullptr;   // null: None
};
extern thread_local Switches switches;

// Names, interned.
struct Names {
  PyObject *add, *call, *catch_up, *check, *differentiate, *dims, *finish, *key, *land, *needs, *private_views, *record, *record_one,
      *np, *send, *shape, *visit;
};
extern Names names;

inline TensorObject* as_tensor(PyObject* p) { return reinterpret_cast<TensorObject*>(p); }
inline NodeObject* as_node(PyObject* p) { return reinterpret_cast<NodeObject*>(p); }
inline OpObject* as_op(PyObject* p) { return reinterpret_cast<OpObject*>(p); }
inline PyArrayObject* as_array(PyObject* p) { return reinterpret_cast<PyArrayObject*>(p); }
inline bool is_tensor(PyObject* p) { return PyObject_TypeCheck(p, &TensorType); }
// Whether it is a view that isn't tracked of a base that has been since: Python's `_catch_up` gives it its history.
bool view_is_behind(const TensorObject* t);
inline bool is_behind(const TensorObject* t) { return t->f[TensorObject::kBase] != Py_None && view_is_behind(t); }
// Whether it is a view that isn't tracked, of a base that is, and calls are recorded: Python's `check_writable` may refuse
// to change it.
inline bool is_refused(PyObject* x) {
  PyObject* base = as_tensor(x)->f[TensorObject::kBase];
  return base != Py_None && switches.recording && is_tensor(base) && as_tensor(base)->f[TensorObject::kTracked] == Py_True;
}
inline bool is_tracked(PyObject* x) { return as_tensor(x)->f[TensorObject::kTracked] == Py_True || is_behind(as_tensor(x)); }
// The NumPy array of a tensor; null for other arrays, and for what is no tensor.
inline PyArrayObject* array_of(PyObject* x) {
  PyObject* array = x && is_tensor(x) ? as_tensor(x)->f[TensorObject::kData] : nullptr;
  return array && PyArray_CheckExact(array) ? as_array(array) : nullptr;
}
inline bool is_number(PyObject* x) {
  return PyFloat_CheckExact(x) || PyLong_CheckExact(x) || PyBool_Check(x) || PyComplex_CheckExact(x);
}
inline bool is_node(PyObject* p) { return Py_TYPE(p) == reinterpret_cast<PyTypeObject*>(known.node); }

inline void set(PyObject*& field, PyObject* stolen) {
  PyObject* old = field;
  field = stolen;
  Py_XDECREF(old);
}
inline void set_borrowed(PyObject*& field, PyObject* value) {
  Py_INCREF(value);
  set(field, value);
}

inline bool same_shape(PyArrayObject* a, PyArrayObject* b) {
  return PyArray_NDIM(a) == PyArray_NDIM(b) && PyArray_CompareLists(PyArray_SHAPE(a), PyArray_SHAPE(b), PyArray_NDIM(a));
}

PyObject* new_object(PyObject* type);
PyObject* wrapped(PyObject* array, bool inference);
// Whether a tensor is what `wrapped` makes, and nobody but the caller has it.
bool is_untouched(PyObject* tensor);
inline PyObject* doors() { return switches.doors ? switches.doors : known.everywhere; }
// The door for arrays of this type; null without an error where none is known yet.
inline PyObject* door_of(PyTypeObject* type) { return PyDict_GetItemWithError(doors(), reinterpret_cast<PyObject*>(type)); }
// The op's kernel behind a door.
Ref kernel_of(OpObject* op, PyObject* door);
bool prepare(OpObject* op);
PyObject* call_op(PyObject* self, PyObject* const* args, std::size_t flags, PyObject* keywords);

// --- record.cpp

constexpr Py_ssize_t kMost = 12;  // inputs and attributes of a call that is served here
enum Recorded { kDone, kAskPython, kFailed };
Ref tuple_of(PyObject* const* items, Py_ssize_t n);
PyObject* shape_of(PyArrayObject* array);
PyObject* edge_of(PyObject* x);
PyObject* version_of(TensorObject* t);
Recorded record_formula(OpObject* op, PyObject* const* inputs, PyObject* const* arrays, Py_ssize_t n, PyObject* result,
                        PyArrayObject* out);
Recorded record_op(OpObject* op, PyObject* const* inputs, PyObject* const* arrays, Py_ssize_t n, PyObject* attrs,
                   PyObject* const* results, PyObject* const* outs, Py_ssize_t count);
// Which outputs of their nodes the inputs are, where one is not the first. False with an error set.
bool note_slots(NodeObject* node, PyObject* const* inputs, PyObject* const* edges, Py_ssize_t n);
// Appends the tensor's version to the node's list. False with an error set.
bool watch(NodeObject* node, TensorObject* t);
// The innermost line outside of the package, as user_line finds it.
bool note_line(NodeObject* node);
void put_on_tape(PyObject* result, PyObject* node);

// --- replay.cpp

// Of the node of a compiled pair: the gradients of its inputs; NotImplemented where Python must see to it.
PyObject* pair_gradients(NodeObject* node, PyObject* g);

// --- facts.cpp

// Whether all that a program rests on is as it was: 1, 0, or -1 with an error set.
int rests(PyObject* facts, PyObject* forms);

// --- view.cpp

PyObject* view_result(OpObject* op, PyObject* const* args, PyObject* const* arrays, PyObject* array, PyObject* attrs, bool track);
// Whether the kernel is one of those below, which check what `infer` checks.
bool is_view_kernel(PyObject* kernel);
// The gradient of a view's source, where it is a view too; null without an error where the rule must say it.
PyObject* view_gradients(OpObject* op, PyObject* door, NodeObject* node, PyObject* g);
extern PyMethodDef view_kernels[];

PyObject* go(PyObject* module, PyObject* const* args, Py_ssize_t count);
PyObject* call_fits(PyObject* module, PyObject* const* args, Py_ssize_t count);
PyObject* pack_facts(PyObject* module, PyObject* const* args, Py_ssize_t count);
PyObject* facts_hold(PyObject* module, PyObject* const* args, Py_ssize_t count);
PyObject* lend(PyObject* module, PyObject* const* args, Py_ssize_t count);
PyObject* backward(PyObject* module, PyObject* const* args, Py_ssize_t count);
PyObject* run_backward(PyObject* module, PyObject* const* args, Py_ssize_t count);
PyObject* replay(PyObject* module, PyObject* const* args, Py_ssize_t count);
PyObject* references(PyObject* module, PyObject* arrays);
PyObject* unheld(PyObject* module, PyObject* const* args, Py_ssize_t count);
PyObject* grant(PyObject* module, PyObject* const* args, Py_ssize_t count);
PyObject* deliver(PyObject* module, PyObject* const* args, Py_ssize_t count);
PyObject* collect(PyObject* module, PyObject* const* args, Py_ssize_t count);
PyObject* bump(PyObject* module, PyObject* cells);
PyObject* write_numbers(PyObject* module, PyObject* const* args, Py_ssize_t count);
PyObject* forget(PyObject* module, PyObject* params);
bool add_heap(PyObject* module);
bool add_compiled(PyObject* module);
bool add_numbers(PyObject* module);
extern PyTypeObject OperatorType, RenamedType, ViewType, FunctionType, FactoryType;

}  // namespace tape
