// max, mean and adaptive pools with their gradients.
#include <optional>

#include "../core/bind.h"
#include "../core/fastcall.h"
#include "../kernels/pool.h"
#include "gemm_arrays.h"

namespace tg {
namespace {

using Attribute = std::vector<Index>;

std::optional<Index> number_or_none(py::handle given) {
  if (given.is_none()) return std::nullopt;
  return py::cast<Index>(given);
}

constexpr Index kMostExtent = Index(1) << 31;

// x (batch, channels, 1 to 3 spatial axes); the number of spatial axes.
int spatial_axes(const std::string& what, const Shape& shape) {
  const int n = static_cast<int>(shape.size()) - 2;
  if (n < 1 || n > 3)
    bad_value(what + ": expected (batch, channels, 1 to 3 spatial axes), got shape " + to_string(shape));
  return n;
}

// An attribute of one number per spatial axis, each at least `least`, at the end of a triple.
Triple spread(const std::string& what, const char* name, const Attribute& values, int axes, Index least, Index fill) {
  if (static_cast<int>(values.size()) != axes)
    bad_value(what + ": " + name + " " + to_string(values) + " needs one number for each of " + std::to_string(axes) +
              " spatial axes");
  Triple t{fill, fill, fill};
  for (int a = 0; a < axes; ++a) {
    if (values[a] < least || values[a] >= kMostExtent)
      bad_value(what + ": " + name + " " + to_string(values) + " must be at least " + std::to_string(least) +
                " and below 2^31");
    t[3 - axes + a] = values[a];
  }
  return t;
}

struct PoolPlan {
  PoolShape pool;
  int axes;
  Shape in, out;

  // `what` names the op in errors.
  PoolPlan(const std::string& what, const Shape& shape) : axes(spatial_axes(what, shape)), in(shape), out(shape) {
    pool.planes = shape[0] * shape[1];
    for (int a = 0; a < axes; ++a) pool.in[3 - axes + a] = shape[2 + a];
  }

  void windows(const std::string& what, const Attribute& kernel, const Attribute& stride, const Attribute& padding,
               const Attribute& dilation, bool ceil_mode) {
    pool.kernel = spread(what, "kernel", kernel, axes, 1, 1);
    pool.stride = spread(what, "stride", stride, axes, 1, 1);
    pool.padding = spread(what, "padding", padding, axes, 0, 0);
    pool.dilation = spread(what, "dilation", dilation, axes, 1, 1);
    for (int a = 0; a < axes; ++a) {
      const int i = 3 - axes + a;
      const Index k = pool.kernel[i], s = pool.stride[i], p = pool.padding[i];
      if (2 * p > k)
        bad_value(what + ": padding " + to_string(padding) + " is more than half of kernel " + to_string(kernel));
      // with ceil_mode the room may be negative: the only window then begins inside and ends outside
      const Index room = pool.in[i] + 2 * p - pool.dilation[i] * (k - 1) - 1 + (ceil_mode ? s - 1 : 0);
      Index length = room < 0 ? 0 : room / s + 1;
      // a last window must start inside the input or its left padding
      if (ceil_mode && (length - 1) * s >= pool.in[i] + p) --length;
      if (length < 1 || pool.in[i] == 0)
        bad_value(what + ": kernel " + to_string(kernel) + " with dilation " + to_string(dilation) +
                  " does not fit the padded input " + to_string(in));
      pool.out[i] = length;
      out[2 + a] = length;
    }
  }

  void adapt(const std::string& what, const Attribute& size) {
    for (int k = 1; k < 2 + axes; ++k)
      if (!in[size_t(k)]) bad_value(what + ": only the batch may be empty, got shape " + to_string(in));
    pool.out = spread(what, "output_size", size, axes, 0, 1);
    for (int a = 0; a < axes; ++a) out[2 + a] = size[a];
  }

