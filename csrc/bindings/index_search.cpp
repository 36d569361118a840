// searchsorted, unique, histc, one_hot.
#include <algorithm>
#include <cmath>

#include "../core/fastcall.h"
#include "../core/parallel.h"
#include "../kernels/index_search.h"
#include "../kernels/sort.h"
#include "lines.h"

namespace tg {
namespace {

// Narrow floats are ordered as float, integers and bool as int64.
DType order_compute(const char* op, const View& x) {
  if (is_complex(x.dtype)) throw py::type_error(std::string(op) + ": complex numbers have no order");
  if (x.dtype == DType::Float64) return x.dtype;
  return is_floating(x.dtype) ? DType::Float32 : DType::Int64;
}

template <class F>
void visit_order(DType type, F f) {
  if (type == DType::Float32) f(float{});
  else if (type == DType::Float64) f(double{});
  else f(int64_t{});
}

py::object searchsorted_(py::handle bounds_, py::handle values_, bool right) {
  const View b = view(bounds_, "searchsorted"), v = view(values_, "searchsorted: values");
  if (b.ndim == 0) throw py::value_error("searchsorted: the boundaries must have at least one dimension");
  const bool one_row = b.ndim == 1;
  bool fits = one_row || b.ndim == v.ndim;
  for (int k = 0; fits && !one_row && k + 1 < b.ndim; ++k) fits = b.shape[k] == v.shape[k];
  if (!fits)
    throw py::value_error("searchsorted: boundaries " + to_string(b.shape_vector()) +
                          " must have one dimension or share all but the last with the values " +
                          to_string(v.shape_vector()));
  const DType own = order_compute("searchsorted", b), other = order_compute("searchsorted", v);
  // integers beside floats, and floats of two widths, meet in the wider
  const DType compute = own == other ? own : DType::Float64;
  const py::object bounds = ready(b, compute), values = ready(v, compute);
  py::object out = empty(DType::Int64, v.shape_vector());
  int64_t* to = data_of<int64_t>(out);
  const Index n = v.size(), row = v.ndim ? v.shape[v.ndim - 1] : 1, length = b.shape[b.ndim - 1];
  visit_order(compute, [&](auto t) {
    using T = decltype(t);
    const T *from = data_of<T>(values), *edges = data_of<T>(bounds);
    if (n) launch(n, [=] { search_sorted(n, row, from, length, one_row, edges, right, to); });
  });
  return out;
}

// The distinct values of an (n, 1) array: (values, inverse or None, counts).
py::object unique_(py::handle array, bool inverse) {
  const View x = view(array, "unique");
  if (x.ndim != 2 || x.shape[1] != 1)
    throw py::value_error("unique: this kernel takes (n, 1), got " + to_string(x.shape_vector()));
  const DType compute = order_compute("unique", x);
  const Index n = x.shape[0];
  const py::object source = ready(x, compute);
  py::object sorted = empty(compute, Shape{n}), at = py::none(), back = py::none();
  if (inverse) {
    at = empty(DType::Int64, Shape{n});
    back = empty(DType::Int64, Shape{n});
  }
  py::object values = empty(compute, Shape{n}), counts = empty(DType::Int64, Shape{n});
  Index found = 0;
  visit_order(compute, [&](auto t) {
    using T = decltype(t);
    const T* from = data_of<T>(source);
    T *ordered = data_of<T>(sorted), *to = data_of<T>(values);
    int64_t* positions = inverse ? data_of<int64_t>(at) : nullptr;
    int64_t* where = inverse ? data_of<int64_t>(back) : nullptr;
    int64_t* often = data_of<int64_t>(counts);
    MaybeRelease unlock(n);
    if (n) sort_lines(LineShape{1, n, 1}, false, from, ordered, positions);
    found = count_distinct(n, ordered, positions, to, where, often);
  });
  // copies: the results must not hold the memory of all elements
  const auto cut = [&](const py::object& whole, DType type, Shape shape) {
    py::object part = empty(type, shape);
    std::memcpy(data_of<char>(part), data_of<char>(whole), size_t(found * size_of(type)));
    return part;
  };
  return py::make_tuple(ready_as(cut(values, compute, {found, 1}), x.dtype), back,
                        cut(counts, DType::Int64, {found}));
}

py::object histc_(py::handle array, Index bins, double low, double high) {
  const View x = view(array, "histc");
  const DType compute = float_compute("histc", x);
  if (bins < 1) throw py::value_error("histc: bins must be > 0, got " + std::to_string(bins));
  const Index n = x.size();
  if (!(low < high) && !(low == high && n)) throw py::value_error("histc: low must be below high");
  const py::object source = ready(x, compute);
  py::object counts = empty(compute, Shape{bins});
  visit_real("histc", compute, [&](auto t) {
    using T = typename decltype(t)::value;
    const T* from = data_of<T>(source);
    T* to = data_of<T>(counts);
    launch(n, [=] {
      T least = T(low), most = T(high);
      if (low == high) {
        bool numbers = true;
        least = most = from[0];
        for (Index i = 0; i < n; ++i) {
          numbers &= std::isfinite(from[i]);
          least = std::min(least, from[i]);
          most = std::max(most, from[i]);
        }
        if (!numbers) throw py::value_error("histc: the range is not finite");
        if (least == most) least -= T(1), most += T(1);
      }
      Scratch<int64_t> whole(bins);
      count_in_bins(n, from, bins, least, most, whole.data());
      std::copy_n(whole.data(), bins, to);
    });
  });
  return ready_as(counts, x.dtype);
}

py::object one_hot_(py::handle array, Index classes) {
  const View x = view(array, "one_hot");
  if (x.dtype != DType::Int64) throw py::type_error(std::string("one_hot: expected int64, got ") + name_of(x.dtype));
  if (classes < 1) throw py::value_error("one_hot: the number of classes must be positive");
  const py::object source = ready(x);
  const int64_t* from = data_of<int64_t>(source);
  const Index n = x.size();
  launch(0, [=] {
    int64_t low = 0, high = 0;
    for (Index i = 0; i < n; ++i) {
      low = std::min(low, from[i]);
      high = std::max(high, from[i]);
    }
    if (low < 0) throw py::index_error("one_hot: class values must be non-negative, got " + std::to_string(low) + ".");
    if (high >= classes)
      throw py::index_error("one_hot: class values must be below num_classes = " + std::to_string(classes) + ", got " +
                            std::to_string(high) + ".");
  });
  Shape shape = x.shape_vector();
  shape.push_back(classes);
  py::object out = empty(DType::Int64, shape);
  int64_t* to = data_of<int64_t>(out);
  launch(n * classes, [=] {
    parallel_for(n, std::max<Index>(1, 16384 / classes), [&](Index first, Index last) {
      std::fill(to + first * classes, to + last * classes, int64_t(0));
      for (Index i = first; i < last; ++i) to[i * classes + from[i]] = 1;
    });
  });
  return out;
}

}  // namespace

FAST_BINDING(searchsorted, 2, "boundaries", "values", "right") { return searchsorted_(a[0], a[1], flag(a[2])); }
FAST_BINDING(unique_values, 1, "rows", "inverse") { return unique_(a[0], flag(a[1])); }
FAST_BINDING(histc, 4, "x", "bins", "low", "high") {
  return histc_(a[0], py::cast<Index>(a[1]), py::cast<double>(a[2]), py::cast<double>(a[3]));
}
FAST_BINDING(one_hot, 2, "x", "classes") { return one_hot_(a[0], py::cast<Index>(a[1])); }

TG_BINDINGS(index_search) {
  for (PyMethodDef* each : {&fast_searchsorted, &fast_unique_values, &fast_histc, &fast_one_hot}) add_fast(m, *each);
}

}  // namespace tg
