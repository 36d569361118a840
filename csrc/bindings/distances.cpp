// Distances between the rows of two matrices, of float32 and float64.
#include "../kernels/distances.h"

#include "../core/fastcall.h"
#include "lines.h"

namespace tg {
namespace {

// The arguments that both take, checked.
struct DistanceArguments {
  DistanceArguments(const char* op, py::handle a_, py::handle b_, py::handle p) : a(view(a_, op)), b(view(b_, op)) {
    if (a.dtype != DType::Float32 && a.dtype != DType::Float64)
      throw py::type_error(std::string(op) + ": needs float32 or float64, got " + name_of(a.dtype));
    if (a.ndim < 2 || b.ndim < 2) throw py::value_error(std::string(op) + ": needs a (..., n, m) and b (..., k, m)");
    Shape expected = a.shape_vector();
    shape.batches = 1;
    shape.n = a.shape[a.ndim - 2];
    shape.k = b.shape[b.ndim - 2];
    shape.m = a.shape[a.ndim - 1];
    shape.p = PyFloat_AsDouble(p.ptr());
    if (shape.p == -1 && PyErr_Occurred()) throw py::error_already_set();
    if (!(shape.p >= 0)) throw py::value_error(std::string(op) + ": p must be from 0 to inf");
    expected[expected.size() - 2] = shape.k;
    require_shape(op, "b", b, expected);
    require_dtype(op, "b", b, a.dtype);
    for (int d = 0; d < a.ndim - 2; ++d) shape.batches *= a.shape[d];
    far = expected;
    far[far.size() - 2] = shape.n;
    far.back() = shape.k;
  }

  View a, b;
  DistanceShape shape{};
  Shape far;  // of the distances
};

// Whether an array lies as one whose last two dimensions are exchanged: as the gradient to b gets what belongs to pairs.
bool lies_turned(const View& x) {
  const int last = x.ndim - 1;
  Index step = size_of(x.dtype);
  if (!x.aligned() || x.strides[last - 1] != step || x.strides[last] != step * x.shape[last - 1]) return false;
  step *= x.shape[last] * x.shape[last - 1];
  for (int d = last - 2; d >= 0; step *= x.shape[d--])
    if (x.strides[d] != step) return false;
  return true;
}

}  // namespace

FAST_BINDING(cdist, 3, "a", "b", "p") {
  const DistanceArguments c("cdist", a[0], a[1], a[2]);
  const py::object of = ready(c.a), to = ready(c.b), out = empty(c.a.dtype, c.far);
  visit_real("cdist", c.a.dtype, [&](auto t) {
    using T = typename decltype(t)::value;
    const T *from = data_of<T>(of), *other = data_of<T>(to);
    T* y = data_of<T>(out);
    launch(c.shape.pairs() * c.shape.m, [=, shape = c.shape] { cdist(shape, from, other, y); });
  });
  return out;
}

FAST_BINDING(cdist_backward, 5, "g", "a", "b", "y", "p") {
  const char* op = "cdist_backward";
  DistanceArguments c(op, a[1], a[2], a[4]);
  const View g = view(a[0], op), y = view(a[3], op);
  require_shape(op, "g", g, c.far);
  require_shape(op, "y", y, c.far);
  require_dtype(op, "g", g, c.a.dtype);
  require_dtype(op, "y", y, c.a.dtype);
  c.shape.g_turned = lies_turned(g);
  c.shape.y_turned = lies_turned(y);
  const py::object of = ready(c.a), to = ready(c.b), out = empty(c.a.dtype, c.a.shape_vector());
  const py::object up = c.shape.g_turned ? py::reinterpret_borrow<py::object>(a[0]) : ready(g);
  const py::object far = c.shape.y_turned ? py::reinterpret_borrow<py::object>(a[3]) : ready(y);
  visit_real(op, c.a.dtype, [&](auto t) {
    using T = typename decltype(t)::value;
    const T *gradient = data_of<T>(up), *from = data_of<T>(of), *other = data_of<T>(to), *distances = data_of<T>(far);
    T* dx = data_of<T>(out);
    launch(c.shape.pairs() * c.shape.m,
           [=, shape = c.shape] { cdist_backward(shape, gradient, from, other, distances, dx); });
  });
  return out;
}

TG_BINDINGS(distances) {
  add_fast(m, fast_cdist);
  add_fast(m, fast_cdist_backward);
}

}  // namespace tg
