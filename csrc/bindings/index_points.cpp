// index, index_put_into and nonzero: positions named by index arrays, of either sign; each is checked before anything is
// read or written.
#include <optional>
#include <utility>

#include "../core/fastcall.h"
#include "../kernels/index.h"
#include "index_checks.h"
#include "index_target.h"

namespace tg {
namespace {

using Offsets = std::vector<Index>;

// Offsets of every position of the axes named, the last fastest.
void spread(Offsets& offsets, Index size, Index stride) {
  Offsets grown(offsets.size() * size_t(size));
  Index* to = grown.data();
  for (Index base : offsets)
    for (Index i = 0; i < size; ++i) *to++ = base + i * stride;
  offsets.swap(grown);
}

// The shape that the indices' shapes broadcast to.
Shape common_shape(const char* op, const std::vector<View>& views) {
  Shape common;
  for (const View& v : views) {
    if (size_t(v.ndim) > common.size()) common.insert(common.begin(), size_t(v.ndim) - common.size(), 1);
    for (int k = 0; k < v.ndim; ++k) {
      Index& size = common[common.size() - size_t(v.ndim - k)];
      if (size == 1) size = v.shape[k];
      else if (v.shape[k] != 1 && v.shape[k] != size)
        throw py::value_error(std::string(op) + ": the indices' shapes do not broadcast: " + to_string(v.shape_vector()) +
                              " and " + to_string(common));
    }
  }
  return common;
}

// x[indices], taken apart: which axes of x stand before and after the points, and where they lie. That takes reading the
// indices, which locate() does, in the launch that moves the elements.
struct Selection {
  Selection(const char* op, const View& x, py::handle const* indices, size_t count, py::handle spec) : x(x), op(op) {
    if (!PyTuple_Check(spec.ptr()) || size_t(PyTuple_GET_SIZE(spec.ptr())) != count || count == 0)
      throw py::type_error(std::string(op) + ": needs one index array for each dimension in spec");
    bool taken[kMaxDims] = {};
    int last = -1;
    axes.resize(count);
    for (size_t k = 0; k < count; ++k) {
      axes[k] = checked_axis(op, py::cast<Index>(py::handle(PyTuple_GET_ITEM(spec.ptr(), Py_ssize_t(k)))), x);
      if (axes[k] <= last) throw py::value_error(std::string(op) + ": spec must name rising dimensions");
      taken[last = axes[k]] = true;
    }
    for (size_t k = 0; k < count; ++k) {
      views.push_back(view(indices[k], "index"));
      if (views[k].dtype != DType::Int64)
        throw py::type_error(std::string(op) + ": index is " + name_of(views[k].dtype) + ", expected int64");
    }
    common = common_shape(op, views);
    const bool together = axes[count - 1] - axes[0] == int(count) - 1;
    first = together ? axes[0] : 0;
    for (Index size : common) count_ *= size;
    for (const View& v : views) {
      held.push_back(count_ ? ready(v) : py::object());  // small beside what they name
      plain.push_back(count_ ? data_of<int64_t>(held.back()) : nullptr);
    }
    for (int k = 0; k < x.ndim; ++k) {
      if (taken[k]) continue;
      shape.push_back(x.shape[k]);
      kept.push_back(k);
    }
    shape.insert(shape.begin() + first, common.begin(), common.end());
    // the trailing axes that lie as in a contiguous array are read in runs
    const Index item = size_of(x.dtype);
    size_t end = kept.size();
    while (end > size_t(first) && !taken[x.ndim - 1] && x.strides[kept[end - 1]] == run * item &&
           kept[end - 1] == x.ndim - int(kept.size() - end) - 1)
      run *= x.shape[kept[--end]];
    runs_from = end;
    for (size_t k = 0; k < end; ++k)
      spread(k < size_t(first) ? befores : afters, x.shape[kept[k]], x.strides[kept[k]]);
  }

