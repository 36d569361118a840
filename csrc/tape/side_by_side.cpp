#include "side_by_side.h"

#include <algorithm>

#include "view.h"

namespace tape {

namespace {

constexpr npy_intp kLongest = 1 << 16;  // positions along the axis, of which each has a byte
constexpr npy_intp kShare = 16;         // of the axis, that the first slice has at least: a few of many leave it mostly zeros

// What a key takes: positions from start to stop along one axis, and everything of the others.
struct Stretch {
  int axis = 0;
  npy_intp start = 0, stop = 0;
};

bool read_stretch(PyObject* key, const npy_intp* shape, int ndim, Stretch& out) {
  const Py_ssize_t parts = PyTuple_GET_SIZE(key);
  if (!ndim || parts > ndim) return false;
  out.stop = shape[0];
  bool found = false;
  for (int d = 0; d < parts; ++d) {
    PyObject* part = PyTuple_GET_ITEM(key, d);
    npy_intp start, stop;
    if (PyLong_CheckExact(part)) {
      start = PyLong_AsSsize_t(part);
      if (start < 0 || start >= shape[d]) {
        PyErr_Clear();
        return false;
      }
      stop = start + 1;
    } else if (PySlice_Check(part)) {
      Py_ssize_t step;
      if (PySlice_Unpack(part, &start, &stop, &step) < 0) {
        PyErr_Clear();
        return false;
      }
      PySlice_AdjustIndices(shape[d], &start, &stop, step);
      if (step != 1 || start >= stop) return false;
    } else {
      return false;
    }
    if (start == 0 && stop == shape[d]) continue;
    if (found) return false;
    found = true;
    out = {d, start, stop};
  }
  return true;
}

PyObject* kernel(PyObject* door, const char* name) { return PyObject_GetAttrString(door, name); }

bool copied(PyObject* door, PyObject* target, PyObject* source) {
  Ref found(kernel(door, "copy_into"));
  PyObject* both[] = {target, source};
  Ref done(found ? PyObject_Vectorcall(found.get(), both, 2, nullptr) : nullptr);
  return static_cast<bool>(done);
}

// Zeros in all of an array; through the door where somebody may listen.
bool filled(PyObject* door, PyObject* gap) {
  if (!switches.doors) {
    Ref zero(PyLong_FromLong(0));
    return zero && PyArray_FillWithScalar(as_array(gap), zero.get()) == 0;
  }
  static PyObject* names = Py_BuildValue("(s)", "shape");
  Ref shape(shape_of(as_array(gap))), found(kernel(door, "zeros_as"));
  PyObject* both[] = {gap, shape.get()};
  Ref zeros(shape && found ? PyObject_Vectorcall(found.get(), both, 1, names) : nullptr);
  return zeros && copied(door, gap, zeros.get());
}

// An array of the shape in the memory order of the source that the node permutes, if that is what it does.
Ref place_for(PyObject* door, NodeObject* edge, PyObject* g, const npy_intp* shape, int ndim) {
  npy_intp dims[kMostDims], sizes[kMostDims];
  int count = 0;
  PyObject* asked = edge->f[NodeObject::kOp] == known.permute ? PyDict_GetItemString(edge->f[NodeObject::kAttrs], "dims") : nullptr;
  bool permutes = asked && read_integers(asked, dims, count) && count == ndim;
  std::copy_n(shape, ndim, sizes);
  for (int i = 0; permutes && i < ndim; ++i) permutes = dims[i] >= 0 && dims[i] < ndim;
  for (int i = 0; permutes && i < ndim; ++i) sizes[dims[i]] = shape[i];
  Ref wanted(PyTuple_New(ndim)), found(kernel(door, "empty_as"));
  for (int i = 0; wanted && i < ndim; ++i) {
    PyObject* size = PyLong_FromSsize_t(sizes[i]);
    if (!size) return Ref();
    PyTuple_SET_ITEM(wanted.get(), i, size);
  }
  static PyObject* names = Py_BuildValue("(s)", "shape");
  PyObject* both[] = {g, wanted.get()};
  Ref made(found && wanted ? PyObject_Vectorcall(found.get(), both, 1, names) : nullptr);
  if (!made || !permutes) return made;
  Form form;
  permuted(as_array(made.get()), dims, form);
  return Ref(made_view(as_array(made.get()), form));
}

}  // namespace

int SideBySide::take_others(PyObject* pending, PyObject* door, NodeObject* node, PyObject* g) {
  if (!others_) {
    Ref home(PyImport_ImportModule("tensorgrad.autograd.side_by_side"));
    others_ = Ref(home ? PyObject_CallMethod(home.get(), "SideBySide", nullptr) : nullptr);
    if (!others_) return -1;
  }
  Ref taken(PyObject_CallMethod(others_.get(), "take", "OOOO", pending, door, reinterpret_cast<PyObject*>(node), g));
  const long how = taken ? PyLong_AsLong(taken.get()) : -1;
  open_ |= how == 2;
  return static_cast<int>(how);
}

int SideBySide::take(PyObject* pending, PyObject* door, NodeObject* node, PyObject* g) {
  if (!PyArray_CheckExact(g)) return take_others(pending, door, node, g);
  PyObject* edge = PySequence_Fast_GET_ITEM(node->f[NodeObject::kEdges], 0);
  if (!is_node(edge) || as_node(edge)->count != 1) return 0;
  const auto half = halves_.find(edge);
  PyObject* total = PyDict_GetItemWithError(pending, edge);
  if (!total && PyErr_Occurred()) return -1;
  if (total && half == halves_.end()) return 0;
  PyObject* key = PyDict_GetItemWithError(node->f[NodeObject::kAttrs], names.key);
  PyObject* spec = PyTuple_GET_SIZE(node->f[NodeObject::kSaved]) ? PyTuple_GET_ITEM(node->f[NodeObject::kSaved], 0) : nullptr;
  npy_intp shape[kMostDims];
  int ndim;
  Stretch at;
  Form form;
  const bool plain = key && PyTuple_CheckExact(key) && spec && PyObject_TypeCheck(spec, &SpecType) &&
                     read_integers(reinterpret_cast<SpecObject*>(spec)->f[SpecObject::kShape], shape, ndim) &&
                     read_stretch(key, shape, ndim, at);
  if (!total) {
    if (!plain || shape[at.axis] > kLongest || (at.stop - at.start) * kShare < shape[at.axis] || at.stop - at.start == shape[at.axis]) return 0;
    Ref place = place_for(door, as_node(edge), g, shape, ndim);
    if (!place) return -1;
    if (!PyArray_CheckExact(place.get()) || !sliced(as_array(place.get()), key, form)) return 0;
    Ref part(made_view(as_array(place.get()), form));
    if (!part || !same_shape(as_array(part.get()), as_array(g))) return part ? 0 : -1;
    if (!copied(door, part.get(), g)) return -1;
    part = Ref();
    if (PyDict_SetItem(pending, edge, place.get()) < 0) return -1;
    std::string covered(static_cast<std::size_t>(shape[at.axis]), 0);
    std::fill(covered.begin() + at.start, covered.begin() + at.stop, 1);
    halves_.emplace(edge, Half{place.get(), Ref::borrowed(door), at.axis, std::move(covered)});
    return 2;
  }
  std::string& covered = half->second.covered;
  const bool fits = plain && at.axis == half->second.axis && total == half->second.array && Py_REFCNT(total) == 1 &&
                    PyArray_DESCR(as_array(total)) == PyArray_DESCR(as_array(g)) &&
                    std::find(covered.begin() + at.start, covered.begin() + at.stop, 1) == covered.begin() + at.stop;
  if (!fits || !sliced(as_array(total), key, form)) return finish(edge) ? 0 : -1;
  Ref part(made_view(as_array(total), form));
  if (!part) return -1;
  if (!same_shape(as_array(part.get()), as_array(g))) return finish(edge) ? 0 : -1;
  if (!copied(door, part.get(), g)) return -1;
  std::fill(covered.begin() + at.start, covered.begin() + at.stop, 1);
  return 1;
}

bool SideBySide::zeros(const Half& half) {
  const auto& covered = half.covered;
  for (auto from = std::find(covered.begin(), covered.end(), 0); from != covered.end();) {
    const auto to = std::find(from, covered.end(), 1);
    auto* array = as_array(half.array);
    Form form;
    form.ndim = PyArray_NDIM(array);
    std::copy_n(PyArray_DIMS(array), form.ndim, form.shape);
    std::copy_n(PyArray_STRIDES(array), form.ndim, form.strides);
    form.data = PyArray_BYTES(array) + (from - covered.begin()) * form.strides[half.axis];
    form.shape[half.axis] = to - from;
    Ref gap(made_view(array, form));
    if (!gap || !filled(half.door.get(), gap.get())) return false;
    from = std::find(to, covered.end(), 0);
  }
  return true;
}

bool SideBySide::finish(PyObject* node) {
  if (open_) {
    Ref more(PyObject_CallMethod(others_.get(), "finish", "O", node));
    if (!more) return false;
    open_ = more.get() == Py_True;
  }
  const auto found = halves_.find(node);
  if (found == halves_.end()) return true;
  const bool good = zeros(found->second);
  halves_.erase(found);
  return good;
}

bool SideBySide::finish_all() {
  if (open_) {
    open_ = false;
    Ref done(PyObject_CallMethod(others_.get(), "finish_all", nullptr));
    if (!done) return false;
  }
  for (const auto& [node, half] : halves_)
    if (!zeros(half)) return false;
  halves_.clear();
  return true;
}

}  // namespace tape
