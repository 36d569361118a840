// cast, contiguous, cat, pad, flip, roll, rearrange, tril, triu and filled arrays: fresh C-contiguous arrays from arrays of any layout.
#include "../kernels/copy.h"

#include <pybind11/stl.h>

#include <cmath>
#include <vector>

#include "../core/fastcall.h"
#include "lines.h"

namespace tg {
namespace {

PyObject* one() {
  static PyObject* made = PyLong_FromLong(1);
  return made;
}

DType dtype_named(py::handle dtype) {
  if (PyArray_DescrCheck(dtype.ptr())) return dtype_of(reinterpret_cast<PyArray_Descr*>(dtype.ptr()));
  std::string name;
  if (py::isinstance<py::str>(dtype)) name = py::cast<std::string>(dtype);
  else throw py::type_error(std::string("cast: dtype must be a numpy.dtype or its name, got ") + Py_TYPE(dtype.ptr())->tp_name);
  for (int k = 0; k <= int(DType::Complex128); ++k)
    if (name == name_of(DType(k))) return DType(k);
  throw py::type_error("cast: dtype " + name + " is not supported");
}

py::object cast_(py::handle array, py::handle dtype) {
  const View x = view(array, "cast");
  const DType type = dtype_named(dtype);
  return type == x.dtype ? contiguous_copy(x) : ready(x, type);
}

// cat(*arrays, dim): one after another along the dimension. stack(*arrays, dim): all of one shape, along a new one.
py::object joined(const char* op, PyObject* const* arrays, size_t count, Index dim, bool along_new) {
  if (!count) throw py::value_error(std::string(op) + ": needs at least one array");
  std::vector<View> views;
  views.reserve(count);
  views.push_back(view(arrays[0], op));
  const View first = views[0];
  Shape shape = first.shape_vector();
  if (along_new) {
    if (dim < 0 || dim > first.ndim || first.ndim == kMaxDims)
      throw py::value_error(std::string(op) + ": there can be no new dim " + std::to_string(dim));
    shape.insert(shape.begin() + dim, Index(count));
  }
  const int axis = along_new ? int(dim) : checked_axis(op, dim, first);
  for (size_t i = 1; i < count; ++i) {
    const View v = view(arrays[i], op);
    if (v.dtype != first.dtype) require_dtype(op, ("array " + std::to_string(i)).c_str(), v, first.dtype);
    bool fits = v.ndim == first.ndim;
    for (int k = 0; fits && k < v.ndim; ++k) fits = (!along_new && k == axis) || v.shape[k] == first.shape[k];
    if (!fits)
      throw py::value_error(std::string(op) + ": array " + std::to_string(i) + " has shape " + to_string(v.shape_vector()) +
                            ", array 0 has " + to_string(first.shape_vector()) +
                            (along_new ? "; they must be equal"
                                       : "; they may differ along dim " + std::to_string(axis) + " only"));
    if (!along_new && __builtin_add_overflow(shape[size_t(axis)], v.shape[axis], &shape[size_t(axis)])) throw std::bad_alloc();
    views.push_back(v);
  }
  py::object out = empty(first.dtype, shape);
  Index strides[kMaxDims], within[kMaxDims];  // of the result, and of one array's place in it
  c_strides(first.dtype, shape.data(), int(shape.size()), strides);
  std::copy_n(strides, first.ndim, within);
  if (along_new) std::copy(strides + axis + 1, strides + first.ndim + 1, within + axis);
  char* to = data_of<char>(out);
  if (writing()) {  // a launch each: one of all would have to own a list of them
    for (const View& v : views) {
      launch(v.size(), [copy = Copy(v, to, within)] { copy.run(); });
      to += (along_new ? 1 : v.shape[axis]) * strides[axis];
    }
    return out;
  }
  MaybeRelease unlock(view(out).size());
  for (const View& v : views) {
    copy_into(v, to, within);
    to += (along_new ? 1 : v.shape[axis]) * strides[axis];
  }
  return out;
}

template <bool along_new>
PyObject* call_joined(PyObject*, PyObject* const* args, Py_ssize_t count, PyObject* keywords) {
  const char* op = along_new ? "stack" : "cat";
  return guarded([&] {
    if (!keywords || PyTuple_GET_SIZE(keywords) != 1 || PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(keywords, 0), "dim"))
      throw py::type_error(std::string(op) + ": expected arrays and dim=");
    return joined(op, args, size_t(count), py::cast<Index>(py::handle(args[count])), along_new).release().ptr();
  });
}

PyMethodDef fast_cat = {"cat", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(call_joined<false>)),
                        METH_FASTCALL | METH_KEYWORDS, nullptr};
