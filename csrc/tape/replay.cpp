// The usual call of a compiled function: what an entry's `admits`, `holds` and `replay` say in Python (compiler/entry.py), and
// for a pair of programs the node that its results hang on, and what that does backward (compiler/pair.py).
//
// A program runs in a block of memory, an instance (compiler/native.py). What lies there is lent: an array that is handed out in
// every run, or a new one with a lease. While somebody holds either, the instance is not run again.
#include "tape.h"

#include <cstring>
#include <vector>

namespace tape {
namespace {

// What the entry of a program is to replay(), by number. kGone: the node of a result whose graph the run has freed, or None.
enum Part { kTemplate, kFacts, kForms, kWithout, kForgotten, kWaiting, kCells, kLeaves, kNumbers, kAlone, kGone, kPair, kParts };

// Of a pair: its nodes' op; by target the number of its gradient; the targets, as tensors or numbers of arguments; the
// tensors that backward reads besides; how many results have a gradient; the numbers of the arguments that backward reads; the
// tensors that another run would read.
enum PairPart { kBackward, kGradients, kTargets, kState, kLive, kRead, kRestsOn, kPairParts };

// An instance: what is lent and how often the instance itself holds it, the program, what names an error, the outputs' arrays
// and those that are not handed
// out as they are: (number, how, number of the argument, what is lent). The second stage's in the same order.
enum Packed { kLent, kCounts, kArrays, kOthers, kPlay, kMeaning, kLentLate, kCountsLate, kArraysLate, kOthersLate };

enum How : long { kGiven, kFixed, kCopied, kLentOut, kLeased };

// What a pair's node saves: the instance, a lease of what lies there, the arguments, how often what a run reads has changed.
enum Saved { kInstance, kToken, kTensors, kChanges };

bool is_held(PyObject* lent, PyObject* counts) {
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(lent); ++i)
    if (Py_REFCNT(PyList_GET_ITEM(lent, i)) != PyLong_AsSsize_t(PyTuple_GET_ITEM(counts, i))) return true;
  return false;
}

bool without_gradient(PyObject* leaves) {
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(leaves); ++i)
    if (as_tensor(PyList_GET_ITEM(leaves, i))->f[TensorObject::kGrad] != Py_None) return false;
  return true;
}

// Another array on the same memory, which whoever gets it may keep as its own; the lease is held as long as it lives.
PyObject* lent_array(PyArrayObject* from, PyObject* lease) {
  PyArray_Descr* dtype = PyArray_DESCR(from);
  Py_INCREF(dtype);
  PyObject* made = PyArray_NewFromDescr(&PyArray_Type, dtype, PyArray_NDIM(from), PyArray_SHAPE(from), PyArray_STRIDES(from),
                                        PyArray_DATA(from), NPY_ARRAY_WRITEABLE, nullptr);
  if (!made) return nullptr;
  Py_INCREF(lease);
  if (PyArray_SetBaseObject(as_array(made), lease) == 0) return made;
  Py_DECREF(made);
  return nullptr;
}

// Whether nobody has changed what an array is (its shape, say, which can be set).
bool is_still(PyArrayObject* lent, PyArrayObject* from) {
  const int n = PyArray_NDIM(from);
  return PyArray_NDIM(lent) == n && PyArray_DATA(lent) == PyArray_DATA(from) && PyArray_DESCR(lent) == PyArray_DESCR(from) &&
         PyArray_ISWRITEABLE(lent) && PyArray_CompareLists(PyArray_SHAPE(lent), PyArray_SHAPE(from), n) &&
         PyArray_CompareLists(PyArray_STRIDES(lent), PyArray_STRIDES(from), n);
}

// As PyArray_NewCopy, without its search for who copies.
PyObject* copy_of(PyArrayObject* from) {
  PyArray_Descr* dtype = PyArray_DESCR(from);
  if (!PyArray_IS_C_CONTIGUOUS(from) || PyDataType_REFCHK(dtype)) return PyArray_NewCopy(from, NPY_CORDER);
  Py_INCREF(dtype);
  PyObject* made = PyArray_NewFromDescr(&PyArray_Type, dtype, PyArray_NDIM(from), PyArray_SHAPE(from), nullptr, nullptr, 0, nullptr);
  if (made) std::memcpy(PyArray_DATA(as_array(made)), PyArray_DATA(from), static_cast<std::size_t>(PyArray_NBYTES(from)));
  return made;
}

