// gather, scatter and its kin, index_select, index_add, embedding and its gradient, bincount. Indices may not be negative,
// as in PyTorch; every one is checked before anything is written.
#include "../kernels/index.h"

#include "../core/fastcall.h"
#include "index_checks.h"
#include "index_target.h"

namespace tg {
namespace {

py::object plain_index(const char* op, const View& index) {
  if (index.dtype != DType::Int64 && index.dtype != DType::Int32)
    throw py::type_error(std::string(op) + ": index is " + name_of(index.dtype) + ", expected int64 (or int32)");
  return ready(index, DType::Int64);
}

// The indices as contiguous int64, all in [0, limit).
py::object checked_index(const char* op, const View& index, Index limit) {
  py::object plain = plain_index(op, index);
  const Index n = index.size();
  const int64_t* at = data_of<int64_t>(plain);
  launch(0, [=] {
    if (!all_within(at, n, limit)) out_of_range(op, at, n, limit);
  });
  return plain;
}

// Shapes as gather and scatter see them: a 0-d array is one of length 1.
struct Axes {
  Shape data, index, source;
  int axis;

  Axes(const char* op, const View& x, const View& i, const View* src, Index dim)
      : data(shape_of(x)), index(shape_of(i)), source(src ? shape_of(*src) : shape_of(i)) {
    axis = x.ndim == 0 && dim == 0 ? 0 : checked_axis(op, dim, x);
    bool fits = data.size() == index.size() && index.size() == source.size();
    for (size_t k = 0; fits && k < index.size(); ++k)
      fits = (int(k) == axis || index[k] <= data[k]) && index[k] <= source[k];
    Index count = 1;
    for (Index n : index) count *= n;
    if (!fits && (count > 0 || data.size() != index.size()))
      throw py::value_error(std::string(op) + ": index has shape " + to_string(index) + ", x " + to_string(data) +
                            (src ? ", src " + to_string(source) : "") + "; index must have x's number of axes and be no larger " +
                            "along every axis" + (src ? " (than src along all of them, than x" : " (") + " but dim " +
                            std::to_string(axis) + ")");
  }

  static Shape shape_of(const View& v) { return v.ndim ? v.shape_vector() : Shape{1}; }
  GatherShape shape() const { return {int(data.size()), axis, index.data(), data.data(), source.data()}; }
  Index limit() const { return data[size_t(axis)]; }

  // Whether the index repeats one along all axes but `axis`, so that it names slabs as wholes.
  bool names_slabs(const View& i) const {
    if (i.ndim < 2 || i.size() == 0 || i.dtype != DType::Int64 || !i.aligned() || source[size_t(axis)] != index[size_t(axis)])
      return false;
    for (size_t k = 0; k < index.size(); ++k)
      if (int(k) != axis && ((i.strides[k] && index[k] > 1) || data[k] != index[k] || source[k] != index[k])) return false;
    return true;
  }
  // use(that one index, outer, length, count, inner): of the slabs.
  template <class Use>
  void by_slabs(const char* op, const View& i, const Lines& lines, Use use) const {
    launch(i.size(), [=, from = i.data, step = i.strides[axis], count = i.shape[axis]] {
      Scratch<int64_t> at(count);
      for (Index m = 0; m < count; ++m) at[m] = *reinterpret_cast<const int64_t*>(from + m * step);
      if (!all_within(at.data(), count, lines.length)) out_of_range(op, at.data(), count, lines.length);
      use(at.data(), lines.outer, lines.length, count, lines.inner);
    });
  }
};

py::object gather_(py::handle array, py::handle index_, Index dim) {
  const View x = view(array, "gather"), i = view(index_, "gather: index");
  Axes axes("gather", x, i, nullptr, dim);
  const py::object source = ready(x);
  py::object out = empty(x.dtype, i.shape_vector());
  const char* from = data_of<char>(source);
  if (axes.names_slabs(i)) {
    axes.by_slabs("gather", i, Lines(x, axes.axis), [=, to = data_of<char>(out), item = size_of(x.dtype)](
        const int64_t* at, Index outer, Index length, Index count, Index inner) {
      select_slabs(outer, length, count, inner * item, from, at, to);
    });
    return out;
  }
  const py::object index = plain_index("gather", i);
  const int64_t* at = data_of<int64_t>(index);
  char* to = data_of<char>(out);
  if (const Index n = i.size())
    launch(n, [=, item = size_of(x.dtype), axes = std::move(axes)] {
      if (!gather_items(axes.shape(), item, from, at, to)) out_of_range("gather", at, n, axes.limit());
    });
  return out;
}

// The arguments of scatter and its kin, checked.
struct Scattered {
  // What is written into must not be touched before all indices are known to be in range (`into`).
  Scattered(const char* op, py::handle array, py::handle index_, py::handle src_, py::handle dim, bool adds, bool into)
      : op(op), x(view(array, op)), i(view(index_, "scatter: index")), src(view(src_, "scatter: src")),
        axes(op, x, i, &src, py::cast<Index>(dim)), compute(adds ? add_compute(x.dtype) : x.dtype) {
    require_dtype(op, "src", src, x.dtype);
    slabs = axes.names_slabs(i);
    if (!slabs) index = into ? checked_index(op, i, axes.limit()) : plain_index(op, i);
    source = ready(src, compute);
  }
  // Runs write(at, axes), which says whether all indices were in range.
  template <class Write>
  void launch(Write write) const {
    const Index n = i.size();
    if (n)
      tg::launch(n, [write, n, op = op, at = at(), axes = axes] {
        if (!write(at, axes.shape())) out_of_range(op, at, n, axes.limit());
      });
  }
  const int64_t* at() const { return data_of<int64_t>(index); }

