// Views: the same memory under another shape and strides.
//
// reshape, permute, expand, slice, diagonal and unfold_dim are kernels here, which check all that the ops' `infer` checks, so that a call needs
// no question to Python. What is left of its cost is its objects: an array, a tensor, a node, attributes, a chain. Measured,
// recorded: view 0.8 us, split in three 2.5 us; as functions of Python over NumPy's methods 3.8 and 13.5 us.
#include "view.h"

#include <algorithm>
#include <iterator>

namespace tape {

// --- geometry

PyObject* made_view(PyArrayObject* x, const Form& form) {
  PyArray_Descr* descr = PyArray_DESCR(x);
  Py_INCREF(descr);
  const int flags = PyArray_FLAGS(x) & (form.writeable ? NPY_ARRAY_WRITEABLE | NPY_ARRAY_ALIGNED : NPY_ARRAY_ALIGNED);
  Ref made(PyArray_NewFromDescr(&PyArray_Type, descr, form.ndim, form.shape, form.strides, form.data, flags, nullptr));
  if (!made) return nullptr;
  Py_INCREF(x);
  if (PyArray_SetBaseObject(as_array(made.get()), reinterpret_cast<PyObject*>(x)) < 0) return nullptr;
  return made.release();
}

bool reshaped(PyArrayObject* x, const npy_intp* shape, int ndim, Form& out) {
  npy_intp count = 1;
  bool empty = false;
  for (int i = 0; i < ndim; ++i) {
    if (shape[i] < 0) return false;
    empty |= shape[i] == 0;
  }
  for (int i = 0; i < ndim && !empty; ++i)
    if (__builtin_mul_overflow(count, shape[i], &count)) return false;
  if ((empty ? 0 : count) != PyArray_SIZE(x)) return false;
  out.ndim = ndim;
  out.data = PyArray_BYTES(x);
  std::copy_n(shape, ndim, out.shape);
  if (ndim == PyArray_NDIM(x) && std::equal(shape, shape + ndim, PyArray_DIMS(x))) {
    std::copy_n(PyArray_STRIDES(x), ndim, out.strides);
    return true;
  }
  if (empty || PyArray_IS_C_CONTIGUOUS(x)) {
    npy_intp step = PyArray_ITEMSIZE(x);
    for (int i = ndim - 1; i >= 0; --i) {
      out.strides[i] = step;
      if (shape[i]) step *= shape[i];
    }
    return true;
  }
  // blocks of dimensions of `x` and of the new shape with as many elements; within one, those of `x` must lie in memory as one
  npy_intp have[kMostDims], apart[kMostDims];
  int dims = 0;
  for (int i = 0; i < PyArray_NDIM(x); ++i)
    if (PyArray_DIM(x, i) != 1) {
      have[dims] = PyArray_DIM(x, i);
      apart[dims++] = PyArray_STRIDE(x, i);
    }
  int from = 0, to = 0;
  while (from < dims) {
    npy_intp old_size = have[from], new_size = to < ndim ? shape[to] : 1;
    int old_end = from + 1, new_end = to + 1;
    while (old_size != new_size) {
      if (new_size < old_size) {
        new_size *= shape[new_end++];
      } else {
        if (apart[old_end - 1] != have[old_end] * apart[old_end]) return false;
        old_size *= have[old_end++];
      }
    }
    npy_intp step = apart[old_end - 1];
    for (int i = new_end - 1; i >= to; --i) {
      out.strides[i] = step;
      step *= shape[i];
    }
    from = old_end;
    to = new_end;
  }
  for (; to < ndim; ++to) out.strides[to] = to ? out.strides[to - 1] : PyArray_ITEMSIZE(x);  // what is left has size 1
  return true;
}

void permuted(PyArrayObject* x, const npy_intp* dims, Form& out) {
  out.ndim = PyArray_NDIM(x);
  out.data = PyArray_BYTES(x);
  for (int i = 0; i < out.ndim; ++i) {
    out.shape[i] = PyArray_DIM(x, static_cast<int>(dims[i]));
    out.strides[i] = PyArray_STRIDE(x, static_cast<int>(dims[i]));
  }
}

bool expanded(PyArrayObject* x, const npy_intp* shape, int ndim, Form& out) {
  const int lead = ndim - PyArray_NDIM(x);
  if (lead < 0) return false;
  npy_intp bytes = PyArray_ITEMSIZE(x);
  out.ndim = ndim;
  out.data = PyArray_BYTES(x);
  out.writeable = lead == 0;
  for (int i = 0; i < ndim; ++i) {
    const npy_intp size = i < lead ? 1 : PyArray_DIM(x, i - lead);
    if (shape[i] < 0 || (size != shape[i] && size != 1)) return false;
    // NumPy counts the elements of an array in a machine word
    if (shape[i] && __builtin_mul_overflow(bytes, shape[i], &bytes)) return false;
    out.writeable &= size == shape[i];
    out.shape[i] = shape[i];
    out.strides[i] = i < lead || size == 1 ? 0 : PyArray_STRIDE(x, i - lead);
  }
  if (out.writeable) std::copy_n(PyArray_STRIDES(x), ndim, out.strides);
  return true;
}

bool sliced(PyArrayObject* x, PyObject* key, Form& out) {
  out.data = PyArray_BYTES(x);
  int dim = 0;
  const auto keep = [&](npy_intp size, npy_intp stride) {
    if (out.ndim == kMostDims) return false;
    out.shape[out.ndim] = size;
    out.strides[out.ndim++] = stride;
    return true;
  };
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(key); ++i) {
    PyObject* part = PyTuple_GET_ITEM(key, i);
    if (part == Py_None) {
      if (!keep(1, 0)) return false;
      continue;
    }
    if (dim == PyArray_NDIM(x)) return false;
    const npy_intp size = PyArray_DIM(x, dim), stride = PyArray_STRIDE(x, dim);
    ++dim;
    if (PyLong_CheckExact(part)) {
      const Py_ssize_t at = PyLong_AsSsize_t(part);
      if (at < 0 || at >= size) {
        PyErr_Clear();
        return false;
      }
      out.data += at * stride;
    } else if (PySlice_Check(part)) {
      Py_ssize_t start, stop, step;
      if (PySlice_Unpack(part, &start, &stop, &step) < 0) {
        PyErr_Clear();
        return false;
      }
      if (step < 1) return false;
      const Py_ssize_t count = PySlice_AdjustIndices(size, &start, &stop, step);
      if (count) out.data += start * stride;
      if (!keep(count, stride * step)) return false;
    } else {
      return false;
    }
  }
  for (; dim < PyArray_NDIM(x); ++dim)
    if (!keep(PyArray_DIM(x, dim), PyArray_STRIDE(x, dim))) return false;
  return true;
}

