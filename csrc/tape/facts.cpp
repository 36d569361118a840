// Asked before each replay of a program: whether a call's arguments are those it was written for (compiler/signature.py), and
// whether all that it rests on is as it was (compiler/reach.py, whose `changed` is the meaning, and gives the words). And what
// a replay leaves behind.
#include "tape.h"

#include <cmath>

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

// The array whose memory an array shows.
PyObject* bottom(PyObject* array) {
  for (PyObject* base; (base = PyArray_BASE(as_array(array))) && PyArray_Check(base);) array = base;
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

PyObject* facts_hold(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 3 || !PyList_Check(args[0]) || !PyList_Check(args[1]) || !PyList_Check(args[2]))
    return PyErr_Format(PyExc_TypeError, "holds: expected three lists");
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(args[0]); ++i) {  // (path, tensor, array, tracked, hooks, post hooks)
    using T = TensorObject;
    PyObject* each = PyList_GET_ITEM(args[0], i);
    const T* t = as_tensor(PyTuple_GET_ITEM(each, 1));
    if (t->f[T::kData] != PyTuple_GET_ITEM(each, 2) || t->f[T::kTracked] != PyTuple_GET_ITEM(each, 3) ||
        t->f[T::kHooks] != PyTuple_GET_ITEM(each, 4) || t->f[T::kPostHooks] != PyTuple_GET_ITEM(each, 5))
      Py_RETURN_FALSE;
  }
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(args[1]); ++i) {  // (path, holder, key, value, or NotImplemented for none)
    PyObject* each = PyList_GET_ITEM(args[1], i);
    Ref kept;
    PyObject* now = look(PyTuple_GET_ITEM(each, 1), PyTuple_GET_ITEM(each, 2), kept);
    if (!now && PyErr_Occurred()) return nullptr;
    PyObject* then = PyTuple_GET_ITEM(each, 3);
    const int equal = then == Py_NotImplemented ? !now : same(now, then);
    if (equal < 0 || PyErr_Occurred()) return nullptr;
    if (!equal) Py_RETURN_FALSE;
  }
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(args[2]); ++i) {  // (path, holder, size)
    PyObject* each = PyList_GET_ITEM(args[2], i);
    PyObject* holder = PyTuple_GET_ITEM(each, 1);
    const Py_ssize_t size = PyDict_Check(holder) ? PyDict_GET_SIZE(holder) : PyObject_Size(holder);
    if (size < 0) return nullptr;
    if (size != PyLong_AsSsize_t(PyTuple_GET_ITEM(each, 2))) Py_RETURN_FALSE;
  }
  Py_RETURN_TRUE;
}

}  // namespace tape