PyMethodDef fast_stack = {"stack", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(call_joined<true>)),
                          METH_FASTCALL | METH_KEYWORDS, nullptr};

// One element of a dtype.
struct Filler {
  Filler(DType type, py::handle dtype, py::handle value) {
    PyObject* given = value.ptr();
    if (type == DType::Float32 && PyFloat_Check(given)) {
      set(float(PyFloat_AS_DOUBLE(given)));
    } else if (PyFloat_CheckExact(given) ? PyFloat_AS_DOUBLE(given) == 0 && !std::signbit(PyFloat_AS_DOUBLE(given))
                                         : PyLong_Check(given) && !PyObject_IsTrue(given)) {
      // zero is zero in every type
    } else if (type == DType::Float32 && given == one()) {
      set(1.0f);  // the seed of a backward pass
    } else {
      // by NumPy's own conversion, which refuses what does not fit
      const py::object made = py::module_::import("numpy").attr("array")(value, dtype);
      const View v = view(made);
      if (v.ndim != 0) throw py::value_error("the value must be one number");
      std::memcpy(bytes, v.data, size_t(size_of(type)));
    }
  }
  void set(float number) { std::memcpy(bytes, &number, sizeof(number)); }
  alignas(16) char bytes[16] = {};
};

// The bytes from the lowest to behind the highest of a view that has elements.
std::pair<const char*, const char*> extent(const View& x) {
  Index below = 0, above = size_of(x.dtype);
  for (int k = 0; k < x.ndim; ++k) (x.strides[k] < 0 ? below : above) += (x.shape[k] - 1) * x.strides[k];
  return {x.data + below, x.data + above};
}

bool overlap(const View& a, const View& b) {
  if (a.size() == 0 || b.size() == 0) return false;
  const auto [low, high] = extent(a);
  const auto [first, last] = extent(b);
  return low < last && first < high;
}

py::handle descriptor(py::handle array) {
  return py::handle(reinterpret_cast<PyObject*>(PyArray_DESCR(reinterpret_cast<PyArrayObject*>(array.ptr()))));
}

py::object filled(DType type, const Index* shape, int ndim, const char* item) {
  py::object out = empty(type, shape, ndim);
  Index n = 1;
  for (int k = 0; k < ndim; ++k) n *= shape[k];
  char* to = data_of<char>(out);
  std::array<char, 16> one_item;
  std::copy_n(item, 16, one_item.begin());
  launch(n, [=] {
    if (n) fill_items(size_of(type), n, one_item.data(), to);
  });
  return out;
}

// Copies from many places to places of the same strides, one after the other: give(copied) calls copied(shape, source,
// strides there, target) for each; without a source every element is `value`. They are one launch, or one each in a program,
// which owns their numbers.
template <class Give>
void launch_copies(Index work, Index item, int ndim, const Index* strides, const char* value, Give give) {
  if (!writing()) {
    MaybeRelease unlock(work);
    return give([&](const Index* shape, const char* source, const Index* from, char* to) {
      copy_strided(item, ndim, shape, source ? source : value, from, to, strides);
    });
  }
  struct Numbers {
    std::array<char, 16> value{};
    std::vector<Index> shape, from, strides;
  };
  give([&](const Index* shape, const char* source, const Index* from, char* to) {
    Numbers own;
    if (!source) std::copy_n(value, 16, own.value.begin());
    own.shape.assign(shape, shape + ndim);
    own.from.assign(from, from + ndim);
    own.strides.assign(strides, strides + ndim);
    launch(work, [=, own = std::move(own)] {
      copy_strided(item, ndim, own.shape.data(), source ? source : own.value.data(), own.from.data(), to, own.strides.data());
    });
  });
}

