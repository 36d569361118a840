// sum, prod, amax, amin, any, all, mean, var, logsumexp; argmax, argmin, max_dim, min_dim; cumsum, cumprod and the
// other running ops.
#include "../kernels/reduce.h"

#include "../core/fastcall.h"
#include "../core/launch.h"
#include "../kernels/reduce_arg.h"
#include "../kernels/scan.h"
#include "../kernels/scan_steps.h"
#include "lines.h"

namespace tg {
namespace {

DType result_type(Reduce kind, const View& x) {
  const bool floating = is_floating(x.dtype), complex = is_complex(x.dtype);
  switch (kind) {
    case Reduce::sum:
    case Reduce::prod: return floating || complex ? x.dtype : DType::Int64;
    case Reduce::amax:
    case Reduce::amin:
      if (complex) throw py::type_error(std::string(name_of(kind)) + ": complex numbers have no order");
      return x.dtype;
    case Reduce::any:
    case Reduce::all: return x.dtype == DType::UInt8 ? x.dtype : DType::Bool;
    case Reduce::count_nonzero: return DType::Int64;
    case Reduce::mean:
      if (!complex) float_compute("mean", x);
      return x.dtype;
    default: float_compute(name_of(kind), x); return x.dtype;
  }
}

// Sets reduce[k] for the axes in `dim`, a tuple of distinct axes or one int.
void read_axes(const char* op, const View& x, py::handle dim, bool* reduce) {
  for (int k = 0; k < x.ndim; ++k) reduce[k] = false;
  const auto take = [&](PyObject* item) {
    const Py_ssize_t axis = PyNumber_AsSsize_t(item, PyExc_IndexError);
    if (axis == -1 && PyErr_Occurred()) throw py::error_already_set();
    const int k = checked_axis(op, axis, x);
    if (reduce[k]) throw py::value_error(std::string(op) + ": dim " + std::to_string(k) + " is given twice");
    reduce[k] = true;
  };
  if (PyTuple_Check(dim.ptr())) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(dim.ptr()); ++i) take(PyTuple_GET_ITEM(dim.ptr(), i));
  } else if (PyLong_Check(dim.ptr())) {
    take(dim.ptr());
  } else {
    throw py::type_error(std::string(op) + ": dim must be a tuple of ints, got " + Py_TYPE(dim.ptr())->tp_name);
  }
}

// Of the columns of matrices that lie one behind the other.
bool write_matrices(Reduce kind, const View& x, const ReducePlan& plan, DType out_type, char* to) {
  const Index item = size_of(x.dtype), made_item = size_of(out_type), rows = plan.reduced, width = plan.kshape[1];
  const Index row = width * item, matrix = rows * row;
  if (plan.kstride[1] != item || plan.rstride[0] != row || plan.kstride[0] != matrix) return false;
  const PieceLaunch::Touch read{x.data, x.size() * item, item, false}, made{to, plan.outputs * made_item, made_item, true, rows};
  launch_rows(x.size(), plan.kshape[0], rows * width, {read, made}, [=, type = x.dtype, from = x.data](Index first, Index last) {
    const Index shape[] = {last - first, rows, width}, strides[] = {matrix, row, item};
    const bool folded[] = {false, true, false};
    reduce(kind, ReducePlan(3, shape, strides, folded), type, from + first * matrix, out_type, to + first * width * made_item);
  });
  return true;
}

