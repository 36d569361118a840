// Asked before each replay of a program: whether a call's arguments are those it was written for (compiler/signature.py), and
// whether all that it rests on is as it was (compiler/reach.py, whose `changed` is the meaning, and gives the words). And what
// a replay leaves behind.
#include "tape.h"

#include <cmath>
#include <memory>
#include <vector>

namespace tape {
namespace {

// Numbers and text may be other objects of the same value: the same bits, as -0.0 divides otherwise than 0.0.
int same(PyObject* now, PyObject* then) {
  if (now == then) return 1;
  if (!now || Py_TYPE(now) != Py_TYPE(then)) return 0;
  if (PyFloat_CheckExact(now)) {
    const double a = PyFloat_AS_DOUBLE(now), b = PyFloat_AS_DOUBLE(then);
    return (a == b && std::signbit(a) == std::signbit(b)) || (a != a && b != b);
  }
  if (PyLong_Check(now) || PyUnicode_CheckExact(now) || PyBytes_CheckExact(now) || PyComplex_CheckExact(now))
    return PyObject_RichCompareBool(now, then, Py_EQ);
  return PyMethod_Check(now) ? PyObject_RichCompareBool(now, then, Py_EQ) : 0;
}

// What stands in a holder under a key (in an object with slots: under a name), borrowed, kept alive by `kept`; null with or
// without an error.
PyObject* look(PyObject* holder, PyObject* key, Ref& kept) {
  if (PyDict_Check(holder)) return PyDict_GetItemWithError(holder, key);
  if (PyCell_Check(holder)) return PyCell_GET(holder);
  if (PyList_Check(holder) || PyTuple_Check(holder)) {
    const Py_ssize_t at = PyLong_Check(key) ? PyLong_AsSsize_t(key) : -1;
    const Py_ssize_t size = PyList_Check(holder) ? PyList_GET_SIZE(holder) : PyTuple_GET_SIZE(holder);
    if (at < 0 || at >= size) return nullptr;
    return PyList_Check(holder) ? PyList_GET_ITEM(holder, at) : PyTuple_GET_ITEM(holder, at);
  }
  if (!PyUnicode_Check(key)) return nullptr;
  const bool proxy = Py_TYPE(holder) == &PyDictProxy_Type;  // a class's dictionary
  kept = Ref(proxy ? PyObject_GetItem(holder, key) : PyObject_GetAttr(holder, key));
  if (!kept && PyErr_ExceptionMatches(proxy ? PyExc_KeyError : PyExc_AttributeError)) PyErr_Clear();
  return kept.get();
}

bool are(const npy_intp* found, PyObject* expected, int n) {
  if (PyTuple_GET_SIZE(expected) != n) return false;
  for (int i = 0; i < n; ++i)
    if (PyLong_AsSsize_t(PyTuple_GET_ITEM(expected, i)) != found[i]) return false;
  return true;
}

// The array whose memory an array shows. NumPy's as_strided puts objects of its own between two arrays.
PyObject* bottom(PyObject* array) {
  for (PyObject* base = PyArray_BASE(as_array(array)); base && !PyCapsule_CheckExact(base);) {
    if (PyArray_Check(base)) {
      array = base;
      base = PyArray_BASE(as_array(base));
      continue;
    }
    Ref next(PyObject_GetAttrString(base, "base"));  // whoever is between keeps it alive
    if (!next) PyErr_Clear();
    base = next.get() == Py_None ? nullptr : next.get();
  }
  return array;
}

constexpr Py_ssize_t kMostArguments = 64;

// One argument against its leaf of a template: (type, array type, shape, strides, dtype, requires grad, inference, leaf,
// number of the first tensor with this array, the state's array that it is, or None), or (value,) of a plain value, or
// (object, None) of any other.
bool fits(PyObject* x, PyObject* leaf, PyObject* owners, PyObject** arrays, Py_ssize_t& count) {
  using T = TensorObject;
  if (PyTuple_GET_SIZE(leaf) == 1) {
    const int equal = same(x, PyTuple_GET_ITEM(leaf, 0));
    if (equal < 0) PyErr_Clear();
    return equal > 0;
  }
  if (PyTuple_GET_SIZE(leaf) == 2) return x == PyTuple_GET_ITEM(leaf, 0);
  if (reinterpret_cast<PyObject*>(Py_TYPE(x)) != PyTuple_GET_ITEM(leaf, 0)) return false;
  PyArrayObject* array = array_of(x);
  if (!array || count == kMostArguments) return false;
  const auto* t = as_tensor(x);
  const int n = PyArray_NDIM(array);
  PyArray_Descr* dtype = PyArray_DESCR(array);
  auto* wanted = reinterpret_cast<PyArray_Descr*>(PyTuple_GET_ITEM(leaf, 4));
  if (!are(PyArray_SHAPE(array), PyTuple_GET_ITEM(leaf, 2), n) || !are(PyArray_STRIDES(array), PyTuple_GET_ITEM(leaf, 3), n) ||
      (dtype != wanted && !PyArray_EquivTypes(dtype, wanted)) || !PyArray_ISALIGNED(array) ||
      t->f[T::kTracked] != PyTuple_GET_ITEM(leaf, 5) || t->f[T::kInference] != PyTuple_GET_ITEM(leaf, 6) ||
      (t->f[T::kNode] == Py_None) != (PyTuple_GET_ITEM(leaf, 7) == Py_True))
    return false;
  auto* self = reinterpret_cast<PyObject*>(array);
  Py_ssize_t first = 0;
  while (first < count && arrays[first] != self) ++first;
  if (first != PyLong_AsSsize_t(PyTuple_GET_ITEM(leaf, 8))) return false;
  arrays[count++] = self;
  PyObject* state = PyTuple_GET_ITEM(leaf, 9);
  if (state != Py_None) return state == self;
  Ref key(PyLong_FromVoidPtr(bottom(self)));
  const int owned = key ? PyDict_Contains(owners, key.get()) : -1;
  if (owned < 0) PyErr_Clear();
  return owned == 0;
}

}  // namespace

// admits(template, args, kwargs): whether a call is the one that a template tells of: (number of positional arguments, names
// of the others, leaves, {identity of an array that state lies in: ...}, recording, inference, the door of NumPy's arrays).
PyObject* call_fits(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 3 || !PyTuple_Check(args[0]) || !PyTuple_Check(args[1]) || !PyDict_Check(args[2]))
    return PyErr_Format(PyExc_TypeError, "admits: expected (template, args, kwargs)");
  PyObject *form = args[0], *names = PyTuple_GET_ITEM(form, 1), *leaves = PyTuple_GET_ITEM(form, 2);
  const Py_ssize_t n = PyTuple_GET_SIZE(args[1]), named = PyTuple_GET_SIZE(names);
  if (n != PyLong_AsSsize_t(PyTuple_GET_ITEM(form, 0)) || named != PyDict_GET_SIZE(args[2]) || switches.extras || switches.casting ||
      switches.recording != (PyTuple_GET_ITEM(form, 4) == Py_True) ||
      switches.inference != (PyTuple_GET_ITEM(form, 5) == Py_True) ||
      door_of(&PyArray_Type) != PyTuple_GET_ITEM(form, 6))
    Py_RETURN_FALSE;
  PyObject* arrays[kMostArguments];
  Py_ssize_t found = 0;
  for (Py_ssize_t i = 0; i < n + named; ++i) {
    PyObject* x = i < n ? PyTuple_GET_ITEM(args[1], i) : PyDict_GetItemWithError(args[2], PyTuple_GET_ITEM(names, i - n));
    if (!x && PyErr_Occurred()) return nullptr;
    if (!x || !fits(x, PyTuple_GET_ITEM(leaves, i), PyTuple_GET_ITEM(form, 3), arrays, found)) Py_RETURN_FALSE;
  }
  Py_RETURN_TRUE;
}

