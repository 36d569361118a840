// Interpolation by tables (ops/interpolate.py), made on the host and checked here.
#include "../kernels/resize.h"

#include <limits>
#include <memory>

#include "../core/fastcall.h"
#include "lines.h"

namespace tg {
namespace {

// One axis's table in the types that the kernel reads.
template <class T>
struct OwnTable {
  OwnTable(py::handle pair, Index size) {
    const py::tuple both = py::cast<py::tuple>(pair);
    const View index = view(both[0], "resize: index"), weight = view(both[1], "resize: weight");
    if (index.ndim != 2) throw py::value_error("resize: a table has two dimensions, got " + to_string(index.shape_vector()));
    require_shape("resize", "weight", weight, index.shape_vector());
    const py::object plain = ready(index, DType::Int64);
    const py::object weights = ready(weight, sizeof(T) == 8 ? DType::Float64 : DType::Float32);
    if (writing() && !(plain.is(both[0]) && weights.is(both[1]))) throw NotWritten();  // they are read here
    const int64_t* at = data_of<int64_t>(plain);
    const Index n = index.size();
    if (size > std::numeric_limits<int32_t>::max()) throw py::value_error("resize: the axis is too long");
    places.resize(size_t(n));
    for (Index i = 0; i < n; ++i) {
      if (at[i] < 0 || at[i] >= size) throw py::index_error("resize: the table names inputs that there are not");
      places[size_t(i)] = int32_t(at[i]);
    }
    const T* from = data_of<T>(weights);
    values.assign(from, from + n);
    table = {size, index.shape[1], index.shape[0], places.data(), values.data()};
  }
  std::vector<int32_t> places;
  std::vector<T> values;
  AxisTable<T> table;
};

template <class T>
py::object resized(const View& x, const py::object& source, DType compute, const py::tuple& tables) {
  const int axes = x.ndim - 2;
  std::vector<std::shared_ptr<const OwnTable<T>>> own;
  Shape shape{x.shape[0], x.shape[1]};
  for (int k = 0; k < axes; ++k) {
    own.push_back(std::make_shared<const OwnTable<T>>(tables[size_t(k)], x.shape[2 + k]));
    shape.push_back(own.back()->table.outputs);
  }
  const Index outer = x.shape[0] * x.shape[1];
  py::object out = empty(compute, shape), between;
  const T* from = data_of<T>(source);
  T* to = data_of<T>(out);
  Index planes = outer;
  T* middle = nullptr;
  if (axes == 3) {
    planes = outer * shape[2];
    between = empty(compute, Shape{planes, x.shape[3], x.shape[4]});
    middle = data_of<T>(between);
  }
  if (outer == 0) return out;
  const Index plane = axes == 3 ? x.shape[3] * x.shape[4] : 0;
  launch(x.size() + view(out).size(), [=, own = std::move(own)] {
    const int32_t zero = 0;
    const T one = 1;
    const AxisTable<T> same{1, 1, 1, &zero, &one};
    if (middle) resize_axis(outer, plane, own[0]->table, from, middle);
    resize_plane(planes, axes == 1 ? same : own[size_t(axes - 2)]->table, own[size_t(axes - 1)]->table,
                 middle ? middle : from, to);
  });
  return out;
}

}  // namespace

FAST_BINDING(resize_by, 2, "x", "tables") {
  const View x = view(a[0], "resize");
  const DType compute = float_compute("resize", x);
  const py::tuple tables = py::cast<py::tuple>(a[1]);
  if (x.ndim < 3 || x.ndim > 5 || int(tables.size()) != x.ndim - 2)
    throw py::value_error("resize: needs (n, c, ...) and a table for each of the 1 to 3 axes behind");
  const py::object source = ready(x, compute);
  const py::object made = compute == DType::Float64 ? resized<double>(x, source, compute, tables)
                                                    : resized<float>(x, source, compute, tables);
  return ready_as(made, x.dtype);
}

TG_BINDINGS(resize) { add_fast(m, fast_resize_by); }

}  // namespace tg
