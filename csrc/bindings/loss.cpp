// cross_entropy from logits and its gradient.
#include "../kernels/loss.h"

#include "lines.h"

namespace tg {
namespace {

Reduction reduction_of(const std::string& name) {
  if (name == "none") return Reduction::none;
  if (name == "mean") return Reduction::mean;
  if (name == "sum") return Reduction::sum;
  throw py::value_error("cross_entropy: reduction is '" + name + "'; valid: 'none', 'mean', 'sum'");
}

// The checked, contiguous inputs of a call.
struct Inputs {
  DType stored, compute;
  py::object logits, target, weight;
  CrossEntropy shape;

  Inputs(const char* op, py::handle x_, py::handle target_, py::handle weight_, Index ignore_index,
         const std::string& reduction, double smoothing) {
    const View x = view(x_, "cross_entropy: logits"), t = view(target_, "cross_entropy: target");
    stored = x.dtype;
    compute = float_compute(op, x);
    if (x.ndim != 2)
      throw py::value_error(std::string(op) + ": logits have shape " + to_string(x.shape_vector()) +
                            ", expected (rows, classes); move the classes last and flatten the rest");
    require_dtype(op, "target", t, DType::Int64);
    require_shape(op, "target", t, {x.shape[0]});
    if (!(smoothing >= 0 && smoothing <= 1))
      throw py::value_error(std::string(op) + ": label_smoothing is " + std::to_string(smoothing) + ", expected 0 to 1");
    logits = ready(x, compute);
    target = ready(t);
    weight = py::none();
    if (!weight_.is_none()) {
      const View w = view(weight_, "cross_entropy: weight");
      require_shape(op, "weight", w, {x.shape[1]});
      require_dtype(op, "weight", w, x.dtype);
      weight = ready(w, compute);
    }
    shape = {x.shape[0], x.shape[1], data_of<int64_t>(target), ignore_index, reduction_of(reduction), smoothing};
    for (Index r = 0; r < shape.rows; ++r) {
      const int64_t c = shape.target[r];
      if (c != ignore_index && (c < 0 || c >= shape.classes))
        throw py::index_error(std::string(op) + ": target[" + std::to_string(r) + "] is " + std::to_string(c) +
                              ", valid: 0 to " + std::to_string(shape.classes - 1) + ", or ignore_index " +
                              std::to_string(ignore_index));
    }
    if (shape.classes == 0 && shape.rows > 0) throw py::value_error(std::string(op) + ": there are no classes");
  }

  template <class T>
  const T* weights() const {
    return weight.is_none() ? nullptr : data_of<T>(weight);
  }
};

py::object forward(py::handle logits, py::handle target, py::handle weight, Index ignore_index,
                   const std::string& reduction, double label_smoothing) {
  const Inputs in("cross_entropy", logits, target, weight, ignore_index, reduction, label_smoothing);
  py::object loss = empty(in.compute, in.shape.reduction == Reduction::none ? Shape{in.shape.rows} : Shape{});
  py::object lse = empty(in.compute, Shape{in.shape.rows});
  visit_real("cross_entropy", in.compute, [&](auto t) {
    using T = typename decltype(t)::value;
    const T *x = data_of<T>(in.logits), *w = in.weights<T>();
    T *to = data_of<T>(loss), *l = data_of<T>(lse);
    MaybeRelease unlock(in.shape.rows * in.shape.classes);
    cross_entropy(in.shape, x, w, to, l);
  });
  if (in.stored != in.compute) return py::make_tuple(ready_as(loss, in.stored), lse);
  return py::make_tuple(loss, lse);
}

py::object backward(py::handle gradient, py::handle logits, py::handle target, py::handle weight, py::handle lse_,
                    Index ignore_index, const std::string& reduction, double label_smoothing) {
  const char* op = "cross_entropy_backward";
  const Inputs in(op, logits, target, weight, ignore_index, reduction, label_smoothing);
  const View g = view(gradient, op), l = view(lse_, op);
  require_dtype(op, "g", g, in.stored);
  require_shape(op, "g", g, in.shape.reduction == Reduction::none ? Shape{in.shape.rows} : Shape{});
  require_dtype(op, "lse", l, in.compute);
  require_shape(op, "lse", l, {in.shape.rows});
  const py::object gs = ready(g, in.compute), ls = ready(l, in.compute);
  py::object out = empty(in.compute, Shape{in.shape.rows, in.shape.classes});
  visit_real(op, in.compute, [&](auto t) {
    using T = typename decltype(t)::value;
    const T *x = data_of<T>(in.logits), *w = in.weights<T>(), *gp = data_of<T>(gs), *lp = data_of<T>(ls);
    T* to = data_of<T>(out);
    MaybeRelease unlock(in.shape.rows * in.shape.classes);
    cross_entropy_backward(in.shape, gp, x, w, lp, to);
  });
  return in.stored == in.compute ? out : ready_as(out, in.stored);
}

}  // namespace

TG_BINDINGS(loss) {
  m.def("cross_entropy", forward, py::arg("logits"), py::arg("target"), py::arg("weight"), py::arg("ignore_index") = -100,
        py::arg("reduction") = "mean", py::arg("label_smoothing") = 0.0);
  m.def("cross_entropy_backward", backward, py::arg("g"), py::arg("logits"), py::arg("target"), py::arg("weight"),
        py::arg("lse"), py::arg("ignore_index") = -100, py::arg("reduction") = "mean", py::arg("label_smoothing") = 0.0);
}

}  // namespace tg