// Writes a reduction of rows, or of columns, that a program may do a piece at a time behind what computes its input.
bool write_pieces(Reduce kind, const View& x, const ReducePlan& plan, DType out_type, char* to, double correction) {
  const Index item = size_of(x.dtype);
  const bool short_rows = are_short_rows(kind, plan, item), columns = plan.columns && !short_rows;
  const Index outer = columns ? plan.outputs : plan.reduced;
  const bool floats = x.dtype == DType::Float32 || x.dtype == DType::Float64;
  if (floats && x.size() && (kind == Reduce::sum || kind == Reduce::mean) && matrices_stand_alone(plan))
    return write_matrices(kind, x, plan, out_type, to);
  if (!floats || plan.kn > 1 || plan.rn != 1 || x.size() == 0) return false;
  const Index inner = columns ? plan.kstride[0] : plan.rstride[0];
  const Index step = columns ? plan.rstride[0] : plan.kn ? plan.kstride[0] : outer * item;
  if (inner != item || step != outer * item) return false;
  const Index made_item = size_of(out_type);
  const PieceLaunch::Touch read{x.data, x.size() * item, item, false};
  if (short_rows || rows_stand_alone(plan)) {
    const Index length = plan.reduced;
    const PieceLaunch::Touch made{to, plan.outputs * made_item, made_item, true, length};
    launch_rows(x.size(), plan.outputs, length, {read, made}, [=, type = x.dtype, from = x.data](Index first, Index last) {
      const Index shape[] = {last - first, length}, strides[] = {length * item, item};
      const bool folded[] = {false, true};
      reduce(kind, ReducePlan(2, shape, strides, folded), type, from + first * length * item, out_type,
             to + first * made_item, correction);
    });
    return true;
  }
  if ((kind != Reduce::sum && kind != Reduce::mean) || !sums_in_parts(plan)) return false;
  const ColumnSums sums{x.dtype, kind == Reduce::mean, plan.reduced, plan.outputs, x.data, to};
  const PieceLaunch::Touch made{to, plan.outputs * made_item, 0, true};
  launch_row_sums(x.size(), sums.rows, sums.width, sums.unit(), sums.order(), {read, made}, [=] { return run_of(sums); },
                  [=, type = x.dtype, from = x.data] { reduce(kind, plan, type, from, out_type, to, correction); });
  return true;
}

py::object run(Reduce kind, py::handle array, py::handle dim, bool keepdim, double correction = 0) {
  const char* op = name_of(kind);
  const View x = view(array, op);
  const DType out_type = result_type(kind, x);
  bool folded[kMaxDims];
  read_axes(op, x, dim, folded);
  Index shape[kMaxDims], full[kMaxDims], strides[kMaxDims];
  int n = 0;
  for (int k = 0; k < x.ndim; ++k) {
    full[k] = x.shape[k];
    strides[k] = x.strides[k];
    if (!folded[k]) shape[n++] = x.shape[k];
    else if (keepdim) shape[n++] = 1;
    if (folded[k] && !x.shape[k] && (kind == Reduce::amax || kind == Reduce::amin))
      throw py::value_error(std::string(op) + ": shape " + to_string(x.shape_vector()) + " has no elements along dim " +
                            std::to_string(k) + ", so there is no extreme");
  }
  py::object out = empty(out_type, shape, n);
  char* to = data_of<char>(out);
  if (writing() && write_pieces(kind, x, ReducePlan(x.ndim, full, strides, folded), out_type, to, correction)) return out;
  // the plan is made where it stays: it is too large to be copied for a small array's sake
  launch(x.size(), [=, type = x.dtype, from = x.data, plan = ReducePlan(x.ndim, full, strides, folded)] {
    reduce(kind, plan, type, from, out_type, to, correction);
  });
  return out;
}

// ---- argmax and its kin ---------------------------------------------------------------------------------------------

DType ordered_compute(const char* op, const View& x) {
  if (is_complex(x.dtype)) throw py::type_error(std::string(op) + ": complex numbers have no order");
  return is_floating(x.dtype) ? float_compute(op, x) : DType::Int64;
}

// call(T) for the type that numbers are compared in.
template <class Call>
void launch_ordered(Index work, DType compute, Call call) {
  launch(work, [=] {
    if (compute == DType::Float32) call(float{});
    else if (compute == DType::Float64) call(double{});
    else call(int64_t{});
  });
}

