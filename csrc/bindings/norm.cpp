// layer_norm, rms_norm, batch_norm, group_norm and their gradients. Narrow floats are computed in float.
#include "../kernels/norm.h"

#include <pybind11/stl.h>

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
    held_.push_back(ready(v, compute_));
    return data_of<char>(held_.back());
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
    py::tuple made(outputs_.size());
    for (size_t k = 0; k < outputs_.size(); ++k)
      made[k] = outputs_[k].is_none() || types_[k] == compute_ ? outputs_[k] : ready_as(outputs_[k], types_[k]);
    return made;
  }
  // kernel(T) runs in float or double, without the interpreter's lock when there is much to do.
  template <class Kernel>
  void run(Index work, Kernel kernel) {
    MaybeRelease unlock(work);
    visit_real(op_, compute_, [&](auto t) { kernel(t); });
  }

 private:
  char* output_as(DType type, const Shape& shape, bool wanted) {
    types_.push_back(type);
    outputs_.push_back(wanted ? empty(compute_, shape) : py::none());
    return wanted ? data_of<char>(outputs_.back()) : nullptr;
  }

  const char* op_;
  DType stored_, compute_;
  std::vector<py::object> held_, outputs_;
  std::vector<DType> types_;
};

template <class T>
const T* in(const char* p) {
  return reinterpret_cast<const T*>(p);
}
template <class T>
T* to(char* p) {
  return reinterpret_cast<T*>(p);
}

