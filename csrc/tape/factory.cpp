// zeros, ones, full, their kin and ranges of integers: sizes that are plain integers, a dtype that is the default, the
// pattern's or a tensorgrad dtype, on the CPU; everything else goes to the function of Python. Random numbers: draw.cpp.
//
// Measured, 100 elements: zeros 4.1 us in Python, 1.3 here, 1.8 in PyTorch; arange 1.5 here, 4.6 in PyTorch.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>

#include "factory.h"

namespace tape {

namespace {

struct FactoryObject {
  MethodObject method;
  Making form;
  PyObject* value;  // of all elements; null where the call names it
};

// A dtype that Python's numbers are stored in without a question.
bool is_plain(PyObject* dtype) {
  if (!PyArray_DescrCheck(dtype)) return false;
  const int type = reinterpret_cast<PyArray_Descr*>(dtype)->type_num;
  return type == NPY_FLOAT32 || type == NPY_FLOAT64;
}

// A number that float32 holds, or infinity or NaN; null without an error where Python must look.
Ref float_of(PyObject* given) {
  if (!PyFloat_CheckExact(given)) return Ref();
  const double value = PyFloat_AS_DOUBLE(given);
  return std::isfinite(value) && std::fabs(value) > 3.4e38 ? Ref() : Ref::borrowed(given);
}

}  // namespace

PyObject* open_door() {
  PyObject* door = door_of(&PyArray_Type);
  if (!door || reinterpret_cast<PyObject*>(Py_TYPE(door)) != known.raw) return nullptr;
  Ref place(PyObject_GetAttrString(known.place, "place"));
  return place.get() == Py_None ? door : nullptr;
}

namespace {

Ref filled(PyObject* door, Ref shape, PyObject* value, PyObject* dtype) {
  static PyObject* const words = Py_BuildValue("(sss)", "shape", "value", "dtype");
  static PyObject* const name = PyUnicode_InternFromString("full");
  Ref kernel(shape ? PyObject_GetAttr(door, name) : nullptr);
  PyObject* all[] = {shape.get(), value, dtype};
  Ref array(kernel ? PyObject_Vectorcall(kernel.get(), all, 0, words) : nullptr);
  return array && PyArray_CheckExact(array.get()) ? Ref(wrapped(array.get(), switches.inference)) : Ref();
}

}  // namespace

Ref sizes_of(PyObject* const* args, Py_ssize_t n) {
  npy_intp sizes[kMostDims];
  int count = 0;
  if (n == 1 && !PyLong_CheckExact(args[0])) {
    if (!read_integers(args[0], sizes, count)) return Ref();
  } else {
    if (n > kMostDims) return Ref();
    for (; count < n; ++count)
      if (!one_integer(args[count], sizes[count])) return Ref();
  }
  return integers_of(sizes, count);
}

namespace {

constexpr npy_intp kRampFrom = 4096;  // numbers that the kernel makes: with threads, into memory that was used before

// The integers from `first` in steps, as int64.
Ref range_of(PyObject* door, PyObject* const* args, Py_ssize_t n) {
  npy_intp given[3], first = 0, last, by = 1;
  if (n < 1 || n > 3) return Ref();
  for (Py_ssize_t i = 0; i < n; ++i)
    if (!one_integer(args[i], given[i]) || std::abs(given[i]) > npy_intp(1) << 60) return Ref();
  last = given[0];
  if (n > 1) first = given[0], last = given[1];
  if (n > 2) by = given[2];
  if (!by || (last > first && by < 0) || (last < first && by > 0)) return Ref();
  npy_intp count = last == first ? 0 : (last - first - (by > 0 ? 1 : -1)) / by + 1;
  if (count >= kRampFrom || !count) {  // none at all lie as those of zeros(0)
    static PyObject* const words = Py_BuildValue("(sss)", "first", "by", "count");
    static PyObject* const name = PyUnicode_InternFromString("ramp");
    const Ref kernel(PyObject_GetAttr(door, name));
    const Ref a(PyLong_FromSsize_t(first)), b(PyLong_FromSsize_t(by)), c(PyLong_FromSsize_t(count));
    if (!kernel || !a || !b || !c) return Ref();
    PyObject* all[] = {a.get(), b.get(), c.get()};
    Ref array(PyObject_Vectorcall(kernel.get(), all, 0, words));
    return array && PyArray_CheckExact(array.get()) ? Ref(wrapped(array.get(), switches.inference)) : Ref();
  }
  Ref made(PyArray_SimpleNew(1, &count, NPY_INT64));
  if (!made) return Ref();
  auto* to = static_cast<npy_int64*>(PyArray_DATA(as_array(made.get())));
  for (npy_intp i = 0; i < count; ++i) to[i] = first + i * by;
  return Ref(wrapped(made.get(), switches.inference));
}

}  // namespace

Ref dtype_of(PyObject* const* values, PyObject* keywords, PyObject* otherwise) {
  if (!keywords) return Ref::borrowed(otherwise);
  if (PyTuple_GET_SIZE(keywords) != 1 || PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(keywords, 0), "dtype")) return Ref();
  if (reinterpret_cast<PyObject*>(Py_TYPE(values[0])) != known.dtype) return Ref();
  return Ref(PyObject_GetAttr(values[0], names.np));
}