// Values are wanted for max_dim and min_dim. dim None: over all elements.
py::object arg(const char* op, bool largest, bool with_values, py::handle array, py::handle dim, bool keepdim) {
  const View x = view(array, op);
  const DType compute = ordered_compute(op, x);
  const bool flat = dim.is_none() || x.ndim == 0;
  const int axis = dim.is_none() ? 0 : x.ndim == 0 && py::cast<Index>(dim) == 0 ? 0 : checked_axis(op, py::cast<Index>(dim), x);
  Shape shape;
  for (int k = 0; k < x.ndim; ++k) {
    if (flat || k == axis) {
      if (keepdim) shape.push_back(1);
    } else {
      shape.push_back(x.shape[k]);
    }
  }
  Lines lines(x, flat ? 0 : axis);
  if (flat) {
    lines.length = x.size();
    lines.outer = lines.inner = 1;
  }
  if (lines.length == 0)
    throw py::value_error(std::string(op) + ": shape " + to_string(x.shape_vector()) + " has no elements along " +
                          (flat ? "any axis" : "dim " + std::to_string(axis)));
  const py::object source = ready(x, compute);
  py::object indices = empty(DType::Int64, shape), values;
  if (with_values) values = empty(compute, shape);
  if (lines.size() > 0) {
    const char* from = data_of<char>(source);
    int64_t* at = data_of<int64_t>(indices);
    char* best = with_values ? data_of<char>(values) : nullptr;
    launch_ordered(lines.size(), compute, [=](auto t) {
      using T = decltype(t);
      arg_extreme(largest, lines.outer, lines.length, lines.inner, reinterpret_cast<const T*>(from),
                  reinterpret_cast<T*>(best), at);
    });
  }
  if (!with_values) return indices;
  return py::make_tuple(ready_as(values, x.dtype), indices);
}

// ---- running sums ---------------------------------------------------------------------------------------------------

py::object scan(const char* op, Scan kind, py::handle array, Index dim) {
  const View x = view(array, op);
  if (is_complex(x.dtype)) throw py::type_error(std::string(op) + ": complex arrays are not supported by this kernel");
  const int axis = x.ndim == 0 && dim == 0 ? 0 : checked_axis(op, dim, x);
  const DType compute = is_floating(x.dtype) ? float_compute(op, x) : DType::Int64;
  const py::object source = ready(x, compute);
  py::object out = empty(compute, x.shape_vector());
  const Lines lines(x, axis);
  const char* from = data_of<char>(source);
  char* to = data_of<char>(out);
  launch_ordered(lines.size(), compute, [=](auto t) {
    using T = decltype(t);
    scan_lines(kind, lines.outer, lines.length, lines.inner, reinterpret_cast<const T*>(from), reinterpret_cast<T*>(to));
  });
  return is_narrow_float(x.dtype) ? ready_as(out, x.dtype) : out;
}

py::object running_extreme(const char* op, bool largest, py::handle array, Index dim) {
  const View x = view(array, op);
  const DType compute = ordered_compute(op, x);
  const Lines lines(x, checked_axis(op, dim, x));
  const py::object source = ready(x, compute);
  py::object values = empty(compute, x.shape_vector()), indices = empty(DType::Int64, x.shape_vector());
  const char* from = data_of<char>(source);
  char* to = data_of<char>(values);
  int64_t* at = data_of<int64_t>(indices);
  launch_ordered(lines.size(), compute, [=](auto t) {
    using T = decltype(t);
    scan_extreme(largest, lines.outer, lines.length, lines.inner, reinterpret_cast<const T*>(from),
                 reinterpret_cast<T*>(to), at);
  });
  return py::make_tuple(ready_as(values, x.dtype), indices);
}

py::object running_logsumexp(py::handle array, Index dim) {
  const char* op = "logcumsumexp";
  const View x = view(array, op);
  const DType compute = float_compute(op, x);
  const Lines lines(x, checked_axis(op, dim, x));
  const py::object source = ready(x, compute);
  py::object out = empty(compute, x.shape_vector());
  visit_real(op, compute, [&](auto t) {
    using T = typename decltype(t)::value;
    const T* from = data_of<T>(source);
    T* to = data_of<T>(out);
    launch(lines.size(), [=] { scan_logsumexp(lines.outer, lines.length, lines.inner, from, to); });
  });
  return ready_as(out, x.dtype);
}

