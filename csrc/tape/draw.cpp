// rand, randn, randint, randperm, their kin, bernoulli and the fills in place: the default generator, plain sizes, on
// the CPU. The numbers and the generator's next state are those of the functions of Python, which take the rest.
//
// Measured beside PyTorch, 100 elements: rand 3.1 us (5.5), bernoulli 3.0 (3.9), randint 3.8 (3.4), uniform_ 3.4 (2.1).
#include <algorithm>
#include <cstring>

#include "factory.h"

namespace tape {

namespace {

// Up to here one thread compares or copies what was drawn before others would have begun.
constexpr npy_intp kFew = 1 << 15;

bool is_real(PyObject* dtype) {
  if (!PyArray_DescrCheck(dtype)) return false;
  const auto* d = reinterpret_cast<PyArray_Descr*>(dtype);
  return (d->type_num == NPY_FLOAT32 || d->type_num == NPY_FLOAT64) && PyArray_ISNBO(d->byteorder);
}

PyObject* descr_of(PyArrayObject* array) { return reinterpret_cast<PyObject*>(PyArray_DESCR(array)); }

// The same shape if an array may have it: what is refused later would move the generator first.
Ref possible(Ref shape) {
  double count = 1;
  for (Py_ssize_t i = 0; shape && i < PyTuple_GET_SIZE(shape.get()); ++i) {
    const double size = PyLong_AsDouble(PyTuple_GET_ITEM(shape.get(), i));
    if (size < 0) return Ref();
    count *= size > 1 ? size : 1;
  }
  return count < 0x1p40 ? std::move(shape) : Ref();
}

// What the kernel drew, with the default generator behind `given`. Only its own error is left set, since to ask again
// would move the generator twice.
template <int N>
Ref drawn(PyObject* door, PyObject* name, PyObject* const (&given)[N], PyObject* words) {
  for (PyObject* each : given)
    if (!each) return PyErr_Clear(), Ref();
  Ref kernel(PyObject_GetAttr(door, name));
  PyObject* all[N + 1];
  std::copy(given, given + N, all);
  all[N] = known.generator;
  Ref array(kernel ? PyObject_Vectorcall(kernel.get(), all, 0, words) : nullptr);
  return array && PyArray_CheckExact(array.get()) ? std::move(array) : Ref();
}

Ref floats(PyObject* door, PyObject* name, Ref given, PyObject* dtype) {
  static PyObject* const words = Py_BuildValue("(sss)", "shape", "dtype", "generator");
  if (!is_real(dtype)) return Ref();
  Ref shape = possible(std::move(given));
  return drawn(door, name, {shape.get(), dtype}, words);
}

PyObject* tensor_of(const Ref& array) { return array ? wrapped(array.get(), switches.inference) : nullptr; }

// randint(high, size) or randint(low, high, size)
PyObject* integers(PyObject* door, PyObject* name, PyObject* const* args, Py_ssize_t n) {
  static PyObject* const words = Py_BuildValue("(sssss)", "shape", "low", "high", "dtype", "generator");
  static PyObject* const none = PyLong_FromLong(0);
  static PyObject* const dtype = reinterpret_cast<PyObject*>(PyArray_DescrFromType(NPY_INT64));
  if (n != 2 && n != 3) return nullptr;
  PyObject *first = n == 2 ? none : args[0], *last = args[n - 2], *size = args[n - 1];
  npy_intp low, high;
  if (PyLong_CheckExact(size) || !one_integer(first, low) || !one_integer(last, high) || high <= low) return nullptr;
  Ref shape = possible(sizes_of(&size, 1));
  return tensor_of(drawn(door, name, {shape.get(), first, last, dtype}, words));
}

PyObject* permutation(PyObject* door, PyObject* name, PyObject* const* args, Py_ssize_t n) {
  static PyObject* const words = Py_BuildValue("(sss)", "n", "dtype", "generator");
  static PyObject* const dtype = reinterpret_cast<PyObject*>(PyArray_DescrFromType(NPY_INT64));
  npy_intp count;
  if (n != 1 || !one_integer(args[0], count) || count < 0 || count >= npy_intp(1) << 40) return nullptr;
  return tensor_of(drawn(door, name, {args[0], dtype}, words));
}

// uniform_() and normal_(): where nothing of the tensor's history is at stake
PyObject* into(PyObject* door, PyObject* name, PyObject* const* args, Py_ssize_t n) {
  PyArrayObject* to = n == 1 ? array_of(args[0]) : nullptr;
  if (!to || PyArray_SIZE(to) > kFew || !PyArray_ISCARRAY(to)) return nullptr;
  const auto* f = as_tensor(args[0])->f;
  const auto is = [&](int field, PyObject* what) { return !f[field] || f[field] == what; };
  if (!is(TensorObject::kTracked, Py_False) || !is(TensorObject::kInference, Py_False) || !is(TensorObject::kBase, Py_None))
    return nullptr;
  const Ref held = Ref::borrowed(reinterpret_cast<PyObject*>(to));  // other threads run while the kernel does
  Ref array = floats(door, name, Ref(shape_of(to)), descr_of(to));
  if (!array) return nullptr;
  std::memcpy(PyArray_DATA(to), PyArray_DATA(as_array(array.get())), static_cast<std::size_t>(PyArray_NBYTES(to)));
  return bump_version(args[0]) ? (Py_INCREF(args[0]), args[0]) : nullptr;
}

template <typename T>
bool probable(const T* p, npy_intp n) {
  bool all = true;
  for (npy_intp i = 0; i < n; ++i) all &= (p[i] >= 0) & (p[i] <= 1);
  return all;
}

template <typename T>
void compare(const T* p, npy_intp n, T* u) {
  for (npy_intp i = 0; i < n; ++i) u[i] = u[i] < p[i] ? T(1) : T(0);
}

PyObject* bernoulli(PyObject* door, PyObject* name, PyObject* const* args, Py_ssize_t n) {
  PyArrayObject* p = n == 1 ? array_of(args[0]) : nullptr;
  if (!p || PyArray_SIZE(p) > kFew || !PyArray_ISCARRAY_RO(p) || !is_real(descr_of(p))) return nullptr;
  const npy_intp count = PyArray_SIZE(p);
  const bool narrow = PyArray_TYPE(p) == NPY_FLOAT32;
  const void* given = PyArray_DATA(p);
  if (narrow ? !probable(static_cast<const float*>(given), count) : !probable(static_cast<const double*>(given), count))
    return nullptr;
  const Ref held = Ref::borrowed(reinterpret_cast<PyObject*>(p));  // other threads run while the kernel does
  Ref array = floats(door, name, Ref(shape_of(p)), descr_of(p));
  if (!array) return nullptr;
  void* u = PyArray_DATA(as_array(array.get()));
  if (narrow) compare(static_cast<const float*>(given), count, static_cast<float*>(u));
  else compare(static_cast<const double*>(given), count, static_cast<double*>(u));
  return tensor_of(array);
}

}  // namespace

PyObject* draw(Making form, PyObject* door, PyObject* kernel, PyObject* const* args, Py_ssize_t n, PyObject* keywords) {
  if (form == Making::kDraw) {
    Ref dtype = dtype_of(args + n, keywords, PyList_GET_ITEM(known.standard, 0));
    return dtype ? tensor_of(floats(door, kernel, sizes_of(args, n), dtype.get())) : nullptr;
  }
  if (form == Making::kDrawLike) {
    PyArrayObject* pattern = n == 1 ? array_of(args[0]) : nullptr;
    Ref dtype = pattern ? dtype_of(args + n, keywords, descr_of(pattern)) : Ref();
    return dtype ? tensor_of(floats(door, kernel, Ref(shape_of(pattern)), dtype.get())) : nullptr;
  }
  if (keywords) return nullptr;
  switch (form) {
    case Making::kIntegers: return integers(door, kernel, args, n);
    case Making::kPermutation: return permutation(door, kernel, args, n);
    case Making::kDrawInto: return into(door, kernel, args, n);
    case Making::kBernoulli: return bernoulli(door, kernel, args, n);
    default: return nullptr;
  }
}

}  // namespace tape