namespace {

// Null without an error, or with one that Python says better, where Python must look.
PyObject* make(FactoryObject* self, PyObject* const* args, Py_ssize_t n, PyObject* keywords) {
  PyObject* door = open_door();
  if (!door) return nullptr;
  if (self->form == Making::kRange) return keywords ? nullptr : range_of(door, args, n).release();
  if (self->form >= Making::kDraw) return draw(self->form, door, self->value, args, n, keywords);
  PyObject* standard = PyList_GET_ITEM(known.standard, 0);
  const bool of_tensor = self->form == Making::kLike || self->form == Making::kFullLike || self->form == Making::kNew;
  PyArrayObject* pattern = nullptr;
  if (of_tensor) {
    if (!n || !(pattern = array_of(args[0]))) return nullptr;
    standard = reinterpret_cast<PyObject*>(PyArray_DESCR(pattern));
  }
  Ref dtype = dtype_of(args + n, keywords, standard);
  if (!dtype) return nullptr;
  switch (self->form) {
    case Making::kSizes: return filled(door, sizes_of(args, n), self->value, dtype.get()).release();
    case Making::kNew: return filled(door, sizes_of(args + 1, n - 1), self->value, dtype.get()).release();
    case Making::kLike: return n == 1 ? filled(door, Ref(shape_of(pattern)), self->value, dtype.get()).release() : nullptr;
    case Making::kFull:
    case Making::kFullLike: {
      if (n != 2 || !is_plain(dtype.get())) return nullptr;
      Ref value = float_of(args[1]);
      if (!value || (self->form == Making::kFull && PyLong_CheckExact(args[0]))) return nullptr;
      Ref shape = pattern ? Ref(shape_of(pattern)) : sizes_of(args, 1);
      return filled(door, std::move(shape), value.get(), dtype.get()).release();
    }
    default: return nullptr;
  }
}

PyObject* call_factory(PyObject* object, PyObject* const* args, std::size_t flags, PyObject* keywords) {
  auto* self = reinterpret_cast<FactoryObject*>(object);
  PyObject* made = make(self, args, PyVectorcall_NARGS(flags), keywords);
  if (made || (self->form >= Making::kDraw && PyErr_Occurred())) return made;
  PyErr_Clear();  // the function says what is wrong
  return PyObject_Vectorcall(self->method.otherwise, args, flags, keywords);
}

// Factory(form, function, value)
PyObject* new_factory(PyTypeObject* type, PyObject* args, PyObject*) {
  const char* form;
  PyObject *otherwise, *value;
  if (!PyArg_ParseTuple(args, "sOO:Factory", &form, &otherwise, &value)) return nullptr;
  constexpr const char* forms[] = {"sizes", "full", "like", "full_like", "new", "range",
                                   "draw", "draw_like", "draw_into", "integers", "permutation", "bernoulli"};
  const auto* found = std::find_if(std::begin(forms), std::end(forms), [&](const char* each) { return !std::strcmp(each, form); });
  if (found == std::end(forms)) return PyErr_Format(PyExc_ValueError, "Factory: there is no form %s", form);
  PyObject* object = new_method(type, call_factory, otherwise, nullptr, nullptr);
  if (!object) return nullptr;
  auto* self = reinterpret_cast<FactoryObject*>(object);
  self->form = static_cast<Making>(found - std::begin(forms));
  self->value = (Py_INCREF(value), value);
  return object;
}

}  // namespace

PyTypeObject FactoryType = make_method_type("tensorgrad._tape.Factory", new_factory, sizeof(FactoryObject));

}  // namespace tape