py::object recurrence(py::handle a_, py::handle b_, Index dim) {
  const char* op = "linear_recurrence";
  const View a = view(a_, op), b = view(b_, op);
  require_shape(op, "a", a, b.shape_vector());
  require_dtype(op, "a", a, b.dtype);
  const DType compute = float_compute(op, b);
  const Lines lines(b, checked_axis(op, dim, b));
  const py::object slope = ready(a, compute), added = ready(b, compute);
  py::object out = empty(compute, b.shape_vector());
  visit_real(op, compute, [&](auto t) {
    using T = typename decltype(t)::value;
    const T *by = data_of<T>(slope), *add = data_of<T>(added);
    T* to = data_of<T>(out);
    launch(lines.size(), [=] { scan_recurrence(lines.outer, lines.length, lines.inner, by, add, to); });
  });
  return ready_as(out, b.dtype);
}

}  // namespace

#define REDUCE_BINDING(kind) \
  FAST_BINDING(kind, 2, "x", "dim", "keepdim") { return run(Reduce::kind, a[0], a[1], flag(a[2])); }
REDUCE_BINDING(sum)
REDUCE_BINDING(prod)
REDUCE_BINDING(amax)
REDUCE_BINDING(amin)
REDUCE_BINDING(any)
REDUCE_BINDING(all)
REDUCE_BINDING(mean)
REDUCE_BINDING(logsumexp)
REDUCE_BINDING(count_nonzero)

// Python's number for an optional correction, 1 where none is given.
static double correction_of(py::handle given) { return given ? py::cast<double>(given) : 1.0; }

FAST_BINDING(var, 2, "x", "dim", "correction", "keepdim") {
  return run(Reduce::var, a[0], a[1], flag(a[3]), correction_of(a[2]));
}
FAST_BINDING(std, 2, "x", "dim", "correction", "keepdim") {
  return run(Reduce::std, a[0], a[1], flag(a[3]), correction_of(a[2]));
}
FAST_BINDING(vector_norm, 3, "x", "dim", "ord", "keepdim") {
  const double ord = py::cast<double>(a[2]);
  if (ord != 1 && ord != 2) return py::reinterpret_borrow<py::object>(Py_NotImplemented);
  return run(ord == 1 ? Reduce::norm1 : Reduce::norm2, a[0], a[1], flag(a[3]));
}
FAST_BINDING(argmax, 2, "x", "dim", "keepdim") { return arg("argmax", true, false, a[0], a[1], flag(a[2])); }
FAST_BINDING(argmin, 2, "x", "dim", "keepdim") { return arg("argmin", false, false, a[0], a[1], flag(a[2])); }
FAST_BINDING(max_dim, 2, "x", "dim", "keepdim") { return arg("max_dim", true, true, a[0], a[1], flag(a[2])); }
FAST_BINDING(min_dim, 2, "x", "dim", "keepdim") { return arg("min_dim", false, true, a[0], a[1], flag(a[2])); }
FAST_BINDING(cumsum, 2, "x", "dim") { return scan("cumsum", Scan::sum, a[0], py::cast<Index>(a[1])); }
FAST_BINDING(cumprod, 2, "x", "dim") { return scan("cumprod", Scan::product, a[0], py::cast<Index>(a[1])); }
FAST_BINDING(products_of_others, 1, "x") {
  const View x = view(a[0], "products_of_others");
  if (x.ndim == 0) throw py::value_error("products_of_others: needs an array with an axis");
  const DType type = float_compute("products_of_others", x);
  require_dtype("products_of_others", "x", x, type);
  const py::object source = ready(x);
  py::object out = empty(type, x.shape_vector());
  const char* from = data_of<char>(source);
  char* to = data_of<char>(out);
  const Lines lines(x, x.ndim - 1);
  launch_ordered(lines.size(), type, [=](auto t) {
    using T = decltype(t);
    if constexpr (std::is_floating_point_v<T>)
      products_of_others(lines.outer, lines.length, reinterpret_cast<const T*>(from), reinterpret_cast<T*>(to));
  });
  return out;
}
FAST_BINDING(cummax, 2, "x", "dim") { return running_extreme("cummax", true, a[0], py::cast<Index>(a[1])); }
FAST_BINDING(cummin, 2, "x", "dim") { return running_extreme("cummin", false, a[0], py::cast<Index>(a[1])); }
FAST_BINDING(logcumsumexp, 2, "x", "dim") { return running_logsumexp(a[0], py::cast<Index>(a[1])); }
FAST_BINDING(linear_recurrence, 3, "a", "b", "dim") { return recurrence(a[0], a[1], py::cast<Index>(a[2])); }