// The outputs' arrays after a run.
Ref handed_out(PyObject* arrays, PyObject* others, PyObject* given) {
  Ref made(PyList_GetSlice(arrays, 0, PyList_GET_SIZE(arrays)));
  for (Py_ssize_t i = 0; made && i < PyTuple_GET_SIZE(others); ++i) {
    PyObject* other = PyTuple_GET_ITEM(others, i);
    const Py_ssize_t at = PyLong_AsSsize_t(PyTuple_GET_ITEM(other, 0));
    const long how = PyLong_AsLong(PyTuple_GET_ITEM(other, 1));
    PyArrayObject* own = how == kGiven ? nullptr : as_array(PyList_GET_ITEM(arrays, at));
    PyObject *lent = PyTuple_GET_ITEM(other, 3), *array = nullptr;
    if (how == kCopied || (how == kLentOut && !is_still(as_array(lent), own))) {
      array = copy_of(own);
    } else if (how == kLeased) {
      array = lent_array(own, lent);
    } else {
      array = how == kLentOut ? lent : PyList_GET_ITEM(given, PyLong_AsSsize_t(PyTuple_GET_ITEM(other, 2)));
      Py_INCREF(array);
    }
    if (!array || PyList_SetItem(made.get(), at, array) < 0) return Ref();
  }
  return made;
}

// The last instance that is idle, which no other thread may take meanwhile; null, maybe without an error.
Ref taken(PyObject* waiting) {
  for (Py_ssize_t i = PyList_GET_SIZE(waiting); i-- > 0;) {
    PyObject* instance = PyList_GET_ITEM(waiting, i);
    if (is_held(PyTuple_GET_ITEM(instance, kLent), PyTuple_GET_ITEM(instance, kCounts))) continue;
    Ref found = Ref::borrowed(instance);
    return PyList_SetSlice(waiting, i, i + 1, nullptr) == 0 ? std::move(found) : Ref();
  }
  return Ref();
}

// Runs a stage: True, or False where it can't be run with what is given; an error says which call it comes from.
Ref play(PyObject* instance, long stage, PyObject* given) {
  Ref number(PyLong_FromLong(stage));
  PyObject* const both[] = {number.get(), given};
  Ref done(number ? PyObject_Vectorcall(PyTuple_GET_ITEM(instance, kPlay), both, 2, nullptr) : nullptr);
  if (done) return done;
  PyObject *type, *value, *trace;
  PyErr_Fetch(&type, &value, &trace);
  PyErr_NormalizeException(&type, &value, &trace);
  Ref named(value ? PyObject_CallOneArg(PyTuple_GET_ITEM(instance, kMeaning), value) : nullptr);
  if (named && PyExceptionInstance_Check(named.get())) {
    PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(named.get())), named.get());
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(trace);
  } else {
    PyErr_Restore(type, value, trace);
  }
  return Ref();
}

// PairEntry._recorded, but for what is known after the run alone. Null without an error where Python must see to it.
Ref begun_node(PyObject* pair, PyObject* tensors) {
  PyObject *targets = PyTuple_GET_ITEM(pair, kTargets), *state = PyTuple_GET_ITEM(pair, kState);
  for (PyObject* list : {state, tensors})
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(list); ++i)
      if (as_tensor(PyTuple_GET_ITEM(list, i))->f[TensorObject::kInference] != Py_False) return Ref();  // it says what is wrong
  const Py_ssize_t n = PyTuple_GET_SIZE(targets);
  std::vector<PyObject*> inputs(static_cast<std::size_t>(n)), edges(static_cast<std::size_t>(n));
  for (Py_ssize_t i = 0; i < n; ++i) {
    PyObject* who = PyTuple_GET_ITEM(targets, i);
    PyObject* x = inputs[static_cast<std::size_t>(i)] =
        is_tensor(who) ? who : PyTuple_GET_ITEM(tensors, PyLong_AsSsize_t(who));
    if (!(edges[static_cast<std::size_t>(i)] = edge_of(x))) return Ref();
  }
  Ref made(new_object(known.node));
  if (!made) return made;
  NodeObject* node = as_node(made.get());
  node->count = PyLong_AsSsize_t(PyTuple_GET_ITEM(pair, kLive));
  set_borrowed(node->f[NodeObject::kOp], PyTuple_GET_ITEM(pair, kBackward));
  set_borrowed(node->f[NodeObject::kPlan], PyTuple_GET_ITEM(pair, kGradients));
  Ref all = tuple_of(edges.data(), n);
  if (!all || !note_slots(node, inputs.data(), edges.data(), n)) return Ref();
  set(node->f[NodeObject::kEdges], all.release());
  return made;
}

