// The backward pass over nodes, from last to first: _Pass.go.
#include "gradients.h"
#include "side_by_side.h"

#include <algorithm>
#include <vector>

namespace tape {

namespace {

constexpr Py_ssize_t kWorthAsking = 32768;

// Nodes by falling numbers; each node stands in it once.
struct HeapObject {
  PyObject_HEAD
  std::vector<NodeObject*>* nodes;
};

bool earlier(const NodeObject* a, const NodeObject* b) { return a->number < b->number; }

void push(HeapObject* heap, PyObject* node) {
  Py_INCREF(node);
  heap->nodes->push_back(as_node(node));
  std::push_heap(heap->nodes->begin(), heap->nodes->end(), earlier);
}

Ref pop(HeapObject* heap) {
  std::pop_heap(heap->nodes->begin(), heap->nodes->end(), earlier);
  Ref last(reinterpret_cast<PyObject*>(heap->nodes->back()));
  heap->nodes->pop_back();
  return last;
}

PyObject* heap_push(PyObject* self, PyObject* node) {
  if (!PyObject_TypeCheck(node, &NodeType)) return PyErr_Format(PyExc_TypeError, "push: expected a Node");
  push(reinterpret_cast<HeapObject*>(self), node);
  Py_RETURN_NONE;
}

PyObject* heap_pop(PyObject* self, PyObject*) {
  auto* heap = reinterpret_cast<HeapObject*>(self);
  if (heap->nodes->empty()) return PyErr_Format(PyExc_IndexError, "pop: the heap is empty");
  return pop(heap).release();
}

Py_ssize_t heap_size(PyObject* self) { return static_cast<Py_ssize_t>(reinterpret_cast<HeapObject*>(self)->nodes->size()); }

PyObject* new_heap(PyTypeObject* type, PyObject*, PyObject*) {
  PyObject* self = type->tp_alloc(type, 0);
  if (self) reinterpret_cast<HeapObject*>(self)->nodes = new std::vector<NodeObject*>;
  return self;
}

void free_heap(PyObject* self) {
  auto* heap = reinterpret_cast<HeapObject*>(self);
  for (NodeObject* node : *heap->nodes) Py_DECREF(reinterpret_cast<PyObject*>(node));
  delete heap->nodes;
  Py_TYPE(self)->tp_free(self);
}

PyMethodDef heap_methods[] = {{"push", heap_push, METH_O, "Add a node."},
                              {"pop", heap_pop, METH_NOARGS, "Take the node with the largest number."}, {}};
PySequenceMethods heap_sequence;

// Whether what the node saved is as it was. False with an error set.
bool check(NodeObject* node) {
  bool good = node->f[NodeObject::kSaved] != known.freed;
  PyObject* versions = node->f[NodeObject::kVersions];
  if (good && versions != Py_None) {
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(versions) && good; ++i) {
      PyObject* pair = PyList_GET_ITEM(versions, i);
      PyObject *now = PyList_GET_ITEM(PyTuple_GET_ITEM(pair, 0), 0), *seen = PyTuple_GET_ITEM(pair, 1);
      good = now == seen || PyObject_RichCompareBool(now, seen, Py_EQ) == 1;
    }
  }
  if (good) return true;
  Ref said(PyObject_CallMethodNoArgs(reinterpret_cast<PyObject*>(node), names.check));
  return static_cast<bool>(said);
}

Ref added(PyObject* a, PyObject* b) {
  PyObject* door = door_of(Py_TYPE(a));
  if (!door && PyErr_Occurred()) return Ref();
  Ref found = door ? Ref::borrowed(door) : Ref(PyObject_GetItem(doors(), reinterpret_cast<PyObject*>(Py_TYPE(a))));
  if (!found) return Ref();
  PyObject* three[] = {found.get(), a, b};  // out of place: either may be seen by somebody else
  return Ref(PyObject_VectorcallMethod(names.add, three, 3, nullptr));
}

// Whether nobody but the table it is in knows the array, and its memory is an array's own.
bool is_fresh(PyObject* array) {
  if (!PyArray_CheckExact(array) || Py_REFCNT(array) != 1) return false;
  PyObject* base = PyArray_BASE(as_array(array));
  return base ? PyCapsule_IsValid(base, "tensorgrad") != 0 : PyArray_CHKFLAGS(as_array(array), NPY_ARRAY_OWNDATA) != 0;
}

struct Pass {
  PyObject *self, *pending, *leaves;  // self: Python's side of it; null until it is needed, which it rarely is
  HeapObject* heap;
  bool retain;
  PyObject* kind = nullptr;  // of self
  PyObject* wanted = nullptr;  // of a pass to requested inputs, else null: the nodes among them
  Ways ways{};
  Ref made{};
  SideBySide slices{};

