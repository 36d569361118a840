// softmax and log_softmax along an axis, and their gradients.
#include "../kernels/softmax.h"

#include "../core/fastcall.h"
#include "lines.h"

namespace tg {
namespace {

int axis_of(const char* op, const View& x, py::handle given) {
  const Index dim = py::cast<Index>(given);
  return x.ndim == 0 && dim == 0 ? 0 : checked_axis(op, dim, x);
}

// call(shape, start): a part of the rows, from element number `start` on. Along another axis than the last all at once.
template <class Call>
void over_lines(const SoftmaxShape& s, std::vector<PieceLaunch::Touch> touches, Call call) {
  const Index row = s.length * s.inner, work = s.outer * row;
  if (s.inner != 1 || work == 0) return launch(work, [=] { call(s, 0); });
  launch_rows(work, s.outer, row, std::move(touches),
              [=](Index first, Index last) { call(SoftmaxShape{last - first, s.length, 1}, first * row); });
}

template <class Kernel>
py::object forward(const char* op, py::handle array, py::handle dim, Kernel kernel) {
  const View x = view(array, op);
  const DType compute = float_compute(op, x);
  const Lines lines(x, axis_of(op, x, dim));
  const SoftmaxShape s{lines.outer, lines.length, lines.inner};
  const py::object source = ready(x, compute);
  py::object out = empty(compute, x.shape_vector());
  const char* from = data_of<char>(source);
  char* to = data_of<char>(out);
  const Index item = size_of(compute), bytes = lines.size() * item;
  over_lines(s, {{from, bytes, item, false}, {to, bytes, item, true}}, [=](const SoftmaxShape& part, Index start) {
    visit_real(op, compute, [&](auto t) {
      using T = typename decltype(t)::value;
      kernel(part, reinterpret_cast<const T*>(from) + start, reinterpret_cast<T*>(to) + start);
    });
  });
  return x.dtype == compute ? out : ready_as(out, x.dtype);
}

template <class Kernel>
py::object backward(const char* op, py::handle gradient, py::handle output, py::handle dim, Kernel kernel) {
  const View g = view(gradient, op), y = view(output, op);
  const DType compute = float_compute(op, y);
  require_shape(op, "g", g, y.shape_vector());
  require_dtype(op, "g", g, y.dtype);
  const Lines lines(y, axis_of(op, y, dim));
  const SoftmaxShape s{lines.outer, lines.length, lines.inner};
  const py::object gs = ready(g, compute), ys = ready(y, compute);
  py::object out = empty(compute, y.shape_vector());
  const char *gp = data_of<char>(gs), *yp = data_of<char>(ys);
  char* to = data_of<char>(out);
  const Index item = size_of(compute), bytes = lines.size() * item;
  const std::vector<PieceLaunch::Touch> touches{{gp, bytes, item, false}, {yp, bytes, item, false}, {to, bytes, item, true}};
  over_lines(s, touches, [=](const SoftmaxShape& part, Index start) {
    visit_real(op, compute, [&](auto t) {
      using T = typename decltype(t)::value;
      kernel(part, reinterpret_cast<const T*>(gp) + start, reinterpret_cast<const T*>(yp) + start, reinterpret_cast<T*>(to) + start);
    });
  });
  return y.dtype == compute ? out : ready_as(out, y.dtype);
}

FAST_BINDING(softmax, 2, "x", "dim") {
  return forward("softmax", a[0], a[1], [](const SoftmaxShape& s, auto* from, auto* to) { softmax(s, from, to); });
}
FAST_BINDING(log_softmax, 2, "x", "dim") {
  return forward("log_softmax", a[0], a[1],
                 [](const SoftmaxShape& s, auto* from, auto* to) { log_softmax(s, from, to); });
}
FAST_BINDING(softmax_backward, 3, "g", "y", "dim") {
  return backward("softmax_backward", a[0], a[1], a[2],
                  [](const SoftmaxShape& s, auto* gp, auto* yp, auto* to) { softmax_backward(s, gp, yp, to); });
}
FAST_BINDING(log_softmax_backward, 3, "g", "y", "dim") {
  return backward("log_softmax_backward", a[0], a[1], a[2],
                  [](const SoftmaxShape& s, auto* gp, auto* yp, auto* to) { log_softmax_backward(s, gp, yp, to); });
}

}  // namespace

TG_BINDINGS(softmax) {
  add_fast(m, fast_softmax);
  add_fast(m, fast_log_softmax);
  add_fast(m, fast_softmax_backward);
  add_fast(m, fast_log_softmax_backward);
}

}  // namespace tg