// held(arrays): how many references each has; what nobody else holds has as many as before.
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
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(args[0]); ++i)
    if (Py_REFCNT(PyList_GET_ITEM(args[0], i)) != PyLong_AsSsize_t(PyTuple_GET_ITEM(args[1], i))) Py_RETURN_FALSE;
  Py_RETURN_TRUE;
}

// grant(leaves, numbers, arrays): the leaves' gradients become arrays[number], or None for the number None.
PyObject* grant(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 3 || !PyList_Check(args[0]) || !PyList_Check(args[1]) || !PyList_Check(args[2]) ||
      PyList_GET_SIZE(args[0]) != PyList_GET_SIZE(args[1]))
    return PyErr_Format(PyExc_TypeError, "grant: expected three lists");
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(args[0]); ++i) {
    PyObject *leaf = PyList_GET_ITEM(args[0], i), *number = PyList_GET_ITEM(args[1], i);
    if (!is_tensor(leaf)) return PyErr_Format(PyExc_TypeError, "grant: expected tensors");
    PyObject*& field = as_tensor(leaf)->f[TensorObject::kGrad];
    if (number == Py_None) {
      set_borrowed(field, Py_None);
      continue;
    }
    const Py_ssize_t at = PyLong_AsSsize_t(number);
    if (at < 0 || at >= PyList_GET_SIZE(args[2])) return PyErr_Format(PyExc_IndexError, "grant: there is no array %zd", at);
    PyObject* made = wrapped(PyList_GET_ITEM(args[2], at), switches.inference);
    if (!made) return nullptr;
    set(field, made);
  }
  Py_RETURN_NONE;
}

