// Parts of a tensor that are views of it: select, narrow, and what cuts a dimension in pieces.
#include <algorithm>
#include <cstddef>

#include "source.h"

namespace tape {

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

Ref key_at(int dim, Ref part) {
  Ref key(part ? PyTuple_New(dim + 1) : nullptr);
  if (!key) return key;
  for (int i = 0; i < dim; ++i) PyTuple_SET_ITEM(key.get(), i, (Py_INCREF(whole()), whole()));
  PyTuple_SET_ITEM(key.get(), dim, part.release());
  return key;
}

namespace {

bool is_bound(PyObject* bound) { return bound == Py_None || PyLong_CheckExact(bound); }

}  // namespace

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

namespace {

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

}  // namespace

const Named part_methods[] = {{"select", select, 0}, {"narrow", narrow, 0}, {"split", split, 2}, {"chunk", chunk, 2},
                              {"unbind", unbind, 1}, {"tensor_split", tensor_split, 2}, {}};

}  // namespace tape