bool finish_node(NodeObject* node, PyObject* pair, PyObject* instance, PyObject* tensors) {
  PyObject *state = PyTuple_GET_ITEM(pair, kState), *read = PyTuple_GET_ITEM(pair, kRead);
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(state); ++i)
    if (!watch(node, as_tensor(PyTuple_GET_ITEM(state, i)))) return false;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(read); ++i)
    if (!watch(node, as_tensor(PyTuple_GET_ITEM(tensors, PyLong_AsSsize_t(PyTuple_GET_ITEM(read, i)))))) return false;
  long long changes = 0;
  for (PyObject* list : {PyTuple_GET_ITEM(pair, kRestsOn), tensors})
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(list); ++i) {
      PyObject* cell = as_tensor(PyTuple_GET_ITEM(list, i))->f[TensorObject::kVersion];
      const Py_ssize_t counts = cell == Py_None ? 0 : PyList_GET_SIZE(cell);
      for (Py_ssize_t at = 0; at < counts; ++at) changes += PyLong_AsLongLong(PyList_GET_ITEM(cell, at));
    }
  Ref number(PyLong_FromLongLong(changes));
  PyObject* const saved[] = {instance, PyList_GET_ITEM(PyTuple_GET_ITEM(instance, kLent), 0), tensors, number.get()};
  if (!number) return false;
  Ref all = tuple_of(saved, 4);
  if (!all) return false;
  set(node->f[NodeObject::kSaved], all.release());
  return note_line(node);
}

// Gradients that a replay forgets, if nobody else has them, to be its new ones.
class Spares {
 public:
  ~Spares() {
    while (count_) Py_DECREF(items_[--count_]);
  }
  // The leaf's gradient becomes None.
  void take(TensorObject* leaf) {
    PyObject*& field = leaf->f[TensorObject::kGrad];
    if (count_ < kMost && field != Py_None && is_tensor(field) && is_untouched(field)) {
      set_borrowed(as_tensor(field)->f[TensorObject::kData], Py_None);
      items_[count_++] = field;
      Py_INCREF(Py_None);
      field = Py_None;
    } else {
      set_borrowed(field, Py_None);
    }
  }
  PyObject* wrapped(PyObject* array) {
    if (!count_ || switches.inference) return tape::wrapped(array, switches.inference);
    PyObject* made = items_[--count_];
    set_borrowed(as_tensor(made)->f[TensorObject::kData], array);
    return made;
  }

 private:
  static constexpr int kMost = 32;
  int count_ = 0;
  PyObject* items_[kMost];
};

// The leaves' gradients become arrays[number], or None for the number None. False with an error set.
bool give(PyObject* leaves, PyObject* numbers, PyObject* arrays, Spares& spares) {
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(leaves); ++i) {
    PyObject *leaf = PyList_GET_ITEM(leaves, i), *number = PyList_GET_ITEM(numbers, i);
    if (!is_tensor(leaf)) return PyErr_Format(PyExc_TypeError, "grant: expected tensors");
    PyObject*& field = as_tensor(leaf)->f[TensorObject::kGrad];
    if (number == Py_None) {
      set_borrowed(field, Py_None);
      continue;
    }
    const Py_ssize_t at = PyLong_AsSsize_t(number);
    if (at < 0 || at >= PyList_GET_SIZE(arrays)) return PyErr_Format(PyExc_IndexError, "grant: there is no array %zd", at);
    PyObject* made = spares.wrapped(PyList_GET_ITEM(arrays, at));
    if (!made) return false;
    set(field, made);
  }
  return true;
}

}  // namespace

// references(arrays): how many references each has; what nobody else holds has as many as before.
PyObject* references(PyObject*, PyObject* arrays) {
  if (!PyList_Check(arrays)) return PyErr_Format(PyExc_TypeError, "references: expected a list");
  const Py_ssize_t n = PyList_GET_SIZE(arrays);
  Ref counts(PyTuple_New(n));
  for (Py_ssize_t i = 0; counts && i < n; ++i) {
    PyObject* number = PyLong_FromSsize_t(Py_REFCNT(PyList_GET_ITEM(arrays, i)));
    if (!number) return nullptr;
    PyTuple_SET_ITEM(counts.get(), i, number);
  }
  return counts.release();
}

