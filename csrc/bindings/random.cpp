// Random streams: see kernels/random.h. A generator's state is an array of two uint64 numbers, seed and offset; a kernel reads
// it when it computes, also in every run of a program, and moves it on by one stream.
#include "../core/fastcall.h"
#include "../core/launch.h"
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

struct Generator {
  explicit Generator(py::handle given) {
    auto* array = reinterpret_cast<PyArrayObject*>(given.ptr());
    if (!is_array(given) || PyArray_TYPE(array) != NPY_UINT64 || PyArray_SIZE(array) != 2 || !PyArray_ISCARRAY(array))
      throw py::type_error("random: a generator's state is an array of two uint64 numbers");
    if (writing()) writing()->keep(given);
    state = static_cast<std::uint64_t*>(PyArray_DATA(array));
  }
  // The next stream; threads may ask at the same time.
  Stream next() const { return {__atomic_load_n(state, __ATOMIC_RELAXED), __atomic_fetch_add(state + 1, 1, __ATOMIC_RELAXED)}; }

  std::uint64_t* state;
};

py::object filled(Fill fill, py::handle size, py::handle type, Generator generator) {
  const DType dtype = dtype_asked(type);
  const Shape shape = shape_of_tuple(size);
  py::object out = empty(dtype, shape);  // refuses negative sizes and products that overflow
  const Index n = count_of(shape);
  void* data = data_of<void>(out);
  launch(n, [=] { fill(generator.next(), dtype, n, data); });
  return out;
}

}  // namespace

FAST_BINDING(random_uniform, 3, "shape", "dtype", "state") { return filled(random_uniform, a[0], a[1], Generator(a[2])); }
FAST_BINDING(random_normal, 3, "shape", "dtype", "state") { return filled(random_normal, a[0], a[1], Generator(a[2])); }
// int64 from `low` on; of `range` values, 0 for all that 64 bits hold
FAST_BINDING(random_integers, 4, "shape", "range", "low", "state") {
  const Shape shape = shape_of_tuple(a[0]);
  const auto range = py::cast<std::uint64_t>(a[1]), low = py::cast<std::uint64_t>(a[2]);
  const Generator generator(a[3]);
  py::object out = empty(DType::Int64, shape);
  const Index n = count_of(shape);
  auto* data = data_of<std::int64_t>(out);
  launch(n, [=] { random_integers(generator.next(), n, range, low, data); });
  return out;
}

FAST_BINDING(random_permutation, 2, "n", "state") {
  const Index n = py::cast<Index>(a[0]);
  if (n < 0 || n >= Index(1) << 32) throw py::value_error("random_permutation: n must be below 2 ** 32 and not negative");
  const Generator generator(a[1]);
  py::object out = empty(DType::Int64, Shape{n});
  auto* data = data_of<std::int64_t>(out);
  launch(n, [=] { random_permutation(generator.next(), n, data); });
  return out;
}

FAST_BINDING(dropout, 3, "x", "p", "state") {
  const double p = py::cast<double>(a[1]);
  if (!(p >= 0 && p <= 1)) throw std::invalid_argument("dropout: p must be between 0 and 1, got " + std::to_string(p));
  const py::object source = contiguous(a[0], "dropout: x");
  const View v = view(source, "dropout: x");
  visit_float("dropout", v.dtype, [](auto) {});  // other dtypes are refused before anything is allocated
  const Generator generator(a[2]);
  const Shape shape = v.shape_vector();
  py::object y = empty(v.dtype, shape), mask = empty(DType::Bool, shape);
  void* to = data_of<void>(y);
  auto* kept = data_of<std::uint8_t>(mask);
  launch(v.size(), [=, type = v.dtype, n = v.size(), from = v.data] {
    dropout(generator.next(), type, n, from, static_cast<float>(p), p < 1 ? 1.0 / (1.0 - p) : 0.0, to, kept);
  });
  return py::make_tuple(y, mask);
}

TG_BINDINGS(random) {
  for (PyMethodDef* each :
       {&fast_random_uniform, &fast_random_normal, &fast_random_integers, &fast_random_permutation, &fast_dropout})
    add_fast(m, *each);
  m.def(
      "random_bits",
      [](Index n, std::uint64_t seed, std::uint64_t offset) {
        py::object out = empty(DType::Int64, Shape{n});
        auto* data = data_of<std::int64_t>(out);
        launch(n, [=] { random_bits({seed, offset}, n, data); });
        return out;
      },
      py::arg("n"), py::arg("seed"), py::arg("offset"));
}

}  // namespace tg
