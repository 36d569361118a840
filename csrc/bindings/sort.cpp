// sort, topk, kthvalue and medians along an axis.
#include "../kernels/sort.h"

#include <limits>

#include "../core/fastcall.h"
#include "lines.h"

namespace tg {
namespace {

// Narrow floats sort as float, bool as uint8; the rest as they are.
DType sort_compute(const char* op, const View& x) {
  if (is_complex(x.dtype)) throw py::type_error(std::string(op) + ": complex numbers have no order");
  if (x.dtype == DType::Bool) return DType::UInt8;
  return is_narrow_float(x.dtype) ? DType::Float32 : x.dtype;
}

template <class F>
void visit_sortable(const char* op, DType type, F f) {
  if (type == DType::Float32 || type == DType::Float64) return visit_real(op, type, f);
  visit_integer(op, type, [&](auto t) {
    using T = typename decltype(t)::value;
    if constexpr (!std::is_same_v<T, bool>) f(t);
  });
}

LineShape lines_of(const char* op, const View& x, Index dim, Lines& lines) {
  lines = Lines(x, x.ndim == 0 && dim == 0 ? 0 : checked_axis(op, dim, x));
  if (lines.length > Index(std::numeric_limits<uint32_t>::max()))
    throw py::value_error(std::string(op) + ": " + std::to_string(lines.length) + " values along dim " + std::to_string(dim) +
                          "; at most 4294967295 can be sorted");
  return {lines.outer, lines.length, lines.inner};
}

py::object finish(py::object values, py::object indices, DType stored) {
  return py::make_tuple(ready_as(std::move(values), stored), std::move(indices));
}

py::object sort_(py::handle array, Index dim, bool descending) {
  const View x = view(array, "sort");
  const DType compute = sort_compute("sort", x);
  Lines lines(x, 0);
  const LineShape s = lines_of("sort", x, dim, lines);
  const py::object source = ready(x, compute);
  py::object values = empty(compute, x.shape_vector()), indices = empty(DType::Int64, x.shape_vector());
  visit_sortable("sort", compute, [&](auto t) {
    using T = typename decltype(t)::value;
    const T* from = data_of<T>(source);
    T* to = data_of<T>(values);
    int64_t* at = data_of<int64_t>(indices);
    if (lines.size()) launch(lines.size(), [=] { sort_lines(s, descending, from, to, at); });
  });
  return finish(values, indices, x.dtype);
}

py::object topk_(py::handle array, Index k, Index dim, bool largest) {
  const View x = view(array, "topk");
  const DType compute = sort_compute("topk", x);
  Lines lines(x, 0);
  const LineShape s = lines_of("topk", x, dim, lines);
  const Index least = x.ndim ? 0 : 1;
  if (k < least || k > s.length)
    throw py::value_error("topk: k is " + std::to_string(k) + ", valid: " + std::to_string(least) + " to " +
                          std::to_string(s.length) + " for shape " + to_string(x.shape_vector()) + " along dim " +
                          std::to_string(dim));
  Shape shape = x.shape_vector();
  if (x.ndim) shape[size_t(dim)] = k;
  const py::object source = ready(x, compute);
  py::object values = empty(compute, shape), indices = empty(DType::Int64, shape);
  visit_sortable("topk", compute, [&](auto t) {
    using T = typename decltype(t)::value;
    const T* from = data_of<T>(source);
    T* to = data_of<T>(values);
    int64_t* at = data_of<int64_t>(indices);
    if (lines.size()) launch(lines.size(), [=] { topk_lines(s, k, largest, from, to, at); });
  });
  return finish(values, indices, x.dtype);
}

// The element at one place of each line, and where it is.
py::object select(const char* op, Middle which, py::handle array, Index k, Index dim, bool keepdim) {
  const View x = view(array, op);
  const DType compute = sort_compute(op, x);
  Lines lines(x, 0);
  const LineShape s = lines_of(op, x, dim, lines);
  if (which == Middle::kth ? k < 1 || k > s.length : s.length < 1)
    throw py::value_error(std::string(op) + ": there is no such place along dim " + std::to_string(dim) + " of shape " +
                          to_string(x.shape_vector()));
  Shape shape = x.shape_vector();
  if (x.ndim && keepdim) shape[size_t(dim)] = 1;
  else if (x.ndim) shape.erase(shape.begin() + dim);
  const py::object source = ready(x, compute);
  py::object values = empty(compute, shape), indices = empty(DType::Int64, shape);
  visit_sortable(op, compute, [&](auto t) {
    using T = typename decltype(t)::value;
    const T* from = data_of<T>(source);
    T* to = data_of<T>(values);
    int64_t* at = data_of<int64_t>(indices);
    if (lines.size()) launch(lines.size(), [=] { select_lines(s, which, k - 1, from, to, at); });
  });
  return finish(values, indices, x.dtype);
}

}  // namespace

// Always stable and always sorted, whatever is asked for: a radix sort is.
FAST_BINDING(sort, 2, "x", "dim", "descending", "stable") { return sort_(a[0], py::cast<Index>(a[1]), flag(a[2])); }
FAST_BINDING(topk, 3, "x", "k", "dim", "largest", "sorted") {
  return topk_(a[0], py::cast<Index>(a[1]), py::cast<Index>(a[2]), flag(a[3], true));
}
FAST_BINDING(kthvalue, 3, "x", "k", "dim", "keepdim") {
  return select("kthvalue", Middle::kth, a[0], py::cast<Index>(a[1]), py::cast<Index>(a[2]), flag(a[3]));
}
FAST_BINDING(median_dim, 2, "x", "dim", "keepdim") {
  return select("median", Middle::median, a[0], 1, py::cast<Index>(a[1]), flag(a[2]));
}
FAST_BINDING(nanmedian_dim, 2, "x", "dim", "keepdim") {
  return select("nanmedian", Middle::nanmedian, a[0], 1, py::cast<Index>(a[1]), flag(a[2]));
}

TG_BINDINGS(sort) {
  for (PyMethodDef* each : {&fast_sort, &fast_topk, &fast_kthvalue, &fast_median_dim, &fast_nanmedian_dim})
    add_fast(m, *each);
}

}  // namespace tg
