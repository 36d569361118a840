// linalg_solve_triangular and linalg_cholesky of float32 and float64; other dtypes are left to the inherited kernels.
#include "../core/fastcall.h"
#include "../kernels/triangular.h"
#include "lines.h"

namespace tg {
namespace {

bool is_real(DType type) { return type == DType::Float32 || type == DType::Float64; }

Index check_square(const char* op, const View& x) {
  if (x.ndim < 2 || x.shape[x.ndim - 1] != x.shape[x.ndim - 2])
    throw py::value_error(std::string(op) + ": the last two dimensions must be equal, got shape " + to_string(x.shape_vector()));
  return x.shape[x.ndim - 1];
}

Index batch_of(const View& x) {
  Index batch = 1;
  for (int d = 0; d < x.ndim - 2; ++d) batch *= x.shape[d];
  return batch;
}

// Whether the matrices lie by columns, one behind the other.
bool lies_transposed(const View& x) {
  Index step = size_of(x.dtype);
  const Index n = x.shape[x.ndim - 1];
  if (!x.aligned() || x.strides[x.ndim - 2] != step || x.strides[x.ndim - 1] != n * step) return false;
  step *= n * n;
  for (int d = x.ndim - 3; d >= 0; step *= x.shape[d--])
    if (x.shape[d] != 1 && x.strides[d] != step) return false;
  return true;
}

FAST_BINDING(linalg_solve_triangular, 4, "a", "b", "upper", "unit") {
  const char* op = "linalg_solve_triangular";
  const View matrices = view(a[0], op), right = view(a[1], op);
  if (!is_real(matrices.dtype)) return py::reinterpret_borrow<py::object>(Py_NotImplemented);
  const Index n = check_square(op, matrices);
  Shape shape = matrices.shape_vector();
  if (right.ndim == matrices.ndim) shape[shape.size() - 1] = right.shape[right.ndim - 1];
  require_shape(op, "b", right, shape);
  require_dtype(op, "b", right, matrices.dtype);
  const bool upper = flag(a[2]), transposed = n > 1 && lies_transposed(matrices);
  const py::object lying = transposed ? py::reinterpret_borrow<py::object>(a[0]) : ready(matrices, matrices.dtype);
  const py::object given = ready(right, right.dtype), out = empty(right.dtype, shape);
  const Triangle triangle{upper == transposed, transposed, flag(a[3])};
  const Index batch = batch_of(matrices), columns = shape.back();
  launch(batch * n * n * columns, [=, type = right.dtype, from = data_of<char>(lying), b = data_of<char>(given),
                                   x = data_of<char>(out)] {
    if (type == DType::Float64)
      solve_triangular(triangle, batch, n, columns, reinterpret_cast<const double*>(from), reinterpret_cast<const double*>(b),
                       reinterpret_cast<double*>(x));
    else
      solve_triangular(triangle, batch, n, columns, reinterpret_cast<const float*>(from), reinterpret_cast<const float*>(b),
                       reinterpret_cast<float*>(x));
  });
  return out;
}

FAST_BINDING(linalg_cholesky, 2, "a", "upper") {
  const char* op = "linalg_cholesky";
  const View x = view(a[0], op);
  if (!is_real(x.dtype)) return py::reinterpret_borrow<py::object>(Py_NotImplemented);
  const Index n = check_square(op, x), batch = batch_of(x);
  const py::object given = ready(x, x.dtype), out = empty(x.dtype, x.shape_vector());
  const py::object info = empty(DType::Int32, x.shape, x.ndim - 2);
  const bool upper = flag(a[1]);
  launch(batch * n * n * n, [=, type = x.dtype, from = data_of<char>(given), to = data_of<char>(out),
                             says = data_of<std::int32_t>(info)] {
    if (type == DType::Float64)
      cholesky(upper, batch, n, reinterpret_cast<const double*>(from), reinterpret_cast<double*>(to), says);
    else cholesky(upper, batch, n, reinterpret_cast<const float*>(from), reinterpret_cast<float*>(to), says);
  });
  return py::make_tuple(out, info);
}

}  // namespace

TG_BINDINGS(linalg) {
  add_fast(m, fast_linalg_solve_triangular);
  add_fast(m, fast_linalg_cholesky);
}

}  // namespace tg
