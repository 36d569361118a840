// Asked before each replay of a program: whether a call's arguments are those it was written for (compiler/signature.py), and
// whether all that it rests on is as it was (compiler/reach.py, whose `changed` is the meaning, and gives the words).
#include "tape.h"

#include <cmath>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

namespace tape {
namespace {

// Numbers and text may be other objects of the same value: the same bits, as -0.0 divides otherwise than 0.0.
int same(PyObject* now, PyObject* then) {
  if (now == then) return 1;
  if (!now || Py_TYPE(now) != Py_TYPE(then)) return 0;
  const auto alike = [](double a, double b) {
    return (a == b && std::signbit(a) == std::signbit(b)) || (a != a && b != b);
  };
  if (PyFloat_CheckExact(now)) return alike(PyFloat_AS_DOUBLE(now), PyFloat_AS_DOUBLE(then));
  if (PyComplex_CheckExact(now))
    return alike(PyComplex_RealAsDouble(now), PyComplex_RealAsDouble(then)) &&
           alike(PyComplex_ImagAsDouble(now), PyComplex_ImagAsDouble(then));
  if (PyLong_Check(now) || PyUnicode_CheckExact(now) || PyBytes_CheckExact(now))
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

// What somebody has given a tensor besides its fields.
Py_ssize_t attributes_of(const TensorObject* t) { return t->dict ? PyDict_GET_SIZE(t->dict) : 0; }

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
      (t->f[T::kNode] == Py_None) != (PyTuple_GET_ITEM(leaf, 7) == Py_True) || is_behind(t) || attributes_of(t))
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

namespace {

// CPython counts the changes of each dictionary up to 3.11 (PEP 509): while the number stays, so does all that it holds.
// Later ones are asked for each key.
#if PY_VERSION_HEX < 0x030C0000
std::uint64_t changes_of(PyObject* dict) { return reinterpret_cast<PyDictObject*>(dict)->ma_version_tag; }
#else
std::uint64_t changes_of(PyObject*) { return 0; }
#endif

int take(PyObject* found, void* place) {
  *static_cast<PyObject**>(place) = found;
  return 1;
}

// What a class's dictionary is shown through hides it, and is slow to ask. Null where it is not a plain one.
PyObject* dict_behind(PyObject* proxy) {
  PyObject* found = nullptr;
  if (Py_TYPE(proxy) == &PyDictProxy_Type) Py_TYPE(proxy)->tp_traverse(proxy, take, &found);
  return found && PyDict_CheckExact(found) ? found : nullptr;
}

// The lists of compiler/facts.py, laid out for the loop.
struct Facts {
  enum Kind : char { kCell, kCode, kDefaults, kClass, kOther };
  struct Datum {
    PyObject *tensor, *fields[4];
    Py_ssize_t attributes;
  };
  struct Fact {
    PyObject *holder, *key, *value;
    Kind kind;
  };
  struct Size {
    PyObject* holder;
    Py_ssize_t size;
  };
  // All that is known of one.
  struct Dict {
    PyObject* holder;
    std::vector<std::pair<PyObject*, PyObject*>> values;
    Py_ssize_t size = -1;  // any
    mutable std::uint64_t version = 0;  // in which all that held; 0: none
    PyObject *keys = nullptr, *entries = nullptr;  // in their order; null: any
  };
  struct Row {
    PyObject *list, *entries;
  };
  std::vector<Datum> data;
  std::vector<Dict> dicts;
  std::vector<Fact> facts;
  std::vector<Size> sizes;
  std::vector<Row> rows;
  Ref lists[4];  // which keep all that alive
};

void free_facts(PyObject* capsule) { delete static_cast<Facts*>(PyCapsule_GetPointer(capsule, "facts")); }

// Of what was found, borrowed, against what was: 1, 0, or -1 with an error set.
int stays(PyObject* now, PyObject* then) {
  if (now == then) return 1;
  if (!now && PyErr_Occurred()) return -1;
  return then == Py_NotImplemented ? !now : same(now, then);
}

int stays(const Facts::Dict& dict) {
  const std::uint64_t version = changes_of(dict.holder);
  if (version && version == dict.version) return 1;
  if (dict.size >= 0 && PyDict_GET_SIZE(dict.holder) != dict.size) return 0;
  for (const auto& [key, then] : dict.values) {
    const int truth = stays(PyDict_GetItemWithError(dict.holder, key), then);
    if (truth <= 0) return truth;
  }
  const Py_ssize_t count = dict.keys ? PyTuple_GET_SIZE(dict.keys) : 0;
  const bool valued = dict.entries && PyTuple_GET_SIZE(dict.entries) == count;
  if (dict.keys && PyDict_GET_SIZE(dict.holder) != count) return 0;
  PyObject *key, *value;
  Py_ssize_t at = 0;
  for (Py_ssize_t i = 0; i < count && PyDict_Next(dict.holder, &at, &key, &value); ++i) {
    const int truth = stays(key, PyTuple_GET_ITEM(dict.keys, i));
    if (truth <= 0) return truth;
    const int also = valued ? stays(value, PyTuple_GET_ITEM(dict.entries, i)) : 1;
    if (also <= 0) return also;
  }
  dict.version = version;
  return 1;
}

int stays(const Facts::Row& row) {
  if (PyList_GET_SIZE(row.list) != PyTuple_GET_SIZE(row.entries)) return 0;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(row.entries); ++i) {
    const int truth = i < PyList_GET_SIZE(row.list) ? stays(PyList_GET_ITEM(row.list, i), PyTuple_GET_ITEM(row.entries, i)) : 0;
    if (truth <= 0) return truth;
  }
  return 1;
}

// 1 if all holds, 0 if not, -1 with an error set.
int hold(const Facts& all) {
  using T = TensorObject;
  for (const auto& each : all.data) {
    const T* t = as_tensor(each.tensor);
    if (t->f[T::kData] != each.fields[0] || t->f[T::kTracked] != each.fields[1] || t->f[T::kHooks] != each.fields[2] ||
        t->f[T::kPostHooks] != each.fields[3] || is_behind(t) || attributes_of(t) != each.attributes)
      return 0;
  }
  for (const auto& each : all.dicts) {
    const int truth = stays(each);
    if (truth <= 0) return PyErr_Occurred() ? -1 : 0;
  }
  for (const auto& each : all.facts) {
    Ref kept;
    PyObject* now = nullptr;
    switch (each.kind) {
      case Facts::kCell: now = PyCell_GET(each.holder); break;
      case Facts::kCode: now = PyFunction_GET_CODE(each.holder); break;
      case Facts::kDefaults: now = PyFunction_GET_DEFAULTS(each.holder) ? PyFunction_GET_DEFAULTS(each.holder) : Py_None; break;
      case Facts::kClass: now = reinterpret_cast<PyObject*>(Py_TYPE(each.holder)); break;
      case Facts::kOther: now = look(each.holder, each.key, kept); break;
    }
    if (stays(now, each.value) <= 0) return PyErr_Occurred() ? -1 : 0;
  }
  for (const auto& each : all.sizes) {
    const Py_ssize_t size = PyObject_Size(each.holder);
    if (size < 0) return -1;
    if (size != each.size) return 0;
  }
  for (const auto& each : all.rows) {
    const int truth = stays(each);
    if (truth <= 0) return PyErr_Occurred() ? -1 : 0;
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

// facts(data, facts, sizes, wholes): the lists, laid out for `holds`.
PyObject* pack_facts(PyObject*, PyObject* const* args, Py_ssize_t count) {
  auto made = std::make_unique<Facts>();
  for (int i = 0; i < 4; ++i) {
    if (count != 4 || !PyList_Check(args[i])) return PyErr_Format(PyExc_TypeError, "facts: expected four lists");
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
  std::unordered_map<PyObject*, std::size_t> numbers;
  const auto dict = [&](PyObject* holder) -> Facts::Dict& {
    const auto [at, is_new] = numbers.emplace(holder, made->dicts.size());
    if (is_new) made->dicts.push_back({holder, {}});
    return made->dicts[at->second];
  };
  bool good = true;
  good &= each(0, 7, [&](PyObject* one) {  // (path, tensor, array, tracked, hooks, post hooks, number of attributes)
    good &= is_tensor(PyTuple_GET_ITEM(one, 1));
    made->data.push_back({PyTuple_GET_ITEM(one, 1),
                          {PyTuple_GET_ITEM(one, 2), PyTuple_GET_ITEM(one, 3), PyTuple_GET_ITEM(one, 4), PyTuple_GET_ITEM(one, 5)},
                          PyLong_AsSsize_t(PyTuple_GET_ITEM(one, 6))});
  });
  good &= each(1, 4, [&](PyObject* one) {  // (path, holder, key, value, or NotImplemented for none)
    PyObject *holder = PyTuple_GET_ITEM(one, 1), *behind = dict_behind(holder);
    if (behind || PyDict_Check(holder)) {
      dict(behind ? behind : holder).values.emplace_back(PyTuple_GET_ITEM(one, 2), PyTuple_GET_ITEM(one, 3));
      return;
    }
    auto kind = PyCell_Check(holder) ? Facts::kCell : Facts::kOther;
    if (PyFunction_Check(holder) && PyUnicode_Check(PyTuple_GET_ITEM(one, 2))) {  // whose fields Python would ask for by an audit
      if (PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(one, 2), "__code__") == 0) kind = Facts::kCode;
      if (PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(one, 2), "__defaults__") == 0) kind = Facts::kDefaults;
    }
    const bool of_class = PyTuple_GET_ITEM(one, 3) == reinterpret_cast<PyObject*>(Py_TYPE(holder));
    if (of_class && PyUnicode_Check(PyTuple_GET_ITEM(one, 2)) &&
        PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(one, 2), "__class__") == 0)
      kind = Facts::kClass;
    made->facts.push_back({holder, PyTuple_GET_ITEM(one, 2), PyTuple_GET_ITEM(one, 3), kind});
  });
  good &= each(2, 3, [&](PyObject* one) {  // (path, holder, size)
    PyObject* holder = PyTuple_GET_ITEM(one, 1);
    const Py_ssize_t size = PyLong_AsSsize_t(PyTuple_GET_ITEM(one, 2));
    if (PyObject* behind = dict_behind(holder); behind || PyDict_Check(holder))
      dict(behind ? behind : holder).size = size;
    else
      made->sizes.push_back({holder, size});
  });
  good &= each(3, 4, [&](PyObject* one) {  // (path, list or dict, the keys of a dict, all entries or none of them)
    PyObject *holder = PyTuple_GET_ITEM(one, 1), *keys = PyTuple_GET_ITEM(one, 2), *entries = PyTuple_GET_ITEM(one, 3);
    if (!PyTuple_Check(keys) || !PyTuple_Check(entries) || !(PyDict_Check(holder) || PyList_Check(holder))) {
      good = false;
    } else if (PyDict_Check(holder)) {
      dict(holder).keys = keys;
      dict(holder).entries = entries;
    } else {
      made->rows.push_back({holder, entries});
    }
  });
  if (!good || PyErr_Occurred()) {
    PyErr_Clear();
    return PyErr_Format(PyExc_TypeError, "facts: expected lists of tuples of 7, 4, 3 and 4");
  }
  PyObject* capsule = PyCapsule_New(made.get(), "facts", free_facts);
  if (capsule) made.release();
  return capsule;
}

int rests(PyObject* packed, PyObject* forms) {
  const Facts* facts = facts_of(packed);
  if (!facts) return -1;
  const int truth = hold(*facts);
  return truth > 0 ? forms_hold(forms) : truth;
}

// holds(facts, forms): whether all that a program rests on is as it was.
PyObject* facts_hold(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 2 || !PyList_Check(args[1])) return PyErr_Format(PyExc_TypeError, "holds: expected (facts, forms)");
  const int truth = rests(args[0], args[1]);
  return truth < 0 ? nullptr : PyBool_FromLong(truth);
}

}  // namespace tape
