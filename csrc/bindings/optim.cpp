// sgd_, adam_, adafactor_, muon_: updates in place of many parameters at once. multi_norm, multi_scale_: clipping by total norm.
// amp_unscale_, amp_update_scale_: gradients of a scaled loss, and its scale.
#include "../kernels/optim.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>

#include "../core/fastcall.h"
#include "../core/launch.h"
#include "optim_table.h"

namespace tg {
namespace {

// The values of `hyper`, a float64 array of known length.
const double* read_hyper(const char* op, py::handle hyper, Index expected, py::object& hold) {
  const View h = view(hyper, op);
  require_dtype(op, "hyper", h, DType::Float64);
  require_shape(op, "hyper", h, {expected});
  hold = ready(h);
  return data_of<double>(hold);
}

// A number, or an array of one, read when the step is made; 1 where it is left out.
struct Scale {
  const double* from = nullptr;
  double number = 1;
  double operator()() const { return from ? *from : number; }
};

Scale read_scale(const char* what, py::handle given, py::object& hold) {
  if (!given || given.is_none()) return {};
  if (!is_array(given)) return {nullptr, py::cast<double>(given)};
  const View v = view(given, what);
  if (v.size() != 1)
    throw py::value_error(std::string(what) + " has shape " + to_string(v.shape_vector()) + ", expected one value");
  hold = ready(v, DType::Float64);
  return {data_of<double>(hold)};
}

SgdSpan part_of(const SgdSpan& s, Index first, Index n, Index item) {
  const auto at = [=](const void* p) { return p ? static_cast<char*>(const_cast<void*>(p)) + first * item : nullptr; };
  return {at(s.param), at(s.grad), at(s.momentum), n};
}
AdamSpan part_of(const AdamSpan& s, Index first, Index n, Index item) {
  const auto at = [=](const void* p) { return p ? static_cast<char*>(const_cast<void*>(p)) + first * item : nullptr; };
  return {at(s.param), at(s.grad), at(s.mean), at(s.square), at(s.largest), n};
}

// The step of one tensor, which a program may do a piece at a time, behind the formula that computes its gradient.
template <class S, class MakeRates, class Rates>
void write_pieces(const S& span, MakeRates rates, void (*step)(const std::vector<S>&, const std::vector<Rates>&, DType), DType type,
                  std::initializer_list<std::pair<const void*, bool>> arrays, const double* hyper, Index count, const double* scale) {
  struct Step final : PieceLaunch {
    Step(const S& s, MakeRates r, void (*f)(const std::vector<S>&, const std::vector<Rates>&, DType), DType t)
        : span(s), rates(std::move(r)), step(f), type(t) {}
    S span;
    MakeRates rates;
    void (*step)(const std::vector<S>&, const std::vector<Rates>&, DType);
    DType type;
    Rates now{};
    void begin() override { now = rates(); }
    void piece(Index first, Index last) override { step({part_of(span, first, last - first, size_of(type))}, {now}, type); }
    void run() override { step({span}, {rates()}, type); }
  };
  auto made = std::make_unique<Step>(span, std::move(rates), step, type);
  const Index item = size_of(type);
  made->n = span.n;
  for (const auto& [data, written] : arrays)
    if (data) made->touches.push_back({static_cast<const char*>(data), span.n * item, item, written});
  made->touches.push_back({reinterpret_cast<const char*>(hyper), count * 8, 0, false});
  if (scale) made->touches.push_back({reinterpret_cast<const char*>(scale), 8, 0, false});
  writing()->add(span.n, std::move(made));
}

void sgd(py::handle params, py::handle grads, py::handle bufs, py::handle hyper, bool nesterov, bool maximize,
         py::handle given_scale) {
  py::object hold, held;
  const double* h = read_hyper("sgd_", hyper, 5, hold);
  const Scale scale = read_scale("sgd_: scale", given_scale, held);
  Table table("sgd_", "params", params, true);
  if (table.rows() == 0) return;
  table.add("grads", grads, false);
  const bool momentum = h[1] != 0;
  table.add("bufs", bufs, true, !momentum);
  table.check();
  std::vector<SgdSpan> spans;
  spans.reserve(table.rows());
  table.each([&](const std::vector<char*>& p, const View& x) { spans.push_back({p[0], p[1], momentum ? p[2] : nullptr, x.size()}); });
  const auto rates = [=] { return SgdRates{h[0], h[1], h[2], h[3], scale(), h[4] != 0, nesterov, maximize}; };
  if (writing() && spans.size() == 1 && !table.copied()) {
    const SgdSpan& s = spans[0];
    return write_pieces(s, rates, sgd_step, table.type(), {{s.param, true}, {s.grad, false}, {s.momentum, true}}, h, 5, scale.from);
  }
  launch(table.total(), [=, spans = std::move(spans), type = table.type()] { sgd_step(spans, {rates()}, type); });
  table.copy_back();
}

void require_step(double step) {
  if (!(step >= 1)) throw py::value_error("adam_: step is " + std::to_string(step) + "; it counts from 1, this step included");
}

void adam(py::handle params, py::handle grads, py::handle means, py::handle squares, py::handle largest, py::handle hyper,
          bool decoupled, bool maximize, bool amsgrad, py::handle given_scale) {
  py::object hold, held;
  const double* h = read_hyper("adam_", hyper, 6, hold);
  const Scale scale = read_scale("adam_: scale", given_scale, held);
  if (!writing()) require_step(h[5]);
  Table table("adam_", "params", params, true);
  if (table.rows() == 0) return;
  table.add("grads", grads, false);
  table.add("exp_avgs", means, true);
  table.add("exp_avg_sqs", squares, true);
  table.add("max_exp_avg_sqs", largest, true, !amsgrad);
  table.check();
  std::vector<AdamSpan> spans;
  spans.reserve(table.rows());
  table.each([&](const std::vector<char*>& p, const View& x) {
    spans.push_back({p[0], p[1], p[2], p[3], amsgrad ? p[4] : nullptr, x.size()});
  });
  const auto rates = [=] {
    require_step(h[5]);
    return AdamRates{h[0], h[1], h[2], h[3], h[4], h[5], scale(), decoupled, maximize};
  };
  if (writing() && spans.size() == 1 && !table.copied()) {
    const AdamSpan& s = spans[0];
    return write_pieces(s, rates, adam_step, table.type(),
                        {{s.param, true}, {s.grad, false}, {s.mean, true}, {s.square, true}, {s.largest, true}}, h, 6, scale.from);
  }
  launch(table.total(), [=, spans = std::move(spans), type = table.type()] { adam_step(spans, {rates()}, type); });
  table.copy_back();
}

// Several groups in one call: lists are the groups' lists, one behind the other, `counts` says how many are of each group;
// hypers and scales (numbers, arrays or None) have one entry for each.
struct Groups {
  std::vector<const double*> hypers;
  std::vector<Scale> scales;
  std::vector<int> of;  // by parameter
  std::vector<py::object> hold;