// The last two axes: row by row (reflect of (4, 64, 56, 56): slabs took twice as long).
// Otherwise each dimension is grown: first the middle is copied, then, from the last dimension to the first, the slabs around it, which
// come from the value or from what is there already.
py::object pad_(const Arguments<4>& a) {
  const View x = view(a[0], "pad");
  Index before[kMaxDims], after[kMaxDims];
  if (read_pads("pad", a[1], before, after) != x.ndim)
    throw py::value_error("pad: give (before, after) for every axis of shape " + to_string(x.shape_vector()));
  const std::string mode = py::cast<std::string>(a[2]);
  const bool constant = mode == "constant", reflect = mode == "reflect", circular = mode == "circular";
  if (!constant && !reflect && !circular && mode != "replicate") throw py::value_error("pad: there is no mode '" + mode + "'");
  if (!constant && flag(a[3])) throw py::value_error("pad: mode '" + mode + "' takes no value");
  const Filler filler(x.dtype, descriptor(a[0]), a[3]);
  const Index item = size_of(x.dtype);
  Index shape[kMaxDims], inner[kMaxDims], from[kMaxDims], strides[kMaxDims];
  for (int k = 0; k < x.ndim; ++k) {
    inner[k] = x.shape[k];
    from[k] = x.strides[k];
    const Index most = constant ? INT64_MAX : reflect ? inner[k] - 1 : circular || !inner[k] ? inner[k] : INT64_MAX;
    if (std::min(before[k], after[k]) < 0 || std::max(before[k], after[k]) > std::max<Index>(most, 0))
      throw py::value_error("pad: axis " + std::to_string(k) + " of shape " + to_string(x.shape_vector()) +
                            " can't be padded by " + std::to_string(before[k]) + " and " + std::to_string(after[k]));
    if (__builtin_add_overflow(inner[k], before[k], &shape[k]) || __builtin_add_overflow(shape[k], after[k], &shape[k]))
      throw std::bad_alloc();
  }
  py::object out = empty(x.dtype, shape, x.ndim);
  c_strides(x.dtype, shape, x.ndim, strides);
  Index n = 1, start = 0;
  for (int k = 0; k < x.ndim; ++k) {
    n *= shape[k];
    start += before[k] * strides[k];
  }
  char* middle = data_of<char>(out) + start;
  const int rows = x.ndim - 2, columns = x.ndim - 1;  // the last two axes, if there are two
  bool by_rows = x.ndim > 0 && x.contiguous() && n;
  Index planes = 1;
  for (int k = 0; k < rows; ++k) {
    by_rows = by_rows && !before[k] && !after[k];
    planes *= shape[k];
  }
  std::vector<Index> places;  // of the rows, then of the columns in front and behind
  const auto name = [&](Index first, Index last, Index size) {
    for (Index i = first; i < last; ++i)
      places.push_back(i >= 0 && i < size ? i
                       : constant         ? -1
                       : reflect          ? (i < 0 ? -i : 2 * size - 2 - i)
                       : circular         ? (i < 0 ? i + size : i - size)
                                          : (i < 0 ? 0 : size - 1));
  };
  if (by_rows) {
    if (rows < 0) name(0, 1, 1);
    else name(-before[rows], inner[rows] + after[rows], inner[rows]);
    name(-before[columns], 0, inner[columns]);
    name(inner[columns], inner[columns] + after[columns], inner[columns]);
  }
  if (!n) return out;
  if (by_rows) {
    launch(n, [=, height = rows < 0 ? 1 : inner[rows], count = rows < 0 ? 1 : shape[rows], width = inner[columns],
               front = before[columns], behind = after[columns], source = x.data, to = data_of<char>(out),
               places = std::move(places)] {
      const Index *row_of = places.data(), *left = row_of + count;
      pad_rows(item, planes, height, width, row_of, count, left, front, left + front, behind, constant ? filler.bytes : nullptr, source, to);
    });
    return out;
  }
  // copies of slabs, one after the other
  const auto slabs = [&](auto copied) {
    copied(inner, x.data, from, middle);
    const Index none[kMaxDims] = {};
    Index slab[kMaxDims], read[kMaxDims];
    std::copy_n(inner, x.ndim, slab);
    std::copy_n(strides, x.ndim, read);
    for (int k = x.ndim - 1; k >= 0; --k) {
      const Index step = strides[k], size = inner[k];
      read[k] = reflect ? -step : circular ? step : 0;
      const auto put = [&](Index count, Index at, Index source) {
        if (!count) return;
        slab[k] = count;
        if (constant) copied(slab, nullptr, none, middle + at * step);
        else copied(slab, middle + source * step, read, middle + at * step);
      };
      put(before[k], -before[k], reflect ? before[k] : circular ? size - before[k] : 0);
      put(after[k], size, reflect ? size - 2 : circular ? 0 : size - 1);
      slab[k] = shape[k];
      read[k] = step;
      middle -= before[k] * step;
    }
  };
  launch_copies(n, item, x.ndim, strides, filler.bytes, slabs);
  return out;
}