  PyObject* python() {
    if (self) return self;
    made = Ref(PyObject_CallFunction(kind, "OOOO", Py_None, retain ? Py_True : Py_False, Py_False, Py_True));
    if (made && PyObject_SetAttrString(made.get(), "leaves", leaves) == 0) self = made.get();
    return self;
  }

  bool to_leaf(PyObject* leaf, PyObject* part) {
    Ref key(PyLong_FromVoidPtr(leaf));
    if (!key) return false;
    if (ways.leaves) {
      const int asked = PySet_Contains(ways.leaves, key.get());
      if (asked < 1) return !asked;
    }
    PyObject* held = PyDict_GetItemWithError(leaves, key.get());
    if (!held && PyErr_Occurred()) return false;
    Ref sum = held ? added(PyTuple_GET_ITEM(held, 1), part) : Ref::borrowed(part);
    Ref pair(sum ? PyTuple_Pack(2, leaf, sum.get()) : nullptr);
    return pair && PyDict_SetItem(leaves, key.get(), pair.get()) == 0;
  }

  bool to_node(PyObject* node, PyObject* part) {
    if (ways.nodes) {
      const int leads = PySet_Contains(ways.nodes, node);
      if (leads < 1) return !leads;
    }
    PyObject* held = PyDict_GetItemWithError(pending, node);
    if (!held && PyErr_Occurred()) return false;
    if (!held) {
      if (PyDict_SetItem(pending, node, part) < 0) return false;
      push(heap, node);
      return true;
    }
    if (!slices.finish(node)) return false;
    Ref sum = added(held, part);
    return sum && PyDict_SetItem(pending, node, sum.get()) == 0;
  }

  bool send(PyObject* node, PyObject* slot, PyObject* part) {
    if (!slices.finish_all() || !python()) return false;
    PyObject* six[] = {self, reinterpret_cast<PyObject*>(heap), pending, node, slot, part};
    Ref done(PyObject_VectorcallMethod(names.send, six, 6, nullptr));
    return static_cast<bool>(done);
  }

  bool hand_on(NodeObject* node, PyObject* grads) {
    PyObject *edges = node->f[NodeObject::kEdges], *slots = node->f[NodeObject::kSlots];
    const Py_ssize_t count = std::min(PySequence_Fast_GET_SIZE(edges), PySequence_Fast_GET_SIZE(grads));
    for (Py_ssize_t i = 0; i < count; ++i) {
      PyObject *edge = PySequence_Fast_GET_ITEM(edges, i), *part = PySequence_Fast_GET_ITEM(grads, i);
      if (edge == Py_None || part == Py_None) continue;
      bool good;
      if (!is_node(edge)) {
        good = to_leaf(edge, part);
      } else if (as_node(edge)->count == 1) {
        good = to_node(edge, part);
      } else {
        Ref slot = slots == Py_None ? Ref(PyLong_FromLong(0)) : Ref(PySequence_GetItem(slots, i));
        good = slot && send(edge, slot.get(), part);
      }
      if (!good) return false;
    }
    return true;
  }