  // Where the points lie, by the indices' elements. Throws IndexError for one out of range.
  void locate() {
    points.assign(size_t(count_), 0);
    for (size_t k = 0; k < views.size(); ++k) add_index(views[k], plain[k], axes[k]);
  }
  Index moved() const { return Index(befores.size()) * count_ * Index(afters.size()) * run; }

  Points points_of(Index itemsize) const {
    return {Index(befores.size()), Index(points.size()), Index(afters.size()), run, itemsize,
            befores.data(), points.data(), afters.data()};
  }

  View x;
  Shape common, shape;    // of the indices, and of the result
  std::vector<int> kept;  // axes of x without an index
  size_t runs_from = 0;   // those from here on make up a run
  int first = 0;          // the place of the indices' axes in the result
  Index run = 1;
  Offsets befores{0}, points, afters{0};

 private:
  const char* op;
  Index count_ = 1;  // of the points
  std::vector<int> axes;
  std::vector<View> views;
  std::vector<py::object> held;  // the indices, contiguous
  std::vector<const int64_t*> plain;

  void add_index(const View& v, const int64_t* at, int axis) {
    const Index n = count_, size = x.shape[axis], stride = x.strides[axis];
    if (n == 0) return;
    const IndexRange range = range_of(at, v.size());
    check_range(op, range, size, axis);
    const Index up = range.low < 0 ? size : 0;
    const auto add = [&](Index m, int64_t i) { points[size_t(m)] += (i < 0 ? i + up : i) * stride; };
    if (v.size() == n) {
      for (Index m = 0; m < n; ++m) add(m, at[m]);
      return;
    }
    Offsets from{0};
    Index step = v.size();
    const size_t lead = common.size() - size_t(v.ndim);
    for (size_t k = 0; k < common.size(); ++k) {
      const Index own = k < lead ? 1 : v.shape[k - lead];
      step /= own;
      spread(from, common[k], own == 1 ? 0 : step);
    }
    for (Index m = 0; m < n; ++m) add(m, at[from[size_t(m)]]);
  }
};

// Index arrays along neighbouring dimensions of a contiguous array, which are one dimension then: slices of it, without a
// list of places.
struct Slabs {
  static bool fits(const View& x, size_t count, py::handle spec) {
    if (count == 0 || !x.contiguous() || !x.aligned() || !PyTuple_Check(spec.ptr()) || size_t(PyTuple_GET_SIZE(spec.ptr())) != count)
      return false;
    for (size_t k = 1; k < count; ++k)
      if (axis_of(spec, k) != axis_of(spec, 0) + Index(k)) return false;
    return count == 1 || (axis_of(spec, 0) >= 0 && axis_of(spec, count - 1) < x.ndim);
  }
  Slabs(const char* op, const View& x, py::handle const* indices, size_t count, py::handle spec)
      : op(op), axis(checked_axis(op, axis_of(spec, 0), x)), lines(x, axis) {
    std::vector<View> views;
    for (size_t k = 0; k < count; ++k) {
      views.push_back(view(indices[k], "index"));
      if (views[k].dtype != DType::Int64)
        throw py::type_error(std::string(op) + ": index is " + name_of(views[k].dtype) + ", expected int64");
    }
    common = common_shape(op, views);
    for (Index size : common) n *= size;
    for (size_t k = 0; k < count; ++k) {
      held.push_back(ready(views[k]));
      Named one{data_of<int64_t>(held[k]), views[k].size(), x.shape[axis + int(k)], Shape(common.size(), 0)};
      Index step = 1;
      for (int d = views[k].ndim; d-- > 0; step *= views[k].shape[d])
        if (views[k].shape[d] > 1) one.strides[common.size() - size_t(views[k].ndim - d)] = step;
      named.push_back(std::move(one));
      if (k == 0) continue;
      lines.length *= x.shape[axis + int(k)];
      lines.inner /= std::max<Index>(1, x.shape[axis + int(k)]);
    }
    const int behind = axis + int(count);
    if (lines.length == 0) {  // then nothing was there to divide
      lines.inner = 1;
      for (int k = behind; k < x.ndim; ++k) lines.inner *= x.shape[k];
    }
    shape.assign(x.shape, x.shape + axis);
    shape.insert(shape.end(), common.begin(), common.end());
    shape.insert(shape.end(), x.shape + behind, x.shape + x.ndim);
  }

