// layer_norm, rms_norm, batch_norm, group_norm and their gradients. Narrow floats are computed in float.
#include "../kernels/norm.h"

#include <array>

#include "../core/fastcall.h"
#include "lines.h"

namespace tg {
namespace {

// The inputs and outputs of one call, in the type they are computed in. Next to narrow elements, statistics and
// parameters may be of the computed type: statistics are returned so, gradients of parameters in the parameter's type.
class NormCall {
 public:
  NormCall(const char* op, const View& x) : op_(op), stored_(x.dtype), compute_(float_compute(op, x)) {}

  // Null for None where that is allowed.
  const char* input(const char* what, py::handle array, const Shape& shape) {
    const View v = view(array, op_);
    if (v.dtype != compute_) require_dtype(op_, what, v, stored_);
    require_shape(op_, what, v, shape);
    held_[inputs_] = ready(v, compute_);
    return data_of<char>(held_[inputs_++]);
  }
  const char* optional(const char* what, py::handle array, const Shape& shape) {
    return array.is_none() ? nullptr : input(what, array, shape);
  }
  // An output, or None in its place.
  char* output(const Shape& shape, bool wanted = true) { return output_as(stored_, shape, wanted); }
  char* statistic(const Shape& shape) { return output_as(compute_, shape, true); }
  char* parameter(py::handle like, const Shape& shape, bool wanted) {
    return output_as(like.is_none() ? stored_ : view(like, op_).dtype, shape, wanted);
  }
  py::object result() {
    py::tuple made(count_);
    for (size_t k = 0; k < count_; ++k) {
      py::object& one = outputs_[k];
      if (!one.is_none() && types_[k] != compute_) one = ready_as(one, types_[k]);
      PyTuple_SET_ITEM(made.ptr(), Py_ssize_t(k), one.release().ptr());
    }
    return std::move(made);
  }
  py::object only() { return types_[0] == compute_ ? outputs_[0] : ready_as(outputs_[0], types_[0]); }
  // kernel(T) runs in float or double, without the interpreter's lock when there is much to do.
  template <class Kernel>
  void run(Index work, Kernel kernel) {
    launch(work, [op = op_, compute = compute_, kernel] { visit_real(op, compute, kernel); });
  }

  // What a call over rows reads or writes: as many numbers as the rows have, or as there are rows, or as a row has.
  struct Use {
    const char* data;
    Index count;
    bool written = false;
  };
  // kernel(T, first, last) does rows, each by itself.
  template <class Kernel>
  void run_rows(Index rows, Index length, std::initializer_list<Use> uses, Kernel kernel) {
    launch_rows(rows * length, rows, length, touches(uses, rows * length),
                [op = op_, compute = compute_, kernel](Index first, Index last) {
                  visit_real(op, compute, [&](auto t) { kernel(t, first, last); });
                });
  }
  // arguments(T) are those of a kernel that sums over rows, `order` of which come in order.
  template <class Arguments>
  void run_row_sums(Index rows, Index length, std::initializer_list<Use> uses, Arguments arguments) {
    const Index order = visit_real(op_, compute_, [&](auto t) { return rows_in_order(arguments(t)); });
    launch_row_sums(
        rows * length, rows, length, 1, order, touches(uses, rows * length),
        [op = op_, compute = compute_, arguments] {
          return visit_real(op, compute, [&](auto t) { return run_of(arguments(t)); });
        },
        [op = op_, compute = compute_, arguments] {
          visit_real(op, compute, [&](auto t) { layer_norm_backward(arguments(t)); });
        });
  }

 private:
  std::vector<PieceLaunch::Touch> touches(std::initializer_list<Use> uses, Index n) const {
    std::vector<PieceLaunch::Touch> found;
    const Index item = size_of(compute_);
    for (const Use& use : uses)
      if (use.data) found.push_back({use.data, use.count * item, use.count == n ? item : 0, use.written});
    return found;
  }

  char* output_as(DType type, const Shape& shape, bool wanted) {
    py::object& made = outputs_[count_];
    types_[count_++] = type;
    made = wanted ? empty(compute_, shape) : py::none();
    return wanted ? data_of<char>(made) : nullptr;
  }