  bool visit_one() {
    Ref held = pop(heap);
    NodeObject* node = as_node(held.get());
    if (!slices.finish(held.get())) return false;
    Ref g = Ref::borrowed(PyDict_GetItemWithError(pending, held.get()));
    if (!g) {
      if (!PyErr_Occurred()) PyErr_SetString(PyExc_KeyError, "a node without a gradient");
      return false;
    }
    if (PyDict_DelItem(pending, held.get()) < 0) return false;
    const int asked = wanted ? PyDict_Contains(wanted, held.get()) : 0;
    if (asked < 0) return false;
    if (node->watched || node->count != 1 || asked) {
      if (!slices.finish_all() || !python()) return false;
      PyObject* five[] = {self, reinterpret_cast<PyObject*>(heap), pending, held.get(), g.get()};
      Ref done(PyObject_VectorcallMethod(names.visit, five, 5, nullptr));
      return static_cast<bool>(done);
    }
    PyObject *saved = node->f[NodeObject::kSaved], *outputs = node->f[NodeObject::kSavedOutputs];
    const bool keeps = PyTuple_GET_SIZE(saved) || PyTuple_GET_SIZE(outputs);
    if (keeps && !check(node)) return false;
    PyObject* found = door_of(Py_TYPE(g.get()));
    if (!found && PyErr_Occurred()) return false;
    Ref door = found ? Ref::borrowed(found) : Ref(PyObject_GetItem(doors(), reinterpret_cast<PyObject*>(Py_TYPE(g.get()))));
    if (!door) return false;
    // held: a pass of another thread, or one within the rule, may free what the node saved
    const Ref held_saved = Ref::borrowed(saved), held_outputs = Ref::borrowed(outputs);
    const int in_place = add_into(door.get(), node, g.get());
    if (in_place < 0) return false;
    if (!in_place && !spread(door.get(), node, g)) return false;
    if (keeps && !retain) {
      set_borrowed(node->f[NodeObject::kSaved], known.freed);
      static PyObject* empty = PyTuple_New(0);
      set_borrowed(node->f[NodeObject::kSavedOutputs], empty);
    }
    return true;
  }

  // The gradients of the node's inputs, to where the inputs came from; g is let go before.
  bool spread(PyObject* door, NodeObject* node, Ref& g) {
    Ref grads(differentiate(door, node, g.get(), ways));
    if (!grads) return false;
    if (!PyTuple_Check(grads.get()) && !PyList_Check(grads.get())) {
      PyErr_Format(PyExc_TypeError, "a derivative rule returned %s, expected a tuple", Py_TYPE(grads.get())->tp_name);
      return false;
    }
    g = Ref();
    return hand_on(node, grads.get());
  }

  // _Pass.add_into: 1 where it was done, 0 where not, -1 with an error set.
  int add_into(PyObject* door, NodeObject* node, PyObject* g) {
    PyObject* op = node->f[NodeObject::kOp];
    if (!PyObject_TypeCheck(op, &OpType) || as_op(op)->kind != OpObject::kOp) return 0;
    PyObject* kernel = as_op(op)->f[OpObject::kAdds];
    if (kernel == Py_None) return 0;
    const int taken = slices.take(pending, door, node, g);
    if (taken) {
      if (taken == 2) push(heap, PySequence_Fast_GET_ITEM(node->f[NodeObject::kEdges], 0));
      return taken < 0 ? -1 : 1;
    }
    if (!PyArray_CheckExact(g)) return 0;
    PyObject* edge = PySequence_Fast_GET_ITEM(node->f[NodeObject::kEdges], 0);
    PyObject* total = nullptr;
    if (is_node(edge)) {
      if (as_node(edge)->count == 1) total = PyDict_GetItemWithError(pending, edge);
    } else {
      Ref key(PyLong_FromVoidPtr(edge));
      PyObject* pair = key ? PyDict_GetItemWithError(leaves, key.get()) : nullptr;
      if (pair) total = PyTuple_GET_ITEM(pair, 1);
    }
    if (!total) return PyErr_Occurred() ? -1 : 0;
    if (!is_fresh(total) || PyArray_DESCR(as_array(total)) != PyArray_DESCR(as_array(g))) return 0;
    PyObject* attrs = node->f[NodeObject::kAttrs];
    Ref found(PyObject_GetAttr(door, kernel)), args(PyTuple_Pack(2, total, g));
    Ref done(found && args ? PyObject_Call(found.get(), args.get(), attrs) : nullptr);
    return done ? 1 : -1;
  }

