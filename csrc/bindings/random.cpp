// Random streams: see kernels/random.h. `seed` and `offset` are 64-bit numbers.
#include "../core/bind.h"
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

py::object filled(Fill fill, const Shape& shape, const std::string& dtype_name, Stream stream) {
  const DType dtype = formula::dtype_named(dtype_name);
  py::object out = empty(dtype, shape);  // refuses negative sizes and products that overflow
  const Index n = count_of(shape);
  void* data = data_of<void>(out);
  MaybeRelease unlock(n);
  fill(stream, dtype, n, data);
  return out;
}

}  // namespace

TG_BINDINGS(random) {
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
      "random_uniform",
      [](const Shape& shape, const std::string& dtype, std::uint64_t seed, std::uint64_t offset) {
        return filled(random_uniform, shape, dtype, {seed, offset});
      },
      py::arg("shape"), py::arg("dtype"), py::arg("seed"), py::arg("offset"));
  m.def(
      "random_normal",
      [](const Shape& shape, const std::string& dtype, std::uint64_t seed, std::uint64_t offset) {
        return filled(random_normal, shape, dtype, {seed, offset});
      },
      py::arg("shape"), py::arg("dtype"), py::arg("seed"), py::arg("offset"));
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
