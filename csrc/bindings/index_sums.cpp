// row_numbers, grouped_rows and summed_rows: rows of a table picked by one index and added up by another, in compiled
// programs. Indices are checked within the calls that would have read them, so that errors name these.
#include "../core/fastcall.h"
#include "index_checks.h"
#include "index_target.h"

namespace tg {
namespace {

// What indices count: `length` rows; whether they may count from the end; the op whose errors they raise.
struct Counted {
  Counted(py::handle length, py::handle negative, py::handle op)
      : length(py::cast<Index>(length)), negative(flag(negative)), op(py::cast<std::string>(op)) {
    if (this->length < 0) throw py::value_error(this->op + ": there can't be " + std::to_string(this->length) + " rows");
  }
  // Whether none is negative. Throws IndexError for one that is not there.
  bool check(const int64_t* at, Index n) const {
    if (all_within(at, n, length)) return true;
    if (!negative) out_of_range(op.c_str(), at, n, length);
    check_range(op.c_str(), range_of(at, n), length, 0);
    return false;
  }

  Index length;
  bool negative;
  std::string op;
};

View index_view(py::handle array, const char* what) {
  const View i = view(array, what);
  require_dtype(what, "index", i, DType::Int64);
  if (i.ndim != 1)
    throw py::value_error(std::string(what) + ": index has shape " + to_string(i.shape_vector()) + ", expected one axis");
  return i;
}

py::object row_numbers_(py::handle index, Counted counted) {
  const View i = index_view(index, "row_numbers");
  const py::object plain = ready(i);
  const Index n = i.size();
  py::object out = empty(DType::Int64, Shape{n});
  const int64_t* from = data_of<int64_t>(plain);
  int64_t* to = data_of<int64_t>(out);
  launch(n, [=, counted = std::move(counted)] {
    counted.check(from, n);
    count_rows(n, counted.length, from, to);
  });
  return out;
}

py::object grouped_rows_(py::handle target, py::handle source, Counted counted, bool keeps) {
  const View t = index_view(target, "grouped_rows");
  const Index n = t.size();
  const py::object plain = ready(t);
  py::object given;
  const int64_t* rows_of = nullptr;
  if (!source.is_none()) {
    const View s = index_view(source, "grouped_rows: source");
    require_shape("grouped_rows", "source", s, Shape{n});
    given = ready(s);
    rows_of = data_of<int64_t>(given);
  }
  py::object rows = empty(DType::Int64, Shape{n}), ends = empty(DType::Int64, Shape{counted.length + 1});
  py::object positions = py::none();
  if (keeps) positions = empty(DType::Int64, Shape{n});
  const int64_t* at = data_of<int64_t>(plain);
  int64_t *to = data_of<int64_t>(rows), *end = data_of<int64_t>(ends);
  int64_t* kept = keeps ? data_of<int64_t>(positions) : nullptr;
  launch(2 * n + counted.length, [=, counted = std::move(counted)] {
    if (counted.check(at, n)) return group_rows(n, counted.length, at, rows_of, to, end, kept);
    Scratch<int64_t> numbers(n);
    count_rows(n, counted.length, at, numbers.data());
    group_rows(n, counted.length, numbers.data(), rows_of, to, end, kept);
  });
  return py::make_tuple(rows, ends, positions);
}

// weights (n, heads, 1, ...) for rows (heads, width): how many axes of x behind the first are the heads'.
Index heads_of(const View& x, const View& weights) {
  Index heads = 1;
  bool fits = weights.ndim == x.ndim, over = false;
  for (int k = 1; fits && k < x.ndim; ++k) {
    over = over || weights.shape[k] != x.shape[k];
    fits = weights.shape[k] == (over ? 1 : x.shape[k]);
    if (!over) heads *= x.shape[k];
  }
  if (!fits)
    throw py::value_error("summed_rows: weights of shape " + to_string(weights.shape_vector()) + " are none for rows of " +
                          to_string(x.shape_vector()));
  return heads;
}

py::object summed_rows_(const Arguments<6>& a) {
  const char* op = "summed_rows";
  const View x = view(a[0], op), rows = index_view(a[1], op), ends = index_view(a[2], op);
  if (x.ndim < 1 || ends.shape[0] < 1) throw py::value_error("summed_rows: needs a table, and where groups end");
  Shape shape = x.shape_vector();
  shape[0] = ends.shape[0] - 1;
  const Lines lines(x, 0);
  const py::object source = ready(x), index = ready(rows), end = ready(ends);
  py::object weights, positions, base;
  Index heads = 1, weighed = 0;
  if (!a[3].is_none()) {
    const View w = view(a[3], op), p = index_view(a[4], op);
    require_dtype(op, "weights", w, x.dtype);
    require_shape(op, "positions", p, rows.shape_vector());
    heads = heads_of(x, w);
    weighed = w.shape[0];
    weights = ready(w);
    positions = ready(p);
  }
  if (!a[5].is_none()) {
    const View b = view(a[5], op);
    require_dtype(op, "base", b, x.dtype);
    require_shape(op, "base", b, shape);
    base = ready(b);
  }
  py::object out = empty(x.dtype, shape);
  visit_real(op, x.dtype, [&](auto t) {
    using T = typename decltype(t)::value;
    RowSums<T> s{};
    s.bags = shape[0], s.heads = heads, s.width = lines.inner / std::max<Index>(1, heads);
    s.length = lines.length, s.count = rows.size(), s.weighed = weighed;
    s.x = data_of<T>(source), s.index = data_of<int64_t>(index), s.ends = data_of<int64_t>(end), s.y = data_of<T>(out);
    if (weights) s.weights = data_of<T>(weights), s.positions = data_of<int64_t>(positions);
    if (base) s.base = data_of<T>(base);
    launch(s.count * lines.inner, [s] {
      if (!sum_rows(s)) throw py::index_error("summed_rows: rows or positions are named that are not there");
    });
  });
  return out;
}

}  // namespace

FAST_BINDING(row_numbers, 4, "index", "rows", "negative", "name") { return row_numbers_(a[0], Counted(a[1], a[2], a[3])); }
FAST_BINDING(grouped_rows, 6, "target", "source", "groups", "negative", "name", "keeps") {
  return grouped_rows_(a[0], a[1], Counted(a[2], a[3], a[4]), flag(a[5]));
}
FAST_BINDING(summed_rows, 6, "x", "rows", "ends", "weights", "positions", "base") { return summed_rows_(a); }

TG_BINDINGS(index_sums) {
  for (PyMethodDef* each : {&fast_row_numbers, &fast_grouped_rows, &fast_summed_rows}) add_fast(m, *each);
}

}  // namespace tg