py::object flip_(py::handle array, py::handle dims_) {
  View x = view(array, "flip");
  Index dims[kMaxDims];
  npy_intp strides[kMaxDims];
  const int count = read_integers("flip", dims_, dims);
  std::copy_n(x.strides, x.ndim, strides);
  for (int i = 0; i < count; ++i) {
    const int k = checked_axis("flip", dims[i], x);
    if (x.shape[k]) x.data += (x.shape[k] - 1) * strides[k];
    strides[k] = -strides[k];
  }
  x.strides = strides;
  return contiguous_copy(x);
}

// Each dimension that moves is cut in two, whose blocks change places.
py::object roll_(py::handle array, py::handle shifts_, py::handle dims_) {
  const View x = view(array, "roll");
  Index shifts[kMaxDims], dims[kMaxDims], by[kMaxDims] = {}, strides[kMaxDims], from_strides[kMaxDims], shape[kMaxDims];
  const int count = read_integers("roll", shifts_, shifts);
  if (read_integers("roll", dims_, dims) != count) throw py::value_error("roll: shifts and dims differ in number");
  for (int k = 0; k < x.ndim; ++k) {
    shape[k] = x.shape[k];
    from_strides[k] = x.strides[k];
  }
  for (int i = 0; i < count; ++i) {
    const int k = checked_axis("roll", dims[i], x);
    if (shape[k]) by[k] = (by[k] + (shifts[i] % shape[k] + shape[k])) % shape[k];
  }
  py::object out = empty(x.dtype, shape, x.ndim);
  c_strides(x.dtype, shape, x.ndim, strides);
  const Index n = x.size(), item = size_of(x.dtype);
  char* target = data_of<char>(out);
  if (n && x.contiguous()) {
    Roll roll{item, n, x.data, target, 0, {}, {}};
    for (int k = 0; k < x.ndim; ++k)
      if (by[k]) roll.length[roll.count] = strides[k] / item * shape[k], roll.shift[roll.count++] = by[k] * (strides[k] / item);
    if (!roll.count) roll.length[0] = n, roll.shift[roll.count++] = 0;
    launch_rows(n, n, 1, {{x.data, n * item, 0, false}, {target, n * item, item, true}},
                [=](Index first, Index last) { roll.part(first, last); });
    return out;
  }
  const auto blocks = [&](auto copied) {
    const auto move = [&](auto&& next, int k, const char* from, char* to) -> void {
      while (k < x.ndim && !by[k]) ++k;
      if (k == x.ndim) return copied(shape, from, from_strides, to);
      const Index size = shape[k], shift = by[k];
      shape[k] = size - shift;
      next(next, k + 1, from, to + shift * strides[k]);
      shape[k] = shift;
      next(next, k + 1, from + (size - shift) * from_strides[k], to);
      shape[k] = size;
    };
    move(move, 0, x.data, target);
  };
  if (n) launch_copies(n, item, x.ndim, strides, nullptr, blocks);
  return out;
}