// unheld(arrays, counts): whether each array has as many references as it had.
PyObject* unheld(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 2 || !PyList_Check(args[0]) || !PyTuple_Check(args[1]) || PyList_GET_SIZE(args[0]) != PyTuple_GET_SIZE(args[1]))
    return PyErr_Format(PyExc_TypeError, "unheld: expected a list and a tuple as long");
  return PyBool_FromLong(!is_held(args[0], args[1]));
}

// grant(leaves, numbers, arrays): the leaves' gradients become arrays[number], or None for the number None.
PyObject* grant(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 3 || !PyList_Check(args[0]) || !PyList_Check(args[1]) || !PyList_Check(args[2]) ||
      PyList_GET_SIZE(args[0]) != PyList_GET_SIZE(args[1]))
    return PyErr_Format(PyExc_TypeError, "grant: expected three lists");
  Spares none;
  if (!give(args[0], args[1], args[2], none)) return nullptr;
  Py_RETURN_NONE;
}

// lend(array, lease): another array on the same memory.
PyObject* lend(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 2 || !PyArray_CheckExact(args[0]) || PyArray_Check(args[1]))
    return PyErr_Format(PyExc_TypeError, "lend: expected an array, and what is no array");
  return lent_array(as_array(args[0]), args[1]);
}

// replay(entry, args, kwargs): the result if it is one tensor that the program makes, else the outputs' arrays (of a pair: and
// its node); NotImplemented where Python must see to it, None where it must run the program, since no instance can.
PyObject* replay(PyObject* module, PyObject* const* args, Py_ssize_t count) {
  if (count != 3 || !PyTuple_Check(args[0]) || PyTuple_GET_SIZE(args[0]) != kParts)
    return PyErr_Format(PyExc_TypeError, "replay: expected (entry, args, kwargs)");
  const auto part = [&](Part which) { return PyTuple_GET_ITEM(args[0], which); };
  PyObject* const call[] = {part(kTemplate), args[1], args[2]};
  Ref fits(call_fits(module, call, 3));
  if (!fits) return nullptr;
  if (fits.get() != Py_True || !without_gradient(part(kWithout))) Py_RETURN_NOTIMPLEMENTED;
  const int truth = rests(part(kFacts), part(kForms));
  if (truth < 0) return nullptr;
  PyObject *waiting = part(kWaiting), *pair = part(kPair);
  if (!truth || !PyList_GET_SIZE(waiting)) Py_RETURN_NOTIMPLEMENTED;
  // the tensors and their arrays, as the template's order has them
  PyObject* names = PyTuple_GET_ITEM(part(kTemplate), 1);
  const Py_ssize_t n = PyTuple_GET_SIZE(args[1]), named = PyTuple_GET_SIZE(names);
  Ref given(PyList_New(0));
  std::vector<PyObject*> tensors;
  for (Py_ssize_t i = 0; given && i < n + named; ++i) {
    PyObject* x = i < n ? PyTuple_GET_ITEM(args[1], i) : PyDict_GetItemWithError(args[2], PyTuple_GET_ITEM(names, i - n));
    if (!x) return nullptr;
    if (!is_tensor(x)) continue;
    if (PyList_Append(given.get(), as_tensor(x)->f[TensorObject::kData]) < 0) return nullptr;
    if (pair != Py_None) tensors.push_back(x);
  }
  if (!given) return nullptr;
  Ref node, arguments;
  if (pair != Py_None) {
    arguments = tuple_of(tensors.data(), static_cast<Py_ssize_t>(tensors.size()));
    if (!arguments) return nullptr;
    node = begun_node(pair, arguments.get());
    if (!node) {
      if (PyErr_Occurred()) return nullptr;
      Py_RETURN_NOTIMPLEMENTED;
    }
  }
  // first the gradients that the program forgets: they lie in the instance that has made them, which is idle without them
  PyObject* forgotten = part(kForgotten);
  Spares spares;
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(forgotten); ++i) spares.take(as_tensor(PyList_GET_ITEM(forgotten, i)));
  Ref instance = taken(waiting), done, arrays;
  if (instance) done = play(instance.get(), 0, given.get());
  else if (PyErr_Occurred()) return nullptr;
  if (!instance || done.get() == Py_False) {
    if (instance && PyList_Append(waiting, instance.get()) < 0) return nullptr;
    if (PyList_GET_SIZE(forgotten)) Py_RETURN_NONE;
    Py_RETURN_NOTIMPLEMENTED;
  }
  if (done) arrays = handed_out(PyTuple_GET_ITEM(instance.get(), kArrays), PyTuple_GET_ITEM(instance.get(), kOthers), given.get());
  PyObject *type, *value, *trace;
  PyErr_Fetch(&type, &value, &trace);
  const bool back = PyList_Append(waiting, instance.get()) == 0;
  if (!arrays) {
    if (!back) PyErr_Clear();
    PyErr_Restore(type, value, trace);
  }
  if (!arrays || !back) return nullptr;
  Ref bumped(bump(module, part(kCells)));
  if (!bumped || !give(part(kLeaves), part(kNumbers), arrays.get(), spares)) return nullptr;
  if (node && !finish_node(as_node(node.get()), pair, instance.get(), arguments.get())) return nullptr;
  if (part(kAlone) == Py_None) return node ? PyTuple_Pack(2, arrays.get(), node.get()) : arrays.release();
  PyObject* result = wrapped(PyList_GET_ITEM(arrays.get(), PyLong_AsSsize_t(part(kAlone))), switches.inference);
  if (result && part(kGone) != Py_None) {
    set_borrowed(as_tensor(result)->f[TensorObject::kNode], part(kGone));
    set_borrowed(as_tensor(result)->f[TensorObject::kTracked], Py_True);
  }
  if (result && node) put_on_tape(result, node.get());
  return result;
}

