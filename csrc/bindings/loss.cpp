// Losses of classes given by indices, and their gradients.
#include "../kernels/loss.h"

#include "../core/fastcall.h"
#include "lines.h"

namespace tg {
namespace {

Reduction reduction_of(const char* op, py::handle name) {
  const auto is = [&](const char* word) {
    return PyUnicode_Check(name.ptr()) && PyUnicode_CompareWithASCIIString(name.ptr(), word) == 0;
  };
  if (is("none")) return Reduction::none;
  if (is("mean")) return Reduction::mean;
  if (is("sum")) return Reduction::sum;
  throw py::value_error(std::string(op) + ": reduction is " + py::cast<std::string>(py::repr(name)) +
                        "; valid: 'none', 'mean', 'sum'");
}

// The checked, contiguous inputs of a call.
struct Inputs {
  const char* op;
  DType stored, compute;
  Shape rows;  // of the targets
  py::object x, target, weight;
  CrossEntropy shape{};

  // of (n, classes) and (n,), or (n, classes, inner) and (n, inner)
  Inputs(const char* op_, const View& t, Index classes, DType dtype, py::handle weight_, py::handle ignore_index,
         py::handle reduction)
      : op(op_), stored(dtype), compute(dtype == DType::Float64 ? DType::Float64 : DType::Float32), rows(t.shape_vector()) {
    require_dtype(op, "target", t, DType::Int64);
    target = ready(t);
    if (!weight_.is_none()) {
      const View w = view(weight_, op);
      require_shape(op, "weight", w, {classes});
      require_dtype(op, "weight", w, dtype);
      weight = ready(w, compute);
    }
    shape = {t.size(), classes, t.ndim == 2 ? t.shape[1] : 1, data_of<int64_t>(target), py::cast<int64_t>(ignore_index),
             reduction_of(op, reduction), 0};
    launch(0, [op_, s = shape] { check_target(op_, s); });
    if (classes == 0 && shape.rows > 0) throw py::value_error(std::string(op) + ": there are no classes");
  }
  Inputs(const char* op_, const View& from, py::handle target_, py::handle weight_, py::handle ignore_index,
         py::handle reduction)
      // each of them checked: arguments are evaluated in any order
      : Inputs(op_, checked_target(op_, from, target_), checked(op_, from).shape[1], from.dtype, weight_, ignore_index,
               reduction) {
    x = ready(from, compute);
  }

