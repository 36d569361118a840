// fft_c2c, fft_r2c and fft_c2r: along one axis after the other, from wherever the elements lie.
#include "../kernels/fft.h"

#include <cmath>

#include "../core/fastcall.h"
#include "lines.h"

namespace tg {
namespace {

// What the results are multiplied by.
double factor_of(const char* op, py::handle norm, bool inverse, double points) {
  const std::string name = py::cast<std::string>(norm);
  if (name == "ortho") return 1 / std::sqrt(points);
  if (name != "backward" && name != "forward")
    throw py::value_error(std::string(op) + ": norm must be \"backward\", \"forward\" or \"ortho\", got \"" + name + "\"");
  return (name == "backward") == inverse ? 1 / points : 1;
}

struct Lying {
  const char* data;
  const npy_intp *shape, *strides;
  int ndim;
  Lying(const py::object& made) : Lying(view(made)) {}
  Lying(const View& x) : data(x.data), shape(x.shape), strides(x.strides), ndim(x.ndim) {}
};

template <class T>
Fft<T> transform_along(Transform kind, bool inverse, int dim, Index n, double factor, const Lying& x, const Lying& y) {
  Fft<T> f{};
  f.kind = kind;
  f.inverse = inverse;
  f.n = n;
  f.given = x.shape[dim];
  f.factor = factor;
  for (int k = 0; k < x.ndim; ++k) {
    if (k == dim) continue;
    f.shape[f.ndim] = x.shape[k];
    f.from_strides[f.ndim] = x.strides[k];
    f.to_strides[f.ndim++] = y.strides[k];
  }
  f.from_step = x.strides[dim];
  f.to_step = y.strides[dim];
  f.from = x.data;
  f.to = const_cast<char*>(y.data);
  f.prepare();
  return f;
}

template <class T>
void start(Fft<T> f, Index elements) {
  launch(8 * elements, [f = std::move(f)] { f.run(); });
}

void start(DType type, Transform kind, bool inverse, int dim, Index n, double factor, const Lying& x, const Lying& y) {
  Index elements = n;
  for (int k = 0; k < x.ndim; ++k) elements *= k == dim ? 1 : x.shape[k];
  if (!elements) return;  // no lines: nor is there a plan for their length
  if (type == DType::Float64 || type == DType::Complex128)
    start(transform_along<double>(kind, inverse, dim, n, factor, x, y), elements);
  else start(transform_along<float>(kind, inverse, dim, n, factor, x, y), elements);
}

// Aligned, for numbers are read as they are.
py::object aligned(const View& x) {
  return x.aligned() ? py::reinterpret_borrow<py::object>(x.array) : contiguous_copy(x);
}

void require_one_of(const char* op, const View& x, DType narrow, DType wide) {
  if (x.dtype != narrow && x.dtype != wide)
    throw py::type_error(std::string(op) + ": expected " + name_of(narrow) + " or " + name_of(wide) + ", got " +
                         name_of(x.dtype));
}

FAST_BINDING(fft_c2c, 4, "x", "dims", "inverse", "norm") {
  const char* op = "fft_c2c";
  const View x = view(a[0], op);
  require_one_of(op, x, DType::Complex64, DType::Complex128);
  Index dims[kMaxDims];
  const int count = read_integers(op, a[1], dims);
  double points = 1;
  for (int k = 0; k < count; ++k) points *= double(x.shape[checked_axis(op, dims[k], x)]);
  if (!count || !x.size()) return contiguous_copy(x);
  const bool inverse = flag(a[2]);
  const double factor = factor_of(op, a[3], inverse, points);
  const py::object source = aligned(x), out = empty(x.dtype, x.shape_vector());
  for (int k = count - 1; k >= 0; --k) {  // after the first one in place
    const bool first = k == count - 1;
    start(x.dtype, Transform::complex, inverse, int(dims[k]), x.shape[dims[k]], k ? 1 : factor, first ? source : out, out);
  }
  return out;
}

FAST_BINDING(fft_r2c, 3, "x", "dim", "norm") {
  const char* op = "fft_r2c";
  const View x = view(a[0], op);
  require_one_of(op, x, DType::Float32, DType::Float64);
  const int dim = checked_axis(op, py::cast<Index>(a[1]), x);
  const Index n = x.shape[dim];
  if (n < 1) throw py::value_error(std::string(op) + ": dim " + std::to_string(dim) + " has no values");
  Shape shape = x.shape_vector();
  shape[std::size_t(dim)] = n / 2 + 1;
  const double factor = factor_of(op, a[2], false, double(n));
  const py::object source = aligned(x);
  const py::object out = empty(x.dtype == DType::Float64 ? DType::Complex128 : DType::Complex64, shape);
  start(x.dtype, Transform::half, false, dim, n, factor, source, out);
  return out;
}

FAST_BINDING(fft_c2r, 4, "x", "dim", "size", "norm") {
  const char* op = "fft_c2r";
  const View x = view(a[0], op);
  require_one_of(op, x, DType::Complex64, DType::Complex128);
  const int dim = checked_axis(op, py::cast<Index>(a[1]), x);
  const Index n = py::cast<Index>(a[2]);
  if (n < 1) throw py::value_error(std::string(op) + ": size must be positive, got " + std::to_string(n));
  Shape shape = x.shape_vector();
  shape[std::size_t(dim)] = n;
  const double factor = factor_of(op, a[3], true, double(n));
  const py::object source = aligned(x);
  const py::object out = empty(x.dtype == DType::Complex128 ? DType::Float64 : DType::Float32, shape);
  start(x.dtype, Transform::real, true, dim, n, factor, source, out);
  return out;
}

}  // namespace

TG_BINDINGS(fft) {
  for (PyMethodDef* each : {&fast_fft_c2c, &fast_fft_r2c, &fast_fft_c2r}) add_fast(m, *each);
}

}  // namespace tg
