// The same elements in another shape or order: view, permute, expand and their kin.
#include <algorithm>
#include <cstddef>

#include "source.h"

namespace tape {

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
  if (n == 1 || !open(self, args, n, source) || !all_integers(args, n, shape, ndim)) return nullptr;
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
  return n == 2 ? array_of(args[1]) : nullptr;
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

}  // namespace

const Named shape_methods[] = {
    {"view", view, 0}, {"reshape", view, 0}, {"flatten", flatten, 0}, {"squeeze", squeeze, 1}, {"unsqueeze", unsqueeze, 1},
    {"permute", permute, 0}, {"transpose", transpose, 0}, {"t", t, 0}, {"T", t, 0}, {"mT", matrix_transpose, 0},
    {"expand", expand, 0}, {"swapaxes", transpose, 0}, {"swapdims", transpose, 0}, {"movedim", movedim, 0},
    {"moveaxis", movedim, 0}, {"ravel", ravel, 0}, {"view_as", view_as, 0}, {"reshape_as", view_as, 0},
    {"unflatten", unflatten, 0}, {"expand_as", expand_as, 0}, {"broadcast_to", broadcast_to, 0}, {}};

}  // namespace tape
