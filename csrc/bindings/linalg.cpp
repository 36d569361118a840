// Triangular systems, Cholesky and LU factors, and what is made of these, of float32 and float64; other dtypes are left to
// the inherited kernels.
#include "../core/fastcall.h"
#include "../kernels/lu.h"
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

// A contiguous array that a kernel may overwrite. The call itself copies into it, from wherever the elements lie.
struct Own {
  explicit Own(const View& x) : array(empty(x.dtype, x.shape_vector())), copy(x, data_of<char>(array), strides_of(array)) {}
  static const npy_intp* strides_of(const py::object& made) {
    return PyArray_STRIDES(reinterpret_cast<PyArrayObject*>(made.ptr()));
  }
  py::object array;
  Copy copy;
};

template <class F>
void in_type(DType type, F call) {
  if (type == DType::Float64) call(double{});
  else call(float{});
}

FAST_BINDING(linalg_lu_factor, 1, "a") {
  const char* op = "linalg_lu_factor";
  const View x = view(a[0], op);
  if (!is_real(x.dtype)) return py::reinterpret_borrow<py::object>(Py_NotImplemented);
  if (x.ndim < 2) throw py::value_error(std::string(op) + ": expected matrices, got shape " + to_string(x.shape_vector()));
  const Index batch = batch_of(x), m = x.shape[x.ndim - 2], n = x.shape[x.ndim - 1];
  Shape shape = x.shape_vector();
  shape[shape.size() - 2] = std::min(m, n);
  const Own own(x);
  const py::object pivots = empty(DType::Int32, shape.data(), x.ndim - 1), info = empty(DType::Int32, x.shape, x.ndim - 2);
  launch(batch * m * n * std::min(m, n), [=, copy = own.copy, type = x.dtype, exchanged = data_of<std::int32_t>(pivots),
                                          says = data_of<std::int32_t>(info)] {
    copy.run();
    in_type(type, [&](auto zero) {
      lu_factor(batch, m, n, reinterpret_cast<decltype(zero)*>(copy.to), exchanged, says);
    });
  });
  return py::make_tuple(own.array, pivots, info);
}

FAST_BINDING(linalg_solve, 2, "a", "b") {
  const char* op = "linalg_solve";
  const View matrices = view(a[0], op), right = view(a[1], op);
  if (!is_real(matrices.dtype)) return py::reinterpret_borrow<py::object>(Py_NotImplemented);
  const Index n = check_square(op, matrices), batch = batch_of(matrices);
  Shape shape = matrices.shape_vector();
  if (right.ndim == matrices.ndim) shape.back() = right.shape[right.ndim - 1];
  require_shape(op, "b", right, shape);
  require_dtype(op, "b", right, matrices.dtype);
  const Own factors(matrices), x(right);
  const py::object info = empty(DType::Int32, matrices.shape, matrices.ndim - 2);
  const Index columns = shape.back();
  launch(batch * n * n * (n + columns), [=, from = factors.copy, given = x.copy, type = matrices.dtype,
                                         says = data_of<std::int32_t>(info)] {
    from.run();
    given.run();
    in_type(type, [&](auto zero) {
      using T = decltype(zero);
      lu_solve(batch, n, columns, reinterpret_cast<T*>(from.to), reinterpret_cast<T*>(given.to), says);
    });
  });
  return py::make_tuple(x.array, info);
}

FAST_BINDING(linalg_inv, 1, "a") {
  const char* op = "linalg_inv";
  const View matrices = view(a[0], op);
  if (!is_real(matrices.dtype)) return py::reinterpret_borrow<py::object>(Py_NotImplemented);
  const Index n = check_square(op, matrices), batch = batch_of(matrices);
  const Own factors(matrices);
  const py::object out = empty(matrices.dtype, matrices.shape_vector());
  const py::object info = empty(DType::Int32, matrices.shape, matrices.ndim - 2);
  launch(batch * n * n * n, [=, from = factors.copy, type = matrices.dtype, to = data_of<char>(out),
                             says = data_of<std::int32_t>(info)] {
    from.run();
    in_type(type, [&](auto zero) {
      using T = decltype(zero);
      lu_inverse(batch, n, reinterpret_cast<T*>(from.to), reinterpret_cast<T*>(to), says);
    });
  });
  return py::make_tuple(out, info);
}

// The determinants, or with `logarithm` their signs, and the logarithms of their sizes.
py::object determinants(const char* op, py::handle given, bool logarithm) {
  const View x = view(given, op);
  if (!is_real(x.dtype)) return py::reinterpret_borrow<py::object>(Py_NotImplemented);
  const Index n = check_square(op, x), batch = batch_of(x);
  const Own factors(x);
  const py::object first = empty(x.dtype, x.shape, x.ndim - 2);
  const py::object size = logarithm ? empty(x.dtype, x.shape, x.ndim - 2) : py::none();
  launch(batch * n * n * n, [=, from = factors.copy, type = x.dtype, to = data_of<char>(first),
                             behind = logarithm ? data_of<char>(size) : nullptr] {
    from.run();
    in_type(type, [&](auto zero) {
      using T = decltype(zero);
      lu_determinant(batch, n, reinterpret_cast<T*>(from.to), reinterpret_cast<T*>(to), reinterpret_cast<T*>(behind));
    });
  });
  if (!logarithm) return first;
  return py::make_tuple(first, size);
}

FAST_BINDING(linalg_det, 1, "a") { return determinants("linalg_det", a[0], false); }
FAST_BINDING(linalg_slogdet, 1, "a") { return determinants("linalg_slogdet", a[0], true); }

}  // namespace

TG_BINDINGS(linalg) {
  for (PyMethodDef* each : {&fast_linalg_solve_triangular, &fast_linalg_cholesky, &fast_linalg_lu_factor,
                            &fast_linalg_solve, &fast_linalg_inv, &fast_linalg_det, &fast_linalg_slogdet})
    add_fast(m, *each);
}

}  // namespace tg
