// attention and attention_backward.
#include <pybind11/pybind11.h>

#include <limits>

#include "../core/bind.h"
#include "../kernels/attention.h"
#include "gemm_arrays.h"

namespace tg {
namespace {

// (batch, heads, length, dim) with its last axis contiguous and rows that BLAS can step over; copied if it must be.
struct Heads {
  py::object array;
  View v;
  Index strides[kMaxDims];

  Heads(py::handle given, DType dtype, const char* what) {
    require_dtype(view(given, what), dtype, what);
    array = widened(given, what);
    v = view(array, what);
    if (usable()) return;
    array = contiguous(array, what);
    v = view(array, what);
    element_strides(v, strides);
  }

  template <class T>
  HeadView<T> as() const {
    // a single row has no next one: any stride that fits its length will do
    return {v.as<T>(), strides[0], strides[1], std::max(strides[2], v.shape[3])};
  }

 private:
  bool usable() {
    if (!element_strides(v, strides)) return false;
    const bool column = strides[3] == 1 || v.shape[3] <= 1;
    const bool row = v.shape[2] <= 1 || (strides[2] >= v.shape[3] && strides[2] < std::numeric_limits<int>::max());
    return column && row;
  }
};

// A fresh array for a result that will be `stored`, of the shape and axis order of `like`: (batch, length, heads, dim) in memory where `like` is a transposed
// view of that, so that merging the heads afterwards needs no copy.
py::object empty_heads(DType stored, const Index* shape, const View& like) {
  const DType dtype = compute_dtype(stored);
  const bool transposed = like.shape[1] > 1 && like.shape[2] > 1 && like.strides[1] < like.strides[2];
  if (!transposed || is_half(stored)) return empty(dtype, shape, 4);
  const Index order[4] = {shape[0], shape[2], shape[1], shape[3]};
  return empty(dtype, order, 4).attr("swapaxes")(1, 2);
}

template <class T>
HeadView<T> heads_of(const py::object& array) {
  const View v = view(array);
  const Index size = static_cast<Index>(sizeof(T));
  return {v.as<T>(), v.strides[0] / size, v.strides[1] / size, std::max<Index>(v.strides[2] / size, v.shape[3])};
}

struct Call {
  DType dtype;
  Heads q, k, v;
  py::object mask;
  View mask_view;
  Index mask_strides[4] = {};
  Index batch, heads, queries, keys, dim, value_dim;

  Call(const std::string& what, py::handle gq, py::handle gk, py::handle gv, py::handle given_mask)
      : dtype(check(what, gq, gk, gv)), q(gq, dtype, "attention: q"), k(gk, dtype, "attention: k"),
        v(gv, dtype, "attention: v") {
    batch = q.v.shape[0], heads = q.v.shape[1], queries = q.v.shape[2], dim = q.v.shape[3];
    keys = k.v.shape[2], value_dim = v.v.shape[3];
    if (std::max({queries, keys, dim, value_dim}) >= std::numeric_limits<int>::max())
      bad_value(what + ": lengths and head sizes must be below 2^31");
    if (!given_mask.is_none()) read_mask(what, given_mask);
  }

  template <class T>
  Attention<T> as(bool causal, double scale) const {
    Attention<T> a;
    a.group = k.v.shape[1] ? heads / k.v.shape[1] : 1;
    a.batch = batch, a.heads = heads, a.queries = queries, a.keys = keys, a.dim = dim, a.value_dim = value_dim;
    a.q = q.as<const T>();
    a.k = k.as<const T>();
    a.v = v.as<const T>();
    a.causal = causal;
    a.scale = static_cast<T>(scale);
    if (mask) {
      if (mask_view.dtype == DType::Bool) a.mask.keep = mask_view.as<const std::uint8_t>();
      else a.mask.add = mask_view.as<const T>();
      a.mask.batch = mask_strides[0], a.mask.head = mask_strides[1];
      a.mask.query = mask_strides[2], a.mask.key = mask_strides[3];
    }
    return a;
  }

  Index work() const { return batch * heads * queries * std::max<Index>(1, keys) * std::max<Index>(1, dim); }

 private:
  static DType check(const std::string& what, py::handle gq, py::handle gk, py::handle gv) {
    const View q = view(gq, "attention: q"), k = view(gk, "attention: k"), v = view(gv, "attention: v");
    const std::string shapes = "q " + to_string(q.shape_vector()) + ", k " + to_string(k.shape_vector()) + ", v " +
                               to_string(v.shape_vector());
    if (q.ndim != 4 || k.ndim != 4 || v.ndim != 4)
      bad_value(what + ": expected (batch, heads, length, dim) for each, got " + shapes);
    const bool batches = q.shape[0] == k.shape[0] && k.shape[0] == v.shape[0];
    const Index own = q.shape[1], shared = k.shape[1];
    const bool heads = shared == v.shape[1] && (own == shared || (own > 0 && shared > 0 && own % shared == 0));
    if (!batches || !heads)
      bad_value(what + ": batch and heads must agree, but q may have a multiple of the heads, got " + shapes);
    if (k.shape[2] != v.shape[2]) bad_value(what + ": k and v must have the same length, got " + shapes);
    if (q.shape[3] != k.shape[3]) bad_value(what + ": q and k must have the same last axis, got " + shapes);
    visit_real(what.c_str(), compute_dtype(q.dtype), [](auto) {});
    return q.dtype;
  }