  const char* op_;
  DType stored_, compute_;
  std::array<py::object, 7> held_;  // as many as a call can have
  std::array<py::object, 5> outputs_;
  std::array<DType, 5> types_{};
  size_t inputs_ = 0, count_ = 0;
};

template <class T>
T* to(char* p) {
  return reinterpret_cast<T*>(p);
}

// Which gradients are asked for: a sequence of truths.
struct Needs {
  bool x = false, w = false, b = false, mean = false, var = false;
  Needs(py::handle given, const char* op, Py_ssize_t count) {
    const py::object all = py::reinterpret_steal<py::object>(PySequence_Fast(given.ptr(), "needs must be a sequence"));
    if (!all) throw py::error_already_set();
    if (PySequence_Fast_GET_SIZE(all.ptr()) != count)
      throw py::value_error(std::string(op) + ": needs has " + std::to_string(PySequence_Fast_GET_SIZE(all.ptr())) +
                            " entries, expected " + std::to_string(count));
    bool* const to[] = {&x, &w, &b, &mean, &var};
    for (Py_ssize_t i = 0; i < count; ++i) *to[i] = flag(PySequence_Fast_GET_ITEM(all.ptr(), i));
  }
};

// The last ndim axes are one row.
struct Rows {
  Index rows = 1, length = 1;
  Shape all, normalized, statistics;
  Rows(const char* op, const View& x, Index ndim) {
    if (ndim < 1 || ndim > x.ndim)
      throw py::value_error(std::string(op) + ": cannot normalize the last " + std::to_string(ndim) + " axes of shape " +
                            to_string(x.shape_vector()) + "; valid: 1 to " + std::to_string(x.ndim));
    for (int k = 0; k < x.ndim; ++k) {
      const bool inside = k >= x.ndim - ndim;
      all.push_back(x.shape[k]);
      statistics.push_back(inside ? 1 : x.shape[k]);
      if (inside) normalized.push_back(x.shape[k]);
      (inside ? length : rows) *= x.shape[k];
    }
  }
};

py::object layer_forward(py::handle x_, py::handle w_, py::handle b_, Index ndim, double eps) {
  const View x = view(x_, "layer_norm");
  const Rows s("layer_norm", x, ndim);
  NormCall call("layer_norm", x);
  const char *xp = call.input("x", x_, s.all), *w = call.optional("weight", w_, s.normalized),
             *b = call.optional("bias", b_, s.normalized);
  char *y = call.output(s.all), *mean = call.statistic(s.statistics), *rstd = call.statistic(s.statistics);
  const Index n = s.rows * s.length;
  call.run_rows(s.rows, s.length, {{xp, n}, {y, n, true}, {mean, s.rows, true}, {rstd, s.rows, true}, {w, s.length}, {b, s.length}},
                [=, length = s.length](auto t, Index first, Index last) {
                  using T = typename decltype(t)::value;
                  const Index at = first * length;
                  layer_norm(last - first, length, eps, in<T>(xp) + at, in<T>(w), in<T>(b), to<T>(y) + at, to<T>(mean) + first,
                             to<T>(rstd) + first);
                });
  return call.result();
}

py::object layer_backward(py::handle g_, py::handle x_, py::handle mean_, py::handle rstd_, py::handle w_, Index ndim,
                          py::handle needs_) {
  const char* op = "layer_norm_backward";
  const View x = view(x_, op);
  const Rows s(op, x, ndim);
  const Needs needs(needs_, op, 3);
  NormCall call(op, x);
  const char *g = call.input("g", g_, s.all), *xp = call.input("x", x_, s.all),
             *mean = call.input("mean", mean_, s.statistics), *rstd = call.input("rstd", rstd_, s.statistics),
             *w = call.optional("weight", w_, s.normalized);
  char *gx = call.output(s.all, needs.x), *gw = call.parameter(w_, s.normalized, needs.w), *gb = call.parameter(w_, s.normalized, needs.b);
  const auto arguments = [=, rows = s.rows, length = s.length](auto t) {
    using T = typename decltype(t)::value;
    return LayerNormGradient<T>{rows, length, in<T>(g), in<T>(xp), in<T>(mean), in<T>(rstd), in<T>(w), to<T>(gx), to<T>(gw), to<T>(gb)};
  };
  const Index n = s.rows * s.length;
  call.run_row_sums(s.rows, s.length,
                    {{g, n}, {xp, n}, {mean, s.rows}, {rstd, s.rows}, {w, s.length}, {gx, n, true}, {gw, s.length, true}, {gb, s.length, true}},
                    arguments);
  return call.result();
}

py::object rms_forward(py::handle x_, py::handle w_, Index ndim, double eps) {
  const View x = view(x_, "rms_norm");
  const Rows s("rms_norm", x, ndim);
  NormCall call("rms_norm", x);
  const char *xp = call.input("x", x_, s.all), *w = call.optional("weight", w_, s.normalized);
  char *y = call.output(s.all), *rstd = call.statistic(s.statistics);
  const Index n = s.rows * s.length;
  call.run_rows(s.rows, s.length, {{xp, n}, {y, n, true}, {rstd, s.rows, true}, {w, s.length}},
                [=, length = s.length](auto t, Index first, Index last) {
                  using T = typename decltype(t)::value;
                  const Index at = first * length;
                  rms_norm(last - first, length, eps, in<T>(xp) + at, in<T>(w), to<T>(y) + at, to<T>(rstd) + first);
                });
  return call.result();
}

py::object rms_backward(py::handle g_, py::handle x_, py::handle rstd_, py::handle w_, Index ndim,
                        py::handle needs_) {
  const char* op = "rms_norm_backward";
  const View x = view(x_, op);
  const Rows s(op, x, ndim);
  const Needs needs(needs_, op, 2);
  NormCall call(op, x);
  const char *g = call.input("g", g_, s.all), *xp = call.input("x", x_, s.all),
             *rstd = call.input("rstd", rstd_, s.statistics), *w = call.optional("weight", w_, s.normalized);
  char *gx = call.output(s.all, needs.x), *gw = call.parameter(w_, s.normalized, needs.w);
  call.run(s.rows * s.length, [=, rows = s.rows, length = s.length](auto t) {
    using T = typename decltype(t)::value;
    rms_norm_backward(rows, length, in<T>(g), in<T>(xp), in<T>(rstd), in<T>(w), to<T>(gx), to<T>(gw));
  });
  return call.result();
}

// (N, C, ...): the axes after the channels are one plane.
struct Channels {
  ChannelShape s{1, 1, 1};
  Shape all, per_channel;
  Channels(const char* op, const View& x) {
    if (x.ndim < 2)
      throw py::value_error(std::string(op) + ": shape " + to_string(x.shape_vector()) +
                            " has no channel axis; expected (batch, channels, ...)");
    s.batch = x.shape[0];
    s.channels = x.shape[1];
    for (int k = 0; k < x.ndim; ++k) {
      all.push_back(x.shape[k]);
      if (k > 1) s.plane *= x.shape[k];
    }
    per_channel = {s.channels};
  }
  Index size() const { return s.batch * s.channels * s.plane; }
};

py::object batch_forward(const char* op, bool relu, py::handle x_, py::handle w_, py::handle b_, double eps) {
  const View x = view(x_, op);
  const Channels c(op, x);
  NormCall call(op, x);
  const char *xp = call.input("x", x_, c.all), *w = call.optional("weight", w_, c.per_channel),
             *b = call.optional("bias", b_, c.per_channel);
  char *y = call.output(c.all), *mean = call.statistic(c.per_channel), *rstd = call.statistic(c.per_channel),
       *var = call.statistic(c.per_channel), *shift = relu ? call.statistic(c.per_channel) : nullptr;
  call.run(c.size(), [=, s = c.s](auto t) {
    using T = typename decltype(t)::value;
    std::vector<T> unseen(relu ? 0 : size_t(s.channels));
    batch_norm(s, relu, eps, in<T>(xp), in<T>(w), in<T>(b), to<T>(y), to<T>(mean), to<T>(rstd), to<T>(var),
               relu ? to<T>(shift) : unseen.data());
  });
  return call.result();
}

// `shift` is null for batch norm without ReLU.
py::object batch_backward(const char* op, py::handle g_, py::handle x_, py::handle mean_, py::handle rstd_,
                          py::handle w_, const py::handle* shift_, py::handle needs_) {
  const View x = view(x_, op);
  const Channels c(op, x);
  const Needs needs(needs_, op, 3);
  NormCall call(op, x);
  const char *g = call.input("g", g_, c.all), *xp = call.input("x", x_, c.all),
             *mean = call.input("mean", mean_, c.per_channel), *rstd = call.input("rstd", rstd_, c.per_channel),
             *w = call.optional("weight", w_, c.per_channel),
             *shift = shift_ ? call.input("shift", *shift_, c.per_channel) : nullptr;
  char *gx = call.output(c.all, needs.x), *gw = call.parameter(w_, c.per_channel, needs.w),
       *gb = call.parameter(w_, c.per_channel, needs.b);
  call.run(c.size(), [=, s = c.s](auto t) {
    using T = typename decltype(t)::value;
    batch_norm_backward(s, in<T>(g), in<T>(xp), in<T>(mean), in<T>(rstd), in<T>(w), in<T>(shift), to<T>(gx),
                        to<T>(gw), to<T>(gb));
  });
  return call.result();
}

py::object batch_eval(py::handle x_, py::handle w_, py::handle b_, py::handle mean_, py::handle var_, double eps) {
  const char* op = "batch_norm_eval";
  const View x = view(x_, op);
  const Channels c(op, x);
  NormCall call(op, x);
  const char *xp = call.input("x", x_, c.all), *w = call.optional("weight", w_, c.per_channel),
             *b = call.optional("bias", b_, c.per_channel), *mean = call.input("mean", mean_, c.per_channel),
             *var = call.input("var", var_, c.per_channel);
  char* y = call.output(c.all);
  call.run(c.size(), [=, s = c.s](auto t) {
    using T = typename decltype(t)::value;
    batch_norm_eval(s, eps, in<T>(xp), in<T>(w), in<T>(b), in<T>(mean), in<T>(var), to<T>(y));
  });
  return call.only();
}

py::object batch_eval_backward(py::handle g_, py::handle x_, py::handle w_, py::handle mean_, py::handle var_, double eps,
                               py::handle needs_) {
  const char* op = "batch_norm_eval_backward";
  const View x = view(x_, op);
  const Channels c(op, x);
  const Needs needs(needs_, op, 5);
  NormCall call(op, x);
  const char *g = call.input("g", g_, c.all), *xp = call.input("x", x_, c.all),
             *w = call.optional("weight", w_, c.per_channel), *mean = call.input("mean", mean_, c.per_channel),
             *var = call.input("var", var_, c.per_channel);
  char *gx = call.output(c.all, needs.x), *gw = call.parameter(w_, c.per_channel, needs.w),
       *gb = call.parameter(w_, c.per_channel, needs.b), *gmean = call.parameter(mean_, c.per_channel, needs.mean),
       *gvar = call.parameter(var_, c.per_channel, needs.var);
  call.run(c.size(), [=, s = c.s](auto t) {
    using T = typename decltype(t)::value;
    batch_norm_eval_backward(s, eps, in<T>(g), in<T>(xp), in<T>(w), in<T>(mean), in<T>(var), to<T>(gx), to<T>(gw),
                             to<T>(gb), to<T>(gmean), to<T>(gvar));
  });
  return call.result();
}

void require_groups(const char* op, const Channels& c, Index groups) {
  if (groups < 1 || c.s.channels % groups)
    throw py::value_error(std::string(op) + ": " + std::to_string(c.s.channels) + " channels do not divide into " +
                          std::to_string(groups) + " groups");
}

py::object group_forward(py::handle x_, py::handle w_, py::handle b_, Index groups, double eps) {
  const View x = view(x_, "group_norm");
  const Channels c("group_norm", x);
  require_groups("group_norm", c, groups);
  NormCall call("group_norm", x);
  const char *xp = call.input("x", x_, c.all), *w = call.optional("weight", w_, c.per_channel),
             *b = call.optional("bias", b_, c.per_channel);
  const Shape statistics{c.s.batch, groups};
  char *y = call.output(c.all), *mean = call.statistic(statistics), *rstd = call.statistic(statistics);
  call.run(c.size(), [=, s = c.s](auto t) {
    using T = typename decltype(t)::value;
    group_norm(s, groups, eps, in<T>(xp), in<T>(w), in<T>(b), to<T>(y), to<T>(mean), to<T>(rstd));
  });
  return call.result();
}

py::object group_backward(py::handle g_, py::handle x_, py::handle mean_, py::handle rstd_, py::handle w_, Index groups,
                          py::handle needs_) {
  const char* op = "group_norm_backward";
  const View x = view(x_, op);
  const Channels c(op, x);
  require_groups(op, c, groups);
  const Needs needs(needs_, op, 3);
  NormCall call(op, x);
  const Shape statistics{c.s.batch, groups};
  const char *g = call.input("g", g_, c.all), *xp = call.input("x", x_, c.all),
             *mean = call.input("mean", mean_, statistics), *rstd = call.input("rstd", rstd_, statistics),
             *w = call.optional("weight", w_, c.per_channel);
  char *gx = call.output(c.all, needs.x), *gw = call.parameter(w_, c.per_channel, needs.w),
       *gb = call.parameter(w_, c.per_channel, needs.b);
  call.run(c.size(), [=, s = c.s](auto t) {
    using T = typename decltype(t)::value;
    group_norm_backward(s, groups, in<T>(g), in<T>(xp), in<T>(mean), in<T>(rstd), in<T>(w), to<T>(gx), to<T>(gw),
                        to<T>(gb));
  });
  return call.result();
}

Index whole(py::handle given) { return py::cast<Index>(given); }
double number(py::handle given) { return py::cast<double>(given); }

FAST_BINDING(layer_norm, 5, "x", "w", "b", "ndim", "eps") {
  return layer_forward(a[0], a[1], a[2], whole(a[3]), number(a[4]));
}
FAST_BINDING(layer_norm_backward, 7, "g", "x", "mean", "rstd", "w", "ndim", "needs") {
  return layer_backward(a[0], a[1], a[2], a[3], a[4], whole(a[5]), a[6]);
}
FAST_BINDING(rms_norm, 4, "x", "w", "ndim", "eps") {
  return rms_forward(a[0], a[1], whole(a[2]), number(a[3]));
}
FAST_BINDING(rms_norm_backward, 6, "g", "x", "rstd", "w", "ndim", "needs") {
  return rms_backward(a[0], a[1], a[2], a[3], whole(a[4]), a[5]);
}
FAST_BINDING(batch_norm, 4, "x", "w", "b", "eps") {
  return batch_forward("batch_norm", false, a[0], a[1], a[2], number(a[3]));
}
FAST_BINDING(batch_norm_relu, 4, "x", "w", "b", "eps") {
  return batch_forward("batch_norm_relu", true, a[0], a[1], a[2], number(a[3]));
}
FAST_BINDING(batch_norm_backward, 6, "g", "x", "mean", "rstd", "w", "needs") {
  return batch_backward("batch_norm_backward", a[0], a[1], a[2], a[3], a[4], nullptr, a[5]);
}
FAST_BINDING(batch_norm_relu_backward, 7, "g", "x", "mean", "rstd", "w", "shift", "needs") {
  return batch_backward("batch_norm_relu_backward", a[0], a[1], a[2], a[3], a[4], &a[5], a[6]);
}
FAST_BINDING(batch_norm_eval, 6, "x", "w", "b", "mean", "var", "eps") {
  return batch_eval(a[0], a[1], a[2], a[3], a[4], number(a[5]));
}
FAST_BINDING(batch_norm_eval_backward, 7, "g", "x", "w", "mean", "var", "eps", "needs") {
  return batch_eval_backward(a[0], a[1], a[2], a[3], a[4], number(a[5]), a[6]);
}
FAST_BINDING(group_norm, 5, "x", "w", "b", "groups", "eps") {
  return group_forward(a[0], a[1], a[2], whole(a[3]), number(a[4]));
}
FAST_BINDING(group_norm_backward, 7, "g", "x", "mean", "rstd", "w", "groups", "needs") {
  return group_backward(a[0], a[1], a[2], a[3], a[4], whole(a[5]), a[6]);
}

}  // namespace

TG_BINDINGS(norm) {
  add_fast(m, fast_layer_norm);
  add_fast(m, fast_layer_norm_backward);
  add_fast(m, fast_rms_norm);
  add_fast(m, fast_rms_norm_backward);
  add_fast(m, fast_batch_norm);
  add_fast(m, fast_batch_norm_relu);
  add_fast(m, fast_batch_norm_backward);
  add_fast(m, fast_batch_norm_relu_backward);
  add_fast(m, fast_batch_norm_eval);
  add_fast(m, fast_batch_norm_eval_backward);
  add_fast(m, fast_group_norm);
  add_fast(m, fast_group_norm_backward);
}

}  // namespace tg