bool read_integers(PyObject* given, npy_intp* out, int& count) {
  const bool tuple = PyTuple_Check(given);
  if (!tuple && !PyList_Check(given)) return false;
  const Py_ssize_t n = PySequence_Fast_GET_SIZE(given);
  if (n > kMostDims) return false;
  for (Py_ssize_t i = 0; i < n; ++i) {
    PyObject* part = PySequence_Fast_GET_ITEM(given, i);
    if (!PyLong_Check(part) || PyBool_Check(part)) return false;
    out[i] = PyLong_AsSsize_t(part);
    if (out[i] == -1 && PyErr_Occurred()) {
      PyErr_Clear();
      return false;
    }
  }
  count = static_cast<int>(n);
  return true;
}

// --- kernels

namespace {

// kernel(x, *, attribute): both; what has no array in it is made one. False with an error set.
bool read_call(const char* name, PyObject* const* args, Py_ssize_t count, PyObject* keywords, Ref& x, PyObject*& attribute) {
  if (count != 1 || !keywords || PyTuple_GET_SIZE(keywords) != 1 || !PyTuple_Check(args[1])) {
    PyErr_Format(PyExc_TypeError, "%s: expected an array and a tuple by name", name);
    return false;
  }
  x = PyArray_Check(args[0]) ? Ref::borrowed(args[0]) : Ref(PyArray_FROM_O(args[0]));
  attribute = args[1];
  return static_cast<bool>(x);
}

PyObject* reshape_kernel(PyObject*, PyObject* const* args, Py_ssize_t count, PyObject* keywords) {
  Ref x;
  PyObject* shape;
  if (!read_call("reshape", args, count, keywords, x, shape)) return nullptr;
  Form form;
  npy_intp sizes[kMostDims];
  int ndim;
  if (PyArray_CheckExact(x.get()) && read_integers(shape, sizes, ndim) && reshaped(as_array(x.get()), sizes, ndim, form))
    return made_view(as_array(x.get()), form);
  return PyObject_CallMethod(x.get(), "reshape", "(O)", shape);  // copies where it must
}

PyObject* permute_kernel(PyObject*, PyObject* const* args, Py_ssize_t count, PyObject* keywords) {
  Ref x;
  PyObject* dims;
  if (!read_call("permute", args, count, keywords, x, dims)) return nullptr;
  return PyObject_CallMethod(x.get(), "transpose", "(O)", dims);
}

PyObject* expand_kernel(PyObject*, PyObject* const* args, Py_ssize_t count, PyObject* keywords) {
  Ref x;
  PyObject* shape;
  if (!read_call("expand", args, count, keywords, x, shape)) return nullptr;
  Form form;
  npy_intp sizes[kMostDims];
  int ndim;
  if (!read_integers(shape, sizes, ndim) || !expanded(as_array(x.get()), sizes, ndim, form))
    return PyErr_Format(PyExc_ValueError, "expand: an array can't be expanded to %S", shape);
  return made_view(as_array(x.get()), form);
}

PyObject* slice_kernel(PyObject*, PyObject* const* args, Py_ssize_t count, PyObject* keywords) {
  Ref x;
  PyObject* key;
  if (!read_call("slice", args, count, keywords, x, key)) return nullptr;
  Form form;
  if (PyArray_CheckExact(x.get()) && sliced(as_array(x.get()), key, form)) return made_view(as_array(x.get()), form);
  // the Ellipsis keeps a fully indexed array a 0-d view where NumPy would give a scalar
  Ref rest(PyTuple_Pack(1, Py_Ellipsis));
  Ref whole(rest ? PySequence_Concat(key, rest.get()) : nullptr);
  return whole ? PyObject_GetItem(x.get(), whole.get()) : nullptr;
}

// kernel(x, *, a, b, c): the array and three integers, in the order of `wanted`. False with an error set.
bool read_three(const char* name, const char* const (&wanted)[3], PyObject* const* args, Py_ssize_t count, PyObject* keywords,
                Ref& x, npy_intp (&out)[3]) {
  int found = 0;
  for (Py_ssize_t k = 0; count == 1 && keywords && k < PyTuple_GET_SIZE(keywords) && k < 3; ++k)
    for (int i = 0; i < 3; ++i) {
      if (PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(keywords, k), wanted[i])) continue;
      out[i] = PyLong_AsSsize_t(args[1 + k]);
      if (out[i] == -1 && PyErr_Occurred()) return false;
      ++found;
    }
  if (found != 3 || PyTuple_GET_SIZE(keywords) != 3) {
    PyErr_Format(PyExc_TypeError, "%s: expected an array and %s, %s and %s by name", name, wanted[0], wanted[1], wanted[2]);
    return false;
  }
  x = PyArray_Check(args[0]) ? Ref::borrowed(args[0]) : Ref(PyArray_FROM_O(args[0]));
  return static_cast<bool>(x);
}