  // Calls use(numbers of slabs, none of them negative) as a launch, which throws IndexError for one out of range.
  template <class Use>
  void launch(Index work, Use use) const {
    tg::launch(work, [use, n = n, op = op, axis = axis, common = common, named = named] {
      if (n == 0) return use(static_cast<const int64_t*>(nullptr));
      bool negative = false;
      for (size_t k = 0; k < named.size(); ++k) {
        const IndexRange range = range_of(named[k].from, named[k].n);
        check_range(op, range, named[k].length, axis + int(k));
        negative |= range.low < 0;
      }
      if (named.size() == 1 && !negative) return use(named[0].from);
      Scratch<int64_t> counted(n);
      for (size_t k = 0; k < named.size(); ++k) number_slabs(int(common.size()), common.data(), named[k].strides.data(), named[k].length, k == 0, named[k].from, counted.data());
      use(static_cast<const int64_t*>(counted.data()));
    });
  }

  const char* op;
  int axis;  // the first one
  Lines lines;
  Index n = 1;  // slabs that are named
  Shape common, shape;  // of the indices, and of the result

 private:
  struct Named {
    const int64_t* from;
    Index n, length;  // of the indices, and of their axis
    Shape strides;    // of the indices, as their common shape sees them
  };
  static Index axis_of(py::handle spec, size_t k) { return py::cast<Index>(py::handle(PyTuple_GET_ITEM(spec.ptr(), Py_ssize_t(k)))); }