namespace {

// The three lists of compiler/reach.py, laid out for the loop.
struct Facts {
  enum Kind : char { kDict, kCell, kOther };
  struct Datum {
    PyObject *tensor, *fields[4];
  };
  struct Fact {
    PyObject *holder, *key, *value;
    Kind kind;
  };
  struct Size {
    PyObject* holder;
    Py_ssize_t size;
    bool dict;
  };
  std::vector<Datum> data;
  std::vector<Fact> facts;
  std::vector<Size> sizes;
  Ref lists[3];  // which keep all that alive
};

void free_facts(PyObject* capsule) { delete static_cast<Facts*>(PyCapsule_GetPointer(capsule, "facts")); }

// 1 if all holds, 0 if not, -1 with an error set.
int hold(const Facts& all) {
  using T = TensorObject;
  for (const auto& each : all.data) {
    const T* t = as_tensor(each.tensor);
    if (t->f[T::kData] != each.fields[0] || t->f[T::kTracked] != each.fields[1] || t->f[T::kHooks] != each.fields[2] ||
        t->f[T::kPostHooks] != each.fields[3])
      return 0;
  }
  for (const auto& each : all.facts) {
    Ref kept;
    PyObject* now = each.kind == Facts::kDict   ? PyDict_GetItemWithError(each.holder, each.key)
                    : each.kind == Facts::kCell ? PyCell_GET(each.holder)
                                                : look(each.holder, each.key, kept);
    if (now == each.value) continue;
    if (!now && PyErr_Occurred()) return -1;
    const int equal = each.value == Py_NotImplemented ? !now : same(now, each.value);
    if (equal <= 0) return PyErr_Occurred() ? -1 : 0;
  }
  for (const auto& each : all.sizes) {
    const Py_ssize_t size = each.dict ? PyDict_GET_SIZE(each.holder) : PyObject_Size(each.holder);
    if (size < 0) return -1;
    if (size != each.size) return 0;
  }
  return 1;
}

const Facts* facts_of(PyObject* capsule) {
  return static_cast<const Facts*>(PyCapsule_GetPointer(capsule, "facts"));  // sets TypeError or ValueError itself
}

// Settings of an optimizer's groups: the very objects of the last time, or else Python asks.
int forms_hold(PyObject* forms) {
  static PyObject *settings = PyUnicode_InternFromString("settings"), *group = PyUnicode_InternFromString("group"),
                  *holds = PyUnicode_InternFromString("holds");
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(forms); ++i) {
    PyObject* form = PyList_GET_ITEM(forms, i);
    Ref last(PyObject_GetAttr(form, settings)), now(PyObject_GetAttr(form, group));
    if (!last || !now) return -1;
    bool equal = PyList_Check(last.get()) && PyDict_Check(now.get()) &&
                 PyList_GET_SIZE(last.get()) == PyDict_GET_SIZE(now.get());
    PyObject *key, *value;
    for (Py_ssize_t at = 0, n = 0; equal && PyDict_Next(now.get(), &at, &key, &value); ++n)
      equal = value == PyList_GET_ITEM(last.get(), n);
    if (equal) continue;
    Ref found(PyObject_CallMethodNoArgs(form, holds));
    const int truth = found ? PyObject_IsTrue(found.get()) : -1;
    if (truth <= 0) return truth;
  }
  return 1;
}

}  // namespace