PyObject* diagonal_kernel(PyObject*, PyObject* const* args, Py_ssize_t count, PyObject* keywords) {
  Ref held;
  npy_intp asked[3];
  if (!read_three("diagonal", {"offset", "dim1", "dim2"}, args, count, keywords, held, asked)) return nullptr;
  PyArrayObject* x = as_array(held.get());
  const npy_intp offset = asked[0], ndim = PyArray_NDIM(x);
  if (asked[1] < 0 || asked[2] < 0 || asked[1] >= ndim || asked[2] >= ndim || asked[1] == asked[2])
    return PyErr_Format(PyExc_ValueError, "diagonal: there are no dims %zd and %zd", asked[1], asked[2]);
  const int a = static_cast<int>(asked[1]), b = static_cast<int>(asked[2]);
  const npy_intp rows = PyArray_DIM(x, a), columns = PyArray_DIM(x, b);
  Form form;
  form.data = PyArray_BYTES(x);
  for (int d = 0; d < ndim; ++d) {
    if (d == a || d == b) continue;
    form.shape[form.ndim] = PyArray_DIM(x, d);
    form.strides[form.ndim++] = PyArray_STRIDE(x, d);
  }
  const bool outside = offset >= columns || offset <= -rows;
  if (!outside) form.data += offset >= 0 ? offset * PyArray_STRIDE(x, b) : -offset * PyArray_STRIDE(x, a);
  form.shape[form.ndim] = outside ? 0 : offset >= 0 ? std::min(rows, columns - offset) : std::min(rows + offset, columns);
  form.strides[form.ndim++] = PyArray_STRIDE(x, a) + PyArray_STRIDE(x, b);
  return made_view(x, form);
}