  // _Pass.deliver: the usual gradient, an array that nobody else knows, becomes the leaf's as it is; the others are Python's to
  // `land`. Below kWorthAsking bytes a view is copied: that takes no longer than to ask whether it may be kept.
  bool deliver() {
    Ref all(PyDict_Values(leaves)), kept;
    if (!all) return false;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(all.get()); ++i) {
      PyObject* pair = PyList_GET_ITEM(all.get(), i);
      PyObject *leaf = PyTuple_GET_ITEM(pair, 0), *g = PyTuple_GET_ITEM(pair, 1);
      if (!is_tensor(leaf)) return PyErr_Format(PyExc_TypeError, "deliver: expected tensors") != nullptr;
      TensorObject* t = as_tensor(leaf);
      PyObject* data = t->f[TensorObject::kData];
      bool own = Py_REFCNT(g) == 1;
      if (own && data && PyArray_CheckExact(g) && PyArray_CheckExact(data)) {
        PyObject* base = PyArray_BASE(as_array(g));
        own = !base || !PyArray_Check(base);
        if (!own && PyArray_NBYTES(as_array(g)) >= kWorthAsking) {
          if (!kept) kept = Ref(python() ? PyObject_CallMethodNoArgs(self, names.private_views) : nullptr);
          Ref key(kept ? PyLong_FromVoidPtr(leaf) : nullptr);
          const int found = key ? PySet_Contains(kept.get(), key.get()) : -1;
          if (found < 0) return false;
          own = found == 1;
        }
        if (own && t->f[TensorObject::kGrad] == Py_None && t->f[TensorObject::kHooks] == Py_None &&
            t->f[TensorObject::kPostHooks] == Py_None && PyArray_DESCR(as_array(g)) == PyArray_DESCR(as_array(data)) &&
            same_shape(as_array(g), as_array(data))) {
          PyObject* made = wrapped(g, switches.inference);
          if (!made) return false;
          set(t->f[TensorObject::kGrad], made);
          continue;
        }
      } else if (own) {
        Ref base(PyObject_GetAttrString(g, "base"));
        if (!base) return false;
        own = !PyObject_TypeCheck(base.get(), Py_TYPE(g));
      }
      if (!python()) return false;
      PyObject* four[] = {self, leaf, g, own ? Py_True : Py_False};
      Ref done(PyObject_VectorcallMethod(names.land, four, 4, nullptr));
      if (!done) return false;
    }
    return true;
  }
};

}  // namespace

PyTypeObject HeapType = {PyVarObject_HEAD_INIT(nullptr, 0)};

bool add_heap(PyObject* module) {
  heap_sequence.sq_length = heap_size;
  HeapType.tp_name = "tensorgrad._tape.Heap";
  HeapType.tp_basicsize = sizeof(HeapObject);
  HeapType.tp_flags = Py_TPFLAGS_DEFAULT;
  HeapType.tp_new = new_heap;
  HeapType.tp_dealloc = free_heap;
  HeapType.tp_methods = heap_methods;
  HeapType.tp_as_sequence = &heap_sequence;
  if (PyType_Ready(&HeapType) < 0) return false;
  Py_INCREF(&HeapType);
  return PyModule_AddObject(module, "Heap", reinterpret_cast<PyObject*>(&HeapType)) == 0;
}