// facts(data, facts, sizes): the lists, laid out for `holds`.
PyObject* pack_facts(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 3 || !PyList_Check(args[0]) || !PyList_Check(args[1]) || !PyList_Check(args[2]))
    return PyErr_Format(PyExc_TypeError, "facts: expected three lists");
  auto made = std::make_unique<Facts>();
  for (int i = 0; i < 3; ++i) {
    made->lists[i] = Ref(PyList_AsTuple(args[i]));
    if (!made->lists[i]) return nullptr;
  }
  const auto each = [&](int list, Py_ssize_t size, auto f) {
    PyObject* all = made->lists[list].get();
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(all); ++i) {
      PyObject* one = PyTuple_GET_ITEM(all, i);
      if (!PyTuple_Check(one) || PyTuple_GET_SIZE(one) != size) return false;
      f(one);
    }
    return true;
  };
  bool good = true;
  good &= each(0, 6, [&](PyObject* one) {  // (path, tensor, array, tracked, hooks, post hooks)
    good &= is_tensor(PyTuple_GET_ITEM(one, 1));
    made->data.push_back({PyTuple_GET_ITEM(one, 1), {PyTuple_GET_ITEM(one, 2), PyTuple_GET_ITEM(one, 3),
                                                     PyTuple_GET_ITEM(one, 4), PyTuple_GET_ITEM(one, 5)}});
  });
  good &= each(1, 4, [&](PyObject* one) {  // (path, holder, key, value, or NotImplemented for none)
    PyObject* holder = PyTuple_GET_ITEM(one, 1);
    const auto kind = PyDict_Check(holder) ? Facts::kDict : PyCell_Check(holder) ? Facts::kCell : Facts::kOther;
    made->facts.push_back({holder, PyTuple_GET_ITEM(one, 2), PyTuple_GET_ITEM(one, 3), kind});
  });
  good &= each(2, 3, [&](PyObject* one) {  // (path, holder, size)
    PyObject* holder = PyTuple_GET_ITEM(one, 1);
    made->sizes.push_back({holder, PyLong_AsSsize_t(PyTuple_GET_ITEM(one, 2)), PyDict_Check(holder) != 0});
  });
  if (!good || PyErr_Occurred()) {
    PyErr_Clear();
    return PyErr_Format(PyExc_TypeError, "facts: expected lists of tuples of 6, 4 and 3");
  }
  PyObject* capsule = PyCapsule_New(made.get(), "facts", free_facts);
  if (capsule) made.release();
  return capsule;
}

// holds(facts, forms): whether all that a program rests on is as it was.
PyObject* facts_hold(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 2 || !PyList_Check(args[1])) return PyErr_Format(PyExc_TypeError, "holds: expected (facts, forms)");
  const Facts* facts = facts_of(args[0]);
  if (!facts) return nullptr;
  int truth = hold(*facts);
  if (truth > 0) truth = forms_hold(args[1]);
  return truth < 0 ? nullptr : PyBool_FromLong(truth);
}

namespace {

// What the entry of a program is to replay(), by number.
enum Part { kTemplate, kFacts, kForms, kWithout, kForgotten, kWaiting, kCells, kLeaves, kNumbers, kAlone, kParts };

bool without_gradient(PyObject* leaves) {
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(leaves); ++i)
    if (as_tensor(PyList_GET_ITEM(leaves, i))->f[TensorObject::kGrad] != Py_None) return false;
  return true;
}

// An instance as compiler/native.py packs it: (leases, their counts, play, failed, arrays, ((number, how it is handed out,
// number of the argument, lease), ...)).
enum Packed { kLent, kCounts, kPlay, kMeaning, kArrays, kOthers };

bool is_held(PyObject* lent, PyObject* counts) {
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(lent); ++i)
    if (Py_REFCNT(PyList_GET_ITEM(lent, i)) != PyLong_AsSsize_t(PyTuple_GET_ITEM(counts, i))) return true;
  return false;
}

enum How : long { kGiven, kFixed, kCopied, kLentOut };

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

// The outputs' arrays after a run.
Ref handed_out(PyObject* instance, PyObject* given) {
  PyObject *arrays = PyTuple_GET_ITEM(instance, kArrays), *others = PyTuple_GET_ITEM(instance, kOthers);
  Ref made(PyList_GetSlice(arrays, 0, PyList_GET_SIZE(arrays)));
  for (Py_ssize_t i = 0; made && i < PyTuple_GET_SIZE(others); ++i) {
    PyObject* other = PyTuple_GET_ITEM(others, i);
    const Py_ssize_t at = PyLong_AsSsize_t(PyTuple_GET_ITEM(other, 0));
    const long how = PyLong_AsLong(PyTuple_GET_ITEM(other, 1));
    PyObject* array = nullptr;
    if (how == kCopied) {
      array = PyArray_NewCopy(as_array(PyList_GET_ITEM(arrays, at)), NPY_CORDER);
    } else if (how == kLentOut) {
      array = lent_array(as_array(PyList_GET_ITEM(arrays, at)), PyTuple_GET_ITEM(other, 3));
    } else {
      array = PyList_GET_ITEM(given, PyLong_AsSsize_t(PyTuple_GET_ITEM(other, 2)));
      Py_INCREF(array);
    }
    if (!array || PyList_SetItem(made.get(), at, array) < 0) return Ref();
  }
  return made;
}

}  // namespace