  Groups(const char* op, const std::vector<Index>& counts, const py::list& given_hypers, const py::list& given_scales, Index size) {
    if (given_hypers.size() != counts.size() || given_scales.size() != counts.size() || counts.empty())
      throw py::value_error(std::string(op) + ": counts, hypers and scales must be of one length, from 1");
    for (std::size_t k = 0; k < counts.size(); ++k) {
      if (counts[k] < 0) throw py::value_error(std::string(op) + ": a count is negative");
      hold.emplace_back(), hold.emplace_back();
      hypers.push_back(read_hyper(op, given_hypers[k], size, hold[2 * k]));
      scales.push_back(read_scale(op, given_scales[k], hold[2 * k + 1]));
      of.insert(of.end(), std::size_t(counts[k]), int(k));
    }
  }
  void check(const char* op, std::size_t rows) const {
    if (rows != of.size())
      throw py::value_error(std::string(op) + ": counts add up to " + std::to_string(of.size()) + ", params has " + std::to_string(rows));
  }
};

void grouped_sgd(py::handle params, py::handle grads, py::handle bufs, const py::list& hypers, const std::vector<Index>& counts,
                 const py::list& scales, bool nesterov, bool maximize) {
  const Groups groups("grouped_sgd_", counts, hypers, scales, 5);
  Table table("grouped_sgd_", "params", params, true);
  groups.check("grouped_sgd_", table.rows());
  if (table.rows() == 0) return;
  table.add("grads", grads, false);
  const bool momentum = groups.hypers[0][1] != 0;
  for (const double* h : groups.hypers)
    if ((h[1] != 0) != momentum) throw py::value_error("grouped_sgd_: either all groups have momentum, or none");
  table.add("bufs", bufs, true, !momentum);
  table.check();
  std::vector<SgdSpan> spans;
  table.each([&](const std::vector<char*>& p, const View& x) {
    spans.push_back({p[0], p[1], momentum ? p[2] : nullptr, x.size(), groups.of[spans.size()]});
  });
  launch(table.total(), [=, hypers = groups.hypers, scales = groups.scales, spans = std::move(spans), type = table.type()] {
    std::vector<SgdRates> rates;
    for (std::size_t k = 0; k < hypers.size(); ++k) {
      const double* h = hypers[k];
      rates.push_back({h[0], h[1], h[2], h[3], scales[k](), h[4] != 0, nesterov, maximize});
    }
    sgd_step(spans, rates, type);
  });
  table.copy_back();
}

void grouped_adam(py::handle params, py::handle grads, py::handle means, py::handle squares, py::handle largest,
                  const py::list& hypers, const std::vector<Index>& counts, const py::list& scales, bool decoupled, bool maximize,
                  bool amsgrad) {
  const Groups groups("grouped_adam_", counts, hypers, scales, 6);
  if (!writing())
    for (const double* h : groups.hypers) require_step(h[5]);
  Table table("grouped_adam_", "params", params, true);
  groups.check("grouped_adam_", table.rows());
  if (table.rows() == 0) return;
  table.add("grads", grads, false);
  table.add("exp_avgs", means, true);
  table.add("exp_avg_sqs", squares, true);
  table.add("max_exp_avg_sqs", largest, true, !amsgrad);
  table.check();
  std::vector<AdamSpan> spans;
  table.each([&](const std::vector<char*>& p, const View& x) {
    spans.push_back({p[0], p[1], p[2], p[3], amsgrad ? p[4] : nullptr, x.size(), groups.of[spans.size()]});
  });
  launch(table.total(), [=, hypers = groups.hypers, scales = groups.scales, spans = std::move(spans), type = table.type()] {
    std::vector<AdamRates> rates;
    for (std::size_t k = 0; k < hypers.size(); ++k) {
      const double* h = hypers[k];
      require_step(h[5]);
      rates.push_back({h[0], h[1], h[2], h[3], h[4], h[5], scales[k](), decoupled, maximize});
    }
    adam_step(spans, rates, type);
  });
  table.copy_back();
}

void adafactor(py::handle params, py::handle grads, py::handle rows, py::handle cols, py::handle hyper, double clip, bool maximize) {
  py::object hold;
  const double* h = read_hyper("adafactor_", hyper, 5, hold);
  Table table("adafactor_", "params", params, true, false);
  if (table.rows() == 0) return;
  table.add("grads", grads, false);
  std::vector<bool> factored(table.rows(), false);
  for (std::size_t r = 0; r < factored.size() && r < py::len(cols); ++r) factored[r] = !py::object(cols[py::int_(r)]).is_none();
  table.add_means("rows", rows, 1, factored);
  table.add_means("cols", cols, 2, factored);
  table.check();
  std::vector<FactoredSpan> spans;
  spans.reserve(table.rows());
  const auto add = [&](const std::vector<char*>& p, const View& x) {
    FactoredSpan s{p[0], p[1], p[2], p[3], 1, 1, x.size()};
    if (s.cols && s.size()) {
      s.width = x.shape[x.ndim - 1];
      s.height = x.shape[x.ndim - 2];
      s.matrices = x.size() / (s.height * s.width);
    }
    if (s.size()) spans.push_back(s);
  };
  table.each(add, true);
  launch(table.total(), [=, spans = std::move(spans), is_double = table.is_double()] {
    factored_step(spans, {h[0], h[1], h[2], h[3], h[4], clip, maximize}, is_double);
  });
  table.copy_back();
}

void muon(py::handle params, py::handle grads, py::handle bufs, py::handle hyper, bool nesterov,
          const std::vector<double>& coefficients, Index steps, double eps) {
  if (coefficients.size() != 3) throw py::value_error("muon_: coefficients are " + std::to_string(coefficients.size()) + ", expected 3");
  Table table("muon_", "params", params, true, false);
  if (table.rows() == 0) return;
  py::object hold;
  const double* h = read_hyper("muon_", hyper, 2 + Index(table.rows()), hold);
  table.add("grads", grads, false);
  table.add("bufs", bufs, true);
  table.check();
  std::vector<MuonSpan> spans;
  spans.reserve(table.rows());
  const double* rate = h + 2;
  const auto add = [&](const std::vector<char*>& p, const View& x) {
    if (x.ndim != 2) throw py::value_error("muon_: a parameter has shape " + to_string(x.shape_vector()) + ", expected a matrix");
    if (x.size()) spans.push_back({p[0], p[1], p[2], x.shape[0], x.shape[1], rate});
    ++rate;
  };
  table.each(add, true);
  const MuonRates fixed{0, 0, eps, {coefficients[0], coefficients[1], coefficients[2]}, steps, nesterov};
  launch(table.total(), [=, spans = std::move(spans), is_double = table.is_double()] {
    MuonRates rates = fixed;
    rates.momentum = h[0], rates.shrink = h[1];
    muon_step(spans, rates, is_double);
  });
  table.copy_back();
}

py::object multi_norm(py::handle grads, double p) {
  if (std::isnan(p)) throw py::value_error("multi_norm: p is NaN");
  Table table("multi_norm", "grads", grads, false);
  py::object out = empty(DType::Float64, Shape{});
  double* to = data_of<double>(out);
  if (table.rows()) table.check_arrays();
  std::vector<Span> spans;
  table.each([&](const std::vector<char*>& q, const View& x) { spans.push_back({q[0], x.size()}); });
  launch(table.total(), [=, spans = std::move(spans), type = table.type()] {
    *to = spans.empty() ? 0 : norm_of_all(spans, p, type);
  });
  return out;
}

void multi_scale(py::handle grads, py::handle given_factor) {
  py::object held;
  const Scale factor = read_scale("multi_scale_: factor", given_factor, held);
  Table table("multi_scale_", "grads", grads, true);
  if (table.rows() == 0) return;
  table.check();
  std::vector<Span> spans;
  table.each([&](const std::vector<char*>& q, const View& x) { spans.push_back({q[0], x.size()}); });
  launch(table.total(), [=, spans = std::move(spans), type = table.type()] { scale_all(spans, factor(), type); });
  table.copy_back();
}

py::object amp_unscale(py::handle grads, py::handle given_scale) {
  py::object held, out = empty(DType::Bool, Shape{});
  const Scale scale = read_scale("amp_unscale_: scale", given_scale, held);
  bool* to = data_of<bool>(out);
  Table table("amp_unscale_", "grads", grads, true);
  if (table.rows()) table.check();
  std::vector<Span> spans;
  table.each([&](const std::vector<char*>& q, const View& x) { spans.push_back({q[0], x.size()}); });
  launch(table.total(), [=, spans = std::move(spans), type = table.type()] { *to = unscale_all(spans, 1 / scale(), type); });
  table.copy_back();
  return out;
}

// The only element of an array that is 0-d.
template <class T>
T* only_element(const char* what, py::handle given, DType type, bool written) {
  const View v = view(given, what);
  require_dtype("amp_update_scale_", what, v, type);
  require_shape("amp_update_scale_", what, v, {});
  if (written && !PyArray_ISWRITEABLE(reinterpret_cast<PyArrayObject*>(v.array.ptr())))
    throw py::value_error(std::string("amp_update_scale_: ") + what + " is read-only");
  return reinterpret_cast<T*>(v.data);
}

void amp_update_scale(py::handle scale, const py::list& found, py::handle tracker, double growth, double backoff, std::int64_t interval) {
  float* s = only_element<float>("scale", scale, DType::Float32, true);
  auto* count = only_element<std::int32_t>("tracker", tracker, DType::Int32, true);
  std::vector<const bool*> flags;
  for (py::handle each : found) flags.push_back(only_element<bool>("found", each, DType::Bool, false));
  launch(1, [=] {
    bool any = false;
    for (const bool* flag : flags) any |= *flag;
    update_loss_scale(*s, *count, any, growth, backoff, interval);
  });
}

}  // namespace

FAST_BINDING(sgd_, 4, "params", "grads", "bufs", "hyper", "nesterov", "maximize", "scale") {
  sgd(a[0], a[1], a[2], a[3], flag(a[4]), flag(a[5]), a[6]);
  return py::none();
}

FAST_BINDING(adam_, 6, "params", "grads", "exp_avgs", "exp_avg_sqs", "max_exp_avg_sqs", "hyper", "decoupled", "maximize", "amsgrad",
             "scale") {
  adam(a[0], a[1], a[2], a[3], a[4], a[5], flag(a[6]), flag(a[7]), flag(a[8]), a[9]);
  return py::none();
}

FAST_BINDING(adafactor_, 6, "params", "grads", "rows", "cols", "hyper", "clip", "maximize") {
  adafactor(a[0], a[1], a[2], a[3], a[4], py::cast<double>(a[5]), flag(a[6]));
  return py::none();
}

FAST_BINDING(muon_, 8, "params", "grads", "bufs", "hyper", "nesterov", "coefficients", "steps", "eps") {
  muon(a[0], a[1], a[2], a[3], flag(a[4]), py::cast<std::vector<double>>(a[5]), py::cast<Index>(a[6]), py::cast<double>(a[7]));
  return py::none();
}

// Whether these kernels take the arrays: a list, all of float32 or all of float64, or, for kernels that take narrow floats
// too, all of one of those.
FAST_BINDING(plain, 1, "arrays", "narrow") {
  const bool narrow = a[1] && flag(a[1]);
  PyObject* list = a[0].ptr();
  bool good = PyList_Check(list) && PyList_GET_SIZE(list) > 0;
  int first = -1;
  for (Py_ssize_t i = 0; good && i < PyList_GET_SIZE(list); ++i) {
    PyObject* x = PyList_GET_ITEM(list, i);
    if (!PyArray_Check(x)) return py::bool_(false);
    const int type = PyArray_TYPE(reinterpret_cast<PyArrayObject*>(x));
    good = first < 0 ? type == NPY_FLOAT || type == NPY_DOUBLE || (narrow && is_narrow_float(view(x, "plain").dtype)) : type == first;
    first = type;
  }
  return py::bool_(good);
}

TG_BINDINGS(optim) {
  add_fast(m, fast_sgd_);
  add_fast(m, fast_adam_);
  add_fast(m, fast_adafactor_);
  add_fast(m, fast_muon_);
  add_fast(m, fast_plain);
  m.def("grouped_sgd_", grouped_sgd, py::arg("params"), py::arg("grads"), py::arg("bufs"), py::arg("hypers"), py::kw_only(),
        py::arg("counts"), py::arg("scales"), py::arg("nesterov"), py::arg("maximize"));
  m.def("grouped_adam_", grouped_adam, py::arg("params"), py::arg("grads"), py::arg("exp_avgs"), py::arg("exp_avg_sqs"),
        py::arg("max_exp_avg_sqs"), py::arg("hypers"), py::kw_only(), py::arg("counts"), py::arg("scales"), py::arg("decoupled"),
        py::arg("maximize"), py::arg("amsgrad"));
  m.def("multi_norm", multi_norm, py::arg("grads"), py::arg("p") = 2.0);
  m.def("multi_scale_", multi_scale, py::arg("grads"), py::arg("factor"));
  m.def("amp_unscale_", amp_unscale, py::arg("grads"), py::arg("scale"));
  m.def("amp_update_scale_", amp_update_scale, py::arg("scale"), py::arg("found"), py::arg("tracker"), py::kw_only(),
        py::arg("growth_factor"), py::arg("backoff_factor"), py::arg("growth_interval"));
}

}  // namespace tg
