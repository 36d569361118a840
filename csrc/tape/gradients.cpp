#include "gradients.h"

namespace tape {

namespace {

constexpr Py_ssize_t kMostRead = 29;  // arrays and attributes that a derivative reads; Python serves what reads more

Py_ssize_t place_of(PyObject* item, PyObject* tuple) {
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(tuple); ++i)
    if (PyLong_AsLong(PyTuple_GET_ITEM(tuple, i)) == PyLong_AsLong(item)) return i;
  return -1;
}

// Elementwise.asked_plan: null with an error set, or without one where Python must see to it.
PlanObject* asked_plan(NodeObject* node, const Ways& ways) {
  auto* whole = reinterpret_cast<PlanObject*>(node->f[NodeObject::kPlan]);
  if (!ways.nodes || PyTuple_GET_SIZE(whole->f[PlanObject::kWrt]) == 1) return whole;
  PyObject* edges = node->f[NodeObject::kEdges];
  const Py_ssize_t count = PySequence_Fast_GET_SIZE(edges);
  if (count > kMostRead) return nullptr;
  long mask = 0;
  for (Py_ssize_t i = 0; i < count; ++i) {
    const int asked = ways.ask(PySequence_Fast_GET_ITEM(edges, i));
    if (asked < 0) return nullptr;
    mask |= static_cast<long>(asked) << i;
  }
  Ref key(PyLong_FromLong(mask));
  auto* plan = reinterpret_cast<PlanObject*>(
      key ? PyDict_GetItemWithError(as_op(node->f[NodeObject::kOp])->f[OpObject::kPlans], key.get()) : nullptr);
  if (!plan || plan == whole) return plan;
  if (plan->f[PlanObject::kUsesOutput] == Py_True && whole->f[PlanObject::kUsesOutput] != Py_True) return whole;
  PyObject* uses = plan->f[PlanObject::kUses];
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(uses); ++i)
    if (place_of(PyTuple_GET_ITEM(uses, i), whole->f[PlanObject::kUses]) < 0) return whole;
  return plan;
}

// Elementwise.differentiate; null without an error where Python must see to it.
PyObject* formula_gradients(PyObject* door, NodeObject* node, PyObject* g, const Ways& ways) {
  PlanObject* plan = asked_plan(node, ways);
  if (!plan) return nullptr;
  auto* whole = reinterpret_cast<PlanObject*>(node->f[NodeObject::kPlan]);
  Ref results;
  PyObject* kernel_op = plan->f[PlanObject::kKernel];
  if (kernel_op != Py_None) {
    PyObject *saved = node->f[NodeObject::kSaved], *outputs = node->f[NodeObject::kSavedOutputs];
    PyObject *uses = plan->f[PlanObject::kUses], *args[kMostRead + 1];
    const bool output = plan->f[PlanObject::kUsesOutput] == Py_True;
    if (PyTuple_GET_SIZE(saved) < PyTuple_GET_SIZE(whole->f[PlanObject::kUses]) || PyTuple_GET_SIZE(outputs) < output)
      return nullptr;  // freed meanwhile
    Py_ssize_t n = 0;
    args[n++] = g;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(uses); ++i)
      args[n++] = PyTuple_GET_ITEM(saved, plan == whole ? i : place_of(PyTuple_GET_ITEM(uses, i), whole->f[PlanObject::kUses]));
    if (output) args[n++] = PyTuple_GET_ITEM(outputs, 0);
    Ref kernel = kernel_of(as_op(kernel_op), door);
    if (!kernel) return nullptr;
    results = Ref(PyObject_Vectorcall(kernel.get(), args, static_cast<std::size_t>(n), nullptr));
    if (!results) return nullptr;
  }
  PyObject* parts = plan->f[PlanObject::kParts];
  const Py_ssize_t count = PyTuple_GET_SIZE(parts);
  Ref grads(PyTuple_New(count));
  if (!grads) return nullptr;
  for (Py_ssize_t i = 0; i < count; ++i) {
    PyObject* part = PyTuple_GET_ITEM(parts, i);
    PyObject* value = Py_None;
    if (PyLong_CheckExact(part)) {
      const bool several = PyTuple_CheckExact(results.get());
      value = several ? PyTuple_GET_ITEM(results.get(), PyLong_AsLong(part)) : results.get();
    } else if (part != Py_None) {
      value = g;
    }
    Py_INCREF(value);
    PyTuple_SET_ITEM(grads.get(), i, value);
  }
  PyObject* extra = node->f[NodeObject::kExtra];
  if (extra != Py_None) {  // undo broadcasting and promotion
    PyObject* wrt = whole->f[PlanObject::kWrt];
    for (Py_ssize_t k = 0; k < PyTuple_GET_SIZE(wrt); ++k) {
      const Py_ssize_t i = PyLong_AsSsize_t(PyTuple_GET_ITEM(wrt, k));
      PyObject* grad = PyTuple_GET_ITEM(grads.get(), i);
      if (grad == Py_None) continue;
      PyObject* want = PyTuple_GET_ITEM(extra, k);
      PyObject* four[] = {door, grad, PyTuple_GET_ITEM(want, 0), PyTuple_GET_ITEM(want, 1)};
      PyObject* fitted = PyObject_Vectorcall(known.fit, four, 4, nullptr);
      if (!fitted) return nullptr;
      PyTuple_SET_ITEM(grads.get(), i, fitted);
      Py_DECREF(grad);
    }
  }
  return grads.release();
}