// Reshaped to `split`, its dimensions taken in `order`, those of size 1 repeated to `spread`; then copied, in `shape`.
py::object rearrange_(const Arguments<5>& a) {
  const View x = view(a[0], "rearrange");
  Index split[kMaxDims], order[kMaxDims], shape[kMaxDims], own[kMaxDims], to[kMaxDims];
  npy_intp spread[kMaxDims], from[kMaxDims];
  const int dims = read_integers("rearrange", a[1], split), ndim = read_integers("rearrange", a[4], shape);
  if (read_integers("rearrange", a[2], order) != dims || read_integers("rearrange", a[3], spread) != dims)
    throw py::value_error("rearrange: split, order and spread differ in length");
  const auto total = [](const Index* sizes, int count) {
    Index product = 1;
    bool none = false;
    for (int k = 0; k < count; ++k) {
      if (sizes[k] < 0) throw py::value_error("rearrange: a size is negative");
      none |= !sizes[k];
    }
    for (int k = 0; k < count && !none; ++k)
      if (__builtin_mul_overflow(product, sizes[k], &product)) throw std::bad_alloc();
    return none ? 0 : product;
  };
  const Index n = total(spread, dims);
  uint64_t seen = 0;
  bool fits = total(split, dims) == x.size() && n == total(shape, ndim);
  for (int k = 0; k < dims && fits; ++k) {
    fits = order[k] >= 0 && order[k] < dims && !(seen >> order[k] & 1);
    if (!fits) break;
    seen |= uint64_t(1) << order[k];
    fits = spread[k] == split[order[k]] || split[order[k]] == 1;
  }
  if (!fits) throw py::value_error("rearrange: the sizes do not fit an array of shape " + to_string(x.shape_vector()));
  const py::object source = ready(x);
  c_strides(x.dtype, split, dims, own);
  for (int k = 0; k < dims; ++k) from[k] = split[order[k]] == 1 ? 0 : own[order[k]];
  py::object out = empty(x.dtype, shape, ndim);
  c_strides(x.dtype, spread, dims, to);
  View moved = view(source);
  moved.ndim = dims, moved.shape = spread, moved.strides = from;
  if (n) launch(n, [copy = Copy(moved, data_of<char>(out), to)] { copy.run(); });
  return out;
}

py::object triangle(const char* op, bool upper, py::handle array, py::handle diagonal_) {
  const View x = view(array, op);
  if (x.ndim < 2) throw py::value_error(std::string(op) + ": needs matrices, got shape " + to_string(x.shape_vector()));
  const Index rows = x.shape[x.ndim - 2], columns = x.shape[x.ndim - 1], n = x.size();
  // beyond the corners nothing changes
  const Index diagonal = std::min(columns, std::max(-rows - 1, py::cast<Index>(diagonal_)));
  const py::object source = ready(x);
  py::object out = empty(x.dtype, x.shape_vector());
  const char* from = data_of<char>(source);
  char* to = data_of<char>(out);
  const Index item = size_of(x.dtype);
  if (n) launch(n, [=] { copy_triangle(item, n / (rows * columns), rows, columns, diagonal, upper, from, to); });
  return out;
}

}  // namespace

