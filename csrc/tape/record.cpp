// What a call leaves on the tape: a node with its edges, what backward reads, and the versions of that.
#include "tape.h"

namespace tape {

Ref tuple_of(PyObject* const* items, Py_ssize_t n) {
  Ref made(PyTuple_New(n));
  if (!made) return made;
  for (Py_ssize_t i = 0; i < n; ++i) {
    Py_INCREF(items[i]);
    PyTuple_SET_ITEM(made.get(), i, items[i]);
  }
  return made;
}

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

bool view_is_behind(const TensorObject* t) {
  PyObject* base = t->f[TensorObject::kBase];
  return is_tensor(base) && as_tensor(base)->f[TensorObject::kTracked] == Py_True &&
         t->f[TensorObject::kTracked] != Py_True && t->f[TensorObject::kGeneration] != as_tensor(base)->f[TensorObject::kChanges];
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

void put_on_tape(PyObject* result, PyObject* node) {
  set_borrowed(as_tensor(result)->f[TensorObject::kNode], node);
  set_borrowed(as_tensor(result)->f[TensorObject::kTracked], Py_True);
}

namespace {

bool finish(NodeObject* node) {
  if (!switches.extras) return true;
  Ref done(PyObject_CallMethodNoArgs(reinterpret_cast<PyObject*>(node), names.finish));
  return static_cast<bool>(done);
}

bool same_type(PyArrayObject* a, PyArrayObject* b) {
  return PyArray_DESCR(a) == PyArray_DESCR(b) || PyArray_EquivTypes(PyArray_DESCR(a), PyArray_DESCR(b));
}

}  // namespace

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

constexpr long kHeld = 1L << 30;  // kept whoever gets a gradient: _HELD of ops/record.py

// Op.record
Recorded record_op(OpObject* op, PyObject* const* inputs, PyObject* const* arrays, Py_ssize_t n, PyObject* attrs,
                   PyObject* const* results, PyObject* const* outs, Py_ssize_t count) {
  PyObject* edges[kMost];
  PyObject* keeps = op->f[OpObject::kKeptInputs];
  const Py_ssize_t listed = PyTuple_GET_SIZE(keeps);
  const long rest = op->f[OpObject::kKeepsRest] == Py_True;
  long needs = 0;  // bit i: input i gets a gradient
  for (Py_ssize_t i = 0; i < n; ++i) {
    edges[i] = Py_None;
    if (!is_tensor(inputs[i]) || as_tensor(inputs[i])->f[TensorObject::kTracked] != Py_True) continue;
    if (!(edges[i] = edge_of(inputs[i]))) return kAskPython;
    needs |= 1L << i;
  }
  // Bit i: the rule reads the input for the gradient of input i.
  const auto read_for = [&](Py_ssize_t i) { return i < listed ? PyLong_AsLong(PyTuple_GET_ITEM(keeps, i)) : -rest; };
  for (Py_ssize_t i = 0; i < n; ++i)
    if (is_tensor(inputs[i]) && as_tensor(inputs[i])->f[TensorObject::kInference] != Py_False && read_for(i) & needs)
      return kAskPython;
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
    const long reads = read_for(i);
    if (!(reads & (needs | kHeld)) && PyArray_CheckExact(item)) {
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
    if (reads & needs && is_tensor(inputs[i]) && !watch(node, as_tensor(inputs[i]))) return kFailed;
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

}  // namespace tape
