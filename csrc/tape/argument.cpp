#include "argument.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace tape {

namespace {

constexpr npy_intp kTooMany = npy_intp(1) << 46;  // elements that Python may refuse to go through

constexpr struct {
  const char* word;
  Kind kind;
} words[] = {{"x", Kind::kTensor}, {"operand", Kind::kOperand}, {"index", Kind::kIndex}, {"like", Kind::kLike},
             {"sameindex", Kind::kSameIndex}, {"flat", Kind::kFlat}, {"list", Kind::kList}, {"places", Kind::kPlaces},
             {"dim", Kind::kDim}, {"newdim", Kind::kNewDim}, {"dims", Kind::kDims}, {"along", Kind::kAlong},
             {"all", Kind::kAll}, {"int", Kind::kInt}, {"ints", Kind::kInts}, {"sizes", Kind::kSizes},
             {"pair", Kind::kPair}, {"pads", Kind::kPads}, {"real", Kind::kReal}, {"number", Kind::kNumber},
             {"flag", Kind::kFlag}, {"text", Kind::kText}, {"dtype", Kind::kDtype}, {"-", Kind::kLeft}};

bool is_floating(PyArrayObject* x) {
  const char kind = PyArray_DESCR(x)->kind;
  return kind == 'f' || kind == 'V';  // bfloat16 is none of NumPy's own
}

bool is_real_number(PyObject* x) { return PyFloat_CheckExact(x) || PyLong_CheckExact(x); }

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

// The tuple of dims that was asked for, by one or several. Like all below it is null where Python must look.
Ref dims_from(PyObject* given, int ndim, bool once) {
  int dim, count;
  if (PyLong_CheckExact(given)) return one_dim(given, ndim, dim) ? Ref::borrowed(dims_between(dim, dim + 1)) : Ref();
  npy_intp dims[kMostDims];
  if (!read_integers(given, dims, count) || !count) return Ref();
  unsigned long long seen = 0;
  for (int i = 0; i < count; ++i) {
    if (dims[i] < -ndim || dims[i] >= ndim) return Ref();
    if (dims[i] < 0) dims[i] += ndim;
    if (once && seen >> dims[i] & 1) return Ref();
    seen |= 1ULL << dims[i];
  }
  return integers_of(dims, count);
}

Ref integers_from(PyObject* given) {
  npy_intp values[kMostDims];
  int count = 1;
  return one_integer(given, values[0]) || read_integers(given, values, count) ? integers_of(values, count) : Ref();
}

// One number for each of `axes`, from as many or from one for all.
Ref sizes_from(PyObject* given, int axes) {
  npy_intp sizes[kMostDims];
  int count = axes;
  if (axes < 1) return Ref();
  if (one_integer(given, sizes[0])) std::fill_n(sizes + 1, axes - 1, sizes[0]);
  else if (!read_integers(given, sizes, count)) return Ref();
  if (count != axes) return Ref();
  return PyTuple_CheckExact(given) ? Ref::borrowed(given) : integers_of(sizes, axes);
}

// Pairs for all dimensions, from sizes (before, after) of the last, then of the one before it ...
Ref pads_from(PyObject* given, int ndim) {
  npy_intp sizes[kMostDims];
  int count;
  if (!read_integers(given, sizes, count) || count % 2 || count / 2 > ndim) return Ref();
  if (std::any_of(sizes, sizes + count, [](npy_intp size) { return size < 0; })) return Ref();
  Ref all(PyTuple_New(ndim));
  for (int d = 0; all && d < ndim; ++d) {
    constexpr npy_intp none[] = {0, 0};
    const int at = 2 * (ndim - 1 - d);
    Ref pair = integers_of(at < count ? sizes + at : none, 2);
    if (!pair) return Ref();
    PyTuple_SET_ITEM(all.get(), d, pair.release());
  }
  return all;
}

// A number that float32 holds, in half precision one that float16 holds; others Python settles.
bool is_usual_number(PyObject* given, PyArrayObject* beside, double& value) {
  if (!is_real_number(given)) return false;
  value = PyFloat_AsDouble(given);  // of 2 ** 2000 it is -1, with an error
  if (value == -1.0 && PyErr_Occurred()) return PyErr_Clear(), false;
  const double most = PyArray_ITEMSIZE(beside) == 2 ? 65504.0 : std::numeric_limits<float>::max();
  return !(std::abs(value) > most) || std::isinf(value);
}

// A float, which an integer becomes.
Ref real_from(PyObject* given, PyArrayObject* beside) {
  double value;
  if (!is_usual_number(given, beside, value) || std::isnan(value)) return Ref();
  return PyFloat_CheckExact(given) ? Ref::borrowed(given) : Ref(PyFloat_FromDouble(value));
}

}  // namespace

