// Functions that say their arguments in a record's words and call it: gather(x, dim, index), flip(x, *dims), pad(x, ...).
//
// The canonical words are most of what a function of Python costs around a small kernel: flip spent 2 of its 5 us on them.
// Here each parameter has a kind, declared beside the function (`calls` in ops/calls.py). What no kind takes, and what the
// record refuses, goes to the function of Python as it came.
#include <algorithm>
#include <cstring>
#include <new>

#include "method.h"

namespace tape {

namespace {

// An argument's value as an input or attribute of the record.
enum class Kind {
  kTensor,   // any tensor
  kFlat,     // a tensor, seen as a vector
  kIndex,    // a tensor of int64 of at least one dimension
  kLike,     // a tensor of the shape of the input before it
  kSameIndex,  // the same, of int64
  kPlaces,   // tensors of int64 for the first dimensions: the last inputs, and the attribute that counts those dimensions
  kTensors,  // tensors of one dtype and at least one dimension, none of shape (0,)
  kDim,      // an integer, counted from the front
  kNewDim,   // the same, of a dimension to be made
  kDims,     // dims, none twice
  kAlong,    // dims, the same ones perhaps
  kInts,     // integers, as a tuple
  kInt,
  kPair,     // an integer, or two: for rows and columns
  kPads,     // (before, after) of the last dimension, then of the one before it ...: pairs for all dimensions
  kFill,     // a number; None is zero
  kFlag,
  kWord,     // one of some words
};

constexpr struct {
  const char* name;
  Kind kind;
} kind_names[] = {{"x", Kind::kTensor}, {"flat", Kind::kFlat}, {"index", Kind::kIndex}, {"like", Kind::kLike}, {"sameindex", Kind::kSameIndex}, {"places", Kind::kPlaces},
                  {"list", Kind::kTensors}, {"dim", Kind::kDim}, {"newdim", Kind::kNewDim}, {"dims", Kind::kDims},
                  {"along", Kind::kAlong}, {"ints", Kind::kInts}, {"int", Kind::kInt}, {"pair", Kind::kPair},
                  {"pads", Kind::kPads}, {"fill", Kind::kFill}, {"flag", Kind::kFlag}, {"word", Kind::kWord}};

struct Parameter {
  Kind kind;
  bool rest = false;   // takes all positional arguments that are left
  Ref name, fallback;  // fallback: the value where none is given; null: one must be
  Ref words;           // of kWord, a tuple
};

// Objects stay for ever, as their functions do.
struct Parameters {
  Parameter each[kMost];
  Py_ssize_t count = 0, fixed = 0;  // fixed: attributes that are always the same
  Ref keywords;                     // the names of all attributes, in order, the fixed ones last
  Ref values[kMost];                // of the fixed ones
};

struct FunctionObject {
  MethodObject method;
  Parameters* parameters;
  PyObject* into;  // of an in-place form: the name of the kernel that writes over the first input; else None
};

// What the record is called with.
struct Call {
  PyObject* arguments[3 * kMost];
  Ref held[kMost], flat;
  PyObject* places = nullptr;  // tensors that come last
  Py_ssize_t inputs = 0, attributes = 0;
  PyArrayObject* first = nullptr;   // the array of the first input
  PyArrayObject* before = nullptr;  // and of the latest