struct Needs {
  bool x, w, b;
  explicit Needs(const std::vector<bool>& needs, const char* op, size_t count) {
    if (needs.size() != count)
      throw py::value_error(std::string(op) + ": needs has " + std::to_string(needs.size()) + " entries, expected " +
                            std::to_string(count));
    x = needs[0];
    w = needs[1];
    b = count > 2 && needs[2];
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
  call.run(s.rows * s.length, [&](auto t) {
    using T = typename decltype(t)::value;
    layer_norm(s.rows, s.length, eps, in<T>(xp), in<T>(w), in<T>(b), to<T>(y), to<T>(mean), to<T>(rstd));
  });
  return call.result();
}

py::object layer_backward(py::handle g_, py::handle x_, py::handle mean_, py::handle rstd_, py::handle w_, Index ndim,
                          const std::vector<bool>& needs_) {
  const char* op = "layer_norm_backward";
  const View x = view(x_, op);
  const Rows s(op, x, ndim);
  const Needs needs(needs_, op, 3);
  NormCall call(op, x);
  const char *g = call.input("g", g_, s.all), *xp = call.input("x", x_, s.all),
             *mean = call.input("mean", mean_, s.statistics), *rstd = call.input("rstd", rstd_, s.statistics),
             *w = call.optional("weight", w_, s.normalized);
  char *gx = call.output(s.all, needs.x), *gw = call.parameter(w_, s.normalized, needs.w), *gb = call.parameter(w_, s.normalized, needs.b);
  call.run(s.rows * s.length, [&](auto t) {
    using T = typename decltype(t)::value;
    layer_norm_backward(s.rows, s.length, in<T>(g), in<T>(xp), in<T>(mean), in<T>(rstd), in<T>(w), to<T>(gx), to<T>(gw),
                        to<T>(gb));
  });
  return call.result();
}

py::object rms_forward(py::handle x_, py::handle w_, Index ndim, double eps) {
  const View x = view(x_, "rms_norm");
  const Rows s("rms_norm", x, ndim);
  NormCall call("rms_norm", x);
  const char *xp = call.input("x", x_, s.all), *w = call.optional("weight", w_, s.normalized);
  char *y = call.output(s.all), *rstd = call.statistic(s.statistics);
  call.run(s.rows * s.length, [&](auto t) {
    using T = typename decltype(t)::value;
    rms_norm(s.rows, s.length, eps, in<T>(xp), in<T>(w), to<T>(y), to<T>(rstd));
  });
  return call.result();
}

py::object rms_backward(py::handle g_, py::handle x_, py::handle rstd_, py::handle w_, Index ndim,
                        const std::vector<bool>& needs_) {
  const char* op = "rms_norm_backward";
  const View x = view(x_, op);
  const Rows s(op, x, ndim);
  const Needs needs(needs_, op, 2);
  NormCall call(op, x);
  const char *g = call.input("g", g_, s.all), *xp = call.input("x", x_, s.all),
             *rstd = call.input("rstd", rstd_, s.statistics), *w = call.optional("weight", w_, s.normalized);
  char *gx = call.output(s.all, needs.x), *gw = call.parameter(w_, s.normalized, needs.w);
  call.run(s.rows * s.length, [&](auto t) {
    using T = typename decltype(t)::value;
    rms_norm_backward(s.rows, s.length, in<T>(g), in<T>(xp), in<T>(rstd), in<T>(w), to<T>(gx), to<T>(gw));
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
  call.run(c.size(), [&](auto t) {
    using T = typename decltype(t)::value;
    std::vector<T> unseen(relu ? 0 : size_t(c.s.channels));
    batch_norm(c.s, relu, eps, in<T>(xp), in<T>(w), in<T>(b), to<T>(y), to<T>(mean), to<T>(rstd), to<T>(var),
               relu ? to<T>(shift) : unseen.data());
  });
  return call.result();
}

// `shift` is null for batch norm without ReLU.
py::object batch_backward(const char* op, py::handle g_, py::handle x_, py::handle mean_, py::handle rstd_,
                          py::handle w_, const py::handle* shift_, const std::vector<bool>& needs_) {
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
  call.run(c.size(), [&](auto t) {
    using T = typename decltype(t)::value;
    batch_norm_backward(c.s, in<T>(g), in<T>(xp), in<T>(mean), in<T>(rstd), in<T>(w), in<T>(shift), to<T>(gx),
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
  call.run(c.size(), [&](auto t) {
    using T = typename decltype(t)::value;
    batch_norm_eval(c.s, eps, in<T>(xp), in<T>(w), in<T>(b), in<T>(mean), in<T>(var), to<T>(y));
  });
  return py::object(py::tuple(call.result())[0]);
}

py::object batch_eval_backward(py::handle g_, py::handle x_, py::handle w_, py::handle mean_, py::handle var_, double eps,
                               const std::vector<bool>& needs) {
  const char* op = "batch_norm_eval_backward";
  const View x = view(x_, op);
  const Channels c(op, x);
  if (needs.size() != 5)
    throw py::value_error(std::string(op) + ": needs has " + std::to_string(needs.size()) + " entries, expected 5");
  NormCall call(op, x);
  const char *g = call.input("g", g_, c.all), *xp = call.input("x", x_, c.all),
             *w = call.optional("weight", w_, c.per_channel), *mean = call.input("mean", mean_, c.per_channel),
             *var = call.input("var", var_, c.per_channel);
  char *gx = call.output(c.all, needs[0]), *gw = call.parameter(w_, c.per_channel, needs[1]),
       *gb = call.parameter(w_, c.per_channel, needs[2]), *gmean = call.parameter(mean_, c.per_channel, needs[3]),
       *gvar = call.parameter(var_, c.per_channel, needs[4]);
  call.run(c.size(), [&](auto t) {
    using T = typename decltype(t)::value;
    batch_norm_eval_backward(c.s, eps, in<T>(g), in<T>(xp), in<T>(w), in<T>(mean), in<T>(var), to<T>(gx), to<T>(gw),
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
  call.run(c.size(), [&](auto t) {
    using T = typename decltype(t)::value;
    group_norm(c.s, groups, eps, in<T>(xp), in<T>(w), in<T>(b), to<T>(y), to<T>(mean), to<T>(rstd));
  });
  return call.result();
}

py::object group_backward(py::handle g_, py::handle x_, py::handle mean_, py::handle rstd_, py::handle w_, Index groups,
                          const std::vector<bool>& needs_) {
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
  call.run(c.size(), [&](auto t) {
    using T = typename decltype(t)::value;
    group_norm_backward(c.s, groups, in<T>(g), in<T>(xp), in<T>(mean), in<T>(rstd), in<T>(w), to<T>(gx), to<T>(gw),
                        to<T>(gb));
  });
  return call.result();
}

}  // namespace

TG_BINDINGS(norm) {
  using py::arg;
  m.def("layer_norm", layer_forward, arg("x"), arg("w"), arg("b"), arg("ndim"), arg("eps"));
  m.def("layer_norm_backward", layer_backward, arg("g"), arg("x"), arg("mean"), arg("rstd"), arg("w"), arg("ndim"),
        arg("needs"));
  m.def("rms_norm", rms_forward, arg("x"), arg("w"), arg("ndim"), arg("eps"));
  m.def("rms_norm_backward", rms_backward, arg("g"), arg("x"), arg("rstd"), arg("w"), arg("ndim"), arg("needs"));
  const auto batch = [&m](const char* op, bool relu) {
    m.def(op, [op, relu](py::handle x, py::handle w, py::handle b, double eps) {
      return batch_forward(op, relu, x, w, b, eps);
    }, arg("x"), arg("w"), arg("b"), arg("eps"));
  };
  batch("batch_norm", false);
  batch("batch_norm_relu", true);
  m.def("batch_norm_backward", [](py::handle g, py::handle x, py::handle mean, py::handle rstd, py::handle w,
                                  const std::vector<bool>& needs) {
    return batch_backward("batch_norm_backward", g, x, mean, rstd, w, nullptr, needs);
  }, arg("g"), arg("x"), arg("mean"), arg("rstd"), arg("w"), arg("needs"));
  m.def("batch_norm_relu_backward", [](py::handle g, py::handle x, py::handle mean, py::handle rstd, py::handle w,
                                       py::handle shift, const std::vector<bool>& needs) {
    return batch_backward("batch_norm_relu_backward", g, x, mean, rstd, w, &shift, needs);
  }, arg("g"), arg("x"), arg("mean"), arg("rstd"), arg("w"), arg("shift"), arg("needs"));
  m.def("batch_norm_eval_backward", batch_eval_backward, arg("g"), arg("x"), arg("w"), arg("mean"), arg("var"),
        arg("eps"), arg("needs"));
  m.def("batch_norm_eval", batch_eval, arg("x"), arg("w"), arg("b"), arg("mean"), arg("var"), arg("eps"));
  m.def("group_norm", group_forward, arg("x"), arg("w"), arg("b"), arg("groups"), arg("eps"));
  m.def("group_norm_backward", group_backward, arg("g"), arg("x"), arg("mean"), arg("rstd"), arg("w"), arg("groups"),
        arg("needs"));
}

}  // namespace tg