bool describe(const char* word, Parameter& p) {
  p.rank = p.how = '\0';
  p.choices = nullptr;
  if (std::strchr(word, '|')) {
    Ref text(PyUnicode_FromString(word)), bar(PyUnicode_FromString("|"));
    Ref list(text && bar ? PyUnicode_Split(text.get(), bar.get(), -1) : nullptr);
    p.kind = Kind::kText;
    p.choices = list ? PyList_AsTuple(list.get()) : nullptr;
    return p.choices != nullptr;
  }
  if (word[0] == 'x' && word[1] >= '0' && word[1] <= '9') {
    p.kind = Kind::kTensor;
    p.rank = word[1];
    p.how = word[2];
    return true;
  }
  for (const auto& each : words)
    if (!std::strcmp(each.word, word)) return p.kind = each.kind, true;
  PyErr_Format(PyExc_ValueError, "calls: there is no kind %s", word);
  return false;
}

Call::~Call() {
  while (said_) Py_DECREF(attributes_[--said_]);
}

bool Call::input(PyObject* x) {
  if (inputs == kMost || !(latest_ = array_of(x))) return false;
  if (!first_) {
    const npy_intp size = PyArray_SIZE(latest_);
    if (!size || size > kTooMany || (alike_ && !is_floating(latest_))) return false;
    first_ = latest_;
  }
  if (alike_ && PyArray_DESCR(latest_) != PyArray_DESCR(first_)) return false;
  all[inputs++] = x;
  return true;
}

bool Call::fits(const Parameter& p) const {
  if (!p.rank) return true;
  const int ndim = PyArray_NDIM(latest_), rank = p.rank - '0';
  if (p.how == '+') return ndim >= rank;
  return ndim == rank && (p.how != '~' || PyArray_DIM(latest_, 0) == PyArray_DIM(first_, 0));
}

bool Call::flat(PyObject* x) {
  if (!input(x)) return false;
  if (PyArray_NDIM(latest_) == 1) return true;
  if (!PyArray_IS_C_CONTIGUOUS(latest_) || switches.extras) return false;
  const npy_intp size = PyArray_SIZE(latest_);
  Ref shape(integers_of(&size, 1)), keyword(PyTuple_Pack(1, names.shape));
  if (!shape || !keyword) return false;
  PyObject* both[] = {x, shape.get()};
  Ref made(call_op(known.reshape, both, 1, keyword.get()));
  PyArrayObject* array = array_of(made.get());
  if (!array) return false;
  if (first_ == latest_) first_ = array;
  latest_ = array;
  all[inputs - 1] = made.get();
  flat_ = std::move(made);
  return true;
}

// Tensors of one dtype and at least one dimension, none of shape (0,).
bool Call::list(PyObject* given) {
  if (!PyList_CheckExact(given) && !PyTuple_CheckExact(given)) return false;
  const Py_ssize_t n = PySequence_Fast_GET_SIZE(given);
  for (Py_ssize_t i = 0; i < n; ++i) {
    if (!input(PySequence_Fast_GET_ITEM(given, i))) return false;
    if (PyArray_DESCR(latest_) != PyArray_DESCR(first_) || !PyArray_NDIM(latest_)) return false;
    if (PyArray_NDIM(latest_) == 1 && !PyArray_DIM(latest_, 0)) return false;
  }
  return n > 0;
}

// Positions for the first dimensions: the last inputs, and the attribute that names those dimensions.
bool Call::places(PyObject* given) {
  if ((!PyTuple_CheckExact(given) && !PyList_CheckExact(given)) || places_) return false;
  const Py_ssize_t n = PySequence_Fast_GET_SIZE(given);
  if (!n || n > PyArray_NDIM(first_)) return false;
  npy_intp dims[kMostDims];
  for (Py_ssize_t i = 0; i < n; ++i) {
    PyArrayObject* at = array_of(PySequence_Fast_GET_ITEM(given, i));
    if (!at || PyArray_TYPE(at) != NPY_INT64 || !PyArray_NDIM(at)) return false;
    dims[i] = i;
  }
  places_ = given;
  return attribute(integers_of(dims, static_cast<int>(n)));
}