PyObject* unfold_kernel(PyObject*, PyObject* const* args, Py_ssize_t count, PyObject* keywords) {
  Ref held;
  npy_intp asked[3];
  if (!read_three("unfold", {"dim", "size", "step"}, args, count, keywords, held, asked)) return nullptr;
  PyArrayObject* x = as_array(held.get());
  const int ndim = PyArray_NDIM(x);
  if (asked[0] < 0 || asked[0] >= ndim || ndim == kMostDims) return PyErr_Format(PyExc_ValueError, "unfold: there is no dim %zd", asked[0]);
  const int dim = static_cast<int>(asked[0]);
  const npy_intp size = asked[1], step = asked[2], length = PyArray_DIM(x, dim);
  if (size < 0 || size > length || step < 1)
    return PyErr_Format(PyExc_ValueError, "unfold: windows of %zd every %zd do not fit %zd", size, step, length);
  Form form;
  form.ndim = ndim + 1;
  form.data = PyArray_BYTES(x);
  std::copy_n(PyArray_DIMS(x), ndim, form.shape);
  std::copy_n(PyArray_STRIDES(x), ndim, form.strides);
  form.shape[dim] = (length - size) / step + 1;
  if (__builtin_mul_overflow(PyArray_STRIDE(x, dim), step, &form.strides[dim]))
    return PyErr_Format(PyExc_OverflowError, "unfold: a step of %zd is too long", step);
  form.shape[ndim] = size;
  form.strides[ndim] = PyArray_STRIDE(x, dim);
  return made_view(x, form);
}

using Kernel = PyObject* (*)(PyObject*, PyObject* const*, Py_ssize_t, PyObject*);

PyCFunction plain(Kernel kernel) { return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(kernel)); }

}  // namespace

PyMethodDef view_kernels[] = {
    {"reshape", plain(reshape_kernel), METH_FASTCALL | METH_KEYWORDS, "An array's elements in another shape."},
    {"permute", plain(permute_kernel), METH_FASTCALL | METH_KEYWORDS, "An array with its dimensions in another order."},
    {"expand", plain(expand_kernel), METH_FASTCALL | METH_KEYWORDS, "An array's dimensions of size 1 repeated."},
    {"slice", plain(slice_kernel), METH_FASTCALL | METH_KEYWORDS, "A part of an array."},
    {"diagonal", plain(diagonal_kernel), METH_FASTCALL | METH_KEYWORDS, "The diagonals over two dimensions."},
    {"unfold_dim", plain(unfold_kernel), METH_FASTCALL | METH_KEYWORDS, "Windows along a dimension."},
    {}};