// lend(array, lease): another array on the same memory.
PyObject* lend(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 2 || !PyArray_CheckExact(args[0]) || PyArray_Check(args[1]))
    return PyErr_Format(PyExc_TypeError, "lend: expected an array, and what is no array");
  return lent_array(as_array(args[0]), args[1]);
}

// replay(entry, args, kwargs): what an entry's admits, holds and replay do for the usual call: the result if it is one tensor
// that the program makes, else the outputs' arrays; NotImplemented where Python must see to it.
PyObject* replay(PyObject* module, PyObject* const* args, Py_ssize_t count) {
  if (count != 3 || !PyTuple_Check(args[0]) || PyTuple_GET_SIZE(args[0]) != kParts)
    return PyErr_Format(PyExc_TypeError, "replay: expected (entry, args, kwargs)");
  const auto part = [&](Part which) { return PyTuple_GET_ITEM(args[0], which); };
  PyObject* const call[] = {part(kTemplate), args[1], args[2]};
  Ref fits(call_fits(module, call, 3));
  if (!fits) return nullptr;
  const Facts* facts = facts_of(part(kFacts));
  if (!facts) return nullptr;
  if (fits.get() != Py_True || !without_gradient(part(kWithout))) Py_RETURN_NOTIMPLEMENTED;
  int truth = hold(*facts);
  if (truth > 0) truth = forms_hold(part(kForms));
  if (truth < 0) return nullptr;
  PyObject* waiting = part(kWaiting);
  const Py_ssize_t ready = PyList_GET_SIZE(waiting);
  if (!truth || !ready) Py_RETURN_NOTIMPLEMENTED;
  // the arrays, as the template's order has them
  PyObject* names = PyTuple_GET_ITEM(part(kTemplate), 1);
  const Py_ssize_t n = PyTuple_GET_SIZE(args[1]), named = PyTuple_GET_SIZE(names);
  Ref given(PyList_New(0));
  for (Py_ssize_t i = 0; given && i < n + named; ++i) {
    PyObject* x = i < n ? PyTuple_GET_ITEM(args[1], i) : PyDict_GetItemWithError(args[2], PyTuple_GET_ITEM(names, i - n));
    if (!x) return nullptr;
    if (is_tensor(x) && PyList_Append(given.get(), as_tensor(x)->f[TensorObject::kData]) < 0) return nullptr;
  }
  if (!given) return nullptr;
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(part(kForgotten)); ++i)
    set_borrowed(as_tensor(PyList_GET_ITEM(part(kForgotten), i))->f[TensorObject::kGrad], Py_None);
  // the last instance, which no other thread may take meanwhile
  if (PyList_GET_SIZE(waiting) != ready) Py_RETURN_NOTIMPLEMENTED;
  Ref instance = Ref::borrowed(PyList_GET_ITEM(waiting, ready - 1));
  if (is_held(PyTuple_GET_ITEM(instance.get(), kLent), PyTuple_GET_ITEM(instance.get(), kCounts))) Py_RETURN_NOTIMPLEMENTED;
  if (PyList_SetSlice(waiting, ready - 1, ready, nullptr) < 0) return nullptr;
  static PyObject* zero = PyLong_FromLong(0);
  PyObject* const both[] = {zero, given.get()};
  Ref done(PyObject_Vectorcall(PyTuple_GET_ITEM(instance.get(), kPlay), both, 2, nullptr));
  if (!done) {
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    PyErr_NormalizeException(&type, &value, &trace);
    if (PyList_Append(waiting, instance.get()) < 0) PyErr_Clear();
    Ref named_it(value ? PyObject_CallOneArg(PyTuple_GET_ITEM(instance.get(), kMeaning), value) : nullptr);
    if (named_it && PyExceptionInstance_Check(named_it.get())) {
      PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(named_it.get())), named_it.get());
      Py_XDECREF(type);
      Py_XDECREF(value);
      Py_XDECREF(trace);
    } else {
      PyErr_Restore(type, value, trace);
    }
    return nullptr;
  }
  Ref arrays = handed_out(instance.get(), given.get());
  if (!arrays || PyList_Append(waiting, instance.get()) < 0) return nullptr;
  Ref bumped(bump(module, part(kCells)));
  PyObject* const grads[] = {part(kLeaves), part(kNumbers), arrays.get()};
  Ref granted(bumped ? grant(module, grads, 3) : nullptr);
  if (!granted) return nullptr;
  if (part(kAlone) == Py_None) return arrays.release();
  return wrapped(PyList_GET_ITEM(arrays.get(), PyLong_AsSsize_t(part(kAlone))), switches.inference);
}

}  // namespace tape