// Op.differentiate
PyObject* rule_gradients(PyObject* door, NodeObject* node, PyObject* g, const Ways& ways) {
  OpObject* op = as_op(node->f[NodeObject::kOp]);
  PyObject *saved = node->f[NodeObject::kSaved], *outputs = node->f[NodeObject::kSavedOutputs];
  PyObject *edges = node->f[NodeObject::kEdges], *attrs = node->f[NodeObject::kAttrs], *kept = op->f[OpObject::kKeptOutputs];
  const Py_ssize_t n = PyTuple_GET_SIZE(saved), named = PyTuple_GET_SIZE(kept), more = PyDict_GET_SIZE(attrs);
  PyObject* args[kMostRead + 3];
  Py_ssize_t at = 0;
  args[at++] = door;
  args[at++] = g;
  for (Py_ssize_t i = 0; i < n; ++i) args[at++] = PyTuple_GET_ITEM(saved, i);
  const Py_ssize_t positional = at;
  const Py_ssize_t count = PyTuple_GET_SIZE(edges);
  Ref keywords(PyTuple_New(1 + named + more)), needs(PyTuple_New(count));
  if (!keywords || !needs) return nullptr;
  for (Py_ssize_t i = 0; i < count; ++i) {
    const int asked = ways.ask(PyTuple_GET_ITEM(edges, i));
    if (asked < 0) return nullptr;
    PyObject* flag = asked ? Py_True : Py_False;
    Py_INCREF(flag);
    PyTuple_SET_ITEM(needs.get(), i, flag);
  }
  Py_ssize_t k = 0;
  const auto give = [&](PyObject* name, PyObject* value) {
    Py_INCREF(name);
    PyTuple_SET_ITEM(keywords.get(), k++, name);
    args[at++] = value;
  };
  give(names.needs, needs.get());
  for (Py_ssize_t j = 0; j < named; ++j) give(PyTuple_GET_ITEM(PyTuple_GET_ITEM(kept, j), 1), PyTuple_GET_ITEM(outputs, j));
  PyObject *key, *value;
  Py_ssize_t position = 0;
  while (PyDict_Next(attrs, &position, &key, &value)) give(key, value);
  return PyObject_Vectorcall(op->f[OpObject::kRule], args, static_cast<std::size_t>(positional), keywords.get());
}

// Whether the node of a compiled pair makes the gradients that are asked for alone, by another program: ReplayBackward.narrows.
int narrows(NodeObject* node, const Ways& ways) {
  PyObject* edges = node->f[NodeObject::kEdges];
  for (Py_ssize_t i = 0; ways.nodes && i < PySequence_Fast_GET_SIZE(edges); ++i) {
    const int asked = ways.ask(PySequence_Fast_GET_ITEM(edges, i));
    if (asked < 0) return -1;
    if (asked) continue;
    Ref flag(PyObject_GetAttrString(node->f[NodeObject::kOp], "narrows"));
    return flag ? PyObject_IsTrue(flag.get()) : -1;
  }
  return 0;
}

}  // namespace

PyObject* differentiate(PyObject* door, NodeObject* node, PyObject* g, const Ways& ways) {
  PyObject* op = node->f[NodeObject::kOp];
  if (PyObject_TypeCheck(op, &OpType)) {
    OpObject* record = as_op(op);
    if (record->kind == OpObject::kUnknown && !prepare(record)) return nullptr;
    const Py_ssize_t read = PyTuple_GET_SIZE(node->f[NodeObject::kSaved]) + PyTuple_GET_SIZE(node->f[NodeObject::kSavedOutputs]) +
                            PyDict_GET_SIZE(node->f[NodeObject::kAttrs]);
    const bool view = record->kind == OpObject::kOp && record->f[OpObject::kView] == Py_True;
    PyObject* grads = nullptr;
    if (read <= kMostRead && record->kind == OpObject::kFormula) grads = formula_gradients(door, node, g, ways);
    else if (view) grads = view_gradients(record, door, node, g);
    if (grads || PyErr_Occurred()) return grads;
    if (read <= kMostRead && record->kind == OpObject::kOp && PyTuple_Check(node->f[NodeObject::kEdges]))
      return rule_gradients(door, node, g, ways);
  } else if (reinterpret_cast<PyObject*>(Py_TYPE(op)) == known.pair) {
    const int other = narrows(node, ways);
    if (other < 0) return nullptr;
    Ref grads = other ? Ref::borrowed(Py_NotImplemented) : Ref(pair_gradients(node, g));
    if (grads.get() != Py_NotImplemented) return grads.release();
  }
  PyObject* six[] = {op, door, reinterpret_cast<PyObject*>(node), g, node->f[NodeObject::kSaved],
                     node->f[NodeObject::kSavedOutputs]};
  return PyObject_VectorcallMethod(names.differentiate, six, 6, nullptr);
}

}  // namespace tape