// deliver(pass, leaves)
PyObject* deliver(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 2 || !PyDict_Check(args[1])) return PyErr_Format(PyExc_TypeError, "deliver: expected (pass, leaves)");
  Pass pass{args[0], nullptr, args[1], nullptr, false};
  if (!pass.deliver()) return nullptr;
  Py_RETURN_NONE;
}

// go(pass, heap, pending, leaves, retain), and of a pass to requested inputs (..., wanted, needed, wanted leaves)
PyObject* go(PyObject*, PyObject* const* args, Py_ssize_t count) {
  const bool asks = count == 8 && PyDict_Check(args[5]) && PySet_Check(args[6]) && PySet_Check(args[7]);
  if ((count != 5 && !asks) || Py_TYPE(args[1]) != &HeapType || !PyDict_Check(args[2]) || !PyDict_Check(args[3]))
    return PyErr_Format(PyExc_TypeError, "go: expected (pass, heap, pending, leaves, retain[, wanted, needed, wanted leaves])");
  const int retain = PyObject_IsTrue(args[4]);
  if (retain < 0) return nullptr;
  Pass pass{args[0], args[2], args[3], reinterpret_cast<HeapObject*>(args[1]), retain != 0};
  if (asks) pass.wanted = args[5], pass.ways = Ways{args[6], args[7]};
  while (!pass.heap->nodes->empty())
    if (!pass.visit_one()) return nullptr;
  Py_RETURN_NONE;
}

namespace {

// A one for each element, of what a loss is mostly made of; null without an error for other arrays.
Ref ones_like(PyArrayObject* data) {
  const int type = PyArray_TYPE(data);
  if (type != NPY_FLOAT32 && type != NPY_FLOAT64) return Ref();
  Ref made(PyArray_NewLikeArray(data, NPY_CORDER, nullptr, 0));
  if (!made) return made;
  if (type == NPY_FLOAT32) *static_cast<float*>(PyArray_DATA(as_array(made.get()))) = 1.0f;
  else *static_cast<double*>(PyArray_DATA(as_array(made.get()))) = 1.0;
  return made;
}

}  // namespace

// backward(kind of pass, root, retain): the whole pass from a loss, as engine.run makes it; False, and nothing is done, where it
// is another root or within a pass to requested inputs.
PyObject* backward(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 3 || !is_tensor(args[1])) return PyErr_Format(PyExc_TypeError, "backward: expected (kind of pass, root, retain)");
  const int retain = PyObject_IsTrue(args[2]);
  if (retain < 0) return nullptr;
  TensorObject* root = as_tensor(args[1]);
  PyArrayObject* data = array_of(args[1]);
  PyObject* node = root->f[TensorObject::kNode];
  if (switches.lead || !data || PyArray_SIZE(data) != 1 || !is_node(node) || as_node(node)->count != 1 ||
      root->f[TensorObject::kBase] != Py_None)
    Py_RETURN_FALSE;
  Ref seed = ones_like(data);
  if (!seed) {
    if (PyErr_Occurred()) return nullptr;
    Py_RETURN_FALSE;
  }
  Ref heap(new_heap(&HeapType, nullptr, nullptr)), pending(PyDict_New()), leaves(PyDict_New());
  if (!heap || !pending || !leaves || PyDict_SetItem(pending.get(), node, seed.get()) < 0) return nullptr;
  seed = Ref();
  Pass pass{nullptr, pending.get(), leaves.get(), reinterpret_cast<HeapObject*>(heap.get()), retain != 0, args[0]};
  push(pass.heap, node);
  const bool before = switches.recording;
  switches.recording = false;
  bool good = true;
  while (good && !pass.heap->nodes->empty()) good = pass.visit_one();
  good = good && pass.deliver();
  switches.recording = before;
  if (!good) return nullptr;
  Py_RETURN_TRUE;
}

}  // namespace tape