// Raises error(text) if an element of an array of integers is zero, also in every run of a program.
FAST_BINDING(refuse_zeros, 3, "x", "error", "text") {
  const View x = view(a[0], "refuse_zeros");
  if (is_floating(x.dtype) || is_complex(x.dtype)) throw py::type_error("refuse_zeros: expected integers");
  const py::object source = ready(x);
  if (!PyExceptionClass_Check(a[1].ptr())) throw py::type_error("refuse_zeros: error must be a class of exceptions");
  if (writing()) writing()->keep(a[1]);
  launch(0, [error = a[1].ptr(), text = py::cast<std::string>(a[2]), from = data_of<char>(source), n = x.size(),
             item = size_of(x.dtype)] {
    const auto any_zero = [&](auto zero) {
      const auto* values = reinterpret_cast<const decltype(zero)*>(from);
      bool found = false;
      for (Index i = 0; i < n; ++i) found |= values[i] == zero;
      return found;
    };
    if (item == 8   ? any_zero(uint64_t{})
        : item == 4 ? any_zero(uint32_t{})
        : item == 2 ? any_zero(uint16_t{})
                    : any_zero(uint8_t{}))
      throw Raised(error, text);
  });
  return py::none();
}

static void fill_in(std::string& text, const std::string& field, const std::string& words) {
  for (std::size_t at; (at = text.find(field)) != std::string::npos;) text.replace(at, field.size(), words);
}

// 0, or an error of that class for an element outside of [low, high]; in its text {value} and {where} stand for it.
FAST_BINDING(require_between, 5, "x", "low", "high", "error", "text") {
  const char* op = "require_between";
  const View x = view(a[0], op);
  if (x.dtype != DType::Int32 && x.dtype != DType::Int64)
    throw py::type_error(std::string(op) + ": expected int32 or int64, got " + name_of(x.dtype));
  if (!PyExceptionClass_Check(a[3].ptr())) throw py::type_error(std::string(op) + ": error must be a class of exceptions");
  const py::object source = ready(x), out = empty(DType::Int32, x.shape, 0);
  if (writing()) writing()->keep(a[3]);
  launch(x.size(), [low = py::cast<int64_t>(a[1]), high = py::cast<int64_t>(a[2]), error = a[3].ptr(),
                    text = py::cast<std::string>(a[4]), from = data_of<char>(source), n = x.size(),
                    numbered = x.ndim > 0, wide = x.dtype == DType::Int64, to = data_of<std::int32_t>(out)] {
    const auto check = [&](auto zero) {
      const auto* values = reinterpret_cast<const decltype(zero)*>(from);
      for (Index i = 0; i < n; ++i) {
        const int64_t value = values[i];
        if (value >= low && value <= high) continue;
        std::string words = text;
        fill_in(words, "{where}", numbered ? "(Batch element " + std::to_string(i) + "): " : "");
        fill_in(words, "{value}", std::to_string(value));
        throw Raised(error, words);
      }
    };
    if (wide) check(int64_t{});
    else check(std::int32_t{});
    *to = 0;
  });
  return out;
}

TG_BINDINGS(reduce) {
  for (PyMethodDef* each :
       {&fast_sum, &fast_prod, &fast_amax, &fast_amin, &fast_any, &fast_all, &fast_mean, &fast_logsumexp,
        &fast_count_nonzero, &fast_var, &fast_std, &fast_vector_norm, &fast_argmax, &fast_argmin, &fast_max_dim,
        &fast_min_dim, &fast_cumsum, &fast_cumprod, &fast_products_of_others, &fast_cummax, &fast_cummin,
        &fast_logcumsumexp, &fast_linear_recurrence, &fast_refuse_zeros, &fast_require_between})
    add_fast(m, *each);
}

}  // namespace tg