  bool input(PyObject* x) {
    if (inputs == kMost || !is_tensor(x)) return false;
    PyObject* array = as_tensor(x)->f[TensorObject::kData];
    if (!array || !PyArray_CheckExact(array)) return false;
    before = as_array(array);
    if (!first) first = before;
    arguments[inputs++] = x;
    return true;
  }
  bool close() {
    for (Py_ssize_t i = 0; places && i < PySequence_Fast_GET_SIZE(places); ++i)
      if (!input(PySequence_Fast_GET_ITEM(places, i))) return false;
    return true;
  }
  bool attribute(Ref value) {
    if (!value || attributes == kMost) return false;
    held[attributes++] = std::move(value);
    return true;
  }
};

// Integers from one, or from a sequence of them.
bool some_integers(PyObject* given, npy_intp* out, int& count) {
  if (!one_integer(given, *out)) return read_integers(given, out, count);
  count = 1;
  return true;
}

bool some_dims(PyObject* given, int ndim, bool once, npy_intp* out, int& count) {
  if (!some_integers(given, out, count) || !count || !ndim) return false;
  unsigned long long seen = 0;
  for (int i = 0; i < count; ++i) {
    if (out[i] < -ndim || out[i] >= ndim) return false;
    if (out[i] < 0) out[i] += ndim;
    if (once && seen >> out[i] & 1) return false;
    seen |= 1ULL << out[i];
  }
  return true;
}

bool read_pads(Call& call, PyObject* given) {
  npy_intp sizes[kMostDims];
  int count;
  const int ndim = PyArray_NDIM(call.first);
  if (!read_integers(given, sizes, count) || count % 2 || count / 2 > ndim) return false;
  if (std::any_of(sizes, sizes + count, [](npy_intp size) { return size < 0; })) return false;
  Ref all(PyTuple_New(ndim));
  for (int d = 0; all && d < ndim; ++d) {
    constexpr npy_intp none[] = {0, 0};
    const int at = 2 * (ndim - 1 - d);
    Ref pair = integers_of(at < count ? sizes + at : none, 2);
    if (!pair) return false;
    PyTuple_SET_ITEM(all.get(), d, pair.release());
  }
  return call.attribute(std::move(all));
}

bool read_tensors(Call& call, PyObject* given) {
  if (!PyList_CheckExact(given) && !PyTuple_CheckExact(given)) return false;
  const Py_ssize_t n = PySequence_Fast_GET_SIZE(given);
  for (Py_ssize_t i = 0; i < n; ++i) {
    if (!call.input(PySequence_Fast_GET_ITEM(given, i))) return false;
    if (PyArray_DESCR(call.before) != PyArray_DESCR(call.first) || !PyArray_NDIM(call.before)) return false;
    if (PyArray_NDIM(call.before) == 1 && !PyArray_DIM(call.before, 0)) return false;
  }
  return n > 0;
}

bool read_places(Call& call, PyObject* given) {
  if ((!PyTuple_CheckExact(given) && !PyList_CheckExact(given)) || !call.first) return false;
  const Py_ssize_t n = PySequence_Fast_GET_SIZE(given);
  if (!n || n > PyArray_NDIM(call.first) || call.places) return false;
  npy_intp dims[kMostDims];
  call.places = given;
  for (Py_ssize_t i = 0; i < n; ++i) {
    PyObject* x = PySequence_Fast_GET_ITEM(given, i);
    PyObject* array = is_tensor(x) ? as_tensor(x)->f[TensorObject::kData] : nullptr;
    if (!array || !PyArray_CheckExact(array) || PyArray_TYPE(as_array(array)) != NPY_INT64 || !PyArray_NDIM(as_array(array)))
      return false;
    dims[i] = i;
  }
  return call.attribute(integers_of(dims, static_cast<int>(n)));
}

bool read_flat(Call& call, PyObject* given) {
  if (!call.input(given)) return false;
  if (PyArray_NDIM(call.before) == 1) return true;
  if (!PyArray_IS_C_CONTIGUOUS(call.before) || switches.extras) return false;
  Ref size(PyLong_FromSsize_t(PyArray_SIZE(call.before)));
  Ref shape(size ? PyTuple_Pack(1, size.get()) : nullptr);
  Ref keyword(shape ? PyTuple_Pack(1, names.shape) : nullptr);
  if (!keyword) return false;
  PyObject* both[] = {given, shape.get()};
  Ref flat(call_op(known.reshape, both, 1, keyword.get()));
  if (!flat || !is_tensor(flat.get())) return false;
  PyObject* array = as_tensor(flat.get())->f[TensorObject::kData];
  if (call.first == call.before) call.first = as_array(array);
  call.before = as_array(array);
  call.arguments[call.inputs - 1] = flat.get();
  call.flat = std::move(flat);
  return true;
}

// False where Python must look; there may be an error set.
bool read(Call& call, const Parameter& p, PyObject* given) {
  npy_intp values[kMostDims];
  int count, dim;
  const int ndim = call.first ? PyArray_NDIM(call.first) : 0;
  switch (p.kind) {
    case Kind::kTensor: return call.input(given);
    case Kind::kFlat: return read_flat(call, given);
    case Kind::kIndex:
      return call.input(given) && PyArray_NDIM(call.before) && PyArray_TYPE(call.before) == NPY_INT64;
    case Kind::kSameIndex:
    case Kind::kLike: {
      PyArrayObject* pattern = call.before;
      return pattern && call.input(given) && same_shape(pattern, call.before) &&
             (p.kind == Kind::kLike || PyArray_TYPE(call.before) == NPY_INT64);
    }
    case Kind::kPlaces: return read_places(call, given);
    case Kind::kTensors: return read_tensors(call, given);
    case Kind::kDim:
    case Kind::kNewDim:
      return one_dim(given, ndim + (p.kind == Kind::kNewDim), dim) && call.attribute(Ref(PyLong_FromLong(dim)));
    case Kind::kDims:
    case Kind::kAlong:
      return some_dims(given, ndim, p.kind == Kind::kDims, values, count) && call.attribute(integers_of(values, count));
    case Kind::kInts: return some_integers(given, values, count) && call.attribute(integers_of(values, count));
    case Kind::kInt: return one_integer(given, values[0]) && call.attribute(Ref::borrowed(given));
    case Kind::kPair:
      if (!some_integers(given, values, count)) return false;
      if (count == 1) values[1] = values[0];
      return count <= 2 && count && call.attribute(integers_of(values, 2));
    case Kind::kPads: return call.first && read_pads(call, given);
    case Kind::kFill:
      if (given == Py_None) return call.attribute(Ref(PyFloat_FromDouble(0)));
      return (PyFloat_CheckExact(given) || PyLong_CheckExact(given)) && call.attribute(Ref::borrowed(given));
    case Kind::kFlag: return PyBool_Check(given) && call.attribute(Ref::borrowed(given));
    case Kind::kWord:
      return PyUnicode_CheckExact(given) && PySequence_Contains(p.words.get(), given) == 1 &&
             call.attribute(Ref::borrowed(given));
  }
  return false;
}

// Which parameter each argument is for; false where Python must look.
bool assigned(const Parameters& all, PyObject* const* args, Py_ssize_t n, PyObject* keywords, PyObject** values, Ref& rest) {
  std::fill_n(values, all.count, nullptr);
  const bool open = all.count && all.each[all.count - 1].rest;
  const Py_ssize_t plain = open ? all.count - 1 : all.count;
  if (n > plain && !open) return false;
  std::copy_n(args, std::min(n, plain), values);
  if (n > plain) {
    if (n == plain + 1) {
      values[plain] = args[plain];
    } else {
      rest = tuple_of(args + plain, n - plain);
      if (!(values[plain] = rest.get())) return false;
    }
  }
  for (Py_ssize_t k = 0; keywords && k < PyTuple_GET_SIZE(keywords); ++k) {
    PyObject* name = PyTuple_GET_ITEM(keywords, k);
    Py_ssize_t at = 0;
    while (at < all.count && all.each[at].name.get() != name) ++at;  // names are interned
    if (at == all.count || values[at]) return false;
    values[at] = args[n + k];
  }
  for (Py_ssize_t i = 0; i < all.count; ++i)
    if (!values[i] && !(values[i] = all.each[i].fallback.get())) return false;
  return true;
}

// An in-place form that nobody records, in memory in one piece, with inputs that lie elsewhere; what `put_in_place` does
// then. Null where Python must look.
PyObject* write_over(PyObject* name, Call& call, PyObject* keywords) {
  auto* target = as_tensor(call.arguments[0]);
  PyArrayObject* first = as_array(target->f[TensorObject::kData]);
  if (target->f[TensorObject::kInference] != Py_False || !PyArray_ISCARRAY(first)) return nullptr;
  const char *low = PyArray_BYTES(first), *high = low + PyArray_NBYTES(first);
  Ref arrays[kMost];
  for (Py_ssize_t i = 0; i < call.inputs; ++i) {
    auto* t = as_tensor(call.arguments[i]);
    if (switches.recording && t->f[TensorObject::kTracked] == Py_True) return nullptr;
    PyArrayObject* x = as_array(t->f[TensorObject::kData]);
    if (i && (!PyArray_IS_C_CONTIGUOUS(x) || (PyArray_BYTES(x) < high && low < PyArray_BYTES(x) + PyArray_NBYTES(x))))
      return nullptr;
    arrays[i] = Ref::borrowed(reinterpret_cast<PyObject*>(x));
  }
  PyObject* door = door_of(&PyArray_Type);
  if (!door || reinterpret_cast<PyObject*>(Py_TYPE(door)) != known.raw) return nullptr;
  Ref kernel(PyObject_GetAttr(door, name));
  if (!kernel || !PyCFunction_CheckExact(kernel.get())) return nullptr;  // those refuse before they write
  PyObject* self = call.arguments[0];
  for (Py_ssize_t i = 0; i < call.inputs; ++i) call.arguments[i] = arrays[i].get();
  if (!Ref(PyObject_Vectorcall(kernel.get(), call.arguments, static_cast<std::size_t>(call.inputs), keywords))) return nullptr;
  return bump_version(self) ? (Py_INCREF(self), self) : nullptr;
}

PyObject* call_function(PyObject* self, PyObject* const* args, std::size_t flags, PyObject* keywords) {
  auto* it = as_method(self);
  const Parameters& all = *reinterpret_cast<FunctionObject*>(self)->parameters;
  const Py_ssize_t n = PyVectorcall_NARGS(flags);
  PyObject* values[kMost];
  Ref rest;
  if (assigned(all, args, n, keywords, values, rest)) {
    Call call;
    Py_ssize_t i = 0;
    while (i < all.count && read(call, all.each[i], values[i])) ++i;
    if (i == all.count && call.close()) {
      for (Py_ssize_t k = 0; k < call.attributes; ++k) call.arguments[call.inputs + k] = call.held[k].get();
      for (Py_ssize_t k = 0; k < all.fixed; ++k)
        call.arguments[call.inputs + call.attributes + k] = all.values[k].get();
      PyObject* into = reinterpret_cast<FunctionObject*>(self)->into;
      if (into != Py_None) {
        PyObject* written = write_over(into, call, all.keywords.get());
        if (written || (PyErr_Occurred() && !expected_error())) return written;
        PyErr_Clear();
        return PyObject_Vectorcall(it->otherwise, args, flags, keywords);
      }
      // not call_op: autocast gives records that it knows a call of their own
      PyObject* result = PyObject_Vectorcall(it->op, call.arguments, static_cast<std::size_t>(call.inputs), all.keywords.get());
      if (result || !expected_error()) return result;
    } else if (PyErr_Occurred() && !expected_error()) {
      return nullptr;
    }
    PyErr_Clear();  // once more, to say in the words of the function what is wrong
  }
  if (PyErr_Occurred()) return nullptr;
  return PyObject_Vectorcall(it->otherwise, args, flags, keywords);
}

bool fill(Parameter& p, PyObject* described) {
  const char* kind;
  PyObject *name, *fallback;
  if (!PyArg_ParseTuple(described, "sUO", &kind, &name, &fallback)) return false;
  p.rest = *kind == '*';
  kind += p.rest;
  if (PyTuple_CheckExact(fallback) && PyTuple_GET_SIZE(fallback) == 1)
    p.fallback = Ref::borrowed(PyTuple_GET_ITEM(fallback, 0));
  Py_INCREF(name);
  PyUnicode_InternInPlace(&name);
  p.name = Ref(name);
  const char* words = std::strchr(kind, ':');
  const std::size_t length = words ? static_cast<std::size_t>(words - kind) : std::strlen(kind);
  for (const auto& each : kind_names) {
    if (std::strlen(each.name) != length || std::strncmp(each.name, kind, length)) continue;
    p.kind = each.kind;
    if (!words) return true;
    Ref text(PyUnicode_FromString(words + 1)), bar(PyUnicode_FromString("|"));
    Ref list(text && bar ? PyUnicode_Split(text.get(), bar.get(), -1) : nullptr);
    p.words = Ref(list ? PyList_AsTuple(list.get()) : nullptr);
    return static_cast<bool>(p.words);
  }
  PyErr_Format(PyExc_ValueError, "Function: there is no kind %s", kind);
  return false;
}

// Function(function, record, ((kind, name, () or (default,)), ...), {attribute of each parameter that is none of its inputs
// in order, then the fixed ones}, fixed values, into)
PyObject* new_function(PyTypeObject* type, PyObject* args, PyObject*) {
  PyObject *otherwise, *op, *described, *keywords, *fixed, *into;
  if (!PyArg_ParseTuple(args, "OO!O!O!O!O:Function", &otherwise, &OpType, &op, &PyTuple_Type, &described, &PyTuple_Type,
                        &keywords, &PyTuple_Type, &fixed, &into))
    return nullptr;
  if (PyTuple_GET_SIZE(described) > kMost || PyTuple_GET_SIZE(fixed) > kMost || PyTuple_GET_SIZE(keywords) > kMost)
    return PyErr_Format(PyExc_ValueError, "Function: too many parameters");
  auto* all = new (std::nothrow) Parameters;
  if (!all) return PyErr_NoMemory();
  for (; all->count < PyTuple_GET_SIZE(described); ++all->count)
    if (!fill(all->each[all->count], PyTuple_GET_ITEM(described, all->count))) return nullptr;
  for (; all->fixed < PyTuple_GET_SIZE(fixed); ++all->fixed)
    all->values[all->fixed] = Ref::borrowed(PyTuple_GET_ITEM(fixed, all->fixed));
  if (PyTuple_GET_SIZE(keywords)) all->keywords = Ref::borrowed(keywords);
  PyObject* self = new_method(type, call_function, otherwise, op, nullptr);
  if (!self) return nullptr;
  reinterpret_cast<FunctionObject*>(self)->parameters = all;
  reinterpret_cast<FunctionObject*>(self)->into = (Py_INCREF(into), into);
  return self;
}

}  // namespace

PyTypeObject FunctionType = make_method_type("tensorgrad._tape.Function", new_function, sizeof(FunctionObject), false);

}  // namespace tape