  void read_mask(const std::string& what, py::handle given) {
    const View m = view(given, "attention: mask");
    if (m.dtype != DType::Bool) require_dtype(m, dtype, "attention: mask (neither bool)");
    mask = widened(given, "attention: mask");
    mask_view = view(mask);
    Index strides[kMaxDims];
    if (!element_strides(mask_view, strides)) {
      mask = contiguous(mask, "attention: mask");
      mask_view = view(mask);
      element_strides(mask_view, strides);
    }
    const Index full[4] = {batch, heads, queries, keys};
    const int n = mask_view.ndim;
    bool fits = n <= 4;
    for (int i = 0; i < n && fits; ++i) {
      const Index size = mask_view.shape[i];
      fits = size == full[4 - n + i] || size == 1;
      mask_strides[4 - n + i] = size == 1 ? 0 : strides[i];
    }
    if (!fits)
      bad_value(what + ": mask " + to_string(mask_view.shape_vector()) + " does not broadcast to (batch, heads, queries, keys) " +
                to_string({full[0], full[1], full[2], full[3]}));
  }
};

py::tuple bind_attention(py::handle q, py::handle k, py::handle v, py::handle mask, bool causal, double scale) {
  const Call call("attention", q, k, v, mask);
  const DType dtype = compute_dtype(call.dtype);
  const Index shape[4] = {call.batch, call.heads, call.queries, call.value_dim};
  py::object out = empty_heads(call.dtype, shape, view(q)), lse = empty(dtype, shape, 3);
  visit_real("attention", dtype, [&](auto t) {
    using T = typename decltype(t)::value;
    const Attention<T> a = call.as<T>(causal, scale);
    const HeadView<T> to = heads_of<T>(out);
    T* sums = data_of<T>(lse);
    launch(call.work(), [=] { attention(a, to, sums); });
  });
  return py::make_tuple(narrowed(out, call.dtype), lse);
}

py::tuple bind_attention_backward(py::handle g, py::handle q, py::handle k, py::handle v, py::handle mask, py::handle out,
                                  py::handle lse, bool causal, double scale, py::handle into) {
  const std::string what = "attention_backward";
  const Call call(what, q, k, v, mask);
  const DType dtype = compute_dtype(call.dtype);
  const Shape expected = {call.batch, call.heads, call.queries, call.value_dim};
  if (shape_of(g) != expected || shape_of(out) != expected)
    bad_value(what + ": g " + to_string(shape_of(g)) + " and out " + to_string(shape_of(out)) + " must have shape " +
              to_string(expected));
  const Shape rows = {call.batch, call.heads, call.queries};
  if (shape_of(lse) != rows)
    bad_value(what + ": lse has shape " + to_string(shape_of(lse)) + ", expected " + to_string(rows));
  const Heads gs(g, call.dtype, "attention_backward: g"), os(out, call.dtype, "attention_backward: out");
  const py::object ls = dense(lse, dtype, "attention_backward: lse");
  const View vq = view(q), vk = view(k), vv = view(v);
  auto like = [&](const View& from) { return empty_heads(call.dtype, from.shape_vector().data(), from); };
  const bool given = !into.is_none();
  if (given && (!PyTuple_Check(into.ptr()) || PyTuple_GET_SIZE(into.ptr()) != 3))
    bad_value(what + ": into must be a tuple of 3 arrays");
  auto target = [&](Py_ssize_t i, const View& from) {
    if (!given) return like(from);
    py::object array = py::reinterpret_borrow<py::object>(PyTuple_GET_ITEM(into.ptr(), i));
    const View v = view(array, "attention_backward: into");
    Index strides[kMaxDims];
    if (v.shape_vector() != from.shape_vector() || v.dtype != dtype || !element_strides(v, strides))
      bad_value(what + ": into has an array of shape " + to_string(v.shape_vector()) + " for a gradient of shape " +
                to_string(from.shape_vector()) + ", or of another dtype");
    if ((strides[3] != 1 && v.shape[3] > 1) || (strides[2] < v.shape[3] && v.shape[2] > 1))
      bad_value(what + ": rows of an array in into are not contiguous");
    return array;
  };
  const py::object gq = target(0, vq), gk = target(1, vk), gv = target(2, vv);
  visit_real(what.c_str(), dtype, [&](auto t) {
    using T = typename decltype(t)::value;
    const Attention<T> a = call.as<T>(causal, scale);
    const HeadView<T> tq = heads_of<T>(gq), tk = heads_of<T>(gk), tv = heads_of<T>(gv);
    const auto from_g = gs.as<const T>(), from_out = os.as<const T>();
    const T* sums = data_of<T>(ls);
    launch(call.work(), [=] { attention_backward(a, from_g, from_out, sums, tq, tk, tv); });
  });
  return py::make_tuple(narrowed(gq, call.dtype), narrowed(gk, call.dtype), narrowed(gv, call.dtype));
}

}  // namespace

TG_BINDINGS(attention) {
  using py::arg;
  m.def("attention", &bind_attention, arg("q"), arg("k"), arg("v"), arg("mask") = py::none(), py::kw_only(),
        arg("causal"), arg("scale"));
  m.def("attention_backward", &bind_attention_backward, arg("g"), arg("q"), arg("k"), arg("v"), arg("mask"), arg("out"),
        arg("lse"), py::kw_only(), arg("causal"), arg("scale"), arg("into") = py::none());
}

}  // namespace tg
