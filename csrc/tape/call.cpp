// A call of an op on tensors of NumPy arrays: arrays out of the tensors, the kernel, a tensor around the result, a node.
#include "tape.h"

namespace tape {

namespace {

// Whether the attribute of a class is the one that this file stands for.
bool unchanged(PyObject* op, const char* name, PyObject* expected) {
  Ref found(PyObject_GetAttrString(reinterpret_cast<PyObject*>(Py_TYPE(op)), name));
  if (!found) PyErr_Clear();
  return found.get() == expected;
}

bool take(OpObject* op, int field, const char* name) {
  PyObject* value = PyObject_GetAttrString(reinterpret_cast<PyObject*>(op), name);
  if (!value) return false;
  set(op->f[field], value);
  return true;
}

// Owned while the kernel runs without the interpreter's lock: another thread may give the tensors other arrays.
struct Arguments {
  PyObject* arrays[kMost + 1];
  Py_ssize_t owned = 0;
  bool any = false, tracked = false;

  Arguments() = default;
  Arguments(const Arguments&) = delete;
  Arguments& operator=(const Arguments&) = delete;
  ~Arguments() {
    while (owned) Py_DECREF(arrays[--owned]);
  }

  // False where Python must look.
  bool read(PyObject* const* args, Py_ssize_t n, bool numbers_only) {
    for (Py_ssize_t i = 0; i < n; ++i) {
      PyObject* x = args[i];
      if (is_tensor(x)) {
        auto* t = as_tensor(x);
        x = t->f[TensorObject::kData];
        if (!x || !PyArray_CheckExact(x) || is_behind(t)) return false;
        any = true;
        tracked |= t->f[TensorObject::kTracked] == Py_True;
      } else if (numbers_only && !is_number(x)) {
        return false;
      }
      Py_INCREF(x);
      arrays[i] = x;
      owned = i + 1;
    }
    return any;
  }
};

PyObject* in_python(PyObject* self, PyObject* const* args, Py_ssize_t n, PyObject* keywords) {
  const Py_ssize_t more = keywords ? PyTuple_GET_SIZE(keywords) : 0;
  PyObject* few[kMost + 1];
  PyObject** all = n + more <= kMost ? few : static_cast<PyObject**>(PyMem_Malloc(sizeof(PyObject*) * (n + more + 1)));
  if (!all) return PyErr_NoMemory();
  all[0] = self;
  std::copy(args, args + n + more, all + 1);
  PyObject* result = PyObject_VectorcallMethod(names.call, all, static_cast<std::size_t>(n + 1), keywords);
  if (all != few) PyMem_Free(all);
  return result;
}

PyObject* call_formula(OpObject* op, PyObject* const* args, Py_ssize_t n) {
  auto* self = reinterpret_cast<PyObject*>(op);
  Arguments given;
  PyObject* door = nullptr;
  if (n > kMost || !given.read(args, n, true) || !(door = door_of(&PyArray_Type))) {
    if (PyErr_Occurred()) return nullptr;
    return in_python(self, args, n, nullptr);
  }
  Ref kernel = kernel_of(op, door);
  if (!kernel) return nullptr;
  Ref out(PyObject_Vectorcall(kernel.get(), given.arrays, static_cast<std::size_t>(n), nullptr));
  if (!out) {
    // once more, to say in the words of the op what is wrong
    if (!PyErr_ExceptionMatches(PyExc_ValueError) && !PyErr_ExceptionMatches(PyExc_TypeError) &&
        !PyErr_ExceptionMatches(PyExc_AttributeError) && !PyErr_ExceptionMatches(PyExc_IndexError) &&
        !PyErr_ExceptionMatches(PyExc_OverflowError))
      return nullptr;
    PyErr_Clear();
    return in_python(self, args, n, nullptr);
  }
  if (!PyArray_CheckExact(out.get())) return in_python(self, args, n, nullptr);
  Ref result(wrapped(out.get(), switches.inference));
  if (!result || !given.tracked || !switches.recording) return result.release();
  const char kind = PyArray_DESCR(as_array(out.get()))->kind;
  if (kind != 'f' && kind != 'c' && kind != 'V') return result.release();
  switch (record_formula(op, args, given.arrays, n, result.get(), as_array(out.get()))) {
    case kDone: return result.release();
    case kFailed: return nullptr;
    case kAskPython: break;
  }
  Ref inputs = tuple_of(args, n);
  Ref arrays(PyList_New(n));
  if (!inputs || !arrays) return nullptr;
  for (Py_ssize_t i = 0; i < n; ++i) {
    Py_INCREF(given.arrays[i]);
    PyList_SET_ITEM(arrays.get(), i, given.arrays[i]);
  }
  Ref done(PyObject_CallMethodObjArgs(self, names.record_one, inputs.get(), arrays.get(), result.get(), out.get(), nullptr));
  return done ? result.release() : nullptr;
}

// --- ops that are no formulas

Ref dict_of(PyObject* const* values, PyObject* keywords) {
  Ref made(PyDict_New());
  if (!made) return made;
  for (Py_ssize_t k = 0; k < PyTuple_GET_SIZE(keywords); ++k)
    if (PyDict_SetItem(made.get(), PyTuple_GET_ITEM(keywords, k), values[k]) < 0) return Ref();
  return made;
}

bool is_floating(PyObject* x) {
  if (!PyArray_CheckExact(x)) return false;
  const int type = PyArray_TYPE(as_array(x));
  return PyTypeNum_ISFLOAT(type) || PyTypeNum_ISUSERDEF(type);  // beyond NumPy's own there is bfloat16
}

PyObject* call_record(OpObject* op, PyObject* const* args, Py_ssize_t n, PyObject* keywords) {
  auto* self = reinterpret_cast<PyObject*>(op);
  const Py_ssize_t more = keywords ? PyTuple_GET_SIZE(keywords) : 0;
  Arguments given;
  PyObject* door = nullptr;
  const bool readable = n + more <= kMost && given.read(args, n, false);
  const bool track = readable && given.tracked && switches.recording;
  if (!readable || (track && op->expands) || !(door = door_of(&PyArray_Type))) {
    if (PyErr_Occurred()) return nullptr;
    return in_python(self, args, n, keywords);
  }
  std::copy(args + n, args + n + more, given.arrays + n);
  const auto total = static_cast<std::size_t>(n);
  Ref out, kernel = kernel_of(op, door);
  if (kernel && op->checked && is_floating(given.arrays[0])) {
    // of a pair the one for floats
    PyObject* floats = op->f[OpObject::kKernel] == kernel.get() ? op->f[OpObject::kFloats] : nullptr;
    if (floats && PyCFunction_CheckExact(floats)) kernel = Ref::borrowed(floats);
  }
  const bool checks = kernel && (op->checked ? PyCFunction_CheckExact(kernel.get()) : is_view_kernel(kernel.get()));
  if (kernel && (checks || Ref(PyObject_Vectorcall(op->f[OpObject::kInfer], given.arrays, total, keywords))))
    out = Ref(PyObject_Vectorcall(kernel.get(), given.arrays, total, keywords));
  if (out.get() == Py_NotImplemented) return in_python(self, args, n, keywords);  // the other of a pair serves it
  if (!out) {
    PyObject* raised = PyErr_Occurred();  // NumPy's own, or one of the library's that derive from it
    if (!checks && !PyErr_ExceptionMatches(PyExc_TypeError) && !PyErr_ExceptionMatches(PyExc_AttributeError) &&
        !PyErr_ExceptionMatches(PyExc_IndexError) && raised != PyExc_ValueError && raised != PyExc_OverflowError)
      return nullptr;
    PyErr_Clear();  // once more, to say in the words of the op what is wrong
    return in_python(self, args, n, keywords);
  }
  Ref attrs;
  if (track || op->f[OpObject::kView] == Py_True) {
    if (more && !(attrs = dict_of(args + n, keywords))) return nullptr;
  }
  if (op->f[OpObject::kView] == Py_True) {
    if (!attrs && !(attrs = Ref(PyDict_New()))) return nullptr;
    if (n == 1) return view_result(op, args, given.arrays, out.get(), attrs.get(), track);
    PyObject* five[] = {self, args[0], out.get(), attrs.get(), track ? Py_True : Py_False};
    return PyObject_Vectorcall(known.view_of, five, 5, nullptr);
  }
  const bool several = PyTuple_CheckExact(out.get());
  const Py_ssize_t count = several ? PyTuple_GET_SIZE(out.get()) : 1;
  PyObject* single = out.get();
  PyObject* const* outs = several ? &PyTuple_GET_ITEM(out.get(), 0) : &single;
  Ref tuple;
  PyObject* one = nullptr;
  if (several && !(tuple = Ref(PyTuple_New(count)))) return nullptr;
  for (Py_ssize_t i = 0; i < count; ++i) {
    PyObject* made = outs[i] == Py_None ? (Py_INCREF(Py_None), Py_None) : wrapped(outs[i], switches.inference);
    if (!made) return nullptr;
    if (several) PyTuple_SET_ITEM(tuple.get(), i, made);
    else one = made;
  }
  Ref result(several ? tuple.release() : one);
  if (!track) return result.release();
  PyObject* const* results = several ? &PyTuple_GET_ITEM(result.get(), 0) : &one;
  switch (record_op(op, args, given.arrays, n, attrs.get(), results, outs, count)) {
    case kDone: return result.release();
    case kFailed: return nullptr;
    case kAskPython: break;
  }
  if (!attrs && !(attrs = Ref(PyDict_New()))) return nullptr;
  Ref inputs = tuple_of(args, n), arrays = tuple_of(given.arrays, n), these = tuple_of(results, count), raw = tuple_of(outs, count);
  if (!inputs || !arrays || !these || !raw) return nullptr;
  Ref done(PyObject_CallMethodObjArgs(self, names.record, inputs.get(), arrays.get(), attrs.get(), these.get(), raw.get(), nullptr));
  return done ? result.release() : nullptr;
}

}  // namespace

Ref kernel_of(OpObject* op, PyObject* door) {
  if (op->kind == OpObject::kUnknown && !prepare(op)) return Ref();
  if (op->f[OpObject::kDoor] == door) return Ref::borrowed(op->f[OpObject::kKernel]);
  Ref kernel(PyObject_GetAttr(door, op->f[OpObject::kName]));
  // other doors come and go: keeping theirs would keep what they hold
  if (kernel && reinterpret_cast<PyObject*>(Py_TYPE(door)) == known.raw) {
    PyObject* floats = op->checked ? PyObject_GetAttrString(kernel.get(), "native") : nullptr;  // of FloatsFirst
    PyErr_Clear();
    set(op->f[OpObject::kFloats], floats);
    set_borrowed(op->f[OpObject::kKernel], kernel.get());
    set_borrowed(op->f[OpObject::kDoor], door);
  }
  return kernel;
}

// What a call asks of the record, gathered once.
bool prepare(OpObject* op) {
  auto* self = reinterpret_cast<PyObject*>(op);
  if (!take(op, OpObject::kName, "name")) return false;
  op->kind = OpObject::kPython;
  if (unchanged(self, "call", known.formula_call) && unchanged(self, "record_one", known.formula_record) &&
      unchanged(self, "differentiate", known.formula_differentiate)) {
    Ref outputs(PyObject_GetAttrString(self, "outputs"));
    if (!outputs || !take(op, OpObject::kPlans, "_plans")) return false;
    if (PyTuple_Check(outputs.get()) && PyTuple_GET_SIZE(outputs.get()) == 1) op->kind = OpObject::kFormula;
  } else if (unchanged(self, "call", known.op_call) && unchanged(self, "record", known.op_record) &&
             unchanged(self, "differentiate", known.op_differentiate)) {
    Ref define(PyObject_GetAttrString(self, "define"));
    if (!define || !take(op, OpObject::kInfer, "infer") || !take(op, OpObject::kRule, "rule") ||
        !take(op, OpObject::kView, "view") || !take(op, OpObject::kKeptInputs, "kept_inputs") ||
        !take(op, OpObject::kKeepsRest, "keeps_rest") || !take(op, OpObject::kKeptOutputs, "kept_outputs") ||
        !take(op, OpObject::kNondiff, "nondiff") || !take(op, OpObject::kAdds, "adds"))
      return false;
    Ref checked(PyObject_GetAttrString(self, "checked"));
    op->checked = checked.get() == Py_True;
    op->expands = op->f[OpObject::kRule] == Py_None && define.get() != Py_None;
    op->kind = OpObject::kOp;
  }
  return true;
}

PyObject* call_op(PyObject* self, PyObject* const* args, std::size_t flags, PyObject* keywords) {
  OpObject* op = as_op(self);
  const Py_ssize_t n = PyVectorcall_NARGS(flags);
  if (op->kind == OpObject::kUnknown && !prepare(op)) return nullptr;
  if (op->kind == OpObject::kFormula && !keywords) return call_formula(op, args, n);
  if (op->kind == OpObject::kOp) return call_record(op, args, n, keywords);
  return in_python(self, args, n, keywords);
}

}  // namespace tape
