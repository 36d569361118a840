// Random streams: see kernels/random.h. `seed` and `offset` are 64-bit numbers.
#include "../core/fastcall.h"
#include "../kernels/random.h"
#include "formula_source.h"

#include <pybind11/stl.h>

namespace tg {
namespace {

Index count_of(const Shape& shape) {
  Index n = 1;
  for (Index size : shape) n *= size;
  return n;
}

using Fill = void (*)(Stream, DType, Index, void*);

Shape shape_of_tuple(py::handle given) {
  if (!PyTuple_Check(given.ptr())) throw py::type_error("random: the shape must be a tuple of integers");
  Shape shape(static_cast<std::size_t>(PyTuple_GET_SIZE(given.ptr())));
  for (std::size_t i = 0; i < shape.size(); ++i)
    shape[i] = py::cast<Index>(py::handle(PyTuple_GET_ITEM(given.ptr(), static_cast<Py_ssize_t>(i))));
  return shape;
}

DType dtype_asked(py::handle given) {
  if (PyUnicode_Check(given.ptr())) return formula::dtype_named(py::cast<std::string>(given));
  if (!PyArray_DescrCheck(given.ptr())) throw py::type_error("random: dtype must be a numpy.dtype or its name");
  return dtype_of(reinterpret_cast<PyArray_Descr*>(given.ptr()));
}

Stream stream_of(py::handle seed, py::handle offset) {
  return {py::cast<std::uint64_t>(seed), py::cast<std::uint64_t>(offset)};
}

py::object filled(Fill fill, py::handle size, py::handle type, Stream stream) {
  const DType dtype = dtype_asked(type);
  const Shape shape = shape_of_tuple(size);
  py::object out = empty(dtype, shape);  // refuses negative sizes and products that overflow
  const Index n = count_of(shape);
  void* data = data_of<void>(out);
  MaybeRelease unlock(n);
  fill(stream, dtype, n, data);
  return out;
}

}  // namespace

FAST_BINDING(random_uniform, 4, "shape", "dtype", "seed", "offset") {
  return filled(random_uniform, a[0], a[1], stream_of(a[2], a[3]));
}
FAST_BINDING(random_normal, 4, "shape", "dtype", "seed", "offset") {
  return filled(random_normal, a[0], a[1], stream_of(a[2], a[3]));
}
// int64 from `low` on; of `range` values, 0 for all that 64 bits hold
FAST_BINDING(random_integers, 5, "shape", "range", "low", "seed", "offset") {
  const Shape shape = shape_of_tuple(a[0]);
  const auto range = py::cast<std::uint64_t>(a[1]), low = py::cast<std::uint64_t>(a[2]);
  const Stream stream = stream_of(a[3], a[4]);
  py::object out = empty(DType::Int64, shape);
  const Index n = count_of(shape);
  auto* data = data_of<std::int64_t>(out);
  MaybeRelease unlock(n);
  random_integers(stream, n, range, low, data);
  return out;
}

FAST_BINDING(random_permutation, 3, "n", "seed", "offset") {
  const Index n = py::cast<Index>(a[0]);
  if (n < 0 || n >= Index(1) << 32) throw py::value_error("random_permutation: n must be below 2 ** 32 and not negative");
  const Stream stream = stream_of(a[1], a[2]);
  py::object out = empty(DType::Int64, Shape{n});
  auto* data = data_of<std::int64_t>(out);
  MaybeRelease unlock(n);
  random_permutation(stream, n, data);
  return out;
}

TG_BINDINGS(random) {
  for (PyMethodDef* each : {&fast_random_uniform, &fast_random_normal, &fast_random_integers, &fast_random_permutation})
    add_fast(m, *each);
  m.def(
      "random_bits",
      [](Index n, std::uint64_t seed, std::uint64_t offset) {
        py::object out = empty(DType::Int64, Shape{n});
        auto* data = data_of<std::int64_t>(out);
        MaybeRelease unlock(n);
        random_bits({seed, offset}, n, data);
        return out;
      },
      py::arg("n"), py::arg("seed"), py::arg("offset"));
  m.def(
      "dropout",
      [](py::handle x, double p, std::uint64_t seed, std::uint64_t offset) {
        if (!(p >= 0 && p <= 1)) throw std::invalid_argument("dropout: p must be between 0 and 1, got " + std::to_string(p));
        const py::object source = contiguous(x, "dropout: x");
        const View v = view(source, "dropout: x");
        visit_float("dropout", v.dtype, [](auto) {});  // other dtypes are refused before anything is allocated
        const Shape shape = v.shape_vector();
        py::object y = empty(v.dtype, shape), mask = empty(DType::Bool, shape);
        void* to = data_of<void>(y);
        auto* kept = data_of<std::uint8_t>(mask);
        {
          MaybeRelease unlock(v.size());
          dropout({seed, offset}, v.dtype, v.size(), v.data, static_cast<float>(p), p < 1 ? 1.0 / (1.0 - p) : 0.0, to, kept);
        }
        return py::make_tuple(y, mask);
      },
      py::arg("x"), py::arg("p"), py::arg("seed"), py::arg("offset"));
}

}  // namespace tg