bool Call::attribute(Ref value) {
  if (!value || said_ == kMost) return false;
  attributes_[said_++] = value.release();
  return true;
}

// What the record hears of an attribute.
Ref Call::heard(const Parameter& p, PyObject* given) const {
  const int ndim = PyArray_NDIM(first_);
  const bool left = given == p.missing;
  npy_intp integer;
  double number;
  int dim;
  if (left && p.meaning) return Ref::borrowed(p.meaning);
  switch (p.kind) {
    case Kind::kDim: return one_dim(given, ndim, dim) ? Ref(PyLong_FromLong(dim)) : Ref();
    case Kind::kNewDim: return one_dim(given, ndim + 1, dim) ? Ref(PyLong_FromLong(dim)) : Ref();
    case Kind::kDims: return left ? Ref::borrowed(dims_between(0, ndim)) : dims_from(given, ndim, true);
    case Kind::kAlong: return dims_from(given, ndim, false);
    case Kind::kAll: return left ? Ref::borrowed(dims_between(0, ndim)) : Ref();
    case Kind::kInt: return one_integer(given, integer) ? Ref::borrowed(given) : Ref();
    case Kind::kInts: return integers_from(given);
    case Kind::kSizes:
      if (given == Py_None) return said_ ? Ref::borrowed(attributes_[said_ - 1]) : Ref();
      return sizes_from(given, ndim - 2);
    case Kind::kPair: return sizes_from(given, 2);
    case Kind::kPads: return pads_from(given, ndim);
    case Kind::kReal: return real_from(given, first_);
    case Kind::kNumber: return is_usual_number(given, first_, number) ? Ref::borrowed(given) : Ref();
    case Kind::kFlag: return PyBool_Check(given) ? Ref::borrowed(given) : Ref();
    case Kind::kText:
      if (!PyUnicode_CheckExact(given) || (p.choices && PySequence_Contains(p.choices, given) != 1)) return Ref();
      return Ref::borrowed(given);
    case Kind::kDtype:
      return reinterpret_cast<PyObject*>(Py_TYPE(given)) == known.dtype ? Ref(PyObject_GetAttr(given, names.np)) : Ref();
    default: return Ref();
  }
}

bool Call::read(const Parameter& p, PyObject* given) {
  PyArrayObject* before = latest_;
  double number;
  switch (p.kind) {
    case Kind::kTensor:
      if (given != Py_None || p.missing != Py_None) return input(given) && fits(p);
      return first_ && inputs < kMost && (all[inputs++] = given);
    case Kind::kOperand:
      if (!first_ || !is_real_number(given)) return input(given);
      return is_usual_number(given, first_, number) && inputs < kMost && (all[inputs++] = given);
    case Kind::kIndex: return input(given) && PyArray_NDIM(latest_) && PyArray_TYPE(latest_) == NPY_INT64;
    case Kind::kLike: return before && input(given) && same_shape(before, latest_);
    case Kind::kSameIndex:
      return before && input(given) && same_shape(before, latest_) && PyArray_TYPE(latest_) == NPY_INT64;
    case Kind::kFlat: return flat(given);
    case Kind::kList: return list(given);
    case Kind::kPlaces: return first_ && places(given);
    case Kind::kLeft: return given == p.missing && (!p.meaning || attribute(Ref::borrowed(p.meaning)));
    default: return first_ && attribute(heard(p, given));
  }
}

bool Call::complete(PyObject* fixed) {
  for (Py_ssize_t i = 0; places_ && i < PySequence_Fast_GET_SIZE(places_); ++i)
    if (!input(PySequence_Fast_GET_ITEM(places_, i))) return false;
  const Py_ssize_t more = PyTuple_GET_SIZE(fixed);
  if (!first_ || said_ + more > kMost) return false;
  count = inputs;
  for (Py_ssize_t i = 0; i < said_; ++i) all[count++] = attributes_[i];
  for (Py_ssize_t i = 0; i < more; ++i) all[count++] = PyTuple_GET_ITEM(fixed, i);
  return true;
}

}  // namespace tape
