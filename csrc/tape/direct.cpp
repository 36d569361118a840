// Functions that are one call of a record: reductions, sorts, losses and their like. Their usual call (tensors of NumPy
// arrays, plain Python arguments) has its arguments sorted here, dims counted from the front, and goes to the record;
// whatever else is given goes to the function of Python, which is the meaning.
//
// Measured, 100 elements, with a function of Python before it, here, and PyTorch: x.sum(1) 3.4, 1.4, 4.6 us; x.max(1) 5.1, 2.4,
// 12.1.
#include "method.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>

namespace tape {

namespace {

enum Kind : char {
  kTensor = 't',   // an input, or None where that is the default; "t2": of two dims, "t2+": or more, "t2=": as long as the first
  kOperand = 'o',  // an input that may be a number
  kAll = 'a',      // must be left at its default; the attribute is every dim
  kDims = 'D',     // a dim, several, or the default for all; the attribute is a tuple
  kDim = 'd',      // a dim
  kFlag = 'b',     // True or False
  kCount = 'i',    // an integer
  kReal = 'f',     // a float, or an integer that becomes one
  kNumber = 'n',   // a float or an integer
  kText = 's',     // a str
  kSizes = 'S',    // a number, or one for each axis of the first input after two; where that is None, the attribute before it
  kDtype = 'T',    // a dtype, whose class is the parameter's value; the attribute is NumPy's
  kLeft = '-',     // must be left at its default
};

struct Parameter {
  PyObject* name;
  PyObject* missing;  // the default; null where it must be given
  PyObject* value;    // what the default means to the record; null: itself. Py_None of kLeft: nothing is said of it
  Kind kind;
  char rank, how;     // of kTensor: '2' and one of "+=", or zeros
};

enum Mode : char {
  kPlain = 'p',
  kInto = 'i',  // the result of a formula is written over the first input
  kCast = 'c',  // the input itself where it has the dtype already
};

constexpr int kMostParameters = 10;
constexpr npy_intp kTooMany = npy_intp(1) << 46;  // elements that Python may refuse to go through

struct DirectObject {
  MethodObject method;
  PyObject* attrs;    // names of the record's attributes, in the order of the parameters, then of `fixed`
  PyObject* fixed;    // their values
  PyObject* returns;  // None: what the record does; a type of named tuples; an integer: that one of the results
  int count, positional;
  bool alike;  // all tensors must be of one floating dtype
  Mode mode;
  Parameter parameters[kMostParameters];
};

DirectObject* as_direct(PyObject* p) { return reinterpret_cast<DirectObject*>(p); }

// (first, ..., last - 1); made once for each
PyObject* dims_between(int first, int last) {
  static PyObject *all[kMostDims + 1], *single[kMostDims];
  PyObject*& made = first ? single[first] : all[last];
  if (first && last != first + 1) return nullptr;
  if (!made) {
    made = PyTuple_New(last - first);
    for (int i = first; made && i < last; ++i) PyTuple_SET_ITEM(made, i - first, PyLong_FromLong(i));
  }
  return made;
}

// The tuple of dims that was asked for; null where Python must look.
Ref dims_from(PyObject* given, int ndim) {
  int dim;
  if (PyLong_CheckExact(given)) return one_dim(given, ndim, dim) ? Ref::borrowed(dims_between(dim, dim + 1)) : Ref();
  npy_intp dims[kMostDims];
  int count;
  if (!(PyTuple_CheckExact(given) || PyList_CheckExact(given)) || !read_integers(given, dims, count) || !count) return Ref();
  Ref made(PyTuple_New(count));
  unsigned long long seen = 0;
  for (int i = 0; made && i < count; ++i) {
    if (dims[i] < -ndim || dims[i] >= ndim) return Ref();
    if (dims[i] < 0) dims[i] += ndim;
    if (seen >> dims[i] & 1) return Ref();
    seen |= 1ULL << dims[i];
    PyTuple_SET_ITEM(made.get(), i, PyLong_FromSsize_t(dims[i]));
  }
  return made;
}

// One number for each of `axes`; null where Python must look.
Ref sizes_from(PyObject* given, int axes) {
  npy_intp size;
  if (PyTuple_CheckExact(given)) {
    bool fits = PyTuple_GET_SIZE(given) == axes;
    for (int i = 0; fits && i < axes; ++i) fits = PyLong_CheckExact(PyTuple_GET_ITEM(given, i));
    return fits ? Ref::borrowed(given) : Ref();
  }
  if (axes < 1 || !one_integer(given, size)) return Ref();
  Ref made(PyTuple_New(axes));
  for (int i = 0; made && i < axes; ++i) PyTuple_SET_ITEM(made.get(), i, (Py_INCREF(given), given));
  return made;
}

// The arguments by parameter. False where they do not fit.
bool sorted(DirectObject* self, PyObject* const* args, Py_ssize_t n, PyObject* keywords, PyObject** given) {
  if (n > self->positional) return false;
  std::copy_n(args, n, given);
  std::fill(given + n, given + self->count, nullptr);
  const Py_ssize_t named = keywords ? PyTuple_GET_SIZE(keywords) : 0;
  for (Py_ssize_t k = 0; k < named; ++k) {
    PyObject* name = PyTuple_GET_ITEM(keywords, k);
    int at = 0;
    while (at < self->count && self->parameters[at].name != name) ++at;  // both are interned
    if (at == self->count || given[at]) return false;
    given[at] = args[n + k];
  }
  return true;
}

PyArrayObject* array_of(PyObject* x) {
  if (!x || !is_tensor(x)) return nullptr;
  PyObject* array = as_tensor(x)->f[TensorObject::kData];
  return array && PyArray_CheckExact(array) ? as_array(array) : nullptr;
}

bool is_float(PyArrayObject* x) {
  const char kind = PyArray_DESCR(x)->kind;
  return kind == 'f' || kind == 'V';
}

// What the record is to hear of an attribute; null where Python must look.
Ref heard(const Parameter& p, PyObject* given, int ndim) {
  if (!given) given = p.missing;
  const bool left = given == p.missing;
  if (!given) return Ref();
  if (left && p.value && p.kind != kDtype) return Ref::borrowed(p.value);
  switch (p.kind) {
    case kAll: return left ? Ref::borrowed(dims_between(0, ndim)) : Ref();
    case kDims: return left ? Ref::borrowed(dims_between(0, ndim)) : dims_from(given, ndim);
    case kDim: {
      int dim;
      return one_dim(given, ndim, dim) ? Ref(PyLong_FromLong(dim)) : Ref();
    }
    case kFlag: return PyBool_Check(given) ? Ref::borrowed(given) : Ref();
    case kCount: return PyLong_CheckExact(given) ? Ref::borrowed(given) : Ref();
    case kReal: {
      // what float32 does not hold, Python settles
      if (!PyFloat_CheckExact(given) && !PyLong_CheckExact(given)) return Ref();
      const double value = PyFloat_AsDouble(given);
      if (value == -1.0 && PyErr_Occurred()) PyErr_Clear();  // no finite float: as 2 ** 2000, the value is -1 then
      else if (std::isinf(value) || std::abs(value) <= std::numeric_limits<float>::max())
        return PyFloat_CheckExact(given) ? Ref::borrowed(given) : Ref(PyFloat_FromDouble(value));
      return Ref();
    }
    case kNumber: return PyLong_CheckExact(given) || PyFloat_CheckExact(given) ? Ref::borrowed(given) : Ref();
    case kSizes: return sizes_from(given, ndim - 2);
    case kText: return PyUnicode_CheckExact(given) ? Ref::borrowed(given) : Ref();
    case kDtype: return reinterpret_cast<PyObject*>(Py_TYPE(given)) == p.value ? Ref(PyObject_GetAttr(given, names.np)) : Ref();
    default: return Ref();
  }
}

bool fits(const Parameter& p, PyArrayObject* x, PyArrayObject* first) {
  const int ndim = PyArray_NDIM(x), rank = p.rank - '0';
  if (p.how == '+') return ndim >= rank;
  return ndim == rank && (p.how != '=' || PyArray_DIM(x, 0) == PyArray_DIM(first, 0));
}

// Elementwise calls, with the first input's memory for the result, of what nobody records: tensors in one piece, the others
// of the first's shape or scalars and apart from it. What `write_into` does then. Null without an error where Python must look.
PyObject* write_over(OpObject* op, PyObject* const* inputs, Py_ssize_t n) {
  auto* target = as_tensor(inputs[0]);
  if (target->f[TensorObject::kInference] != Py_False) return nullptr;
  PyObject* arrays[kMost + kMostParameters + 1];
  PyArrayObject* first = as_array(target->f[TensorObject::kData]);
  if (!PyArray_ISCARRAY(first)) return nullptr;
  const char *low = PyArray_BYTES(first), *high = low + PyArray_NBYTES(first);
  for (Py_ssize_t i = 0; i < n; ++i) {
    arrays[i] = inputs[i];
    if (!is_tensor(inputs[i])) continue;
    if (switches.recording && as_tensor(inputs[i])->f[TensorObject::kTracked] == Py_True) return nullptr;
    arrays[i] = as_tensor(inputs[i])->f[TensorObject::kData];
    PyArrayObject* x = as_array(arrays[i]);
    if (x == first) continue;
    if (!PyArray_ISCARRAY_RO(x) || (PyArray_NDIM(x) && !same_shape(x, first))) return nullptr;
    if (PyArray_BYTES(x) < high && low < PyArray_BYTES(x) + PyArray_NBYTES(x)) return nullptr;
  }
  PyObject* door = door_of(&PyArray_Type);
  Ref kernel = door ? kernel_of(op, door) : Ref();
  if (!kernel) return nullptr;
  static PyObject* const out_name = Py_BuildValue("(s)", "out");
  Ref held = Ref::borrowed(arrays[0]);  // without the interpreter's lock another thread may give the tensor another
  Ref others = tuple_of(arrays + 1, n - 1);
  arrays[n] = arrays[0];
  if (!others || !Ref(PyObject_Vectorcall(kernel.get(), arrays, static_cast<std::size_t>(n), out_name))) return nullptr;
  PyObject* cell = version_of(target);
  PyObject* next = cell ? PyLong_FromLongLong(PyLong_AsLongLong(PyList_GET_ITEM(cell, 0)) + 1) : nullptr;
  if (!next || PyList_SetItem(cell, 0, next) < 0) return nullptr;
  return Py_INCREF(inputs[0]), inputs[0];
}

// Null without an error where Python must look.
PyObject* direct(DirectObject* self, PyObject* const* args, Py_ssize_t n, PyObject* keywords) {
  PyObject *given[kMostParameters], *all[kMost + kMostParameters];
  Ref made[kMostParameters];
  if (!sorted(self, args, n, keywords, given)) return nullptr;
  PyArrayObject* first = array_of(given[0]);
  if (!first) return nullptr;
  const npy_intp size = PyArray_SIZE(first);
  if (!size || size > kTooMany || (self->alike && !is_float(first))) return nullptr;
  Py_ssize_t inputs = 0, used = 0;
  for (int i = 0; i < self->count; ++i) {
    const Parameter& p = self->parameters[i];
    if (p.kind != kTensor && p.kind != kOperand) break;
    PyObject* x = given[i] ? given[i] : p.missing;
    if (!x) return nullptr;
    if (PyArrayObject* array = array_of(x)) {
      if ((self->alike && PyArray_DESCR(array) != PyArray_DESCR(first)) || (p.rank && !fits(p, array, first))) return nullptr;
    } else if (p.kind == kTensor ? x != Py_None || p.missing != Py_None : !(PyFloat_CheckExact(x) || PyLong_CheckExact(x))) {
      return nullptr;
    }
    all[inputs++] = x;
  }
  used = inputs;
  const int ndim = PyArray_NDIM(first);
  for (int i = static_cast<int>(inputs); i < self->count; ++i) {
    const Parameter& p = self->parameters[i];
    if (p.kind == kLeft) {
      if (given[i] && given[i] != p.missing) return nullptr;
      if (p.value) all[used++] = p.value;
      continue;
    }
    if (p.kind == kSizes && (given[i] ? given[i] : p.missing) == Py_None) made[i] = Ref::borrowed(all[used - 1]);
    else made[i] = heard(p, given[i], ndim);
    if (!made[i]) {
      PyErr_Clear();
      return nullptr;
    }
    all[used++] = made[i].get();
  }
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(self->fixed); ++i) all[used++] = PyTuple_GET_ITEM(self->fixed, i);
  if (self->mode == kInto) {
    PyObject* written = write_over(as_op(self->method.op), all, used);
    if (!written) PyErr_Clear();  // the function says what is wrong
    return written;
  }
  if (self->mode == kCast) {
    auto* wanted = reinterpret_cast<PyArray_Descr*>(all[used - 1]);
    if (wanted == PyArray_DESCR(first)) return Py_INCREF(all[0]), all[0];
    // integers have no gradient to pass on, so that they are not recorded
    if (!PyTypeNum_ISFLOAT(wanted->type_num) && as_tensor(all[0])->f[TensorObject::kTracked] == Py_True) return nullptr;
  }
  const bool positional = !PyTuple_GET_SIZE(self->attrs);  // of a formula
  // not call_op: autocast gives records that it knows a call of their own
  Ref result(PyObject_Vectorcall(self->method.op, all, static_cast<std::size_t>(positional ? used : inputs),
                                 positional ? nullptr : self->attrs));
  if (!result) {
    if (PyErr_ExceptionMatches(PyExc_Exception) && !PyErr_ExceptionMatches(PyExc_MemoryError))
      PyErr_Clear();  // once more, to say in the words of the function what is wrong
    return nullptr;
  }
  if (self->returns == Py_None || !PyTuple_CheckExact(result.get())) return result.release();
  if (PyLong_CheckExact(self->returns)) {
    PyObject* one = PyTuple_GET_ITEM(result.get(), PyLong_AsLong(self->returns));
    return Py_INCREF(one), one;
  }
  // a named tuple is a tuple: filled without asking its class
  auto* type = reinterpret_cast<PyTypeObject*>(self->returns);
  const Py_ssize_t count = PyTuple_GET_SIZE(result.get());
  PyObject* named = type->tp_alloc(type, count);
  if (!named) return nullptr;
  for (Py_ssize_t i = 0; i < count; ++i) {
    PyObject* one = PyTuple_GET_ITEM(result.get(), i);
    PyTuple_SET_ITEM(named, i, (Py_INCREF(one), one));
  }
  return named;
}

PyObject* call_direct(PyObject* object, PyObject* const* args, std::size_t flags, PyObject* keywords) {
  PyObject* result = direct(as_direct(object), args, PyVectorcall_NARGS(flags), keywords);
  if (result || PyErr_Occurred()) return result;
  return PyObject_Vectorcall(as_method(object)->otherwise, args, flags, keywords);
}

// Direct(op, otherwise, parameters, positional, attrs, fixed, returns, alike, mode): parameters are tuples (name, kind) or
// (name, kind, default) or (name, kind, default, its meaning).
PyObject* new_direct(PyTypeObject* type, PyObject* args, PyObject*) {
  PyObject *op, *otherwise, *parameters, *attrs, *fixed, *returns;
  int positional, alike;
  const char* mode;
  if (!PyArg_ParseTuple(args, "O!OO!iO!O!Ops:Direct", &OpType, &op, &otherwise, &PyTuple_Type, &parameters, &positional,
                        &PyTuple_Type, &attrs, &PyTuple_Type, &fixed, &returns, &alike, &mode))
    return nullptr;
  const Py_ssize_t count = PyTuple_GET_SIZE(parameters);
  if (count > kMostParameters || PyTuple_GET_SIZE(fixed) > kMost)
    return PyErr_Format(PyExc_ValueError, "Direct: at most %d parameters", kMostParameters);
  PyObject* object = new_method(type, call_direct, otherwise, op, nullptr);
  if (!object) return nullptr;
  DirectObject* self = as_direct(object);
  self->attrs = (Py_INCREF(attrs), attrs);
  self->fixed = (Py_INCREF(fixed), fixed);
  self->returns = (Py_INCREF(returns), returns);
  self->count = static_cast<int>(count);
  self->positional = positional;
  self->alike = alike != 0;
  self->mode = static_cast<Mode>(*mode);
  for (Py_ssize_t i = 0; i < count; ++i) {
    Parameter& p = self->parameters[i];
    const char* kind;
    if (!PyArg_ParseTuple(PyTuple_GET_ITEM(parameters, i), "Us|OO:Direct", &p.name, &kind, &p.missing, &p.value)) {
      Py_DECREF(object);
      return nullptr;
    }
    p.kind = static_cast<Kind>(kind[0]);
    p.rank = kind[1];
    p.how = kind[1] ? kind[2] : '\0';
    Py_INCREF(p.name);  // as long as the function lives, which is for ever
    PyUnicode_InternInPlace(&p.name);
    Py_XINCREF(p.missing);
    Py_XINCREF(p.value);
  }
  return object;
}

}  // namespace

PyTypeObject DirectType = make_method_type("tensorgrad._tape.Direct", new_direct, sizeof(DirectObject));

}  // namespace tape
