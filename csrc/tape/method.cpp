// Functions and methods of tensors whose usual call needs no frame of Python: operators, views, renamed arguments.
//
// Each stands before a function of Python, which is its meaning and its documentation: what is rare, and what is wrong, is
// handed on to it as it came.
#include "method.h"

#include <algorithm>
#include <cstddef>
#include <cmath>
#include <cstdlib>
#include <cstring>

namespace tape {

namespace {

// --- operators: Tensor's __add__ and its kind, which a record serves

PyObject* call_operator(PyObject* self, PyObject* const* args, std::size_t flags, PyObject* keywords) {
  auto* it = as_method(self);
  if (PyVectorcall_NARGS(flags) == 2 && !keywords && is_tensor(args[0]) && (is_tensor(args[1]) || is_number(args[1]))) {
    PyObject* swapped[] = {args[1], args[0]};
    return call_op(it->op, it->reflected ? swapped : args, 2, nullptr);
  }
  return PyObject_Vectorcall(it->otherwise, args, flags, keywords);
}

// --- functions that take NumPy's names of arguments too

PyObject* call_renamed(PyObject* self, PyObject* const* args, std::size_t flags, PyObject* keywords) {
  auto* it = as_method(self);
  const Py_ssize_t count = keywords ? PyTuple_GET_SIZE(keywords) : 0;
  Ref names;
  for (Py_ssize_t k = 0; k < count; ++k) {
    PyObject* meant = PyDict_GetItemWithError(it->names, PyTuple_GET_ITEM(keywords, k));
    if (!meant) {
      if (PyErr_Occurred()) return nullptr;
      continue;
    }
    if (PySequence_Contains(keywords, meant)) break;  // given under both names: Python says so
    if (!names) names = tuple_of(&PyTuple_GET_ITEM(keywords, 0), count);
    if (!names) return nullptr;
    PyObject* old = PyTuple_GET_ITEM(names.get(), k);
    Py_INCREF(meant);
    PyTuple_SET_ITEM(names.get(), k, meant);
    Py_DECREF(old);
  }
  return PyObject_Vectorcall(it->otherwise, args, flags, names ? names.get() : keywords);
}

// --- views

struct Source {
  PyArrayObject* array = nullptr;
  Ref held;  // the array: another thread may give the tensor another
  bool track = false;
};

// Whether the first argument is a tensor whose views this file may make: of a NumPy array, behind a door that nobody listens
// at and whose kernel is this module's.
bool open(MethodObject* self, PyObject* const* args, Py_ssize_t n, Source& source) {
  if (n < 1 || !is_tensor(args[0])) return false;
  auto* t = as_tensor(args[0]);
  PyObject* array = t->f[TensorObject::kData];
  if (!array || !PyArray_CheckExact(array)) return false;
  PyObject* door = door_of(&PyArray_Type);
  Ref kernel = door ? kernel_of(as_op(self->op), door) : Ref();
  if (!kernel || !is_view_kernel(kernel.get())) {
    PyErr_Clear();
    return false;
  }
  source.held = Ref::borrowed(array);
  source.array = as_array(array);
  source.track = t->f[TensorObject::kTracked] == Py_True && switches.recording;
  return true;
}

PyObject* give(MethodObject* self, PyObject* const* args, const Source& source, const Form& form, PyObject* name, Ref value) {
  Ref array(value ? made_view(source.array, form) : nullptr);
  Ref attrs(array ? PyDict_New() : nullptr);
  if (!attrs || PyDict_SetItem(attrs.get(), name, value.get()) < 0) return nullptr;
  PyObject* held = source.held.get();
  return view_result(as_op(self->op), args, &held, array.get(), attrs.get(), source.track);
}

}  // namespace

Ref integers_of(const npy_intp* values, int count) {
  Ref made(PyTuple_New(count));
  for (int i = 0; made && i < count; ++i) {
    PyObject* value = PyLong_FromSsize_t(values[i]);
    if (!value) return Ref();
    PyTuple_SET_ITEM(made.get(), i, value);
  }
  return made;
}

bool bump_version(PyObject* x) {
  PyObject* cell = version_of(as_tensor(x));
  PyObject* next = cell ? PyLong_FromLongLong(PyLong_AsLongLong(PyList_GET_ITEM(cell, 0)) + 1) : nullptr;
  return next && PyList_SetItem(cell, 0, next) == 0;
}

bool one_integer(PyObject* given, npy_intp& out) {
  if (!PyLong_CheckExact(given)) return false;
  out = PyLong_AsSsize_t(given);
  if (out != -1 || !PyErr_Occurred()) return true;
  PyErr_Clear();
  return false;
}

bool expected_error() {
  for (PyObject* kind : {PyExc_ValueError, PyExc_TypeError, PyExc_AttributeError, PyExc_IndexError, PyExc_OverflowError})
    if (PyErr_ExceptionMatches(kind)) return true;
  return false;
}

bool one_dim(PyObject* given, int ndim, int& out) {
  npy_intp dim;
  if (!one_integer(given, dim) || dim < -ndim || dim >= ndim) return false;
  out = static_cast<int>(dim < 0 ? dim + ndim : dim);
  return true;
}

namespace {

// Integers given as f(2, 3) or f((2, 3)).
bool all_integers(PyObject* const* args, Py_ssize_t n, npy_intp* out, int& count) {
  if (n == 2 && !PyLong_CheckExact(args[1])) return read_integers(args[1], out, count);
  if (n > kMostDims) return false;
  for (Py_ssize_t i = 1; i < n; ++i)
    if (!one_integer(args[i], out[i - 1])) return false;
  count = static_cast<int>(n - 1);
  return true;
}

PyObject* give_shape(MethodObject* self, PyObject* const* args, const Source& source, const npy_intp* shape, int ndim) {
  Form form;
  if (!reshaped(source.array, shape, ndim, form)) return nullptr;
  return give(self, args, source, form, names.shape, integers_of(shape, ndim));
}

// view and reshape; a reshape that copies is Python's
PyObject* view(MethodObject* self, PyObject* const* args, Py_ssize_t n) {
  Source source;
  npy_intp shape[kMostDims];
  int ndim, hole = -1;
  if (!open(self, args, n, source) || !all_integers(args, n, shape, ndim)) return nullptr;
  npy_intp known_size = 1;
  for (int i = 0; i < ndim; ++i) {
    if (shape[i] == -1) {
      if (hole >= 0) return nullptr;
      hole = i;
    } else if (shape[i] < 0 || __builtin_mul_overflow(known_size, shape[i], &known_size)) {
      return nullptr;
    }
  }
  if (hole >= 0) {
    const npy_intp size = PyArray_SIZE(source.array);
    if (!known_size || size % known_size) return nullptr;
    shape[hole] = size / known_size;
  }
  return give_shape(self, args, source, shape, ndim);
}

PyObject* ravel(MethodObject* self, PyObject* const* args, Py_ssize_t n) {
  Source source;
  if (n != 1 || !open(self, args, n, source)) return nullptr;
  const npy_intp size = PyArray_SIZE(source.array);
  return give_shape(self, args, source, &size, 1);
}

// view_as, reshape_as, expand_as: the second argument is a tensor whose shape is meant.
PyArrayObject* pattern(PyObject* const* args, Py_ssize_t n) {
  PyObject* array = n == 2 && is_tensor(args[1]) ? as_tensor(args[1])->f[TensorObject::kData] : nullptr;
  return array && PyArray_CheckExact(array) ? as_array(array) : nullptr;
}

PyObject* view_as(MethodObject* self, PyObject* const* args, Py_ssize_t n) {
  Source source;
  PyArrayObject* other = pattern(args, n);
  if (!other || !open(self, args, n, source)) return nullptr;
  return give_shape(self, args, source, PyArray_DIMS(other), PyArray_NDIM(other));
}

PyObject* unflatten(MethodObject* self, PyObject* const* args, Py_ssize_t n) {
  Source source;
  npy_intp sizes[kMostDims], shape[kMostDims], product = 1;
  int dim, count, hole = -1;
  if (n != 3 || !open(self, args, n, source) || !read_integers(args[2], sizes, count)) return nullptr;
  const int ndim = PyArray_NDIM(source.array);
  if (!one_dim(args[1], ndim, dim) || ndim - 1 + count > kMostDims) return nullptr;
  for (int i = 0; i < count; ++i) {
    if (sizes[i] == -1 && hole < 0) hole = i;
    else if (sizes[i] < 0 || __builtin_mul_overflow(product, sizes[i], &product)) return nullptr;
  }
  const npy_intp size = PyArray_DIM(source.array, dim);
  if (hole >= 0) {
    if (!product || size % product) return nullptr;
    sizes[hole] = size / product;
  } else if (product != size) {
    return nullptr;
  }
  std::copy_n(PyArray_DIMS(source.array), dim, shape);
  std::copy_n(sizes, count, shape + dim);
  std::copy(PyArray_DIMS(source.array) + dim + 1, PyArray_DIMS(source.array) + ndim, shape + dim + count);
  return give_shape(self, args, source, shape, ndim - 1 + count);
}

PyObject* flatten(MethodObject* self, PyObject* const* args, Py_ssize_t n) {
  Source source;
  if (n > 3 || !open(self, args, n, source)) return nullptr;
  const int ndim = PyArray_NDIM(source.array);
  int first = 0, last = ndim - 1;
  if (!ndim || (n > 1 && !one_dim(args[1], ndim, first)) || (n > 2 && !one_dim(args[2], ndim, last)) || first > last)
    return nullptr;
  if (first == last) return Py_INCREF(args[0]), args[0];
  npy_intp shape[kMostDims];
  int count = 0;
  for (int i = 0; i < ndim; ++i) {
    if (i > first && i <= last) shape[count - 1] *= PyArray_DIM(source.array, i);
    else shape[count++] = PyArray_DIM(source.array, i);
  }
  return give_shape(self, args, source, shape, count);
}

PyObject* squeeze(MethodObject* self, PyObject* const* args, Py_ssize_t n) {
  Source source;
  if (n > 2 || !open(self, args, n, source)) return nullptr;
  const int ndim = PyArray_NDIM(source.array);
  int only = -1;
  if (n == 2 && !one_dim(args[1], ndim, only)) return nullptr;
  npy_intp shape[kMostDims];
  int count = 0;
  for (int i = 0; i < ndim; ++i)
    if (PyArray_DIM(source.array, i) != 1 || (only >= 0 && i != only)) shape[count++] = PyArray_DIM(source.array, i);
  return give_shape(self, args, source, shape, count);
}

PyObject* unsqueeze(MethodObject* self, PyObject* const* args, Py_ssize_t n) {
  Source source;
  int at;
  if (n != 2 || !open(self, args, n, source)) return nullptr;
  const int ndim = PyArray_NDIM(source.array);
  if (ndim == kMostDims || !one_dim(args[1], ndim + 1, at)) return nullptr;
  npy_intp shape[kMostDims];
  std::copy_n(PyArray_DIMS(source.array), at, shape);
  shape[at] = 1;
  std::copy(PyArray_DIMS(source.array) + at, PyArray_DIMS(source.array) + ndim, shape + at + 1);
  return give_shape(self, args, source, shape, ndim + 1);
}

PyObject* give_order(MethodObject* self, PyObject* const* args, const Source& source, const npy_intp* dims) {
  Form form;
  permuted(source.array, dims, form);
  return give(self, args, source, form, names.dims, integers_of(dims, form.ndim));
}

PyObject* permute(MethodObject* self, PyObject* const* args, Py_ssize_t n) {
  Source source;
  npy_intp dims[kMostDims];
  int count;
  if (!open(self, args, n, source) || !all_integers(args, n, dims, count)) return nullptr;
  const int ndim = PyArray_NDIM(source.array);
  if (count != ndim) return nullptr;
  unsigned long long seen = 0;
  for (int i = 0; i < ndim; ++i) {
    if (dims[i] < -ndim || dims[i] >= ndim) return nullptr;
    if (dims[i] < 0) dims[i] += ndim;
    if (seen >> dims[i] & 1) return nullptr;
    seen |= 1ULL << dims[i];
  }
  return give_order(self, args, source, dims);
}

PyObject* swap(MethodObject* self, PyObject* const* args, const Source& source, int a, int b) {
  npy_intp dims[kMostDims];
  for (int i = 0; i < PyArray_NDIM(source.array); ++i) dims[i] = i;
  std::swap(dims[a], dims[b]);
  return give_order(self, args, source, dims);
}

PyObject* transpose(MethodObject* self, PyObject* const* args, Py_ssize_t n) {
  Source source;
  int a, b;
  if (n != 3 || !open(self, args, n, source)) return nullptr;
  const int ndim = PyArray_NDIM(source.array);
  return one_dim(args[1], ndim, a) && one_dim(args[2], ndim, b) ? swap(self, args, source, a, b) : nullptr;
}

PyObject* t(MethodObject* self, PyObject* const* args, Py_ssize_t n) {
  Source source;
  return n == 1 && open(self, args, n, source) && PyArray_NDIM(source.array) == 2 ? swap(self, args, source, 0, 1) : nullptr;
}

PyObject* matrix_transpose(MethodObject* self, PyObject* const* args, Py_ssize_t n) {
  Source source;
  if (n != 1 || !open(self, args, n, source)) return nullptr;
  const int ndim = PyArray_NDIM(source.array);
  return ndim >= 2 ? swap(self, args, source, ndim - 2, ndim - 1) : nullptr;
}

// movedim: integers, or as many of both.
PyObject* movedim(MethodObject* self, PyObject* const* args, Py_ssize_t n) {
  Source source;
  npy_intp from[kMostDims], to[kMostDims], order[kMostDims];
  int count = 1, other = 1;
  if (n != 3 || !open(self, args, n, source)) return nullptr;
  if (!one_integer(args[1], *from) && !read_integers(args[1], from, count)) return nullptr;
  if (!one_integer(args[2], *to) && !read_integers(args[2], to, other)) return nullptr;
  const int ndim = PyArray_NDIM(source.array);
  if (count != other) return nullptr;
  unsigned long long moved = 0;
  std::fill_n(order, ndim, -1);
  for (int i = 0; i < count; ++i) {
    if (from[i] < -ndim || from[i] >= ndim || to[i] < -ndim || to[i] >= ndim) return nullptr;
    const npy_intp start = from[i] < 0 ? from[i] + ndim : from[i], end = to[i] < 0 ? to[i] + ndim : to[i];
    if (moved >> start & 1 || order[end] >= 0) return nullptr;
    moved |= 1ULL << start;
    order[end] = start;
  }
  int next = 0;
  for (int i = 0; i < ndim; ++i) {
    if (order[i] >= 0) continue;
    while (moved >> next & 1) ++next;
    order[i] = next++;
  }
  return give_order(self, args, source, order);
}

PyObject* expand(MethodObject* self, PyObject* const* args, Py_ssize_t n) {
  Source source;
  npy_intp shape[kMostDims];
  int ndim;
  if (!open(self, args, n, source) || !all_integers(args, n, shape, ndim)) return nullptr;
  const int lead = ndim - PyArray_NDIM(source.array);
  for (int i = std::max(lead, 0); i < ndim; ++i)
    if (shape[i] == -1) shape[i] = PyArray_DIM(source.array, i - lead);
  Form form;
  if (!expanded(source.array, shape, ndim, form)) return nullptr;
  return give(self, args, source, form, names.shape, integers_of(shape, ndim));
}

PyObject* expand_as(MethodObject* self, PyObject* const* args, Py_ssize_t n) {
  Source source;
  Form form;
  PyArrayObject* other = pattern(args, n);
  if (!other || !open(self, args, n, source)) return nullptr;
  if (!expanded(source.array, PyArray_DIMS(other), PyArray_NDIM(other), form)) return nullptr;
  return give(self, args, source, form, names.shape, integers_of(form.shape, form.ndim));
}

// broadcast_to takes its sizes as one sequence.
PyObject* broadcast_to(MethodObject* self, PyObject* const* args, Py_ssize_t n) {
  return n == 2 && !PyLong_Check(args[1]) ? expand(self, args, n) : nullptr;
}

PyObject* give_part(MethodObject* self, PyObject* const* args, const Source& source, Ref key) {
  if (!key) return nullptr;
  Form form;
  if (!sliced(source.array, key.get(), form)) return nullptr;
  return give(self, args, source, form, names.key, std::move(key));
}

PyObject* whole() {
  static PyObject* const made = PySlice_New(nullptr, nullptr, nullptr);
  return made;
}

Ref slice_from(Py_ssize_t start, Py_ssize_t stop, Py_ssize_t step) {
  Ref first(PyLong_FromSsize_t(start)), last(PyLong_FromSsize_t(stop)), by(PyLong_FromSsize_t(step));
  return first && last && by ? Ref(PySlice_New(first.get(), last.get(), by.get())) : Ref();
}

// All of the first `dim` dimensions, then `part`.
Ref key_at(int dim, Ref part) {
  Ref key(part ? PyTuple_New(dim + 1) : nullptr);
  if (!key) return key;
  for (int i = 0; i < dim; ++i) PyTuple_SET_ITEM(key.get(), i, (Py_INCREF(whole()), whole()));
  PyTuple_SET_ITEM(key.get(), dim, part.release());
  return key;
}

bool is_bound(PyObject* bound) { return bound == Py_None || PyLong_CheckExact(bound); }

// One part of a key in the words of the op, for a dimension of this size; null without an error where Python must look.
Ref part_of(PyObject* given, npy_intp size, bool within) {
  if (PyLong_CheckExact(given)) {
    npy_intp at;
    if (!one_integer(given, at) || at < -size || at >= size) return Ref();
    return at < 0 ? Ref(PyLong_FromSsize_t(at + size)) : Ref::borrowed(given);
  }
  if (!PySlice_Check(given)) return Ref();
  auto* slice = reinterpret_cast<PySliceObject*>(given);
  if (!is_bound(slice->start) || !is_bound(slice->stop) || !is_bound(slice->step)) return Ref();
  if (within && slice->start == Py_None && slice->stop == Py_None && slice->step == Py_None) return Ref::borrowed(whole());
  Py_ssize_t start, stop, step;
  if (PySlice_Unpack(given, &start, &stop, &step) < 0) {
    PyErr_Clear();
    return Ref();
  }
  if (step < 1) return Ref();
  PySlice_AdjustIndices(size, &start, &stop, step);
  return slice_from(start, std::max(start, stop), step);
}

// --- positions: what a key holds beside integers and slices

PyArrayObject* array_within(PyObject* x) {
  PyObject* array = is_tensor(x) ? as_tensor(x)->f[TensorObject::kData] : nullptr;
  return array && PyArray_CheckExact(array) ? as_array(array) : nullptr;
}

// An array as it is, in one dimension; new reference.
PyObject* flattened(PyArrayObject* x) {
  Form form;
  const npy_intp size = PyArray_SIZE(x);
  return reshaped(x, &size, 1, form) ? made_view(x, form) : nullptr;
}

// Where a mask in one piece holds, as a tensor of positions in all of it.
Ref positions(PyArrayObject* mask) {
  PyObject* door = door_of(&PyArray_Type);
  Ref kernel = door ? kernel_of(as_op(known.nonzero), door) : Ref();
  if (!kernel || !PyCFunction_CheckExact(kernel.get())) return Ref();
  Ref flat(flattened(mask));
  PyObject* one = flat.get();
  Ref found(one ? PyObject_Vectorcall(kernel.get(), &one, 1, nullptr) : nullptr);
  Ref line(found ? flattened(as_array(found.get())) : nullptr);
  return line ? Ref(wrapped(line.get(), switches.inference)) : Ref();
}

// A list of integers as a tensor of them.
Ref listed(PyObject* given) {
  npy_intp size = PyList_GET_SIZE(given);
  Ref made(size ? PyArray_SimpleNew(1, &size, NPY_INT64) : nullptr);
  if (!made) return Ref();
  auto* to = static_cast<npy_int64*>(PyArray_DATA(as_array(made.get())));
  for (npy_intp i = 0; i < size; ++i) {
    npy_intp value;
    if (!one_integer(PyList_GET_ITEM(given, i), value)) return Ref();
    to[i] = value;
  }
  return Ref(wrapped(made.get(), switches.inference));
}

// A part that is a tensor of positions along one dimension of this size; null without an error where Python must look.
Ref along(PyObject* part, npy_intp size) {
  if (PyList_CheckExact(part)) return listed(part);
  PyArrayObject* array = array_within(part);
  if (!array || !PyArray_NDIM(array)) return Ref();
  if (PyArray_TYPE(array) == NPY_INT64) return Ref::borrowed(part);
  const bool mask = PyArray_TYPE(array) == NPY_BOOL && PyArray_NDIM(array) == 1 && PyArray_DIM(array, 0) == size;
  return mask && PyArray_IS_C_CONTIGUOUS(array) ? positions(array) : Ref();
}

PyObject* at_positions(PyObject* x, const Ref* indices, const long* dims, Py_ssize_t count) {
  static PyObject* const word = Py_BuildValue("(s)", "spec");
  PyObject* all[kMost + 1] = {x};
  Ref spec(PyTuple_New(count));
  if (!word || !spec) return nullptr;
  for (Py_ssize_t i = 0; i < count; ++i) {
    all[1 + i] = indices[i].get();
    PyObject* dim = PyLong_FromLong(dims[i]);
    if (!dim) return nullptr;
    PyTuple_SET_ITEM(spec.get(), i, dim);
  }
  all[1 + count] = spec.get();
  return PyObject_Vectorcall(known.index, all, static_cast<std::size_t>(1 + count), word);
}

// The elements where a mask of the first dimensions' sizes holds: with x in one piece, positions along one dimension.
PyObject* under_mask(PyObject* x, PyArrayObject* array, PyArrayObject* mask) {
  const int ndim = PyArray_NDIM(array), masked = PyArray_NDIM(mask);
  if (!masked || masked > ndim || !PyArray_CompareLists(PyArray_DIMS(array), PyArray_DIMS(mask), masked)) return nullptr;
  if (!PyArray_IS_C_CONTIGUOUS(mask) || (masked > 1 && !PyArray_IS_C_CONTIGUOUS(array))) return nullptr;
  Ref where = positions(mask), flat = Ref::borrowed(x);
  if (!where) return nullptr;
  if (masked > 1) {
    npy_intp shape[kMostDims] = {PyArray_SIZE(mask)};
    std::copy(PyArray_DIMS(array) + masked, PyArray_DIMS(array) + ndim, shape + 1);
    Ref sizes = integers_of(shape, ndim - masked + 1), word(PyTuple_Pack(1, names.shape));
    PyObject* both[] = {x, sizes.get()};
    flat = Ref(sizes && word ? call_op(known.reshape, both, 1, word.get()) : nullptr);
    if (!flat) return nullptr;
  }
  const long first = 0;
  return at_positions(flat.get(), &where, &first, 1);
}

PyObject* masked_select(MethodObject* self, PyObject* const* args, Py_ssize_t n) {
  Source source;
  PyArrayObject* mask = n == 2 ? array_within(args[1]) : nullptr;
  if (!mask || PyArray_TYPE(mask) != NPY_BOOL || !open(self, args, n, source)) return nullptr;
  return same_shape(mask, source.array) ? under_mask(args[0], source.array, mask) : nullptr;
}

// A key taken apart: what makes a view of the tensor, and positions in that view.
struct Key {
  Ref basic;
  bool all = true;  // the view is the tensor
  Ref indices[kMost];
  long dims[kMost];
  Py_ssize_t chosen = 0;
};

// False where Python must look.
bool parse(PyArrayObject* x, PyObject* given, Key& out) {
  const bool several = PyTuple_CheckExact(given);
  const Py_ssize_t count = several ? PyTuple_GET_SIZE(given) : 1;
  PyObject* const* parts = several ? &PyTuple_GET_ITEM(given, 0) : &given;
  const auto chooses = [](PyObject* part) { return is_tensor(part) || PyList_CheckExact(part); };
  Py_ssize_t used = 0, dots = 0, chosen = 0;
  for (Py_ssize_t i = 0; i < count; ++i) {
    PyObject* part = parts[i];
    if (part == Py_Ellipsis) ++dots;
    else if (PyLong_CheckExact(part) || PySlice_Check(part)) ++used;
    else if (chooses(part)) ++used, ++chosen;
    else if (part != Py_None) return false;
  }
  const int ndim = PyArray_NDIM(x);
  if (chosen >= kMost || dots > 1 || used > ndim) return false;
  const Py_ssize_t free = ndim - used;
  out.basic = Ref(PyTuple_New(dots ? count - 1 + free : count));
  if (!out.basic) return false;
  Py_ssize_t at = 0;
  int dim = 0;
  long made = 0;  // dimensions of the view so far
  const auto put = [&](PyObject* part) { PyTuple_SET_ITEM(out.basic.get(), at++, part); };
  for (Py_ssize_t i = 0; i < count; ++i) {
    PyObject* part = parts[i];
    if (chooses(part)) {
      out.indices[out.chosen] = along(part, PyArray_DIM(x, dim++));
      if (!out.indices[out.chosen]) return false;
      out.dims[out.chosen++] = made++;
      put((Py_INCREF(whole()), whole()));
      continue;
    }
    if (part == Py_Ellipsis) {
      made += static_cast<long>(free);
      for (Py_ssize_t k = 0; k < free; ++k) put((Py_INCREF(whole()), whole()));
      dim += static_cast<int>(free);
      continue;
    }
    Ref one = part == Py_None ? Ref::borrowed(part) : part_of(part, PyArray_DIM(x, dim++), several);
    if (!one) return false;
    out.all &= one.get() == whole();
    made += !PyLong_CheckExact(one.get());
    put(one.release());
  }
  return true;
}

bool is_mask(PyArrayObject* x) { return x && PyArray_TYPE(x) == NPY_BOOL && PyArray_NDIM(x) > 1; }

PyObject* getitem(MethodObject* self, PyObject* const* args, Py_ssize_t n) {
  Source source;
  if (n != 2 || !open(self, args, n, source)) return nullptr;
  if (PyArrayObject* mask = array_within(args[1]); is_mask(mask)) return under_mask(args[0], source.array, mask);
  Key key;
  if (!parse(source.array, args[1], key)) return nullptr;
  if (!key.chosen) return give_part(self, args, source, std::move(key.basic));
  Ref view = key.all ? Ref::borrowed(args[0]) : Ref(give_part(self, args, source, std::move(key.basic)));
  return view ? at_positions(view.get(), key.indices, key.dims, key.chosen) : nullptr;
}

// --- writing in place, where nobody records it: memory in one piece, values of its dtype that lie elsewhere

// Null without an error where Python must look.
Ref value_for(PyArrayObject* target, PyObject* given) {
  const int type = PyArray_TYPE(target);
  const bool floats = type == NPY_FLOAT32 || type == NPY_FLOAT64;
  if (PyArrayObject* x = array_within(given)) {
    if (PyArray_DESCR(x) != PyArray_DESCR(target) || !PyArray_ISALIGNED(x)) return Ref();
    if (switches.recording && as_tensor(given)->f[TensorObject::kTracked] == Py_True) return Ref();
    if (!PyArray_IS_C_CONTIGUOUS(x)) return Ref();  // so that it lies where its bytes are counted
    const char *low = PyArray_BYTES(target), *other = PyArray_BYTES(x);
    if (other < low + PyArray_NBYTES(target) && low < other + PyArray_NBYTES(x)) return Ref();
    return Ref::borrowed(reinterpret_cast<PyObject*>(x));
  }
  npy_intp whole_number = 0;
  double number = 0;
  if (PyFloat_CheckExact(given)) {
    number = PyFloat_AS_DOUBLE(given);
    if (!floats || (std::isfinite(number) && std::fabs(number) > 3.4e38)) return Ref();  // the largest of float32, nearly
  } else if (!one_integer(given, whole_number) || std::abs(whole_number) > npy_intp(1) << 53 || (!floats && type != NPY_INT64)) {
    return Ref();
  }
  Ref made(PyArray_SimpleNew(0, nullptr, type));
  if (!made) return made;
  void* to = PyArray_DATA(as_array(made.get()));
  if (PyLong_CheckExact(given)) number = static_cast<double>(whole_number);
  if (type == NPY_FLOAT32) *static_cast<float*>(to) = static_cast<float>(number);
  else if (type == NPY_FLOAT64) *static_cast<double*>(to) = number;
  else *static_cast<npy_int64*>(to) = whole_number;
  return made;
}

// The tensor's memory, if it may be written here.
PyArrayObject* target_of(const Source& source, PyObject* x) {
  if (source.track || as_tensor(x)->f[TensorObject::kInference] != Py_False) return nullptr;
  return PyArray_ISCARRAY(source.array) ? source.array : nullptr;
}

Ref kernel_named(const char* name) {
  PyObject* door = door_of(&PyArray_Type);
  return Ref(door ? PyObject_GetAttrString(door, name) : nullptr);
}

bool copied_into(PyObject* region, PyObject* value) {
  Ref kernel = kernel_named("copy_into");
  PyObject* both[] = {region, value};
  return kernel && Ref(PyObject_Vectorcall(kernel.get(), both, 2, nullptr));
}

bool put_into(PyObject* region, PyObject* value, const Ref* indices, const long* dims, Py_ssize_t count) {
  static PyObject* const words = Py_BuildValue("(ss)", "spec", "accumulate");
  Ref kernel = kernel_named("index_put_into"), spec(PyTuple_New(count));
  if (!kernel || !spec || !words) return false;
  PyObject* all[kMost + 4] = {region, value};
  for (Py_ssize_t i = 0; i < count; ++i) {
    all[2 + i] = as_tensor(indices[i].get())->f[TensorObject::kData];
    if (PyArray_NDIM(as_array(value)) && !PyArray_SIZE(as_array(all[2 + i]))) return false;
    PyObject* dim = PyLong_FromLong(dims[i]);
    if (!dim) return false;
    PyTuple_SET_ITEM(spec.get(), i, dim);
  }
  all[2 + count] = spec.get();
  all[3 + count] = Py_False;
  return static_cast<bool>(Ref(PyObject_Vectorcall(kernel.get(), all, static_cast<std::size_t>(2 + count), words)));
}

PyObject* setitem(MethodObject* self, PyObject* const* args, Py_ssize_t n) {
  Source source;
  PyArrayObject* target = n == 3 && open(self, args, n, source) ? target_of(source, args[0]) : nullptr;
  Ref value = target ? value_for(target, args[2]) : Ref();
  if (!value) return nullptr;
  if (PyArrayObject* mask = array_within(args[1]); is_mask(mask)) {
    if (PyArray_NDIM(as_array(value.get())) || !same_shape(mask, target) || !PyArray_IS_C_CONTIGUOUS(mask)) return nullptr;
    Ref where = positions(mask), flat(flattened(target));
    const long first = 0;
    if (!where || !flat || !put_into(flat.get(), value.get(), &where, &first, 1)) return nullptr;
  } else {
    Key key;
    Form form;
    if (!parse(target, args[1], key) || !sliced(target, key.basic.get(), form)) return nullptr;
    Ref region(made_view(target, form));
    if (!region || !(key.chosen ? put_into(region.get(), value.get(), key.indices, key.dims, key.chosen)
                                : copied_into(region.get(), value.get())))
      return nullptr;
  }
  if (!bump_version(args[0])) return nullptr;
  Py_RETURN_NONE;
}

// copy_(tensor) and fill_(number)
PyObject* overwrite(MethodObject* self, PyObject* const* args, Py_ssize_t n) {
  Source source;
  PyArrayObject* target = n == 2 && open(self, args, n, source) ? target_of(source, args[0]) : nullptr;
  Ref value = target ? value_for(target, args[1]) : Ref();
  if (!value || !copied_into(source.held.get(), value.get()) || !bump_version(args[0])) return nullptr;
  return Py_INCREF(args[0]), args[0];
}

PyObject* fill(MethodObject* self, PyObject* const* args, Py_ssize_t n) {
  return n == 2 && !is_tensor(args[1]) ? overwrite(self, args, n) : nullptr;
}

PyObject* zero(MethodObject* self, PyObject* const* args, Py_ssize_t n) {
  static PyObject* const none = PyLong_FromLong(0);
  PyObject* both[] = {n ? args[0] : nullptr, none};
  return n == 1 ? overwrite(self, both, 2) : nullptr;
}

PyObject* select(MethodObject* self, PyObject* const* args, Py_ssize_t n) {
  Source source;
  int dim;
  if (n != 3 || !open(self, args, n, source) || !one_dim(args[1], PyArray_NDIM(source.array), dim)) return nullptr;
  if (!PyLong_CheckExact(args[2])) return nullptr;
  return give_part(self, args, source, key_at(dim, part_of(args[2], PyArray_DIM(source.array, dim), true)));
}

PyObject* narrow(MethodObject* self, PyObject* const* args, Py_ssize_t n) {
  Source source;
  int dim;
  npy_intp start, length;
  if (n != 4 || !open(self, args, n, source) || !one_dim(args[1], PyArray_NDIM(source.array), dim)) return nullptr;
  const npy_intp size = PyArray_DIM(source.array, dim);
  if (!one_integer(args[2], start) || !one_integer(args[3], length) || start < -size || start > size) return nullptr;
  if (start < 0) start += size;
  if (length < 0 || start > size - length) return nullptr;
  return give_part(self, args, source, key_at(dim, slice_from(start, start + length, 1)));
}

// A tuple of views, the i-th of which has the key that `key(i)` makes.
template <class Key>
PyObject* give_parts(MethodObject* self, PyObject* const* args, const Source& source, Py_ssize_t count, Key key) {
  Ref all(PyTuple_New(count));
  if (!all) return nullptr;
  for (Py_ssize_t i = 0; i < count; ++i) {
    PyObject* part = give_part(self, args, source, key(i));
    if (!part) return nullptr;
    PyTuple_SET_ITEM(all.get(), i, part);
  }
  return all.release();
}

// The dimension to cut and its size.
bool open_cut(MethodObject* self, PyObject* const* args, Py_ssize_t n, Py_ssize_t at, Source& source, int& dim, npy_intp& total) {
  if (n > at + 1 || !open(self, args, n, source)) return false;
  dim = 0;
  const int ndim = PyArray_NDIM(source.array);
  if (!ndim || (n == at + 1 && !one_dim(args[at], ndim, dim))) return false;
  total = PyArray_DIM(source.array, dim);
  return true;
}

PyObject* in_steps(MethodObject* self, PyObject* const* args, const Source& source, int dim, npy_intp total, npy_intp step) {
  return give_parts(self, args, source, (total - 1) / step + 1, [&](Py_ssize_t i) {
    return key_at(dim, slice_from(i * step, i * step + std::min(step, total - i * step), 1));
  });
}

PyObject* split(MethodObject* self, PyObject* const* args, Py_ssize_t n) {
  Source source;
  int dim, count;
  npy_intp total, step, sizes[kMostDims];
  if (n < 2 || !open_cut(self, args, n, 2, source, dim, total)) return nullptr;
  if (one_integer(args[1], step))
    return step > 0 && total > 0 ? in_steps(self, args, source, dim, total, step) : nullptr;
  if (!read_integers(args[1], sizes, count)) return nullptr;
  npy_intp left = total;
  for (int i = 0; i < count; ++i) {
    if (sizes[i] < 0 || sizes[i] > left) return nullptr;
    left -= sizes[i];
  }
  if (left || !count) return nullptr;
  npy_intp start = 0;
  return give_parts(self, args, source, count, [&](Py_ssize_t i) {
    start += sizes[i];
    return key_at(dim, slice_from(start - sizes[i], start, 1));
  });
}

PyObject* chunk(MethodObject* self, PyObject* const* args, Py_ssize_t n) {
  Source source;
  int dim;
  npy_intp total, chunks;
  if (n < 2 || !open_cut(self, args, n, 2, source, dim, total) || !one_integer(args[1], chunks)) return nullptr;
  if (chunks < 1 || total < 1) return nullptr;
  return in_steps(self, args, source, dim, total, (total - 1) / chunks + 1);
}

// A number of sections, as equal as may be, or where to cut.
PyObject* tensor_split(MethodObject* self, PyObject* const* args, Py_ssize_t n) {
  Source source;
  int dim, count;
  npy_intp total, sections, cuts[kMostDims];
  if (n < 2 || !open_cut(self, args, n, 2, source, dim, total)) return nullptr;
  if (one_integer(args[1], sections)) {
    if (sections < 1) return nullptr;
    const npy_intp size = total / sections, more = total % sections;
    return give_parts(self, args, source, sections, [&](Py_ssize_t i) {
      const npy_intp start = i * size + std::min(i, more);
      return key_at(dim, slice_from(start, start + size + (i < more), 1));
    });
  }
  if (!read_integers(args[1], cuts, count)) return nullptr;
  for (int i = 0; i < count; ++i) cuts[i] = std::min(std::max<npy_intp>(cuts[i] < 0 ? cuts[i] + total : cuts[i], 0), total);
  return give_parts(self, args, source, count + 1, [&](Py_ssize_t i) {
    const npy_intp start = i ? cuts[i - 1] : 0;
    return key_at(dim, slice_from(start, std::max(start, i < count ? cuts[i] : total), 1));
  });
}

PyObject* unbind(MethodObject* self, PyObject* const* args, Py_ssize_t n) {
  Source source;
  int dim;
  npy_intp total;
  if (!open_cut(self, args, n, 1, source, dim, total)) return nullptr;
  return give_parts(self, args, source, total, [&](Py_ssize_t i) { return key_at(dim, Ref(PyLong_FromSsize_t(i))); });
}

const struct {
  const char* name;
  Fast fast;
  Py_ssize_t dim;
} kinds[] = {{"view", view, 0}, {"reshape", view, 0}, {"flatten", flatten, 0}, {"squeeze", squeeze, 1},
             {"unsqueeze", unsqueeze, 1}, {"permute", permute, 0}, {"transpose", transpose, 0}, {"t", t, 0}, {"T", t, 0},
             {"mT", matrix_transpose, 0}, {"expand", expand, 0}, {"__getitem__", getitem, 0}, {"select", select, 0},
             {"narrow", narrow, 0}, {"split", split, 2}, {"chunk", chunk, 2}, {"unbind", unbind, 1},
             {"tensor_split", tensor_split, 2}, {"swapaxes", transpose, 0}, {"swapdims", transpose, 0},
             {"movedim", movedim, 0}, {"moveaxis", movedim, 0}, {"ravel", ravel, 0}, {"view_as", view_as, 0},
             {"reshape_as", view_as, 0}, {"unflatten", unflatten, 0}, {"expand_as", expand_as, 0},
             {"broadcast_to", broadcast_to, 0}, {"masked_select", masked_select, 0},
             {"__setitem__", setitem, 0}, {"copy_", overwrite, 0}, {"fill_", fill, 0}, {"zero_", zero, 0}};

PyObject* call_view(PyObject* self, PyObject* const* args, std::size_t flags, PyObject* keywords) {
  auto* it = as_method(self);
  const Py_ssize_t n = PyVectorcall_NARGS(flags);
  const bool by_name = keywords && PyTuple_GET_SIZE(keywords) == 1 && n == it->dim &&
                       PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(keywords, 0), "dim") == 0;
  if (!keywords || by_name) {
    PyObject* result = it->fast(it, args, n + by_name);
    if (result || (PyErr_Occurred() && !expected_error())) return result;
    PyErr_Clear();  // an index that is wrong, said in the function's words
  }
  return PyObject_Vectorcall(it->otherwise, args, flags, keywords);
}

}  // namespace