  std::vector<Named> named;
  std::vector<py::object> held;  // the indices, contiguous
};

py::object index_of(py::handle array, py::handle const* indices, size_t count, py::handle spec) {
  const View x = view(array, "index");
  if (Slabs::fits(x, count, spec)) {
    const Slabs s("index", x, indices, count, spec);
    py::object out = empty(x.dtype, s.shape);
    char* to = data_of<char>(out);
    const Index n = s.n, slab = s.lines.inner * size_of(x.dtype);
    s.launch(s.lines.outer * n * s.lines.inner, [=, lines = s.lines, from = x.data](const int64_t* at) {
      select_slabs(lines.outer, lines.length, n, slab, from, at, to);
    });
    return out;
  }
  Selection s("index", x, indices, count, spec);
  py::object out = empty(x.dtype, s.shape);
  char* to = data_of<char>(out);
  launch(s.moved(), [to, item = size_of(x.dtype), s = std::move(s)]() mutable {
    s.locate();
    read_points(s.points_of(item), s.x.data, to);
  });
  return out;
}

// Where the broadcast value of each point lies.
struct Values {
  Values(const Selection& s, const View& v) {
    const size_t n = s.shape.size();
    if (size_t(v.ndim) > n) throw py::value_error("index_put: the value has more dimensions than what it is written to");
    Index strides[kMaxDims];
    for (size_t k = 0; k < n; ++k) {
      const Index own = k + size_t(v.ndim) < n ? 1 : v.shape[k + size_t(v.ndim) - n];
      if (own != 1 && own != s.shape[k])
        throw py::value_error("index_put: a value of shape " + to_string(v.shape_vector()) + " does not broadcast to " +
                              to_string(s.shape));
      strides[k] = own == 1 ? 0 : v.strides[k + size_t(v.ndim) - n];
    }
    const size_t first = size_t(s.first), behind = first + s.common.size();
    const size_t runs = behind + (s.runs_from - first);  // axes of the result that a run is made of
    for (size_t k = 0; k < first; ++k) spread(befores, s.shape[k], strides[k]);
    for (size_t k = first; k < behind; ++k) spread(points, s.shape[k], strides[k]);
    for (size_t k = behind; k < runs; ++k) spread(afters, s.shape[k], strides[k]);
    step = 0;
    bool several = false;
    for (size_t k = runs; k < n; ++k) {
      if (s.shape[k] == 1) continue;
      // one step from item to item, or the run can't be read as one
      if (!std::exchange(several, true)) step = strides[k];
      else if (step == strides[k] * s.shape[k]) step = strides[k];
      else plain = false;
    }
  }
  Offsets befores{0}, points{0}, afters{0};
  Index step;
  bool plain = true;
};

py::object index_put_into_(py::handle array, py::handle value_, py::handle const* indices, size_t count, py::handle spec,
                           bool accumulate) {
  const View x = view(array, "index_put");
  require_writable(x, "index_put: the array");
  View v = view(value_, "index_put: value");
  require_dtype("index_put", "value", v, x.dtype);
  const DType compute = accumulate ? add_compute(x.dtype) : x.dtype;
  if (compute != x.dtype) {  // added in a wider type
    Target wide(x, compute, true);
    const py::object target = wide.made(), value = ready(v, compute);
    index_put_into_(target, value, indices, count, spec, true);
    return wide.finish();
  }
  if (accumulate && v.contiguous() && v.aligned() && Slabs::fits(x, count, spec)) {
    const Slabs s("index_put", x, indices, count, spec);
    if (s.shape == v.shape_vector()) {
      visit_add(compute, [&](auto t) {
        using T = decltype(t);
        T* to = x.as<T>();
        const T* from = v.as<const T>();
        s.launch(v.size(), [=, lines = s.lines, n = s.n](const int64_t* at) {
          combine_slabs(Combine::add, lines.outer, lines.length, n, lines.inner, to, at, from);
        });
      });
      return py::reinterpret_borrow<py::object>(x.array);
    }
  }
  Selection s("index_put", x, indices, count, spec);
  py::object spread_value;
  auto values = std::make_unique<Values>(s, v);
  if (!values->plain) {  // written out, so that runs have one step
    spread_value = empty(x.dtype, s.shape);
    View full = view(spread_value), all = full;
    npy_intp from[kMaxDims];
    for (int k = 0; k < full.ndim; ++k) {
      const int own = k - (full.ndim - v.ndim);
      from[k] = own < 0 || v.shape[own] == 1 ? 0 : v.strides[own];
    }
    all.data = v.data, all.strides = from;
    launch(full.size(), [copy = Copy(all, full.data, full.strides)] { copy.run(); });
    v = full;
    values = std::make_unique<Values>(s, v);
  }
  // places are counted from the lowest byte of the array
  Index below = 0, span = size_of(x.dtype);
  for (int k = 0; k < x.ndim; ++k) {
    const Index reach = (x.shape[k] - 1) * x.strides[k];
    if (reach < 0) below += reach;
    span += std::abs(reach);
  }
  const auto same = py::reinterpret_borrow<py::object>(x.array);
  if (!x.size()) {
    launch(0, [s = std::move(s)]() mutable { s.locate(); });  // for its errors
    return same;
  }
  for (Index& offset : s.befores) offset -= below;
  launch(s.moved(), [=, s = std::move(s), values = std::shared_ptr<Values>(std::move(values)), source = v.data,
                     data = x.data + below, item = size_of(x.dtype)]() mutable {
    s.locate();
    const Points p = s.points_of(item);
    const PointValues from{source, values->befores.data(), values->points.data(), values->afters.data(), values->step};
    if (!accumulate) write_points(p, from, data, span);
    else visit_add(compute, [&](auto t) { add_points<decltype(t)>(p, from, data, span); });
  });
  return same;
}

py::object nonzero_(py::handle array) {
  const View x = view(array, "nonzero");
  const py::object source = ready(x);
  const Index n = x.size();
  const char* from = data_of<char>(source);
  std::optional<NonZero> found;
  {
    MaybeRelease unlock(n);
    found.emplace(x.dtype, from, n);
  }
  const Shape shape = x.shape_vector();
  py::object out = empty(DType::Int64, Shape{found->count(), x.ndim});
  int64_t* to = data_of<int64_t>(out);
  MaybeRelease unlock(n);
  found->write(x.ndim, shape.data(), to);
  return out;
}

// As nonzero, of as many places as were found before, when the shape of the result had to be known.
py::object positions_(py::handle array, py::handle expected) {
  const View x = view(array, "positions");
  const py::object source = ready(x);
  const Index n = x.size(), count = py::cast<Index>(expected);
  if (count < 0 || count > n) throw py::value_error("positions: count is " + std::to_string(count) + ", there are " + std::to_string(n) + " elements");
  py::object out = empty(DType::Int64, Shape{count, x.ndim});
  launch(n, [type = x.dtype, from = data_of<char>(source), n, count, shape = x.shape_vector(), to = data_of<int64_t>(out)] {
    const NonZero found(type, from, n);
    if (found.count() != count)
      throw std::invalid_argument("positions: " + std::to_string(count) + " elements are expected not to be zero, " +
                                  std::to_string(found.count()) + " are not");
    found.write(int(shape.size()), shape.data(), to);
  });
  return out;
}

// f(x, *indices, spec=...), f(x, value, *indices, spec=..., accumulate=...): the positional arguments and the two named.
struct Called {
  Called(const char* op, PyObject* const* args, Py_ssize_t count, PyObject* keywords) : count(size_t(count)) {
    for (Py_ssize_t i = 0; i < count; ++i) given[i < 70 ? i : 69] = args[i];
    if (count > 70) throw py::type_error(std::string(op) + ": too many index arrays");
    const Py_ssize_t named = keywords ? PyTuple_GET_SIZE(keywords) : 0;
    for (Py_ssize_t k = 0; k < named; ++k) {
      PyObject* name = PyTuple_GET_ITEM(keywords, k);
      if (PyUnicode_CompareWithASCIIString(name, "spec") == 0) spec = args[count + k];
      else if (PyUnicode_CompareWithASCIIString(name, "accumulate") == 0) accumulate = args[count + k];
      else throw py::type_error(std::string(op) + "() has no argument '" + py::cast<std::string>(py::handle(name)) + "'");
    }
    if (!spec) throw py::type_error(std::string(op) + "() needs the argument 'spec'");
  }
  py::handle given[70];
  size_t count;
  py::handle spec, accumulate;
};

PyObject* call_index(PyObject*, PyObject* const* args, Py_ssize_t count, PyObject* keywords) {
  return guarded([&] {
    const Called c("index", args, count, keywords);
    if (c.count < 2) throw py::type_error("index() needs an array and at least one index");
    return index_of(c.given[0], c.given + 1, c.count - 1, c.spec).release().ptr();
  });
}

template <bool into>
PyObject* call_index_put(PyObject*, PyObject* const* args, Py_ssize_t count, PyObject* keywords) {
  return guarded([&] {
    const Called c("index_put", args, count, keywords);
    if (c.count < 3) throw py::type_error("index_put() needs an array, a value and at least one index");
    const py::object target = into ? py::reinterpret_borrow<py::object>(c.given[0]) : contiguous_copy(view(c.given[0], "index_put"));
    return index_put_into_(target, c.given[1], c.given + 2, c.count - 2, c.spec, flag(c.accumulate)).release().ptr();
  });
}

PyMethodDef fast_index = {"index", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(call_index)),
                          METH_FASTCALL | METH_KEYWORDS, nullptr};
PyMethodDef fast_index_put = {"index_put", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(call_index_put<false>)),
                              METH_FASTCALL | METH_KEYWORDS, nullptr};
PyMethodDef fast_index_put_into = {"index_put_into",
                                   reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(call_index_put<true>)),
                                   METH_FASTCALL | METH_KEYWORDS, nullptr};

}  // namespace

FAST_BINDING(nonzero, 1, "x") { return nonzero_(a[0]); }
FAST_BINDING(positions, 2, "x", "count") { return positions_(a[0], a[1]); }

TG_BINDINGS(index_points) {
  for (PyMethodDef* each : {&fast_index, &fast_index_put, &fast_index_put_into, &fast_nonzero,
                            &fast_positions}) add_fast(m, *each);
}

}  // namespace tg