FAST_BINDING(full_as, 2, "x", "value") {
  const View x = view(a[0], "full_as");
  const Filler filler(x.dtype, descriptor(a[0]), a[1]);
  Index shape[kMaxDims];
  std::copy_n(x.shape, x.ndim, shape);
  return filled(x.dtype, shape, x.ndim, filler.bytes);
}
FAST_BINDING(full, 3, "shape", "value", "dtype") {
  Index shape[kMaxDims];
  const int ndim = read_integers("full", a[0], shape);
  const DType type = dtype_named(a[2]);
  const Filler filler(type, a[2], a[1]);
  return filled(type, shape, ndim, filler.bytes);
}
FAST_BINDING(ramp, 3, "first", "by", "count") {
  const Index first = py::cast<Index>(a[0]), by = py::cast<Index>(a[1]), count = py::cast<Index>(a[2]);
  Index last;
  if (count < 0 || __builtin_mul_overflow(std::max<Index>(count - 1, 0), by, &last) || __builtin_add_overflow(last, first, &last))
    throw py::value_error("ramp: the last of " + std::to_string(count) + " numbers is not an int64");
  py::object out = empty(DType::Int64, &count, 1);
  auto* to = data_of<int64_t>(out);
  launch(count, [=] { ramp_items(count, first, by, to); });
  return out;
}
FAST_BINDING(zeros_as, 2, "x", "shape") {
  Index shape[kMaxDims];
  const int ndim = read_integers("zeros_as", a[1], shape);
  constexpr char none[16] = {};
  return filled(view(a[0], "zeros_as").dtype, shape, ndim, none);
}
FAST_BINDING(empty_as, 2, "x", "shape") {
  Index shape[kMaxDims];
  const int ndim = read_integers("empty_as", a[1], shape);
  if (writing()) launch(0, [] {});  // nothing to compute is an answer too
  return empty(view(a[0], "empty_as").dtype, shape, ndim);
}
FAST_BINDING(cast, 2, "x", "dtype") { return cast_(a[0], a[1]); }
// Of one dtype; memory that overlaps is NumPy's, which copies it first.
FAST_BINDING(copy_into, 2, "target", "source") {
  const View to = view(a[0], "copy_into: target");
  View from = view(a[1], "copy_into: source");
  require_writable(to, "copy_into: the target");
  require_dtype("copy_into", "source", from, to.dtype);
  npy_intp read[kMaxDims];
  py::object apart;  // the source, where a program can't leave overlapping memory to NumPy
  if (writing() && overlap(to, from)) from = view(apart = contiguous_copy(from));
  const int lead = to.ndim - from.ndim;
  bool fits = lead >= 0;
  for (int k = 0; fits && k < to.ndim; ++k) {
    const Index own = k < lead ? 1 : from.shape[k - lead];
    read[k] = own == 1 ? 0 : from.strides[k - lead];
    fits = own == 1 || own == to.shape[k];
  }
  if (!fits || overlap(to, from)) {
    if (writing()) throw NotWritten();
    auto *target = reinterpret_cast<PyArrayObject*>(a[0].ptr()), *source = reinterpret_cast<PyArrayObject*>(a[1].ptr());
    if (PyArray_CopyInto(target, source) < 0) throw py::error_already_set();
  } else if (const Index n = to.size()) {
    View source = to;
    source.data = from.data, source.strides = read;
    launch(n, [copy = Copy(source, to.data, to.strides)] { copy.run(); });
  }
  return py::reinterpret_borrow<py::object>(a[0]);
}
FAST_BINDING(contiguous, 1, "x") { return contiguous_copy(view(a[0], "contiguous")); }
FAST_BINDING(pad, 4, "x", "pads", "mode", "value") { return pad_(a); }
FAST_BINDING(flip, 2, "x", "dims") { return flip_(a[0], a[1]); }
FAST_BINDING(roll, 3, "x", "shifts", "dims") { return roll_(a[0], a[1], a[2]); }
FAST_BINDING(rearrange, 5, "x", "split", "order", "spread", "shape") { return rearrange_(a); }
FAST_BINDING(tril, 2, "x", "diagonal") { return triangle("tril", false, a[0], a[1]); }
FAST_BINDING(triu, 2, "x", "diagonal") { return triangle("triu", true, a[0], a[1]); }

TG_BINDINGS(copy) {
  for (PyMethodDef* each : {&fast_full_as, &fast_full, &fast_ramp, &fast_zeros_as, &fast_empty_as, &fast_cast, &fast_copy_into, &fast_contiguous, &fast_cat,
                            &fast_stack, &fast_pad, &fast_flip, &fast_roll, &fast_rearrange, &fast_tril, &fast_triu})
    add_fast(m, *each);
}

}  // namespace tg
