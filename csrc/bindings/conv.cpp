// Convolution of one to three spatial axes and its gradients.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cmath>

#include "../core/fastcall.h"
#include "../kernels/conv.h"
#include "../kernels/gemm_bfloat.h"
#include "gemm_arrays.h"

namespace tg {
namespace {

using Attribute = std::vector<Index>;

// Offsets inside the padded copy of one plane are 32-bit.
constexpr Index kMostPlane = Index(1) << 30;
constexpr Index kLeastTerms = 32;  // positions of an image for which its gradients are multiplied in pairs

struct ConvPlan {
  ConvShape s;
  Shape out;
};

ConvPlan plan_conv(const std::string& what, const Shape& x, const Shape& w, const Attribute& stride,
               const Attribute& padding, const Attribute& dilation, Index groups) {
  const int axes = static_cast<int>(x.size()) - 2;
  const std::string shapes = "input " + to_string(x) + " and weight " + to_string(w);
  if (axes < 1 || axes > 3)
    bad_value(what + ": expected input (batch, channels, 1 to 3 spatial axes), got shape " + to_string(x));
  if (w.size() != x.size()) bad_value(what + ": " + shapes + " must have the same number of axes");
  for (Index n : x)
    if (n < 0) bad_value(what + ": negative size in " + to_string(x));
  for (Index n : w)
    if (n < 0) bad_value(what + ": negative size in " + to_string(w));
  if (groups < 1) bad_value(what + ": groups must be at least 1, got " + std::to_string(groups));
  if (x[1] != w[1] * groups)
    bad_value(what + ": " + shapes + " with groups=" + std::to_string(groups) + ": weight expects " +
              std::to_string(w[1] * groups) + " input channels, input has " + std::to_string(x[1]));
  if (w[0] % groups != 0)
    bad_value(what + ": " + std::to_string(w[0]) + " output channels can't be shared by groups=" +
              std::to_string(groups));
  auto attribute = [&](const char* name, const Attribute& values, Index least) {
    bool fits = static_cast<int>(values.size()) == axes;
    for (Index v : values) fits = fits && v >= least && v < kMostPlane;
    if (!fits)
      bad_value(what + ": " + name + " " + to_string(values) + " needs " + std::to_string(axes) +
                " numbers of at least " + std::to_string(least));
  };
  attribute("stride", stride, 1);
  attribute("padding", padding, 0);
  attribute("dilation", dilation, 1);
  ConvPlan plan;
  ConvShape& s = plan.s;
  s.batch = x[0];
  s.groups = groups;
  s.in_channels = x[1];
  s.out_channels = w[0];
  plan.out = {x[0], w[0]};
  Index plane = 1;
  for (int a = 0; a < axes; ++a) {
    const int i = 3 - axes + a;
    s.in[i] = x[2 + a];
    s.kernel[i] = w[2 + a];
    s.stride[i] = stride[a];
    s.padding[i] = padding[a];
    s.dilation[i] = dilation[a];
    if (s.kernel[i] < 1 || s.kernel[i] >= kMostPlane || s.in[i] >= kMostPlane)
      bad_value(what + ": " + shapes + ": kernel sizes must be at least 1, all sizes below 2^30");
    const Index padded = s.in[i] + 2 * s.padding[i];
    if (padded < s.dilation[i] * (s.kernel[i] - 1) + 1)
      bad_value(what + ": kernel " + to_string(Shape(w.begin() + 2, w.end())) + " with dilation " + to_string(dilation) +
                " is larger than the padded input " + to_string(x) + " (padding " + to_string(padding) + ")");
    s.out[i] = (padded - s.dilation[i] * (s.kernel[i] - 1) - 1) / s.stride[i] + 1;
    plan.out.push_back(s.out[i]);
    if (__builtin_mul_overflow(plane, padded + s.dilation[i] * s.kernel[i] + s.stride[i], &plane) || plane >= kMostPlane)
      bad_value(what + ": a padded plane of " + to_string(x) + " has 2^30 elements or more; cut it into pieces");
  }
  return plan;
}

Index work(const ConvShape& s) { return s.batch * s.out_channels * std::max<Index>(1, s.out_plane() * s.taps()); }

// f(T, result) as a launch, for a dtype that is computed in T, float or double; the result in the dtype itself.
template <class F>
py::object compute(const char* what, DType dtype, const Shape& shape, Index size, F f) {
  py::object out = empty(compute_dtype(dtype), shape);
  visit_real(what, compute_dtype(dtype), [&](auto t) {
    launch(size, [=, to = data_of<typename decltype(t)::value>(out)] { f(t, to); });
  });
  return narrowed(out, dtype);
}

using Told = std::function<void(Index, Index)>;

// Whether a convolution asks for its source, which is the first of the arrays that it reads, and whether it tells of its result.
struct ConvBlocks {
  bool asks, tells;
};

// A convolution in a program, which does so in blocks.
template <class T, class F>
struct ConvLaunch final : BlockLaunch {
  F f;
  T* to;
  ConvLaunch(F f_, T* to_, Index size, const std::vector<py::object>& read, const ConvBlocks& blocks)
      : f(std::move(f_)), to(to_) {
    (blocks.tells ? results : others).push_back({reinterpret_cast<const char*>(to), size * Index(sizeof(T)), sizeof(T), true});
    for (std::size_t i = 0; i < read.size(); ++i) {
      if (!read[i]) continue;
      const View v = view(read[i]);
      const Index item = size_of(v.dtype);
      const bool asked = i == 0 && blocks.asks;
      if (asked) operands.push_back({{v.as<char>(), v.size() * item, item, false}, v.size() / (v.shape[0] * v.shape[1])});
      else others.push_back({v.as<char>(), v.size() * item, 0, false});
    }
  }
  void run() override { f(TypeOf<T>{}, to, nullptr, nullptr); }
  void run(const Needed& needed, const Finished& finished) override {
    const Told told = [&](Index first, Index last) { finished(0, first, last); };
    const SourceNeeded asked = [&](Index first, Index last) { needed(0, first, last); };
    f(TypeOf<T>{}, to, needed ? &asked : nullptr, finished ? &told : nullptr);
  }
};

// The same for f(T, result, who is asked for the source, who is told of what is stored), which reads these contiguous arrays.
template <class F>
py::object compute_in_blocks(const char* what, DType dtype, const Shape& shape, Index work,
                             const std::vector<py::object>& read, const ConvBlocks& blocks, F f) {
  if (!writing()) return compute(what, dtype, shape, work, [&](auto t, auto* to) { f(t, to, nullptr, nullptr); });
  py::object out = empty(compute_dtype(dtype), shape);
  visit_real(what, compute_dtype(dtype), [&](auto t) {
    using T = typename decltype(t)::value;
    writing()->add(work, std::make_unique<ConvLaunch<T, F>>(f, data_of<T>(out), view(out).size(), read, blocks));
  });
  return narrowed(out, dtype);
}

const char* memory(const py::object& array) { return array ? data_of<char>(array) : nullptr; }

bool one_tap(const ConvShape& s) { return s.taps() == 1 && s.in == s.out && s.padding == Triple{} && s.groups == 1; }

// One tap of bfloat16 at every position: images are right factors as they lie, where the processor multiplies pairs.
// `turned` gives the gradient to the input. Nothing where that isn't so, or half of a panel of 32 columns would be idle.
py::object as_product(const char* what, const ConvShape& s, py::handle source, py::handle weight, py::handle bias,
                      bool turned, const Shape& shape) {
  const View v = view(source, what);
  Gemm<bfloat16> product;
  product.m = turned ? s.in_channels : s.out_channels;
  product.k = turned ? s.out_channels : s.in_channels;
  product.n = s.in_plane();
  if (!one_tap(s) || v.dtype != DType::BFloat16 || product.n <= 16 ||
      !bfloat_gemm_takes(product.m, product.n, product.k, false))
    return {};
  require_dtype(view(weight, what), v.dtype, what);
  const py::object from = contiguous(source, what), w = contiguous(weight, what), out = empty(v.dtype, shape);
  py::object held;
  product.batch = s.batch;
  product.a = {data_of<bfloat16>(w), turned ? 1 : s.in_channels, turned ? s.in_channels : 1};
  product.b = {data_of<bfloat16>(from), product.n, 1};
  product.b_step = product.k * product.n;
  product.c = data_of<bfloat16>(out);
  if (!bias.is_none()) {
    require_dtype(view(bias, what), v.dtype, what);
    product.row_bias = data_of<bfloat16>(held = contiguous(bias, what));
  }
  launch(work(s), [product] { bfloat_gemm(product); });
  return out;
}

// The same of the gradient to the weight: the sum of g's images by x's turned.
py::object as_sum_of_products(const char* what, const ConvShape& s, py::handle g, py::handle x, const Shape& shape) {
  const View v = view(g, what);
  Gemm<bfloat16> product;
  product.m = s.out_channels, product.n = s.in_channels, product.k = s.in_plane(), product.batch = s.batch;
  if (!one_tap(s) || v.dtype != DType::BFloat16 || product.k < kLeastTerms || product.batch == 0 || product.n <= 16 ||
      !bfloat_gemm_takes(product.m, product.n, product.batch * product.k, false))
    return {};
  require_dtype(view(x, what), v.dtype, what);
  const py::object left = contiguous(g, what), right = contiguous(x, what), out = empty(v.dtype, shape);
  product.a = {data_of<bfloat16>(left), product.k, 1}, product.a_step = product.m * product.k;
  product.b = {data_of<bfloat16>(right), 1, product.k}, product.b_step = product.n * product.k;
  product.c = data_of<bfloat16>(out);
  launch(work(s), [product] { bfloat_gemm_sum(product); });
  return out;
}

// dense(), or the array itself in order where bfloat16 is `read` as it is stored.
py::object stored_or_dense(py::handle array, DType dtype, const char* what, bool read) {
  if (!read) return dense(array, dtype, what);
  require_dtype(view(array, what), dtype, what);
  return contiguous(array, what);
}

py::object bind_conv(py::handle x, py::handle w, py::handle b, const Attribute& stride, const Attribute& padding,
                     const Attribute& dilation, Index groups) {
  const DType dtype = view(x, "conv: x").dtype;
  const ConvPlan plan = plan_conv("conv", shape_of(x), shape_of(w), stride, padding, dilation, groups);
  if (!b.is_none() && shape_of(b) != Shape{plan.s.out_channels})
    bad_value("conv: bias " + to_string(shape_of(b)) + " does not fit weight " + to_string(shape_of(w)) + "; expected (" +
              std::to_string(plan.s.out_channels) + ",)");
  if (py::object made = as_product("conv", plan.s, x, w, b, false, plan.out)) return made;
  const bool narrow = dtype == DType::BFloat16 && conv_reads_narrow(plan.s);
  const py::object xs = stored_or_dense(x, dtype, "conv: x", narrow), ws = dense(w, dtype, "conv: w");
  py::object bias;
  if (!b.is_none()) bias = dense(b, dtype, "conv: b");
  return compute_in_blocks("conv", dtype, plan.out, work(plan.s), {xs, ws, bias}, {conv_asks(plan.s), true},
                           [s = plan.s, narrow, x = memory(xs), w = memory(ws), b = memory(bias)](
                               auto t, auto* y, const SourceNeeded* needed, const Told* told) {
    using T = typename decltype(t)::value;
    Tail<T> tail;
    tail.shift = in<T>(b);
    tail.finished = told;
    if constexpr (std::is_same_v<T, float>)
      if (narrow) return conv_forward(s, in<bfloat16>(x), in<T>(w), tail, y);
    conv_forward(s, in<T>(x), needed, in<T>(w), tail, y);
  });
}

// A convolution, or a transposed one, and what follows it: a norm by given statistics, something added, a clamp. Scale and
// shift are computed of the statistics in each run, so a program never holds old ones.
py::object bind_conv_norm(const Arguments<17>& a) {
  const char* what = "conv_norm";
  const bool transposed = !a[8].is_none();
  const Attribute stride = numbers(a[9]), padding = numbers(a[10]), dilation = numbers(a[11]);
  const DType dtype = view(a[0], what).dtype;
  const Shape x_shape = transposed ? numbers(a[8]) : shape_of(a[0]);
  const ConvPlan plan = plan_conv(what, x_shape, shape_of(a[1]), stride, padding, dilation, py::cast<Index>(a[12]));
  const Shape out = transposed ? x_shape : plan.out;
  const Index channels = out[1];
  if (transposed && shape_of(a[0]) != plan.out)
    bad_value("conv_norm: input " + to_string(shape_of(a[0])) + ", expected " + to_string(plan.out));
  const py::object x = dense(a[0], dtype, "conv_norm: x"), w = dense(a[1], dtype, "conv_norm: w");
  const auto optional = [&](int at, const char* name, const Shape& expected) {
    py::object found;
    if (a[at].is_none()) return found;
    if (shape_of(a[at]) != expected)
      bad_value("conv_norm: " + std::string(name) + " " + to_string(shape_of(a[at])) + ", expected " + to_string(expected));
    found = dense(a[at], dtype, name);
    return found;
  };
  const Shape one{channels};
  const py::object b = optional(2, "bias", one), scale = optional(3, "scale", one), shift = optional(4, "shift", one),
                   mean = optional(5, "mean", one), var = optional(6, "var", one), other = optional(7, "other", out);
  if (bool(mean) != bool(var)) bad_value("conv_norm: mean and var go together");
  const double eps = py::cast<double>(a[13]);
  const bool clamps = flag(a[14]);
  const double low = py::cast<double>(a[15]), high = py::cast<double>(a[16]);
  return compute_in_blocks(what, dtype, out, work(plan.s), {x, w, b, scale, shift, mean, var, other},
                 {transposed ? conv_input_grad_asks(plan.s) : conv_asks(plan.s), true},
                 [=, s = plan.s, x = memory(x), w = memory(w), b = memory(b), scale = memory(scale), shift = memory(shift),
                  mean = memory(mean), var = memory(var), other = memory(other)](
                     auto t, auto* y, const SourceNeeded* needed, const Told* told) {
    using T = typename decltype(t)::value;
    std::vector<T> by(mean ? size_t(channels) : 0), plus(by.size());
    for (size_t c = 0; c < by.size(); ++c) {
      const double k = 1 / std::sqrt(double(in<T>(var)[c]) + eps) * (scale ? double(in<T>(scale)[c]) : 1.0);
      const double bias = b ? double(in<T>(b)[c]) : 0.0;
      by[c] = T(k);
      plus[c] = T((bias - double(in<T>(mean)[c])) * k + (shift ? double(in<T>(shift)[c]) : 0.0));
    }
    Tail<T> tail;
    tail.scale = mean ? by.data() : nullptr;
    tail.shift = mean ? plus.data() : in<T>(b);
    tail.other = in<T>(other);
    tail.clamps = clamps;
    tail.low = T(low);
    tail.high = T(high);
    tail.finished = told;
    if (transposed) conv_transposed(s, in<T>(x), needed, in<T>(w), tail, y);
    else conv_forward(s, in<T>(x), needed, in<T>(w), tail, y);
  });
}

void require_shape(const char* what, const Shape& got, const Shape& expected) {
  if (got != expected) bad_value(std::string(what) + ": g has shape " + to_string(got) + ", expected " + to_string(expected));
}

py::object bind_input_grad(py::handle g, py::handle w, const Attribute& input_shape, const Attribute& stride,
                           const Attribute& padding, const Attribute& dilation, Index groups) {
  const char* what = "conv_input_grad";
  const DType dtype = view(g, what).dtype;
  const ConvPlan plan = plan_conv(what, input_shape, shape_of(w), stride, padding, dilation, groups);
  require_shape(what, shape_of(g), plan.out);
  if (py::object made = as_product(what, plan.s, g, w, py::none(), true, input_shape)) return made;
  const bool narrow = dtype == DType::BFloat16 && conv_input_grad_reads_narrow(plan.s);
  const py::object gs = stored_or_dense(g, dtype, "conv_input_grad: g", narrow), ws = dense(w, dtype, "conv_input_grad: w");
  return compute_in_blocks(what, dtype, input_shape, work(plan.s), {gs, ws}, {conv_input_grad_asks(plan.s), false},
                           [s = plan.s, narrow, g = memory(gs), w = memory(ws)](
                               auto t, auto* gx, const SourceNeeded* needed, const Told* /* it tells nobody */) {
    using T = typename decltype(t)::value;
    if constexpr (std::is_same_v<T, float>)
      if (narrow) return conv_input_grad(s, in<bfloat16>(g), in<T>(w), gx);
    conv_input_grad(s, in<T>(g), needed, in<T>(w), gx);
  });
}

py::object bind_weight_grad(py::handle g, py::handle x, const Attribute& weight_shape, const Attribute& stride,
                            const Attribute& padding, const Attribute& dilation, Index groups) {
  const char* what = "conv_weight_grad";
  const DType dtype = view(g, what).dtype;
  const ConvPlan plan = plan_conv(what, shape_of(x), weight_shape, stride, padding, dilation, groups);
  require_shape(what, shape_of(g), plan.out);
  if (py::object made = as_sum_of_products(what, plan.s, g, x, weight_shape)) return made;
  const bool narrow = dtype == DType::BFloat16 && conv_weight_grad_reads_narrow(plan.s);
  const py::object gs = stored_or_dense(g, dtype, "conv_weight_grad: g", narrow);
  const py::object xs = stored_or_dense(x, dtype, "conv_weight_grad: x", narrow);
  return compute(what, dtype, weight_shape, work(plan.s), [s = plan.s, narrow, g = memory(gs), x = memory(xs)](auto t, auto* gw) {
    using T = typename decltype(t)::value;
    if constexpr (std::is_same_v<T, float>)
      if (narrow) return conv_weight_grad(s, in<bfloat16>(g), in<bfloat16>(x), gw);
    conv_weight_grad(s, in<T>(g), in<T>(x), gw);
  });
}

py::object bind_channel_sum(py::handle g) {
  const View v = view(g, "channel_sum: g");
  if (v.ndim < 2) bad_value("channel_sum: expected (batch, channels, ...), got shape " + to_string(v.shape_vector()));
  const py::object gs = dense(g, v.dtype, "channel_sum: g");
  const Index batch = v.shape[0], channels = v.shape[1];
  Index plane = 1;
  for (int i = 2; i < v.ndim; ++i) plane *= v.shape[i];
  return compute("channel_sum", v.dtype, {channels}, v.size(), [=, g = memory(gs)](auto t, auto* out) {
    channel_sum(in<typename decltype(t)::value>(g), batch, channels, plane, out);
  });
}

}  // namespace

FAST_BINDING(conv, 7, "x", "w", "b", "stride", "padding", "dilation", "groups") {
  return bind_conv(a[0], a[1], a[2], numbers(a[3]), numbers(a[4]), numbers(a[5]), py::cast<Index>(a[6]));
}
FAST_BINDING(conv_input_grad, 7, "g", "w", "input_shape", "stride", "padding", "dilation", "groups") {
  return bind_input_grad(a[0], a[1], numbers(a[2]), numbers(a[3]), numbers(a[4]), numbers(a[5]), py::cast<Index>(a[6]));
}
FAST_BINDING(conv_weight_grad, 7, "g", "x", "weight_shape", "stride", "padding", "dilation", "groups") {
  return bind_weight_grad(a[0], a[1], numbers(a[2]), numbers(a[3]), numbers(a[4]), numbers(a[5]), py::cast<Index>(a[6]));
}
FAST_BINDING(conv_norm, 17, "x", "w", "b", "scale", "shift", "mean", "var", "other", "input_shape", "stride", "padding",
             "dilation", "groups", "eps", "clamps", "low", "high") {
  return bind_conv_norm(a);
}
FAST_BINDING(channel_sum, 1, "g") { return bind_channel_sum(a[0]); }

TG_BINDINGS(conv) {
  for (PyMethodDef* each : {&fast_conv, &fast_conv_input_grad, &fast_conv_weight_grad, &fast_conv_norm, &fast_channel_sum}) add_fast(m, *each);
}

}  // namespace tg
