// gather, scatter, scatter_add, index_select, index_add, embedding and its gradient. Indices may not be negative, as in
// PyTorch; every one is checked before anything is written.
#include "../kernels/index.h"

#include "lines.h"

namespace tg {
namespace {

// The indices as contiguous int64, all in [0, limit).
py::object checked_index(const char* op, const View& index, Index limit) {
  if (index.dtype != DType::Int64 && index.dtype != DType::Int32)
    throw py::type_error(std::string(op) + ": index is " + name_of(index.dtype) + ", expected int64 (or int32)");
  py::object plain = ready(index, DType::Int64);
  const Index n = index.size();
  if (n == 0) return plain;
  const IndexRange range = range_of(data_of<int64_t>(plain), n);
  if (range.low < 0 || range.high >= limit)
    throw py::index_error(std::string(op) + ": index " + std::to_string(range.low < 0 ? range.low : range.high) +
                          " is out of range for an axis of length " + std::to_string(limit) +
                          (limit ? "; valid: 0 to " + std::to_string(limit - 1) : ""));
  return plain;
}

// A private contiguous copy, in the type additions are done in.
py::object copy_for_writing(const View& x, DType type) {
  py::object made = ready(x, type);
  if (!made.is(py::reinterpret_borrow<py::object>(x.array))) return made;
  py::object out = empty(type, x.shape_vector());
  std::memcpy(data_of<char>(out), data_of<char>(made), size_t(x.size() * size_of(type)));
  return out;
}

// Integers add in uint64, where wrapping is defined; narrow floats in float.
DType add_compute(DType type) {
  if (is_complex(type) || type == DType::Float32 || type == DType::Float64) return type;
  return is_narrow_float(type) ? DType::Float32 : DType::Int64;
}

template <class F>
void visit_add(DType type, F f) {
  switch (type) {
    case DType::Float32: return f(float{});
    case DType::Float64: return f(double{});
    case DType::Complex64: return f(c64{});
    case DType::Complex128: return f(c128{});
    default: return f(uint64_t{});
  }
}

// Shapes as gather and scatter see them: a 0-d array is one of length 1.
struct Axes {
  Shape data, index, source;
  GatherShape shape;

  Axes(const char* op, const View& x, const View& i, const View* src, Index dim)
      : data(shape_of(x)), index(shape_of(i)), source(src ? shape_of(*src) : shape_of(i)) {
    const int axis = x.ndim == 0 && dim == 0 ? 0 : checked_axis(op, dim, x);
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
    shape = {int(data.size()), axis, index.data(), data.data(), source.data()};
  }
  Axes(const Axes&) = delete;
  Axes& operator=(const Axes&) = delete;

  static Shape shape_of(const View& v) { return v.ndim ? v.shape_vector() : Shape{1}; }
  Index limit() const { return data[size_t(shape.dim)]; }
};

py::object gather(py::handle array, py::handle index_, Index dim) {
  const View x = view(array, "gather"), i = view(index_, "gather: index");
  const Axes axes("gather", x, i, nullptr, dim);
  const py::object index = checked_index("gather", i, axes.limit());
  const py::object source = ready(x);
  py::object out = empty(x.dtype, i.shape_vector());
  const char* from = data_of<char>(source);
  const int64_t* at = data_of<int64_t>(index);
  char* to = data_of<char>(out);
  MaybeRelease unlock(i.size());
  if (i.size()) gather_items(axes.shape, size_of(x.dtype), from, at, to);
  return out;
}

py::object scatter(py::handle array, py::handle index_, py::handle src_, Index dim) {
  const View x = view(array, "scatter"), i = view(index_, "scatter: index"), src = view(src_, "scatter: src");
  require_dtype("scatter", "src", src, x.dtype);
  const Axes axes("scatter", x, i, &src, dim);
  const py::object index = checked_index("scatter", i, axes.limit());
  const py::object source = ready(src);
  py::object out = copy_for_writing(x, x.dtype);
  const char* from = data_of<char>(source);
  const int64_t* at = data_of<int64_t>(index);
  char* to = data_of<char>(out);
  MaybeRelease unlock(i.size());
  if (i.size()) scatter_items(axes.shape, size_of(x.dtype), to, at, from);
  return out;
}

py::object scatter_add_(py::handle array, py::handle index_, py::handle src_, Index dim) {
  const View x = view(array, "scatter_add"), i = view(index_, "scatter_add: index"), src = view(src_, "scatter_add: src");
  require_dtype("scatter_add", "src", src, x.dtype);
  const Axes axes("scatter_add", x, i, &src, dim);
  const py::object index = checked_index("scatter_add", i, axes.limit());
  const DType compute = add_compute(x.dtype);
  const py::object source = ready(src, compute);
  py::object out = copy_for_writing(x, compute);
  if (i.size()) {
    const int64_t* at = data_of<int64_t>(index);
    visit_add(compute, [&](auto t) {
      using T = decltype(t);
      const T* from = data_of<T>(source);
      T* to = data_of<T>(out);
      MaybeRelease unlock(i.size());
      scatter_add(axes.shape, to, at, from);
    });
  }
  return compute == x.dtype ? out : ready_as(out, x.dtype);
}

void require_vector(const char* op, const View& index) {
  if (index.ndim > 1)
    throw py::value_error(std::string(op) + ": index has shape " + to_string(index.shape_vector()) + ", expected one axis");
}

py::object index_select(py::handle array, py::handle index_, Index dim) {
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
  MaybeRelease unlock(lines.outer * count * lines.inner);
  select_slabs(lines.outer, lines.length, count, slab, from, at, to);
  return out;
}

py::object index_add(py::handle array, py::handle index_, py::handle src_, Index dim) {
  const View x = view(array, "index_add"), i = view(index_, "index_add: index"), src = view(src_, "index_add: src");
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
  py::object out = copy_for_writing(x, compute);
  const int64_t* at = data_of<int64_t>(index);
  visit_add(compute, [&](auto t) {
    using T = decltype(t);
    const T* from = data_of<T>(source);
    T* to = data_of<T>(out);
    MaybeRelease unlock(src.size());
    add_slabs(lines.outer, lines.length, i.size(), lines.inner, to, at, from, -1);
  });
  return compute == x.dtype ? out : ready_as(out, x.dtype);
}

py::object embedding(py::handle weight, py::handle index_) {
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
  const Index count = i.size();
  MaybeRelease unlock(count * w.shape[1]);
  select_slabs(1, w.shape[0], count, w.shape[1] * size_of(w.dtype), from, at, to);
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
    MaybeRelease unlock(g.size());
    add_slabs(1, num_embeddings, i.size(), width, to, at, from, skip);
  });
  return compute == g.dtype ? out : ready_as(out, g.dtype);
}

}  // namespace

TG_BINDINGS(index) {
  using py::arg;
  m.def("gather", gather, arg("x"), arg("index"), arg("dim"));
  m.def("scatter", scatter, arg("x"), arg("index"), arg("src"), arg("dim"));
  m.def("scatter_add", scatter_add_, arg("x"), arg("index"), arg("src"), arg("dim"));
  m.def("index_select", index_select, arg("x"), arg("index"), arg("dim"));
  m.def("index_add", index_add, arg("x"), arg("index"), arg("src"), arg("dim"));
  m.def("embedding", embedding, arg("weight"), arg("index"));
  m.def("embedding_backward", embedding_backward, arg("g"), arg("index"), arg("num_embeddings"),
        arg("padding_idx") = py::none());
}

}  // namespace tg
