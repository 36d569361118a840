// unfold and fold over images, the gradient of padding, diagonals put into zeros.
#include "../kernels/fold.h"

#include "../core/fastcall.h"
#include "index_target.h"

namespace tg {
namespace {

constexpr Index kMostStep = Index(1) << 31;  // keeps products of two of them from overflowing

void read_pair(const char* op, const char* what, py::handle given, Index least, Index* out) {
  Index all[kMaxDims];
  if (read_integers(op, given, all) != 2 || std::min(all[0], all[1]) < least || std::max(all[0], all[1]) > kMostStep)
    throw py::value_error(std::string(op) + ": " + what + " must be two numbers of at least " + std::to_string(least));
  std::copy_n(all, 2, out);
}

Patches read_patches(const char* op, Index height, Index width, py::handle kernel, py::handle stride, py::handle padding,
                     py::handle dilation) {
  Patches w{};
  w.height = height;
  w.width = width;
  read_pair(op, "kernel", kernel, 1, w.kernel);
  read_pair(op, "stride", stride, 1, w.stride);
  read_pair(op, "padding", padding, 0, w.padding);
  read_pair(op, "dilation", dilation, 1, w.dilation);
  const auto places = [&](int k, Index size) {
    const Index room = size + 2 * w.padding[k] - w.dilation[k] * (w.kernel[k] - 1) - 1;
    if (size < 1 || room < 0) throw py::value_error(std::string(op) + ": no window fits");
    return room / w.stride[k] + 1;
  };
  w.rows = places(0, height);
  w.columns = places(1, width);
  return w;
}

Index product_of(Index a, Index b) {
  Index made;
  if (__builtin_mul_overflow(a, b, &made)) throw std::bad_alloc();
  return made;
}

Edge edge_named(py::handle name) {
  const std::string text = py::cast<std::string>(name);
  if (text == "reflect") return Edge::reflect;
  if (text == "replicate") return Edge::replicate;
  if (text == "circular") return Edge::circular;
  throw py::value_error("pad: mode must be reflect, replicate or circular, got '" + text + "'");
}

}  // namespace

FAST_BINDING(unfold_windows, 5, "x", "kernel", "stride", "padding", "dilation") {
  const View x = view(a[0], "unfold");
  if (x.ndim != 4 || x.shape[1] < 1) throw py::value_error("unfold: expected (n, c, h, w), got " + to_string(x.shape_vector()));
  Patches w = read_patches("unfold", x.shape[2], x.shape[3], a[1], a[2], a[3], a[4]);
  w.planes = product_of(x.shape[0], x.shape[1]);
  py::object out = empty(x.dtype, Shape{x.shape[0], product_of(x.shape[1], product_of(w.kernel[0], w.kernel[1])),
                                        product_of(w.rows, w.columns)});
  const py::object source = ready(x);
  const char* from = data_of<char>(source);
  char* to = data_of<char>(out);
  if (w.planes) launch(view(out).size(), [=, item = size_of(x.dtype)] { unfold_planes(item, w, from, to); });
  return out;
}

FAST_BINDING(fold_windows, 6, "x", "sizes", "kernel", "stride", "padding", "dilation") {
  const View x = view(a[0], "fold");
  Index sizes[2];
  read_pair("fold", "sizes", a[1], 1, sizes);
  Patches w = read_patches("fold", sizes[0], sizes[1], a[2], a[3], a[4], a[5]);
  const Index taps = product_of(w.kernel[0], w.kernel[1]);
  if (x.ndim != 3 || x.shape[1] < 1 || x.shape[1] % taps || x.shape[2] != product_of(w.rows, w.columns))
    throw py::value_error("fold: columns of shape " + to_string(x.shape_vector()) + " do not fit");
  w.planes = product_of(x.shape[0], x.shape[1] / taps);
  const DType compute = add_compute(x.dtype);
  py::object out = empty(compute, Shape{x.shape[0], x.shape[1] / taps, sizes[0], sizes[1]});
  const py::object source = ready(x, compute);
  visit_add(compute, [&](auto t) {
    using T = decltype(t);
    const T* from = data_of<T>(source);
    T* to = data_of<T>(out);
    if (w.planes) launch(x.size(), [=] { fold_planes(w, from, to); });
  });
  return ready_as(out, x.dtype);
}

FAST_BINDING(pad_backward, 4, "g", "shape", "pads", "mode") {
  const View g = view(a[0], "pad_backward");
  Index shape[kMaxDims], before[kMaxDims], after[kMaxDims];
  const Edge edge = edge_named(a[3]);
  const bool fits = read_integers("pad_backward", a[1], shape) == g.ndim && read_pads("pad_backward", a[2], before, after) == g.ndim;
  for (int k = 0; k < g.ndim; ++k) {
    const Index most = !fits ? -1 : edge == Edge::reflect ? shape[k] - 1 : edge == Edge::circular || !shape[k] ? shape[k] : g.shape[k];
    Index left;
    if (!fits || before[k] < 0 || after[k] < 0 || std::max(before[k], after[k]) > std::max<Index>(most, 0) ||
        __builtin_sub_overflow(g.shape[k], before[k], &left) || left - after[k] != shape[k])
      throw py::value_error("pad_backward: the pads do not lead to the gradient's shape " + to_string(g.shape_vector()));
  }
  const DType compute = add_compute(g.dtype);
  py::object work = ready(g, compute);
  if (work.is(py::reinterpret_borrow<py::object>(g.array))) work = contiguous_copy(g);
  visit_add(compute, [&](auto t) {
    using T = decltype(t);
    T* data = data_of<T>(work);
    for (int k = 0; k < g.ndim && g.size(); ++k) {
      const Lines lines(g, k);
      if (before[k] || after[k])
        launch(g.size(), [=, left = before[k], size = shape[k], right = after[k]] {
          fold_edges(edge, lines.outer, left, size, right, lines.inner, data);
        });
    }
  });
  View body = view(work);
  npy_intp inner[kMaxDims];
  for (int k = 0; k < g.ndim; ++k) {
    inner[k] = shape[k];
    body.data += before[k] * body.strides[k];
  }
  body.shape = inner;
  return ready_as(contiguous_copy(body), g.dtype);
}

FAST_BINDING(diagonal_backward, 5, "g", "shape", "offset", "dim1", "dim2") {
  const View g = view(a[0], "diagonal_backward");
  Index shape[kMaxDims], strides[kMaxDims], to_strides[kMaxDims];
  const int ndim = read_integers("diagonal_backward", a[1], shape);
  const Index offset = py::cast<Index>(a[2]), first = py::cast<Index>(a[3]), second = py::cast<Index>(a[4]);
  if (g.ndim != ndim - 1 || first < 0 || second < 0 || first >= ndim || second >= ndim || first == second)
    throw py::value_error("diagonal_backward: no such diagonals");
  py::object out = empty(g.dtype, shape, ndim);
  const View y = view(out);
  for (int k = 0; k < ndim; ++k) strides[k] = y.strides[k];
  int at = 0;
  bool fits = true;
  for (int k = 0; k < ndim; ++k) {
    if (k == first || k == second) continue;
    fits &= g.shape[at] == shape[k];
    to_strides[at++] = strides[k];
  }
  const Index rows = shape[first], columns = shape[second];
  const Index length = offset <= -rows || offset >= columns ? 0
                       : offset >= 0 ? std::min(rows, columns - offset) : std::min(rows + offset, columns);
  if (!fits || g.shape[at] != length)
    throw py::value_error("diagonal_backward: the gradient's shape is " + to_string(g.shape_vector()));
  to_strides[at] = strides[first] + strides[second];
  char* to = y.data;
  const Index n = y.size();
  if (!n) return out;
  launch(n, [=, item = size_of(g.dtype)] {
    constexpr char none[16] = {};
    fill_items(item, n, none, to);
  });
  if (length) to += offset >= 0 ? offset * strides[second] : -offset * strides[first];
  if (g.size()) launch(g.size(), [copy = Copy(g, to, to_strides)] { copy.run(); });
  return out;
}

TG_BINDINGS(fold) {
  for (PyMethodDef* each : {&fast_unfold_windows, &fast_fold_windows, &fast_pad_backward, &fast_diagonal_backward})
    add_fast(m, *each);
}

}  // namespace tg
