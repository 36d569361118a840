// The loss of labels that are not aligned with the input, and its gradient.
#include "../kernels/ctc.h"

#include "../core/fastcall.h"
#include "../kernels/index.h"
#include "lines.h"

namespace tg {
namespace {

// The arguments that both take, checked.
struct CtcArguments {
  CtcArguments(py::handle x_, py::handle labels_, py::handle skips_, py::handle lengths_, py::handle last_)
      : x(view(x_, "ctc")), compute(float_compute("ctc", x)) {
    const View l = view(labels_, "ctc: labels"), k = view(skips_, "ctc: skips"), lengths_given = view(lengths_, "ctc: lengths"),
               last_given = view(last_, "ctc: last");
    if (x.ndim != 3 || l.ndim != 2 || l.shape[1] < 1) throw py::value_error("ctc: needs x (steps, n, classes) and labels (n, states)");
    const Index n = x.shape[1];
    require_shape("ctc", "labels", l, {n, l.shape[1]});
    require_shape("ctc", "skips", k, {n, l.shape[1]});
    require_shape("ctc", "lengths", lengths_given, {n});
    require_shape("ctc", "last", last_given, {n});
    require_dtype("ctc", "skips", k, DType::Bool);
    require_dtype("ctc", "labels", l, DType::Int64);
    require_dtype("ctc", "lengths", lengths_given, DType::Int64);
    require_dtype("ctc", "last", last_given, DType::Int64);
    source = ready(x, compute);
    labels = ready(l);
    skips = ready(k);
    lengths = ready(lengths_given);
    last = ready(last_given);
    shape = {x.shape[0], n, x.shape[2], l.shape[1], data_of<int64_t>(labels), data_of<int64_t>(lengths),
             data_of<int64_t>(last), data_of<uint8_t>(skips)};
    within("labels", shape.labels, l.size(), x.shape[2] - 1);
    within("lengths", shape.lengths, n, x.shape[0]);
    within("last", shape.last, n, l.shape[1] - 1);
  }
  static void within(const char* what, const int64_t* values, Index n, Index most) {
    if (n == 0) return;
    launch(0, [=] {
      const IndexRange range = range_of(values, n);
      if (range.low < 0 || range.high > most)
        throw py::index_error(std::string("ctc: ") + what + " must be from 0 to " + std::to_string(most));
    });
  }
  Index work() const { return shape.steps * shape.n * shape.states; }

  View x;
  DType compute;
  py::object source, labels, skips, lengths, last;
  CtcShape shape{};
};

}  // namespace

FAST_BINDING(ctc, 5, "x", "labels", "skips", "lengths", "last") {
  const CtcArguments c(a[0], a[1], a[2], a[3], a[4]);
  py::object out = empty(c.compute, Shape{c.shape.n});
  visit_real("ctc", c.compute, [&](auto t) {
    using T = typename decltype(t)::value;
    const T* from = data_of<T>(c.source);
    T* to = data_of<T>(out);
    launch(c.work(), [=, shape = c.shape] { ctc(shape, from, to); });
  });
  return ready_as(out, c.x.dtype);
}

FAST_BINDING(ctc_backward, 6, "g", "x", "labels", "skips", "lengths", "last") {
  const CtcArguments c(a[1], a[2], a[3], a[4], a[5]);
  const View g = view(a[0], "ctc_backward");
  require_shape("ctc_backward", "g", g, {c.shape.n});
  require_dtype("ctc_backward", "g", g, c.x.dtype);
  const py::object up = ready(g, c.compute);
  py::object out = empty(c.compute, c.x.shape_vector());
  visit_real("ctc", c.compute, [&](auto t) {
    using T = typename decltype(t)::value;
    const T *from = data_of<T>(c.source), *gradient = data_of<T>(up);
    T* to = data_of<T>(out);
    launch(c.work(), [=, shape = c.shape] { ctc_backward(shape, gradient, from, to); });
  });
  return ready_as(out, c.x.dtype);
}

TG_BINDINGS(ctc) {
  add_fast(m, fast_ctc);
  add_fast(m, fast_ctc_backward);
}

}  // namespace tg
