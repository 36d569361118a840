// softmax and log_softmax along an axis, and their gradients.
#include "../kernels/softmax.h"

#include "lines.h"

namespace tg {
namespace {

int axis_of(const char* op, const View& x, Index dim) { return x.ndim == 0 && dim == 0 ? 0 : checked_axis(op, dim, x); }

template <class Kernel>
py::object forward(const char* op, py::handle array, Index dim, Kernel kernel) {
  const View x = view(array, op);
  const DType compute = float_compute(op, x);
  const Lines lines(x, axis_of(op, x, dim));
  const SoftmaxShape s{lines.outer, lines.length, lines.inner};
  const py::object source = ready(x, compute);
  py::object out = empty(compute, x.shape_vector());
  {
    const char* from = data_of<char>(source);
    char* to = data_of<char>(out);
    MaybeRelease unlock(lines.size());
    visit_real(op, compute, [&](auto t) {
      using T = typename decltype(t)::value;
      kernel(s, reinterpret_cast<const T*>(from), reinterpret_cast<T*>(to));
    });
  }
  return x.dtype == compute ? out : ready_as(out, x.dtype);
}

template <class Kernel>
py::object backward(const char* op, py::handle gradient, py::handle output, Index dim, Kernel kernel) {
  const View g = view(gradient, op), y = view(output, op);
  const DType compute = float_compute(op, y);
  require_shape(op, "g", g, y.shape_vector());
  require_dtype(op, "g", g, y.dtype);
  const Lines lines(y, axis_of(op, y, dim));
  const SoftmaxShape s{lines.outer, lines.length, lines.inner};
  const py::object gs = ready(g, compute), ys = ready(y, compute);
  py::object out = empty(compute, y.shape_vector());
  {
    const char *gp = data_of<char>(gs), *yp = data_of<char>(ys);
    char* to = data_of<char>(out);
    MaybeRelease unlock(lines.size());
    visit_real(op, compute, [&](auto t) {
      using T = typename decltype(t)::value;
      kernel(s, reinterpret_cast<const T*>(gp), reinterpret_cast<const T*>(yp), reinterpret_cast<T*>(to));
    });
  }
  return y.dtype == compute ? out : ready_as(out, y.dtype);
}

}  // namespace

TG_BINDINGS(softmax) {
  m.def(
      "softmax",
      [](py::handle x, Index dim) {
        return forward("softmax", x, dim, [](const SoftmaxShape& s, auto* from, auto* to) { softmax(s, from, to); });
      },
      py::arg("x"), py::arg("dim"));
  m.def(
      "log_softmax",
      [](py::handle x, Index dim) {
        return forward("log_softmax", x, dim,
                       [](const SoftmaxShape& s, auto* from, auto* to) { log_softmax(s, from, to); });
      },
      py::arg("x"), py::arg("dim"));
  m.def(
      "softmax_backward",
      [](py::handle g, py::handle y, Index dim) {
        return backward("softmax_backward", g, y, dim, [](const SoftmaxShape& s, auto* gp, auto* yp, auto* to) {
          softmax_backward(s, gp, yp, to);
        });
      },
      py::arg("g"), py::arg("y"), py::arg("dim"));
  m.def(
      "log_softmax_backward",
      [](py::handle g, py::handle y, Index dim) {
        return backward("log_softmax_backward", g, y, dim, [](const SoftmaxShape& s, auto* gp, auto* yp, auto* to) {
          log_softmax_backward(s, gp, yp, to);
        });
      },
      py::arg("g"), py::arg("y"), py::arg("dim"));
}

}  // namespace tg