bool is_view_kernel(PyObject* kernel) {
  if (!PyCFunction_CheckExact(kernel)) return false;
  const PyCFunction function = PyCFunction_GET_FUNCTION(kernel);
  return std::any_of(view_kernels, std::end(view_kernels) - 1, [&](const PyMethodDef& each) { return each.ml_meth == function; });
}

// --- on the tape

// view_of: the result shares storage and version with its source, and follows the base's history.
PyObject* view_result(OpObject* op, PyObject* const* args, PyObject* const* arrays, PyObject* array, PyObject* attrs, bool track) {
  auto* self = reinterpret_cast<PyObject*>(op);
  TensorObject* source = as_tensor(args[0]);
  PyObject* base = source->f[TensorObject::kBase] == Py_None ? args[0] : source->f[TensorObject::kBase];
  if (!is_tensor(base) || (track && !edge_of(args[0])) || (track && source->f[TensorObject::kInference] != Py_False)) {
    PyObject* five[] = {self, args[0], array, attrs, track ? Py_True : Py_False};
    return PyObject_Vectorcall(known.view_of, five, 5, nullptr);
  }
  Ref result(wrapped(array, source->f[TensorObject::kInference] == Py_True));
  Ref step(result ? PyTuple_Pack(2, self, attrs) : nullptr);
  Ref steps(step ? PyTuple_Pack(1, step.get()) : nullptr);
  Ref chain(steps ? PySequence_Concat(source->f[TensorObject::kChain], steps.get()) : nullptr);
  PyObject* cell = chain ? version_of(source) : nullptr;
  if (!cell) return nullptr;
  auto& f = as_tensor(result.get())->f;
  set(f[TensorObject::kChain], chain.release());
  set_borrowed(f[TensorObject::kBase], base);
  set_borrowed(f[TensorObject::kVersion], cell);
  set_borrowed(f[TensorObject::kGeneration], as_tensor(base)->f[TensorObject::kChanges]);
  if (!track) {
    if (!switches.recording || source->f[TensorObject::kFrozen] == Py_True)
      set_borrowed(f[TensorObject::kFrozen], Py_True);
    return result.release();
  }
  PyObject* made = result.get();
  switch (record_op(op, args, arrays, 1, attrs, &made, &array, 1)) {
    case kDone: return result.release();
    case kFailed: return nullptr;
    case kAskPython: break;
  }
  return PyErr_Format(PyExc_SystemError, "%S: a view that can't be recorded", op->f[OpObject::kName]);
}

PyObject* view_gradients(OpObject* op, PyObject* door, NodeObject* node, PyObject* g) {
  auto* self = reinterpret_cast<PyObject*>(op);
  const bool back = self == known.reshape;
  if ((!back && self != known.permute) || !PyArray_CheckExact(g)) return nullptr;
  if (back && !PyArray_IS_C_CONTIGUOUS(as_array(g))) return nullptr;
  Ref kernel = kernel_of(op, door);
  if (!kernel || !is_view_kernel(kernel.get())) return nullptr;
  Form form;
  npy_intp sizes[kMostDims], dims[kMostDims];
  int ndim;
  if (back) {
    PyObject* spec = PyTuple_GET_ITEM(node->f[NodeObject::kSaved], 0);
    if (!PyObject_TypeCheck(spec, &SpecType)) return nullptr;
    if (!read_integers(reinterpret_cast<SpecObject*>(spec)->f[SpecObject::kShape], sizes, ndim)) return nullptr;
    if (!reshaped(as_array(g), sizes, ndim, form)) return nullptr;
  } else {
    PyObject* asked = PyDict_GetItemString(node->f[NodeObject::kAttrs], "dims");
    if (!asked || !read_integers(asked, dims, ndim) || ndim != PyArray_NDIM(as_array(g))) return nullptr;
    for (int i = 0; i < ndim; ++i) {
      if (dims[i] < 0 || dims[i] >= ndim) return nullptr;
      sizes[dims[i]] = i;
    }
    permuted(as_array(g), sizes, form);
  }
  Ref grad(made_view(as_array(g), form));
  return grad ? PyTuple_Pack(1, grad.get()) : nullptr;
}

}  // namespace tape
