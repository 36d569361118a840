// What a key points at: x[...] with integers, slices, positions and masks, and writing there.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdlib>

#include "source.h"

namespace tape {

namespace {

// --- positions: what a key holds beside integers and slices

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
  PyArrayObject* array = array_of(part);
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
  PyArrayObject* mask = n == 2 ? array_of(args[1]) : nullptr;
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
  if (PyArrayObject* mask = array_of(args[1]); is_mask(mask)) return under_mask(args[0], source.array, mask);
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
  if (PyArrayObject* x = array_of(given)) {
    if (PyArray_DESCR(x) != PyArray_DESCR(target) || !PyArray_ISALIGNED(x)) return Ref();
    if (switches.recording && is_tracked(given)) return Ref();
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
  if (source.track || as_tensor(x)->f[TensorObject::kInference] != Py_False || is_refused(x)) return nullptr;
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
  if (PyArrayObject* mask = array_of(args[1]); is_mask(mask)) {
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
  if (!value || PyArray_NDIM(as_array(value.get())) > PyArray_NDIM(target)) return nullptr;  // it would fit by broadcasting
  if (!copied_into(source.held.get(), value.get()) || !bump_version(args[0])) return nullptr;
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

}  // namespace

const Named key_methods[] = {{"__getitem__", getitem, 0}, {"masked_select", masked_select, 0}, {"__setitem__", setitem, 0},
                             {"copy_", overwrite, 0}, {"fill_", fill, 0}, {"zero_", zero, 0}, {}};

}  // namespace tape