// --- the type

PyObject* new_method(PyTypeObject* type, vectorcallfunc call, PyObject* otherwise, PyObject* op, PyObject* names) {
  PyObject* self = type->tp_alloc(type, 0);
  if (!self) return nullptr;
  auto* it = as_method(self);
  it->call = call;
  it->otherwise = (Py_INCREF(otherwise), otherwise);
  Py_XINCREF(op);
  Py_XINCREF(names);
  it->op = op;
  it->names = names;
  return self;
}

namespace {

PyObject* new_operator(PyTypeObject* type, PyObject* args, PyObject*) {
  PyObject *op, *otherwise;
  int reflected;
  if (!PyArg_ParseTuple(args, "O!Op:Operator", &OpType, &op, &otherwise, &reflected)) return nullptr;
  PyObject* self = new_method(type, call_operator, otherwise, op, nullptr);
  if (self) as_method(self)->reflected = reflected != 0;
  return self;
}

PyObject* new_renamed(PyTypeObject* type, PyObject* args, PyObject*) {
  PyObject *otherwise, *names;
  if (!PyArg_ParseTuple(args, "OO!:Renamed", &otherwise, &PyDict_Type, &names)) return nullptr;
  return new_method(type, call_renamed, otherwise, nullptr, names);
}

PyObject* new_view(PyTypeObject* type, PyObject* args, PyObject*) {
  const char* name;
  PyObject *op, *otherwise;
  if (!PyArg_ParseTuple(args, "sO!O:View", &name, &OpType, &op, &otherwise)) return nullptr;
  for (const auto& kind : kinds) {
    if (std::strcmp(kind.name, name)) continue;
    PyObject* self = new_method(type, call_view, otherwise, op, nullptr);
    if (!self) return nullptr;
    as_method(self)->fast = kind.fast;
    as_method(self)->dim = kind.dim;
    return self;
  }
  return PyErr_Format(PyExc_ValueError, "View: there is no view %s", name);
}

PyObject* bind_method(PyObject* self, PyObject* object, PyObject*) {
  if (object && object != Py_None) return PyMethod_New(self, object);
  Py_INCREF(self);
  return self;
}

void free_method(PyObject* self) {
  auto* it = as_method(self);
  Py_XDECREF(it->otherwise);
  Py_XDECREF(it->op);
  Py_XDECREF(it->names);
  Py_TYPE(self)->tp_free(self);
}

// What else is asked of it, its name and documentation, is the function's.
PyObject* method_attribute(PyObject* self, PyObject* name) {
  PyObject* own = PyObject_GenericGetAttr(self, name);
  if (own || !PyErr_ExceptionMatches(PyExc_AttributeError)) return own;
  PyErr_Clear();
  return PyObject_GetAttr(as_method(self)->otherwise, name);
}

PyObject* method_repr(PyObject* self) { return PyObject_Repr(as_method(self)->otherwise); }

// Found again, when it is pickled or copied, as the method of its name or as what stands before the function.
PyObject* method_reduce(PyObject* self, PyObject*) {
  auto* it = as_method(self);
  if (it->names) return Py_BuildValue("(O(O))", known.accept, it->otherwise);
  if (Py_TYPE(self) == &FunctionType || Py_TYPE(self) == &FactoryType) return PyObject_GetAttrString(it->otherwise, "__qualname__");
  Ref name(PyObject_GetAttrString(it->otherwise, "__name__"));
  return name ? Py_BuildValue("(O(OO))", PyDict_GetItemString(PyEval_GetBuiltins(), "getattr"), known.tensor, name.get()) : nullptr;
}

PyMethodDef method_methods[] = {{"__reduce__", method_reduce, METH_NOARGS, "How it is found again."}, {}};

PyMemberDef method_members[] = {{"__wrapped__", T_OBJECT_EX, offsetof(MethodObject, otherwise), READONLY, nullptr}, {}};

PyObject* method_doc(PyObject* self, void*) { return PyObject_GetAttrString(as_method(self)->otherwise, "__doc__"); }

PyGetSetDef method_getset[] = {{"__doc__", method_doc, nullptr, nullptr, nullptr}, {}};

}  // namespace

PyTypeObject make_method_type(const char* name, newfunc make, Py_ssize_t size) {
  PyTypeObject type = {PyVarObject_HEAD_INIT(nullptr, 0)};
  type.tp_name = name;
  type.tp_basicsize = size;
  type.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR;
  type.tp_vectorcall_offset = offsetof(MethodObject, call);
  type.tp_call = PyVectorcall_Call;
  type.tp_new = make;
  type.tp_dealloc = free_method;
  type.tp_descr_get = bind_method;
  type.tp_getattro = method_attribute;
  type.tp_repr = method_repr;
  type.tp_methods = method_methods;
  type.tp_members = method_members;
  type.tp_getset = method_getset;
  return type;
}

PyTypeObject OperatorType = make_method_type("tensorgrad._tape.Operator", new_operator);
PyTypeObject RenamedType = make_method_type("tensorgrad._tape.Renamed", new_renamed);
PyTypeObject ViewType = make_method_type("tensorgrad._tape.View", new_view);

}  // namespace tape
