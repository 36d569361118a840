// Functions that are one call of a record: x.sum(1), gather(x, dim, index), flip(x, *dims), x.add_(y). A line beside the
// function (`calls` in ops/calls.py) says what each parameter takes; their usual call, tensors of NumPy arrays and plain
// Python arguments, is said here in the record's words (argument.cpp) and goes to the record. Whatever else is given, and
// all that the record refuses, goes to the function of Python, which is the meaning.
//
// Measured, 100 elements, with a function of Python before it, here, and PyTorch: x.sum(1) 3.4, 1.4, 4.6 us; x.max(1) 5.1,
// 2.4, 12.1; flip 5.2, 1.4, 3.2.
#include <algorithm>
#include <cstddef>

#include "argument.h"

namespace tape {

namespace {

struct FunctionObject {
  MethodObject method;
  PyObject* attributes;  // their names, in the order of the parameters, the fixed ones last; null: none, or inputs of a formula
  PyObject* fixed;       // values of attributes that are always the same
  PyObject* returns;     // None: what the record does; a type of named tuples; an integer: that one of the results
  PyObject* alone;       // None; or a record of the one result that is returned, for calls that nobody records
  PyObject* into;        // None; True: a formula's result is written over the first input; or the kernel that writes there
  int count, positional;
  bool rest;   // the parameter behind the positional ones takes all that are left
  bool alike;  // all tensors must be of one floating dtype
  bool cast;   // the record's dtype is the last attribute; a tensor that has it is the result itself
  Parameter parameters[kMost];
};

FunctionObject* as_function(PyObject* p) { return reinterpret_cast<FunctionObject*>(p); }

// The arguments by parameter; null where there is none. False where they do not fit.
bool sorted(const FunctionObject* self, PyObject* const* args, Py_ssize_t n, PyObject* keywords, PyObject** given, Ref& rest) {
  const Py_ssize_t plain = std::min<Py_ssize_t>(n, self->positional);
  for (Py_ssize_t i = 0; i < self->count; ++i) given[i] = i < plain ? args[i] : nullptr;
  if (n > plain) {
    if (!self->rest) return false;
    if (n > plain + 1) rest = tuple_of(args + plain, n - plain);
    given[plain] = n > plain + 1 ? rest.get() : args[plain];
  }
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

// What a kernel is called with, owned: while it runs without the interpreter's lock another thread may give tensors others.
struct Arrays {
  PyObject* all[2 * kMost + 1];
  Py_ssize_t owned = 0;
  ~Arrays() {
    while (owned) Py_DECREF(all[--owned]);
  }
};

// An in-place form that nobody records, in memory in one piece, with inputs that lie elsewhere: what `write_into` and
// `put_in_place` do then.
PyObject* write_over(FunctionObject* self, const Call& call) {
  Arrays arrays;
  PyObject* target = call.all[0];
  auto* first = as_array(as_tensor(target)->f[TensorObject::kData]);
  if (as_tensor(target)->f[TensorObject::kInference] != Py_False || !PyArray_ISCARRAY(first) || is_refused(target))
    return nullptr;
  const bool formula = self->into == Py_True;
  const char *low = PyArray_BYTES(first), *high = low + PyArray_NBYTES(first);
  for (Py_ssize_t i = 0; i < call.count; ++i) {
    const bool tensor = i < call.inputs && is_tensor(call.all[i]);
    PyObject* given = tensor ? as_tensor(call.all[i])->f[TensorObject::kData] : call.all[i];
    arrays.all[arrays.owned++] = (Py_INCREF(given), given);
    if (!tensor) continue;
    if (switches.recording && is_tracked(call.all[i])) return nullptr;
    PyArrayObject* x = as_array(given);
    if (x == first && (formula || !i)) continue;
    if (!PyArray_ISCARRAY_RO(x) || (formula && PyArray_NDIM(x) && !same_shape(x, first))) return nullptr;
    if (PyArray_BYTES(x) < high && low < PyArray_BYTES(x) + PyArray_NBYTES(x)) return nullptr;
  }
  PyObject* door = door_of(&PyArray_Type);
  if (!door) return nullptr;
  Ref kernel;
  if (formula) {
    static PyObject* const out_name = Py_BuildValue("(s)", "out");
    arrays.all[call.count] = arrays.all[0];
    kernel = kernel_of(as_op(self->method.op), door);
    const auto n = static_cast<std::size_t>(call.count);
    if (!kernel || !Ref(PyObject_Vectorcall(kernel.get(), arrays.all, n, out_name))) return nullptr;
  } else {
    if (reinterpret_cast<PyObject*>(Py_TYPE(door)) != known.raw) return nullptr;
    kernel = Ref(PyObject_GetAttr(door, self->into));
    if (!kernel || !PyCFunction_CheckExact(kernel.get())) return nullptr;  // those refuse before they write
    const auto n = static_cast<std::size_t>(call.inputs);
    if (!Ref(PyObject_Vectorcall(kernel.get(), arrays.all, n, self->attributes))) return nullptr;
  }
  return bump_version(target) ? (Py_INCREF(target), target) : nullptr;
}

// The result as the function gives it.
PyObject* returned(FunctionObject* self, Ref result) {
  if (!result || self->returns == Py_None || !PyTuple_CheckExact(result.get())) return result.release();
  if (PyLong_CheckExact(self->returns)) {
    PyObject* one = PyTuple_GET_ITEM(result.get(), PyLong_AsLong(self->returns));
    return Py_INCREF(one), one;
  }
  // a named tuple is a tuple: filled without asking its class
  auto* type = reinterpret_cast<PyTypeObject*>(self->returns);
  const Py_ssize_t count = PyTuple_GET_SIZE(result.get());
  PyObject* named = type->tp_alloc(type, count);
  for (Py_ssize_t i = 0; named && i < count; ++i) {
    PyObject* one = PyTuple_GET_ITEM(result.get(), i);
    PyTuple_SET_ITEM(named, i, (Py_INCREF(one), one));
  }
  return named;
}

// Null where Python must look, with an error or without.
PyObject* call_of_record(FunctionObject* self, PyObject* const* args, Py_ssize_t n, PyObject* keywords) {
  PyObject* given[kMost];
  Ref rest;
  if (!sorted(self, args, n, keywords, given, rest)) return nullptr;
  Call call(self->alike);
  for (int i = 0; i < self->count; ++i) {
    const Parameter& p = self->parameters[i];
    PyObject* value = given[i] ? given[i] : p.missing;
    if (p.kind == Kind::kLeft && !p.meaning && value) {  // the most of them, asked here without a call
      if (value != p.missing) return nullptr;
    } else if (!value || !call.read(p, value)) {
      return nullptr;
    }
  }
  if (!call.complete(self->fixed)) return nullptr;
  if (self->into != Py_None) return write_over(self, call);
  if (self->cast) {
    PyObject *x = call.all[0], *wanted = call.all[call.count - 1];
    if (wanted == reinterpret_cast<PyObject*>(PyArray_DESCR(array_of(x)))) return Py_INCREF(x), x;
    // integers have no gradient to pass on, so that they are not recorded
    const bool floats = PyTypeNum_ISFLOAT(reinterpret_cast<PyArray_Descr*>(wanted)->type_num);
    if (!floats && is_tracked(x)) return nullptr;
  }
  const auto inputs = static_cast<std::size_t>(self->attributes ? call.inputs : call.count);
  PyObject* op = self->method.op;
  if (self->alone != Py_None && !(switches.recording && is_tracked(call.all[0]))) {
    PyObject* door = door_of(&PyArray_Type);  // a listener hears of the op itself
    if (door && reinterpret_cast<PyObject*>(Py_TYPE(door)) == known.raw) op = self->alone;
    else if (PyErr_Occurred()) return nullptr;
  }
  // not call_op: autocast gives records that it knows a call of their own
  return returned(self, Ref(PyObject_Vectorcall(op, call.all, inputs, self->attributes)));
}

PyObject* call_function(PyObject* object, PyObject* const* args, std::size_t flags, PyObject* keywords) {
  PyObject* result = call_of_record(as_function(object), args, PyVectorcall_NARGS(flags), keywords);
  if (result) return result;
  if (PyErr_Occurred()) {
    if (!expected_error()) return nullptr;
    PyErr_Clear();  // once more, to say in the words of the function what is wrong
  }
  return PyObject_Vectorcall(as_method(object)->otherwise, args, flags, keywords);
}

Ref interned(PyObject* name) {
  Py_INCREF(name);
  PyUnicode_InternInPlace(&name);
  return Ref(name);
}

// Function(function, record, parameters, positional, formula, fixed, returns, alone, into, cast, alike): parameters are tuples
// (word, attribute, name) or (..., default) or (..., default, its meaning); a word that begins with * takes the rest.
PyObject* new_function(PyTypeObject* type, PyObject* args, PyObject*) {
  PyObject *otherwise, *op, *parameters, *fixed, *returns, *alone, *into;
  int positional, formula, cast, alike;
  if (!PyArg_ParseTuple(args, "OO!O!ipO!OOOpp:Function", &otherwise, &OpType, &op, &PyTuple_Type, &parameters, &positional,
                        &formula, &PyDict_Type, &fixed, &returns, &alone, &into, &cast, &alike))
    return nullptr;
  const Py_ssize_t count = PyTuple_GET_SIZE(parameters);
  if (count > kMost) return PyErr_Format(PyExc_ValueError, "Function: at most %zd parameters", kMost);
  PyObject* object = new_method(type, call_function, otherwise, op, nullptr);
  Ref names(object ? PyList_New(0) : nullptr), values(PyList_New(0));
  if (!names || !values) return nullptr;
  FunctionObject* self = as_function(object);
  self->returns = (Py_INCREF(returns), returns);
  self->alone = (Py_INCREF(alone), alone);
  self->into = (Py_INCREF(into), into);
  self->count = static_cast<int>(count);
  self->positional = positional;
  self->cast = cast != 0;
  self->alike = alike != 0;
  for (Py_ssize_t i = 0; i < count; ++i) {
    Parameter& p = self->parameters[i];
    const char* word;
    PyObject* attribute;
    if (!PyArg_ParseTuple(PyTuple_GET_ITEM(parameters, i), "sUU|OO:Function", &word, &attribute, &p.name, &p.missing, &p.meaning))
      return nullptr;
    if (*word == '*') self->rest = true, ++word;
    if (!describe(word, p) || (is_attribute(p) && PyList_Append(names.get(), interned(attribute).get()) < 0)) return nullptr;
    p.name = interned(p.name).release();
    Py_XINCREF(p.missing);
    Py_XINCREF(p.meaning);
  }
  PyObject *name, *value;
  for (Py_ssize_t at = 0; PyDict_Next(fixed, &at, &name, &value);)
    if (PyList_Append(names.get(), name) < 0 || PyList_Append(values.get(), value) < 0) return nullptr;
  self->attributes = formula || !PyList_GET_SIZE(names.get()) ? nullptr : PyList_AsTuple(names.get());
  self->fixed = PyList_AsTuple(values.get());
  return object;
}

}  // namespace

PyTypeObject FunctionType = make_method_type("tensorgrad._tape.Function", new_function, sizeof(FunctionObject));

}  // namespace tape
