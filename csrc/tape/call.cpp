// A call of an op on tensors of NumPy arrays: arrays out of the tensors, the kernel, a tensor around the result, a node.
#include "tape.h"

namespace tape {

namespace {

constexpr Py_ssize_t kMost = 12;  // inputs and attributes of a call that is served here

bool is_number(PyObject* x) {
  return PyFloat_CheckExact(x) || PyLong_CheckExact(x) || PyBool_Check(x) || PyComplex_CheckExact(x);
}

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
        if (!x || !PyArray_CheckExact(x)) return false;
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

Ref tuple_of(PyObject* const* items, Py_ssize_t n) {
  Ref made(PyTuple_New(n));
  if (!made) return made;
  for (Py_ssize_t i = 0; i < n; ++i) {
    Py_INCREF(items[i]);
    PyTuple_SET_ITEM(made.get(), i, items[i]);
  }
  return made;
}

// Where the input's gradient goes (borrowed); null where Python must find it: the base of a view was changed.
PyObject* edge_of(PyObject* x) {
  TensorObject* t = as_tensor(x);
  PyObject* base = t->f[TensorObject::kBase];
  if (base != Py_None && (!is_tensor(base) || t->f[TensorObject::kGeneration] != as_tensor(base)->f[TensorObject::kChanges]))
    return nullptr;  // numbers below 257 are one object each
  PyObject* node = t->f[TensorObject::kNode];
  return node == Py_None ? x : node;
}

// The list that counts writes to the tensor's storage (borrowed).
PyObject* version_of(TensorObject* t) {
  PyObject*& cell = t->f[TensorObject::kVersion];
  if (cell == Py_None) {
    PyObject* made = PyList_New(1);
    if (!made) return nullptr;
    PyList_SET_ITEM(made, 0, PyLong_FromLong(0));
    set(cell, made);
  }
  return cell;
}

// Which outputs of their nodes the inputs are, where one is not the first. False with an error set.
bool note_slots(NodeObject* node, PyObject* const* inputs, PyObject* const* edges, Py_ssize_t n) {
  bool later = false;
  for (Py_ssize_t i = 0; i < n && !later; ++i)
    later = edges[i] != Py_None && PyLong_AsLong(as_tensor(inputs[i])->f[TensorObject::kSlot]) != 0;
  if (!later) return true;
  Ref slots(PyTuple_New(n));
  if (!slots) return false;
  for (Py_ssize_t i = 0; i < n; ++i) {
    PyObject* slot = edges[i] == Py_None ? PyLong_FromLong(0) : as_tensor(inputs[i])->f[TensorObject::kSlot];
    if (edges[i] != Py_None) Py_INCREF(slot);
    PyTuple_SET_ITEM(slots.get(), i, slot);
  }
  set(node->f[NodeObject::kSlots], slots.release());
  return true;
}

// Appends the tensor's version to the node's list. False with an error set.
bool watch(NodeObject* node, TensorObject* t) {
  PyObject* cell = version_of(t);
  if (!cell) return false;
  PyObject* pair = PyTuple_New(2);
  if (!pair) return false;
  PyObject* seen = PyList_GET_ITEM(cell, 0);
  Py_INCREF(cell);
  Py_INCREF(seen);
  PyTuple_SET_ITEM(pair, 0, cell);
  PyTuple_SET_ITEM(pair, 1, seen);
  PyObject*& versions = node->f[NodeObject::kVersions];
  if (versions == Py_None) {
    PyObject* list = PyList_New(1);
    if (!list) {
      Py_DECREF(pair);
      return false;
    }
    PyList_SET_ITEM(list, 0, pair);
    set(versions, list);
    return true;
  }
  const bool good = PyList_Append(versions, pair) == 0;
  Py_DECREF(pair);
  return good;
}

// The innermost line outside of the package, as user_line finds it.
bool note_line(NodeObject* node) {
  PyFrameObject* frame = PyEval_GetFrame();
  Py_XINCREF(frame);
  while (frame) {
    PyCodeObject* code = PyFrame_GetCode(frame);
    PyObject* inside = PyDict_GetItemWithError(known.inside, code->co_filename);
    Ref asked;
    if (!inside && !PyErr_Occurred()) {
      asked = Ref(PyObject_GetItem(known.inside, code->co_filename));
      inside = asked.get();
    }
    if (inside == Py_False) {
#if PY_VERSION_HEX >= 0x030B0000
      const int at = PyFrame_GetLasti(frame);
#else
      const int at = frame->f_lasti * 2;
#endif
      PyObject* line = Py_BuildValue("(Ni)", code, at);
      Py_DECREF(frame);
      if (line) set(node->f[NodeObject::kLine], line);
      return line != nullptr;
    }
    Py_DECREF(code);
    PyFrameObject* back = inside ? PyFrame_GetBack(frame) : nullptr;
    Py_DECREF(frame);
    if (!inside) return false;
    frame = back;
  }
  return true;
}

bool finish(NodeObject* node) {
  if (!switches.extras) return true;
  Ref done(PyObject_CallMethodNoArgs(reinterpret_cast<PyObject*>(node), names.finish));
  return static_cast<bool>(done);
}

void put_on_tape(PyObject* result, PyObject* node) {
  set_borrowed(as_tensor(result)->f[TensorObject::kNode], node);
  set_borrowed(as_tensor(result)->f[TensorObject::kTracked], Py_True);
}

bool same_type(PyArrayObject* a, PyArrayObject* b) {
  return PyArray_DESCR(a) == PyArray_DESCR(b) || PyArray_EquivTypes(PyArray_DESCR(a), PyArray_DESCR(b));
}

enum Recorded { kDone, kAskPython, kFailed };

// Elementwise.record_one
Recorded record_formula(OpObject* op, PyObject* const* inputs, PyObject* const* arrays, Py_ssize_t n, PyObject* result,
                        PyArrayObject* out) {
  PyObject* edges[kMost];
  long needs = 0;
  for (Py_ssize_t i = 0; i < n; ++i) {
    edges[i] = Py_None;
    if (!is_tensor(inputs[i]) || as_tensor(inputs[i])->f[TensorObject::kTracked] != Py_True) continue;
    edges[i] = edge_of(inputs[i]);
    if (!edges[i]) return kAskPython;
    needs |= 1L << i;
  }
  Ref key(PyLong_FromLong(needs));
  PyObject* found = key ? PyDict_GetItemWithError(op->f[OpObject::kPlans], key.get()) : nullptr;
  if (!found) return PyErr_Occurred() ? kFailed : kAskPython;
  auto* plan = reinterpret_cast<PlanObject*>(found);
  PyObject* uses = plan->f[PlanObject::kUses];
  const Py_ssize_t used = PyTuple_GET_SIZE(uses);
  const bool uses_output = plan->f[PlanObject::kUsesOutput] == Py_True;
  for (Py_ssize_t k = 0; k < used; ++k) {
    PyObject* x = inputs[PyLong_AsLong(PyTuple_GET_ITEM(uses, k))];
    if (is_tensor(x) && as_tensor(x)->f[TensorObject::kInference] != Py_False) return kAskPython;  // it says what is wrong
  }
  Ref made(new_object(known.node));
  if (!made) return kFailed;
  NodeObject* node = as_node(made.get());
  set_borrowed(node->f[NodeObject::kOp], reinterpret_cast<PyObject*>(op));
  set_borrowed(node->f[NodeObject::kPlan], found);
  Ref all = tuple_of(edges, n);
  if (!all || !note_slots(node, inputs, edges, n)) return kFailed;
  set(node->f[NodeObject::kEdges], all.release());
  if (used || uses_output) {
    if (used) {
      Ref saved(PyTuple_New(used));
      if (!saved) return kFailed;
      for (Py_ssize_t k = 0; k < used; ++k) {
        const long i = PyLong_AsLong(PyTuple_GET_ITEM(uses, k));
        Py_INCREF(arrays[i]);
        PyTuple_SET_ITEM(saved.get(), k, arrays[i]);
        if (is_tensor(inputs[i]) && !watch(node, as_tensor(inputs[i]))) return kFailed;
      }
      set(node->f[NodeObject::kSaved], saved.release());
    }
    if (uses_output) {
      PyObject* array = reinterpret_cast<PyObject*>(out);
      Ref saved = tuple_of(&array, 1);
      if (!saved || !watch(node, as_tensor(result))) return kFailed;
      set(node->f[NodeObject::kSavedOutputs], saved.release());
    }
    if (!note_line(node)) return kFailed;
  }
  // what must be undone in backward: broadcasting, and a cast to the common dtype
  PyObject* wrt = plan->f[PlanObject::kWrt];
  const Py_ssize_t count = PyTuple_GET_SIZE(wrt);
  bool alike = true;
  for (Py_ssize_t k = 0; k < count && alike; ++k) {
    auto* array = as_array(arrays[PyLong_AsLong(PyTuple_GET_ITEM(wrt, k))]);
    alike = same_shape(array, out) && same_type(array, out);
  }
  if (!alike) {
    Ref extra(PyTuple_New(count));
    if (!extra) return kFailed;
    for (Py_ssize_t k = 0; k < count; ++k) {
      auto* array = as_array(arrays[PyLong_AsLong(PyTuple_GET_ITEM(wrt, k))]);
      PyObject* pair = Py_BuildValue("(NO)", shape_of(array), PyArray_DESCR(array));
      if (!pair) return kFailed;
      PyTuple_SET_ITEM(extra.get(), k, pair);
    }
    set(node->f[NodeObject::kExtra], extra.release());
  }
  put_on_tape(result, made.get());
  return finish(node) ? kDone : kFailed;
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
  Ref result(wrapped(out.get(), !given.tracked && switches.inference));
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

// Op.record
Recorded record_op(OpObject* op, PyObject* const* inputs, PyObject* const* arrays, Py_ssize_t n, PyObject* attrs,
                   PyObject* const* results, PyObject* const* outs, Py_ssize_t count) {
  PyObject* edges[kMost];
  PyObject* keeps = op->f[OpObject::kKeptInputs];
  const Py_ssize_t listed = PyTuple_GET_SIZE(keeps);
  const bool rest = op->f[OpObject::kKeepsRest] == Py_True;
  const auto kept = [&](Py_ssize_t i) { return i < listed ? PyTuple_GET_ITEM(keeps, i) == Py_True : rest; };
  for (Py_ssize_t i = 0; i < n; ++i) {
    edges[i] = Py_None;
    if (!is_tensor(inputs[i])) continue;
    auto* t = as_tensor(inputs[i]);
    if (kept(i) && t->f[TensorObject::kInference] != Py_False) return kAskPython;
    if (t->f[TensorObject::kTracked] == Py_True && !(edges[i] = edge_of(inputs[i]))) return kAskPython;
  }
  Ref made(new_object(known.node));
  if (!made) return kFailed;
  NodeObject* node = as_node(made.get());
  node->count = count;
  set_borrowed(node->f[NodeObject::kOp], reinterpret_cast<PyObject*>(op));
  if (attrs) set_borrowed(node->f[NodeObject::kAttrs], attrs);
  Ref all = tuple_of(edges, n);
  Ref saved(PyTuple_New(n));
  if (!all || !saved || !note_slots(node, inputs, edges, n)) return kFailed;
  set(node->f[NodeObject::kEdges], all.release());
  for (Py_ssize_t i = 0; i < n; ++i) {
    PyObject* item = arrays[i];
    const bool keep = kept(i);
    if (!keep && PyArray_CheckExact(item)) {
      Ref spec(new_object(known.spec));
      PyObject* shape = spec ? shape_of(as_array(item)) : nullptr;
      if (!shape) return kFailed;
      auto* fields = reinterpret_cast<SpecObject*>(spec.get())->f;
      fields[SpecObject::kShape] = shape;
      fields[SpecObject::kDtype] = reinterpret_cast<PyObject*>(PyArray_DESCR(as_array(item)));
      Py_INCREF(fields[SpecObject::kDtype]);
      PyTuple_SET_ITEM(saved.get(), i, spec.release());
      continue;
    }
    Py_INCREF(item);
    PyTuple_SET_ITEM(saved.get(), i, item);
    if (keep && is_tensor(inputs[i]) && !watch(node, as_tensor(inputs[i]))) return kFailed;
  }
  set(node->f[NodeObject::kSaved], saved.release());
  PyObject* outputs = op->f[OpObject::kKeptOutputs];  // pairs of position and name
  if (const Py_ssize_t k = PyTuple_GET_SIZE(outputs)) {
    Ref kept_outputs(PyTuple_New(k));
    if (!kept_outputs) return kFailed;
    for (Py_ssize_t j = 0; j < k; ++j) {
      const long i = PyLong_AsLong(PyTuple_GET_ITEM(PyTuple_GET_ITEM(outputs, j), 0));
      if (i >= count || !is_tensor(results[i])) return kAskPython;
      Py_INCREF(outs[i]);
      PyTuple_SET_ITEM(kept_outputs.get(), j, outs[i]);
      if (!watch(node, as_tensor(results[i]))) return kFailed;
    }
    set(node->f[NodeObject::kSavedOutputs], kept_outputs.release());
  }
  if (node->f[NodeObject::kVersions] != Py_None && !note_line(node)) return kFailed;
  PyObject* nondiff = op->f[OpObject::kNondiff];
  const bool some = PySet_GET_SIZE(nondiff) > 0;
  for (Py_ssize_t i = 0; i < count; ++i) {
    if (results[i] == Py_None) continue;
    if (i || some) {
      Ref at(PyLong_FromSsize_t(i));
      const int without = at ? (some ? PySet_Contains(nondiff, at.get()) : 0) : -1;
      if (without < 0) return kFailed;
      if (without) continue;
      if (i) set(as_tensor(results[i])->f[TensorObject::kSlot], at.release());
    }
    put_on_tape(results[i], made.get());
  }
  return finish(node) ? kDone : kFailed;
}

// view_of: the result shares storage and version with its source, and follows the base's history.
PyObject* view_result(OpObject* op, PyObject* const* args, PyObject* const* arrays, PyObject* array, PyObject* attrs, bool track) {
  auto* self = reinterpret_cast<PyObject*>(op);
  TensorObject* source = as_tensor(args[0]);
  PyObject* base = source->f[TensorObject::kBase] == Py_None ? args[0] : source->f[TensorObject::kBase];
  if (!is_tensor(base) || (track && !edge_of(args[0])) || (track && source->f[TensorObject::kInference] != Py_False)) {
    PyObject* five[] = {self, args[0], array, attrs, track ? Py_True : Py_False};
    return PyObject_Vectorcall(known.view_of, five, 5, nullptr);
  }
  Ref result(wrapped(array, switches.inference));
  Ref step(result ? PyTuple_Pack(2, self, attrs) : nullptr);
  Ref steps(step ? PyTuple_Pack(1, step.get()) : nullptr);
  Ref chain(steps ? PySequence_Concat(source->f[TensorObject::kChain], steps.get()) : nullptr);
  PyObject* cell = chain ? version_of(source) : nullptr;
  if (!cell) return nullptr;
  auto& f = as_tensor(result.get())->f;
  set(f[TensorObject::kChain], chain.release());
  set_borrowed(f[TensorObject::kBase], base);
  set_borrowed(f[TensorObject::kVersion], cell);
  set_borrowed(f[TensorObject::kGeneration], as_tensor(base)->f[TensorObject::kChanges]);
  if (!track) {
    if (source->f[TensorObject::kTracked] == Py_True || source->f[TensorObject::kFrozen] == Py_True)
      set_borrowed(f[TensorObject::kFrozen], Py_True);
    return result.release();
  }
  PyObject* made = result.get();
  switch (record_op(op, args, arrays, 1, attrs, &made, &array, 1)) {
    case kDone: return result.release();
    case kFailed: return nullptr;
    case kAskPython: break;
  }
  return PyErr_Format(PyExc_SystemError, "%S: a view that can't be recorded", op->f[OpObject::kName]);
}

Ref dict_of(PyObject* const* values, PyObject* keywords) {
  Ref made(PyDict_New());
  if (!made) return made;
  for (Py_ssize_t k = 0; k < PyTuple_GET_SIZE(keywords); ++k)
    if (PyDict_SetItem(made.get(), PyTuple_GET_ITEM(keywords, k), values[k]) < 0) return Ref();
  return made;
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
  Ref spec(PyObject_Vectorcall(op->f[OpObject::kInfer], given.arrays, total, keywords));
  Ref out;
  if (spec) {
    Ref kernel = kernel_of(op, door);
    if (kernel) out = Ref(PyObject_Vectorcall(kernel.get(), given.arrays, total, keywords));
  }
  if (!out) {
    if (!PyErr_ExceptionMatches(PyExc_TypeError) && !PyErr_ExceptionMatches(PyExc_AttributeError) &&
        !PyErr_ExceptionMatches(PyExc_IndexError))
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

// --- operators: Tensor's __add__ and its kind, which a record serves without a function of Python between

struct OperatorObject {
  PyObject_HEAD
  vectorcallfunc call;
  PyObject *op, *otherwise;
  int reflected;
};

PyObject* call_operator(PyObject* self, PyObject* const* args, std::size_t flags, PyObject* keywords) {
  auto* it = reinterpret_cast<OperatorObject*>(self);
  if (PyVectorcall_NARGS(flags) == 2 && !keywords && is_tensor(args[0]) && (is_tensor(args[1]) || is_number(args[1]))) {
    PyObject* swapped[] = {args[1], args[0]};
    return call_op(it->op, it->reflected ? swapped : args, 2, nullptr);
  }
  return PyObject_Vectorcall(it->otherwise, args, flags, keywords);
}

PyObject* new_operator(PyTypeObject* type, PyObject* args, PyObject*) {
  PyObject *op, *otherwise;
  int reflected;
  if (!PyArg_ParseTuple(args, "O!Op:Operator", &OpType, &op, &otherwise, &reflected)) return nullptr;
  PyObject* self = type->tp_alloc(type, 0);
  if (!self) return nullptr;
  auto* it = reinterpret_cast<OperatorObject*>(self);
  Py_INCREF(op);
  Py_INCREF(otherwise);
  *it = {it->ob_base, call_operator, op, otherwise, reflected};
  return self;
}

PyObject* bind_operator(PyObject* self, PyObject* object, PyObject*) {
  if (object && object != Py_None) return PyMethod_New(self, object);
  Py_INCREF(self);
  return self;
}

void free_operator(PyObject* self) {
  auto* it = reinterpret_cast<OperatorObject*>(self);
  Py_XDECREF(it->op);
  Py_XDECREF(it->otherwise);
  Py_TYPE(self)->tp_free(self);
}

// What else is asked of a method, its name and documentation, is the function's.
PyObject* operator_attribute(PyObject* self, PyObject* name) {
  PyObject* own = PyObject_GenericGetAttr(self, name);
  if (own || !PyErr_ExceptionMatches(PyExc_AttributeError)) return own;
  PyErr_Clear();
  return PyObject_GetAttr(reinterpret_cast<OperatorObject*>(self)->otherwise, name);
}

PyTypeObject make_operator_type() {
  PyTypeObject type = {PyVarObject_HEAD_INIT(nullptr, 0)};
  type.tp_name = "tensorgrad._tape.Operator";
  type.tp_basicsize = sizeof(OperatorObject);
  type.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR;
  type.tp_vectorcall_offset = offsetof(OperatorObject, call);
  type.tp_call = PyVectorcall_Call;
  type.tp_new = new_operator;
  type.tp_dealloc = free_operator;
  type.tp_descr_get = bind_operator;
  type.tp_getattro = operator_attribute;
  return type;
}

}  // namespace

PyTypeObject OperatorType = make_operator_type();

PyObject* shape_of(PyArrayObject* array) {
  const int ndim = PyArray_NDIM(array);
  PyObject* shape = PyTuple_New(ndim);
  if (!shape) return nullptr;
  for (int d = 0; d < ndim; ++d) {
    PyObject* size = PyLong_FromSsize_t(PyArray_DIM(array, d));
    if (!size) {
      Py_DECREF(shape);
      return nullptr;
    }
    PyTuple_SET_ITEM(shape, d, size);
  }
  return shape;
}

Ref kernel_of(OpObject* op, PyObject* door) {
  if (op->kind == OpObject::kUnknown && !prepare(op)) return Ref();
  if (op->f[OpObject::kDoor] == door) return Ref::borrowed(op->f[OpObject::kKernel]);
  Ref kernel(PyObject_GetAttr(door, op->f[OpObject::kName]));
  // other doors come and go: keeping theirs would keep what they hold
  if (kernel && reinterpret_cast<PyObject*>(Py_TYPE(door)) == known.raw) {
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