  static void check_target(const char* op, const CrossEntropy& s) {
    const auto classes = static_cast<std::uint64_t>(s.classes);
    bool wrong = false;  // asked of all at once, which takes a vector of them at a time
    for (Index r = 0; r < s.rows; ++r)
      wrong |= (s.target[r] != s.ignore_index) & (static_cast<std::uint64_t>(s.target[r]) >= classes);
    for (Index r = 0; wrong && r < s.rows; ++r) {
      const int64_t c = s.target[r];
      if (c != s.ignore_index && (c < 0 || c >= s.classes))
        throw py::index_error(std::string(op) + ": target[" + std::to_string(r) + "] is " + std::to_string(c) +
                              ", valid: 0 to " + std::to_string(s.classes - 1) + ", or ignore_index " +
                              std::to_string(s.ignore_index));
    }
  }
  static const View& checked(const char* op, const View& from) {
    if (from.ndim != 2 && from.ndim != 3)
      throw py::value_error(std::string(op) + ": the input has shape " + to_string(from.shape_vector()) +
                            ", expected (rows, classes), or (n, classes, inner) where others lie between a row's classes");
    float_compute(op, from);
    return from;
  }
  static View checked_target(const char* op, const View& from, py::handle target) {
    const View t = view(target, op);
    Shape expected = checked(op, from).shape_vector();
    expected.erase(expected.begin() + 1);
    require_shape(op, "target", t, expected);
    return t;
  }
  void smooth(py::handle given) {
    shape.label_smoothing = py::cast<double>(given);
    if (!(shape.label_smoothing >= 0 && shape.label_smoothing <= 1))
      throw py::value_error(std::string(op) + ": label_smoothing is " + std::to_string(shape.label_smoothing) +
                            ", expected 0 to 1");
  }
  Shape loss_shape() const { return shape.reduction == Reduction::none ? rows : Shape{}; }
  Shape logits_shape() const {
    Shape all = rows;
    all.insert(all.begin() + 1, shape.classes);
    return all;
  }
  py::object gradient(py::handle given) const {
    const View g = view(given, op);
    require_dtype(op, "g", g, stored);
    require_shape(op, "g", g, loss_shape());
    return ready(g, compute);
  }
  py::object result(py::object made) const { return stored == compute ? made : ready_as(made, stored); }
  template <class T>
  const T* weights() const {
    return weight ? data_of<T>(weight) : nullptr;
  }
};

FAST_BINDING(cross_entropy, 6, "x", "target", "w", "ignore_index", "reduction", "label_smoothing") {
  Inputs in("cross_entropy", view(a[0], "cross_entropy: logits"), a[1], a[2], a[3], a[4]);
  in.smooth(a[5]);
  py::object loss = empty(in.compute, in.loss_shape()), lse = empty(in.compute, in.rows);
  visit_real("cross_entropy", in.compute, [&](auto t) {
    using T = typename decltype(t)::value;
    const T *x = data_of<T>(in.x), *w = in.weights<T>();
    T *to = data_of<T>(loss), *l = data_of<T>(lse);
    launch(in.shape.rows * in.shape.classes, [=, s = in.shape] { cross_entropy(s, x, w, to, l); });
  });
  return py::make_tuple(in.result(loss), lse);
}

FAST_BINDING(cross_entropy_backward, 8, "g", "x", "target", "w", "lse", "ignore_index", "reduction",
             "label_smoothing") {
  const char* op = "cross_entropy_backward";
  Inputs in(op, view(a[1], op), a[2], a[3], a[5], a[6]);
  in.smooth(a[7]);
  const View l = view(a[4], op);
  require_dtype(op, "lse", l, in.compute);
  require_shape(op, "lse", l, in.rows);
  const py::object gs = in.gradient(a[0]), ls = ready(l, in.compute);
  py::object out = empty(in.compute, in.logits_shape());
  visit_real(op, in.compute, [&](auto t) {
    using T = typename decltype(t)::value;
    const T *x = data_of<T>(in.x), *w = in.weights<T>(), *gp = data_of<T>(gs), *lp = data_of<T>(ls);
    T* to = data_of<T>(out);
    launch(in.shape.rows * in.shape.classes, [=, s = in.shape] { cross_entropy_backward(s, gp, x, w, lp, to); });
  });
  return in.result(out);
}

FAST_BINDING(nll_loss, 5, "x", "target", "w", "ignore_index", "reduction") {
  const Inputs in("nll_loss", view(a[0], "nll_loss: input"), a[1], a[2], a[3], a[4]);
  py::object loss = empty(in.compute, in.loss_shape());
  visit_real("nll_loss", in.compute, [&](auto t) {
    using T = typename decltype(t)::value;
    const T *x = data_of<T>(in.x), *w = in.weights<T>();
    T* to = data_of<T>(loss);
    launch(in.shape.rows, [=, s = in.shape] { nll_loss(s, x, w, to); });
  });
  return in.result(loss);
}

FAST_BINDING(nll_loss_backward, 6, "g", "target", "w", "classes", "ignore_index", "reduction") {
  const char* op = "nll_loss_backward";
  const View g = view(a[0], op), target = view(a[1], op);
  float_compute(op, g);
  const Index classes = py::cast<Index>(a[3]);
  if ((target.ndim != 1 && target.ndim != 2) || classes < 0)
    throw py::value_error(std::string(op) + ": target has shape " + to_string(target.shape_vector()) + " for " +
                          std::to_string(classes) + " classes, expected (n,) or (n, inner) and a number that is not negative");
  const Inputs in(op, target, classes, g.dtype, a[2], a[4], a[5]);
  const py::object gs = in.gradient(a[0]);
  py::object out = empty(in.compute, in.logits_shape());
  visit_real(op, in.compute, [&](auto t) {
    using T = typename decltype(t)::value;
    const T *w = in.weights<T>(), *gp = data_of<T>(gs);
    T* to = data_of<T>(out);
    launch(in.shape.rows * classes, [=, s = in.shape] { nll_loss_backward(s, gp, w, to); });
  });
  return in.result(out);
}

}  // namespace

TG_BINDINGS(loss) {
  add_fast(m, fast_cross_entropy);
  add_fast(m, fast_cross_entropy_backward);
  add_fast(m, fast_nll_loss);
  add_fast(m, fast_nll_loss_backward);
}

}  // namespace tg