// run_backward(instance, seeds): the second stage's outputs; NotImplemented while somebody has those of its last run, or another
// thread runs it.
PyObject* run_backward(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 2 || !PyTuple_Check(args[0]) || !PyList_Check(args[1]))
    return PyErr_Format(PyExc_TypeError, "run_backward: expected (instance, seeds)");
  PyObject* lent = PyTuple_GET_ITEM(args[0], kLentLate);
  if (is_held(lent, PyTuple_GET_ITEM(args[0], kCountsLate))) Py_RETURN_NOTIMPLEMENTED;
  const Ref busy = Ref::borrowed(PyList_GET_ITEM(lent, 0));
  if (!play(args[0], 1, args[1])) return nullptr;
  return handed_out(PyTuple_GET_ITEM(args[0], kArraysLate), PyTuple_GET_ITEM(args[0], kOthersLate), args[1]).release();
}

PyObject* pair_gradients(NodeObject* node, PyObject* g) {
  PyObject *saved = node->f[NodeObject::kSaved], *numbers = node->f[NodeObject::kPlan];
  const Ref instance = Ref::borrowed(PyTuple_GET_SIZE(saved) > kTensors ? PyTuple_GET_ITEM(saved, kInstance) : Py_None);
  if (!PyTuple_CheckExact(instance.get()) || !PyTuple_CheckExact(numbers) || !PyArray_CheckExact(g)) Py_RETURN_NOTIMPLEMENTED;
  const Ref token = Ref::borrowed(PyTuple_GET_ITEM(saved, kToken));
  Ref seeds(PyList_New(1));
  if (!seeds) return nullptr;
  Py_INCREF(g);
  PyList_SET_ITEM(seeds.get(), 0, g);
  PyObject* const both[] = {instance.get(), seeds.get()};
  Ref arrays(run_backward(nullptr, both, 2));
  if (!arrays || arrays.get() == Py_NotImplemented) return arrays.release();
  const Py_ssize_t n = PyTuple_GET_SIZE(numbers);
  Ref made(PyTuple_New(n));
  for (Py_ssize_t i = 0; made && i < n; ++i) {
    PyObject* number = PyTuple_GET_ITEM(numbers, i);
    PyObject* part = number == Py_None ? Py_None : PyList_GetItem(arrays.get(), PyLong_AsSsize_t(number));
    if (!part) return nullptr;
    Py_INCREF(part);
    PyTuple_SET_ITEM(made.get(), i, part);
  }
  return made.release();
}

}  // namespace tape