  void require_out(const std::string& what, const Shape& g) const {
    if (g != out) bad_value(what + ": g has shape " + to_string(g) + ", expected " + to_string(out));
  }
  Index work() const { return pool.planes * std::max(volume(pool.in), volume(pool.out)); }
};

// f(values of T) on the float32 or float64 array that stands for `dtype`.
template <class F>
void visit(const char* what, DType dtype, F&& f) {
  visit_real(what, compute_dtype(dtype), f);
}

// Maxima, and their places where `indexed`.
py::object max_with(const char* what, const PoolPlan& plan, py::handle x, bool adaptive, bool indexed) {
  const DType dtype = view(x, what).dtype;
  const py::object from = dense(x, dtype, what);
  py::object indices = indexed ? empty(DType::Int64, plan.out) : py::none(), values;
  visit(what, dtype, [&](auto t) {
    using T = typename decltype(t)::value;
    values = empty(compute_dtype(dtype), plan.out);
    const T* x = data_of<T>(from);
    T* y = data_of<T>(values);
    auto* at = indexed ? data_of<std::int64_t>(indices) : nullptr;
    launch(plan.work(), [=, pool = plan.pool] {
      if (adaptive) adaptive_max_pool(pool, x, y, at);
      else max_pool(pool, x, y, at);
    });
  });
  const py::object found = narrowed(values, dtype);
  return indexed ? py::object(py::make_tuple(found, indices)) : found;
}

py::object bind_max_pool(py::handle x, const Attribute& kernel, const Attribute& stride, const Attribute& padding,
                         const Attribute& dilation, bool ceil_mode, bool indexed) {
  PoolPlan plan("max_pool", shape_of(x));
  plan.windows("max_pool", kernel, stride, padding, dilation, ceil_mode);
  return max_with("max_pool: x", plan, x, false, indexed);
}

py::object bind_adaptive_max_pool(py::handle x, const Attribute& output_size, bool indexed) {
  PoolPlan plan("adaptive_max_pool", shape_of(x));
  plan.adapt("adaptive_max_pool", output_size);
  return max_with("adaptive_max_pool: x", plan, x, true, indexed);
}

py::object bind_max_pool_backward(py::handle g, py::handle indices, const Attribute& input_shape) {
  const char* what = "max_pool_backward";
  const View vg = view(g, "max_pool_backward: g"), vi = view(indices, "max_pool_backward: indices");
  require_dtype(vi, DType::Int64, "max_pool_backward: indices");
  PoolPlan plan(what, input_shape);
  const Shape shape = vg.shape_vector();
  if (vi.shape_vector() != shape)
    bad_value("max_pool_backward: g " + to_string(shape) + " and indices " + to_string(vi.shape_vector()) +
              " must have one shape");
  if (shape.size() != input_shape.size() || shape[0] != input_shape[0] || shape[1] != input_shape[1])
    bad_value("max_pool_backward: g " + to_string(shape) + " and input_shape " + to_string(input_shape) +
              " must agree in batch and channels");
  for (int a = 0; a < plan.axes; ++a) plan.pool.out[3 - plan.axes + a] = shape[2 + a];
  const py::object from = dense(g, vg.dtype, "max_pool_backward: g"), where = contiguous(indices, what);
  py::object gx;
  visit(what, vg.dtype, [&](auto t) {
    using T = typename decltype(t)::value;
    gx = empty(compute_dtype(vg.dtype), input_shape);
    const auto* index = data_of<std::int64_t>(where);
    const T* g = data_of<T>(from);
    T* to = data_of<T>(gx);
    launch(plan.work(), [=, pool = plan.pool, count = product(shape)] {
      if (!indices_inside(index, count, volume(pool.in)))
        throw py::index_error("max_pool_backward: an index lies outside the plane of input_shape");
      max_pool_backward(pool, g, index, to);
    });
  });
  return narrowed(gx, vg.dtype);
}

double checked_divisor(const char* what, const std::optional<Index>& divisor) {
  if (!divisor) return 0;
  if (*divisor == 0) bad_value(std::string(what) + ": divisor_override must not be 0");
  return static_cast<double>(*divisor);
}

py::object mean_forward(const char* what, const PoolPlan& plan, Windows windows, double divisor, py::handle x) {
  const DType dtype = view(x, what).dtype;
  const py::object from = dense(x, dtype, what);
  py::object y;
  visit(what, dtype, [&](auto t) {
    using T = typename decltype(t)::value;
    y = empty(compute_dtype(dtype), plan.out);
    const T* x = data_of<T>(from);
    T* to = data_of<T>(y);
    launch(plan.work(), [=, pool = plan.pool, windows = std::move(windows)] { mean_pool(pool, windows, divisor, x, to); });
  });
  return narrowed(y, dtype);
}

py::object mean_backward(const char* what, const PoolPlan& plan, Windows windows, double divisor, py::handle g) {
  const View vg = view(g, what);
  plan.require_out(what, vg.shape_vector());
  const py::object from = dense(g, vg.dtype, what);
  py::object gx;
  visit(what, vg.dtype, [&](auto t) {
    using T = typename decltype(t)::value;
    gx = empty(compute_dtype(vg.dtype), plan.in);
    const T* g = data_of<T>(from);
    T* to = data_of<T>(gx);
    launch(plan.work(), [=, pool = plan.pool, windows = std::move(windows)] { mean_pool_backward(pool, windows, divisor, g, to); });
  });
  return narrowed(gx, vg.dtype);
}

PoolPlan mean_plan(const char* what, const Shape& in, const Attribute& kernel, const Attribute& stride,
               const Attribute& padding, bool ceil_mode) {
  PoolPlan plan(what, in);
  plan.windows(what, kernel, stride, padding, Attribute(plan.axes, 1), ceil_mode);
  return plan;
}

py::object bind_avg_pool(py::handle x, const Attribute& kernel, const Attribute& stride, const Attribute& padding,
                         bool ceil_mode, bool count_include_pad, const std::optional<Index>& divisor_override) {
  const PoolPlan plan = mean_plan("avg_pool", shape_of(x), kernel, stride, padding, ceil_mode);
  const double divisor = checked_divisor("avg_pool", divisor_override);
  return mean_forward("avg_pool", plan, pool_windows(plan.pool, count_include_pad), divisor, x);
}

py::object bind_avg_pool_backward(py::handle g, const Attribute& input_shape, const Attribute& kernel,
                                  const Attribute& stride, const Attribute& padding, bool ceil_mode,
                                  bool count_include_pad, const std::optional<Index>& divisor_override) {
  const PoolPlan plan = mean_plan("avg_pool_backward", input_shape, kernel, stride, padding, ceil_mode);
  const double divisor = checked_divisor("avg_pool_backward", divisor_override);
  return mean_backward("avg_pool_backward", plan, pool_windows(plan.pool, count_include_pad), divisor, g);
}

py::object bind_adaptive_avg_pool(py::handle x, const Attribute& output_size) {
  PoolPlan plan("adaptive_avg_pool", shape_of(x));
  plan.adapt("adaptive_avg_pool", output_size);
  return mean_forward("adaptive_avg_pool", plan, adaptive_windows(plan.pool.in, plan.pool.out), 0, x);
}

py::object bind_adaptive_avg_pool_backward(py::handle g, const Attribute& input_shape) {
  const char* what = "adaptive_avg_pool_backward";
  PoolPlan plan(what, input_shape);
  const Shape shape = shape_of(g);
  if (shape.size() != input_shape.size()) plan.require_out(what, shape);
  plan.adapt(what, Attribute(shape.begin() + 2, shape.end()));
  return mean_backward(what, plan, adaptive_windows(plan.pool.in, plan.pool.out), 0, g);
}

FAST_BINDING(max_pool, 6, "x", "kernel", "stride", "padding", "dilation", "ceil_mode") {
  return bind_max_pool(a[0], numbers(a[1]), numbers(a[2]), numbers(a[3]), numbers(a[4]), flag(a[5]), true);
}
FAST_BINDING(max_pool_values, 6, "x", "kernel", "stride", "padding", "dilation", "ceil_mode") {
  return bind_max_pool(a[0], numbers(a[1]), numbers(a[2]), numbers(a[3]), numbers(a[4]), flag(a[5]), false);
}
FAST_BINDING(adaptive_max_pool, 2, "x", "output_size") { return bind_adaptive_max_pool(a[0], numbers(a[1]), true); }
FAST_BINDING(adaptive_max_pool_values, 2, "x", "output_size") { return bind_adaptive_max_pool(a[0], numbers(a[1]), false); }
// `window` tells where places may be, which are looked up here.
FAST_BINDING(max_pool_backward, 3, "g", "indices", "input_shape", "window") {
  return bind_max_pool_backward(a[0], a[1], numbers(a[2]));
}
FAST_BINDING(avg_pool, 7, "x", "kernel", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override") {
  return bind_avg_pool(a[0], numbers(a[1]), numbers(a[2]), numbers(a[3]), flag(a[4]), flag(a[5]), number_or_none(a[6]));
}
FAST_BINDING(avg_pool_backward, 8, "g", "input_shape", "kernel", "stride", "padding", "ceil_mode", "count_include_pad",
             "divisor_override") {
  return bind_avg_pool_backward(a[0], numbers(a[1]), numbers(a[2]), numbers(a[3]), numbers(a[4]), flag(a[5]), flag(a[6]),
                                number_or_none(a[7]));
}
FAST_BINDING(adaptive_avg_pool, 2, "x", "output_size") { return bind_adaptive_avg_pool(a[0], numbers(a[1])); }
FAST_BINDING(adaptive_avg_pool_backward, 2, "g", "input_shape") {
  return bind_adaptive_avg_pool_backward(a[0], numbers(a[1]));
}

}  // namespace

TG_BINDINGS(pool) {
  for (PyMethodDef* one : {&fast_max_pool, &fast_max_pool_values, &fast_adaptive_max_pool, &fast_adaptive_max_pool_values,
                           &fast_max_pool_backward, &fast_avg_pool, &fast_avg_pool_backward, &fast_adaptive_avg_pool,
                           &fast_adaptive_avg_pool_backward})
    add_fast(m, *one);
}

}  // namespace tg