  const char* op;
  View x, i, src;
  Axes axes;
  DType compute;
  bool slabs;
  py::object index, source;
};

// `into`: over the memory of x, which is returned.
py::object scatter_(const Arguments<4>& a, bool into) {
  const Scattered s("scatter", a[0], a[1], a[2], a[3], false, into);
  Target to(s.x, s.compute, into);
  char* data = to.data<char>();
  const char* from = data_of<char>(s.source);
  const Index item = size_of(s.compute);
  if (s.slabs) {
    s.axes.by_slabs("scatter", s.i, Lines(s.x, s.axes.axis), [=](const int64_t* at, Index outer, Index length, Index count, Index inner) {
      write_slabs(outer, length, count, inner * item, data, at, from);
    });
    return to.finish();
  }
  s.launch([=](const int64_t* at, const GatherShape& shape) { return scatter_items(shape, into, item, data, at, from); });
  return to.finish();
}

py::object scatter_combine_(const char* op, Combine how, const Arguments<4>& a, bool into) {
  const Scattered s(op, a[0], a[1], a[2], a[3], true, into);
  if (how != Combine::add && is_complex(s.compute))
    throw py::type_error(std::string(op) + ": this kernel takes no complex numbers");
  Target to(s.x, s.compute, into);
  visit_add(s.compute, [&](auto t) {
    using T = decltype(t);
    T* data = to.data<T>();
    const T* from = data_of<T>(s.source);
    if (s.slabs)
      return s.axes.by_slabs(op, s.i, Lines(s.x, s.axes.axis), [=](const int64_t* at, Index outer, Index length, Index count, Index inner) {
        combine_slabs(how, outer, length, count, inner, data, at, from);
      });
    s.launch([=](const int64_t* at, const GatherShape& shape) { return scatter_combine(how, shape, into, data, at, from); });
  });
  return to.finish();
}

Combine combine_named(py::handle name) {
  const std::string text = py::cast<std::string>(name);
  if (text == "prod") return Combine::multiply;
  if (text == "amax") return Combine::largest;
  if (text == "amin") return Combine::smallest;
  throw py::value_error("scatter_reduce: reduce must be 'prod', 'amax' or 'amin', got '" + text + "'");
}

py::object index_select_(py::handle array, py::handle index_, Index dim) {
  const View x = view(array, "index_select"), i = view(index_, "index_select: index");
  require_vector("index_select", i);
  const int axis = x.ndim == 0 && dim == 0 ? 0 : checked_axis("index_select", dim, x);
  const Lines lines(x, axis);
  const py::object index = checked_index("index_select", i, lines.length);
  const Index count = i.size();
  Shape shape = x.shape_vector();
  if (x.ndim) shape[size_t(axis)] = count;
  else if (count != 1) throw py::value_error("index_select: a 0-d array takes exactly one index");
  const py::object source = ready(x);
  py::object out = empty(x.dtype, shape);
  const char* from = data_of<char>(source);
  const int64_t* at = data_of<int64_t>(index);
  char* to = data_of<char>(out);
  const Index slab = lines.inner * size_of(x.dtype);
  launch(lines.outer * count * lines.inner, [=] { select_slabs(lines.outer, lines.length, count, slab, from, at, to); });
  return out;
}

py::object index_add_(const Arguments<4>& a, bool into) {
  const View x = view(a[0], "index_add"), i = view(a[1], "index_add: index"), src = view(a[2], "index_add: src");
  const Index dim = py::cast<Index>(a[3]);
  require_vector("index_add", i);
  require_dtype("index_add", "src", src, x.dtype);
  const int axis = x.ndim == 0 && dim == 0 ? 0 : checked_axis("index_add", dim, x);
  const Lines lines(x, axis);
  Shape expected = x.shape_vector();
  if (x.ndim) expected[size_t(axis)] = i.size();
  require_shape("index_add", "src", src, expected);
  const py::object index = checked_index("index_add", i, lines.length);
  const DType compute = add_compute(x.dtype);
  const py::object source = ready(src, compute);
  Target to(x, compute, into);
  const int64_t* at = data_of<int64_t>(index);
  visit_add(compute, [&](auto t) {
    using T = decltype(t);
    const T* from = data_of<T>(source);
    T* data = to.data<T>();
    launch(src.size(), [=, count = i.size()] {
      combine_slabs(Combine::add, lines.outer, lines.length, count, lines.inner, data, at, from);
    });
  });
  return to.finish();
}

py::object embedding_(py::handle weight, py::handle index_) {
  const View w = view(weight, "embedding: weight"), i = view(index_, "embedding: index");
  if (w.ndim != 2)
    throw py::value_error("embedding: weight has shape " + to_string(w.shape_vector()) + ", expected (rows, width)");
  const py::object index = checked_index("embedding", i, w.shape[0]);
  Shape shape = i.shape_vector();
  shape.push_back(w.shape[1]);
  const py::object source = ready(w);
  py::object out = empty(w.dtype, shape);
  const char* from = data_of<char>(source);
  const int64_t* at = data_of<int64_t>(index);
  char* to = data_of<char>(out);
  const Index count = i.size(), rows = w.shape[0], width = w.shape[1], item = size_of(w.dtype);
  launch(count * width, [=] { select_slabs(1, rows, count, width * item, from, at, to); });
  return out;
}

py::object embedding_backward(py::handle g_, py::handle index_, Index num_embeddings, py::handle padding_idx) {
  const char* op = "embedding_backward";
  const View g = view(g_, op), i = view(index_, op);
  const Shape leading = i.shape_vector();
  Shape expected = leading;
  expected.push_back(g.ndim ? g.shape[g.ndim - 1] : 0);
  require_shape(op, "g", g, expected);
  if (num_embeddings < 0) throw py::value_error(std::string(op) + ": num_embeddings is negative");
  const Index width = expected.back();
  Index skip = padding_idx.is_none() ? -1 : py::cast<Index>(padding_idx);
  if (!padding_idx.is_none() && (skip < -num_embeddings || skip >= num_embeddings))
    throw py::index_error(std::string(op) + ": padding_idx " + std::to_string(skip) + " is out of range for " +
                          std::to_string(num_embeddings) + " rows");
  if (!padding_idx.is_none() && skip < 0) skip += num_embeddings;
  const py::object index = checked_index(op, i, num_embeddings);
  const DType compute = add_compute(g.dtype);
  const py::object source = ready(g, compute);
  py::object out = zeros(compute, {num_embeddings, width});
  const int64_t* at = data_of<int64_t>(index);
  visit_add(compute, [&](auto t) {
    using T = decltype(t);
    const T* from = data_of<T>(source);
    T* to = data_of<T>(out);
    launch(g.size(), [=, count = i.size()] { combine_slabs(Combine::add, 1, num_embeddings, count, width, to, at, from, skip); });
  });
  return compute == g.dtype ? out : ready_as(out, g.dtype);
}

// Sums or means of rows of a float32 or float64 table by bags, which end where the next begins.
py::object bag_rows_(py::handle weight, py::handle index_, py::handle ends_, bool mean) {
  const View w = view(weight, "bag_rows"), i = view(index_, "bag_rows: index"), e = view(ends_, "bag_rows: ends");
  if (w.ndim != 2 || i.ndim != 1 || e.ndim != 1 || e.shape[0] < 1)
    throw py::value_error("bag_rows: needs a table, an index and ends of one dimension");
  require_dtype("bag_rows", "ends", e, DType::Int64);
  const py::object index = checked_index("bag_rows", i, w.shape[0]), ends = ready(e), source = ready(w);
  const Index bags = e.shape[0] - 1;
  const int64_t *at = data_of<int64_t>(index), *to = data_of<int64_t>(ends);
  const Index count = i.size(), width = w.shape[1];
  launch(0, [=] {
    for (Index b = 0; b <= bags; ++b)
      if (to[b] < (b ? to[b - 1] : 0) || to[b] > count)
        throw py::value_error("bag_rows: ends must not fall, nor exceed the number of indices");
  });
  py::object out = empty(w.dtype, Shape{bags, width});
  visit_real("bag_rows", w.dtype, [&](auto t) {
    using T = typename decltype(t)::value;
    RowSums<T> s{};
    s.bags = bags, s.heads = 1, s.width = width, s.length = w.shape[0], s.count = count;
    s.x = data_of<T>(source), s.index = at, s.ends = to, s.mean = mean, s.y = data_of<T>(out);
    launch(count * width, [=] { sum_rows(s); });
  });
  return out;
}

py::object bincount_(py::handle x_, py::handle weights_, py::handle minlength_) {
  const View x = view(x_, "bincount");
  if (x.ndim != 1) throw py::value_error("bincount: needs one dimension, got shape " + to_string(x.shape_vector()));
  const Index least = py::cast<Index>(minlength_), n = x.size();
  if (least < 0) throw py::value_error("bincount: minlength must not be negative, got " + std::to_string(least));
  const py::object values = ready(x, DType::Int64);
  const int64_t* at = data_of<int64_t>(values);
  IndexRange range{0, -1};
  if (n) range = range_of(at, n);
  if (range.low < 0) throw py::index_error("bincount: the input has a negative element, " + std::to_string(range.low) + ".");
  if (range.high == INT64_MAX) throw std::bad_alloc();
  const Index bins = std::max(least, range.high + 1);
  if (weights_.is_none()) {
    py::object out = empty(DType::Int64, Shape{bins});
    int64_t* to = data_of<int64_t>(out);
    MaybeRelease unlock(n + bins);
    count_values(n, at, bins, to);
    return out;
  }
  const View w = view(weights_, "bincount: weights");
  require_shape("bincount", "weights", w, Shape{n});
  const DType compute = w.dtype == DType::Float32 ? DType::Float32 : DType::Float64;
  if (!is_floating(w.dtype)) throw py::type_error("bincount: this kernel takes floating weights");
  const py::object weights = ready(w, compute);
  py::object out = empty(compute, Shape{bins});
  visit_real("bincount", compute, [&](auto t) {
    using T = typename decltype(t)::value;
    const T* from = data_of<T>(weights);
    T* to = data_of<T>(out);
    MaybeRelease unlock(n + bins);
    add_weights(n, at, bins, from, to);
  });
  return out;
}

}  // namespace

FAST_BINDING(gather, 3, "x", "index", "dim") { return gather_(a[0], a[1], py::cast<Index>(a[2])); }
FAST_BINDING(index_select, 3, "x", "index", "dim") { return index_select_(a[0], a[1], py::cast<Index>(a[2])); }
FAST_BINDING(embedding, 2, "weight", "index") { return embedding_(a[0], a[1]); }
FAST_BINDING(scatter, 4, "x", "index", "src", "dim") { return scatter_(a, false); }
FAST_BINDING(scatter_into, 4, "x", "index", "src", "dim") { return scatter_(a, true); }
FAST_BINDING(scatter_add, 4, "x", "index", "src", "dim") {
  return scatter_combine_("scatter_add", Combine::add, a, false);
}
FAST_BINDING(scatter_add_into, 4, "x", "index", "src", "dim") {
  return scatter_combine_("scatter_add", Combine::add, a, true);
}
FAST_BINDING(scatter_reduce, 5, "x", "index", "src", "dim", "reduce") {
  return scatter_combine_("scatter_reduce", combine_named(a[4]), {a[0], a[1], a[2], a[3]}, false);
}
FAST_BINDING(scatter_reduce_into, 5, "x", "index", "src", "dim", "reduce") {
  return scatter_combine_("scatter_reduce", combine_named(a[4]), {a[0], a[1], a[2], a[3]}, true);
}
FAST_BINDING(index_add, 4, "x", "index", "src", "dim") { return index_add_(a, false); }
FAST_BINDING(index_add_into, 4, "x", "index", "src", "dim") { return index_add_(a, true); }
FAST_BINDING(bincount, 3, "x", "weights", "minlength") { return bincount_(a[0], a[1], a[2]); }

FAST_BINDING(bag_rows, 4, "weight", "index", "ends", "mean") { return bag_rows_(a[0], a[1], a[2], flag(a[3])); }

TG_BINDINGS(index) {
  for (PyMethodDef* each : {&fast_gather, &fast_index_select, &fast_embedding, &fast_scatter, &fast_scatter_into,
                            &fast_scatter_add, &fast_scatter_add_into, &fast_scatter_reduce, &fast_scatter_reduce_into,
                            &fast_index_add, &fast_index_add_into, &fast_bincount, &fast_bag_rows})
    add_fast(m, *each);
  m.def("embedding_backward", embedding_backward, py::arg("g"), py::arg("index"), py::arg("num_embeddings"),
        py::arg("padding_idx") = py::none());
}

}  // namespace tg
