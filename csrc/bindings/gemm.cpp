// matmul, mv, dot, linear, linear_backward.
#include <pybind11/pybind11.h>

#include <limits>

#include "../core/fastcall.h"
#include "../core/launch.h"
#include "../kernels/gemm_bfloat.h"
#include "gemm_arrays.h"

namespace tg {
namespace {

// float, double and the two complex types: what BLAS multiplies.
template <class F>
decltype(auto) visit_blas(const char* what, DType type, F&& f) {
  switch (type) {
    case DType::Complex64: return f(TypeOf<c64>{});
    case DType::Complex128: return f(TypeOf<c128>{});
    default: return visit_real(what, type, f);
  }
}

template <class F>
decltype(auto) visit_summed_integer(const char* what, DType type, F&& f) {
  switch (type) {
    case DType::UInt8: return f(TypeOf<std::uint8_t>{});
    case DType::Int8: return f(TypeOf<std::int8_t>{});
    case DType::Int16: return f(TypeOf<std::int16_t>{});
    case DType::Int32: return f(TypeOf<std::int32_t>{});
    case DType::Int64: return f(TypeOf<std::int64_t>{});
    default: unsupported(what, type);
  }
}

bool is_integer(DType type) { return type <= DType::Int64 && type != DType::Bool; }

void require_int_sizes(const char* what, Index m, Index n, Index k) {
  if (std::max({m, n, k}) >= std::numeric_limits<int>::max())
    bad_value(std::string(what) + ": a matrix of " + std::to_string(m) + " x " + std::to_string(k) + " by " +
              std::to_string(k) + " x " + std::to_string(n) + " has a side of 2^31 or more; multiply it in pieces");
}

// What products read as T: half floats widened, unless they are multiplied as they are stored.
template <class T>
py::object operand(py::handle given, const char* what) {
  if constexpr (std::is_same_v<T, bfloat16>) return py::reinterpret_borrow<py::object>(given);
  else return widened(given, what);
}

template <class T>
bool readable_here(const Matrix<T>& m, Index rows, Index cols) {
  if constexpr (std::is_same_v<T, bfloat16>) return m.row == 1 || m.col == 1;
  else return readable(m, rows, cols);
}

// An array whose last two axes are matrices that a product can read; copied if it must be.
struct Stack {
  py::object array;
  View v;
  Index strides[kMaxDims];

  template <class T>
  void read(py::handle given, const char* what) {
    array = operand<T>(given, what);
    v = view(array, what);
    if (usable<T>()) return;
    array = contiguous(array, what);
    v = view(array, what);
    element_strides(v, strides);
  }
  template <class T>
  bool usable() {
    if (!element_strides(v, strides)) return false;
    if constexpr (std::is_integral_v<T>) return true;
    else return readable_here(matrix<T>(), rows(), cols()) || v.size() == 0;
  }
  template <class T>
  Matrix<T> matrix() const { return {v.as<T>(), strides[v.ndim - 2], strides[v.ndim - 1]}; }
  Index rows() const { return v.shape[v.ndim - 2]; }
  Index cols() const { return v.shape[v.ndim - 1]; }
  int batch_dims() const { return v.ndim - 2; }

  // True if all axes but the last follow each other at one stride, so they are the rows of one matrix.
  bool rows_fold() const {
    for (int i = v.ndim - 2; i > 0; --i)
      if (v.shape[i - 1] != 1 && strides[i - 1] != strides[i] * v.shape[i]) return false;
    return true;
  }
};

Index one_stride(const Stack& s, int axis, int ndim) {
  const int at = axis - (ndim - s.v.ndim);
  return at < 0 || s.v.shape[at] == 1 ? 0 : s.strides[at];
}

// Where the batch entries of a stack lie, in the order of the result's (shape without its last two axes): one step apart, or
// at offsets.
std::vector<Index> entries_of(const Stack& s, const Shape& shape, Index batch, Index& step) {
  const int ndim = static_cast<int>(shape.size());
  Index covered = 1;  // entries of the axes behind, which are all `step` apart
  bool even = true;
  step = 0;
  for (int i = ndim - 3; i >= 0; --i) {
    if (shape[i] == 1) continue;
    const Index stride = one_stride(s, i, ndim);
    if (covered == 1) step = stride;
    even = even && stride == step * covered;
    covered *= shape[i];
  }
  if (even) return {};
  std::vector<Index> offsets(batch);
  Index at[kMaxDims] = {}, offset = 0;
  for (Index& entry : offsets) {
    entry = offset;
    for (int i = ndim - 3; i >= 0; --i) {
      const Index stride = one_stride(s, i, ndim);
      offset += stride;
      if (++at[i] < shape[i]) break;
      at[i] = 0;
      offset -= stride * shape[i];
    }
  }
  return offsets;
}

// Shape of the result: batch axes broadcast, then (m, n). Throws ValueError.
Shape matmul_shape(const View& a, const View& b) {
  auto shapes = [&] { return to_string(a.shape_vector()) + " and " + to_string(b.shape_vector()); };
  if (a.ndim < 2 || b.ndim < 2) bad_value("matmul: expected arrays of at least 2 axes, got shapes " + shapes());
  const Index k = a.shape[a.ndim - 1];
  if (k != b.shape[b.ndim - 2])
    bad_value("matmul: " + shapes() + " have inner sizes " + std::to_string(k) + " and " +
              std::to_string(b.shape[b.ndim - 2]) + ", which must be equal");
  const int ndim = std::max(a.ndim, b.ndim);
  Shape shape(ndim);
  for (int i = 0; i < ndim - 2; ++i) {
    const int ia = i - (ndim - a.ndim), ib = i - (ndim - b.ndim);
    const Index na = ia < 0 ? 1 : a.shape[ia], nb = ib < 0 ? 1 : b.shape[ib];
    if (na != nb && na != 1 && nb != 1) bad_value("matmul: batch axes of " + shapes() + " do not broadcast");
    shape[i] = na == 1 ? nb : na;
  }
  shape[ndim - 2] = a.shape[a.ndim - 2];
  shape[ndim - 1] = b.shape[b.ndim - 1];
  return shape;
}

// Products in a program: real ones finish their results in blocks of rows, and read left sides in such. `then` is what
// else the call does.
template <class T>
struct Products final : BlockLaunch {
  std::vector<Gemm<T>> products;
  std::vector<Index> a_offset, b_offset;  // what the products' may point into
  std::function<void()> then;

  void run() override {
    gemm(products);
    if (then) then();
  }
  void run(const Needed& needed, const Finished& finished) override {
    std::vector<std::function<void(Index, Index)>> told(products.size()), asked(operands.size());
    std::vector<Gemm<T>> list = products;
    for (std::size_t i = 0; i < list.size() && finished; ++i) {
      told[i] = [&finished, i](Index first, Index last) { finished(i, first, last); };
      list[i].finished = &told[i];
    }
    for (std::size_t i = 0; i < operands.size() && needed; ++i) {
      asked[i] = [&needed, i](Index first, Index last) { needed(i, first, last); };
      list[product_of_[i]].needed = &asked[i];
    }
    gemm(list);
    if (then) then();
  }

  bool little() const override { return work_ < kLittle; }

  void note() {
    for (const Gemm<T>& g : products) {
      work_ += g.batch * g.m * g.n * g.k;
      results.push_back({bytes(g.c), g.batch * g.m * g.n * item, item, true});
      if (g.batch == 1 && !g.a_offset && g.a.col == 1 && g.a.row == g.k && g.m > 0 && g.n > 0 && g.k > 0) {
        operands.push_back({{bytes(g.a.data), g.m * g.k * item, item, false}, g.k});
        product_of_.push_back(results.size() - 1);
      } else {
        note(g.a, g.m, g.k, g.a_offset, g.a_step, g.batch);
      }
      note(g.b, g.k, g.n, g.b_offset, g.b_step, g.batch);
      if (g.bias) others.push_back({bytes(g.bias), g.n * item, 0, false});
      if (g.row_sums) others.push_back({bytes(g.row_sums), g.m * item, 0, true});
    }
  }

 private:
  static constexpr Index kLittle = Index(1) << 17;  // multiplications: all lies in a first-level cache, blocks would cost
  std::vector<std::size_t> product_of_;             // whose left side an operand is
  Index work_ = 0;

  static constexpr Index item = sizeof(T);
  static const char* bytes(const T* data) { return reinterpret_cast<const char*>(data); }
  void note(const Matrix<T>& m, Index rows, Index cols, const Index* offset, Index step, Index batch) {
    if (rows == 0 || cols == 0 || batch == 0) return;
    Index low = 0, high = 1;
    if (offset) {
      low = *std::min_element(offset, offset + batch);
      high += *std::max_element(offset, offset + batch);
    } else {
      (step < 0 ? low : high) += (batch - 1) * step;
    }
    (m.row < 0 ? low : high) += (rows - 1) * m.row;
    (m.col < 0 ? low : high) += (cols - 1) * m.col;
    others.push_back({bytes(m.data + low), (high - low) * item, 0, false});
  }
};

template <class T>
void write(Index work, std::vector<Gemm<T>> products, std::vector<Index> a_offset, std::vector<Index> b_offset,
           std::function<void()> then, const PieceLaunch::Touch* also) {
  auto call = std::make_unique<Products<T>>();
  call->products = std::move(products);
  call->a_offset = std::move(a_offset);
  call->b_offset = std::move(b_offset);
  call->then = std::move(then);
  if (also) call->others.push_back(*also);
  call->note();
  writing()->add(work, std::move(call));
}

// The offsets are what the product's point into, where its batch has more than one entry.
template <class T>
void multiply(const Gemm<T>& product, std::vector<Index> a_offset = {}, std::vector<Index> b_offset = {}) {
  const Index work = product.batch * product.m * product.n * std::max<Index>(1, product.k);
  if constexpr (std::is_floating_point_v<T>)
    if (writing()) return write<T>(work, {product}, std::move(a_offset), std::move(b_offset), {}, nullptr);
  launch(work, [=, a = std::move(a_offset), b = std::move(b_offset)] {
    if constexpr (std::is_integral_v<T>) integer_gemm(product);
    else if constexpr (std::is_same_v<T, bfloat16>) bfloat_gemm(product);
    else gemm(product);
  });
}

template <class T>
py::object matmul_as(py::handle given_a, py::handle given_b, const Shape& shape, DType dtype) {
  Stack a, b;
  a.read<T>(given_a, "matmul: a");
  b.read<T>(given_b, "matmul: b");
  py::object out = empty(dtype, shape);
  const int ndim = static_cast<int>(shape.size());
  Gemm<T> product;
  product.m = a.rows();
  product.k = a.cols();
  product.n = b.cols();
  product.a = a.matrix<T>();
  product.b = b.matrix<T>();
  product.c = data_of<T>(out);
  require_int_sizes("matmul", product.m, product.n, product.k);
  if (ndim == 2) {
    multiply(product);
    return out;
  }
  Index batch = 1, b_batch = 1;
  for (int i = 0; i < ndim - 2; ++i) batch *= shape[i];
  for (int i = 0; i < b.batch_dims(); ++i) b_batch *= b.v.shape[i];
  if (b_batch == 1 && a.v.ndim == ndim && batch > 0 && a.rows_fold() &&
      batch * product.m < std::numeric_limits<int>::max()) {
    // one matrix on the right: the batch is more rows
    product.m *= batch;
    multiply(product);
    return out;
  }
  std::vector<Index> a_offset = entries_of(a, shape, batch, product.a_step);
  std::vector<Index> b_offset = entries_of(b, shape, batch, product.b_step);
  product.batch = batch;
  if (!a_offset.empty()) product.a_offset = a_offset.data();
  if (!b_offset.empty()) product.b_offset = b_offset.data();
  multiply(product, std::move(a_offset), std::move(b_offset));
  return out;
}

bool pairs_fit(DType type, Index m, Index n, Index k, bool dots = false) {
  return type == DType::BFloat16 && bfloat_gemm_takes(m, n, k, dots);
}

py::object matmul(py::handle a, py::handle b) {
  const View va = view(a, "matmul: a"), vb = view(b, "matmul: b");
  require_dtype(vb, va.dtype, "matmul: b");
  const Shape shape = matmul_shape(va, vb);
  if (pairs_fit(va.dtype, shape[shape.size() - 2], shape.back(), va.shape[va.ndim - 1]))
    return matmul_as<bfloat16>(a, b, shape, va.dtype);
  const DType dtype = compute_dtype(va.dtype);
  if (is_integer(dtype))
    return visit_summed_integer("matmul", dtype, [&](auto t) {
      return matmul_as<typename decltype(t)::value>(a, b, shape, dtype);
    });
  return visit_blas("matmul", dtype, [&](auto t) {
    return narrowed(matmul_as<typename decltype(t)::value>(a, b, shape, dtype), va.dtype);
  });
}

// A matrix (or a vector, which counts as its only row) by a vector; what is neither read by BLAS nor in one piece is copied.
py::object by_vector(const char* what, py::handle a, py::handle x, bool dot) {
  const View va = view(a, what), vx = view(x, what);
  require_dtype(vx, va.dtype, what);
  const int rank = dot ? 1 : 2;
  if (va.ndim != rank || vx.ndim != 1 || va.shape[rank - 1] != vx.shape[0])
    bad_value(std::string(what) + ": shapes " + to_string(va.shape_vector()) + " and " + to_string(vx.shape_vector()) +
              " can't be multiplied");
  const Index n = dot ? 1 : va.shape[0], k = vx.shape[0];
  require_int_sizes(what, n, 1, k);
  const DType dtype = compute_dtype(va.dtype);
  const auto product = [&](auto t) {
    using T = typename decltype(t)::value;
    Gemm<T> p;
    p.m = n, p.n = 1, p.k = k;
    Index step;
    py::object row, column = widened(x, what);
    View v = view(column, what);
    if (!element_strides(v, &step) || step != 1) v = view(column = contiguous(column, what), what);
    p.b = {v.as<T>(), 1, 1};
    Stack left;
    if (dot) {
      row = widened(a, what);
      View r = view(row, what);
      if (!element_strides(r, &step) || step != 1) r = view(row = contiguous(row, what), what);
      p.a = {r.as<T>(), std::max<Index>(k, 1), 1};
    } else {
      left.read<T>(a, what);
      p.a = left.matrix<T>();
    }
    py::object out = empty(dtype, &n, dot ? 0 : 1);
    p.c = data_of<T>(out);
    multiply(p);
    return out;
  };
  if (is_integer(dtype)) return visit_summed_integer(what, dtype, product);
  return visit_blas(what, dtype, [&](auto t) { return narrowed(product(t), va.dtype); });
}

// (..., cols) as one matrix; copied where its leading axes are not at one stride.
struct Folded {
  Stack stack;
  Index rows = 1, cols = 0;

  template <class T>
  Matrix<T> read(py::handle given, const char* what) {
    stack.array = operand<T>(given, what);
    stack.v = view(stack.array, what);
    if (!element_strides(stack.v, stack.strides) || !ready<T>()) {
      stack.array = contiguous(stack.array, what);
      stack.v = view(stack.array, what);
      element_strides(stack.v, stack.strides);
    }
    return matrix<T>();
  }

 private:
  template <class T>
  bool ready() {
    const Matrix<T> m = matrix<T>();  // first: it sets rows and cols
    return stack.rows_fold() && readable_here(m, rows, cols);
  }
  template <class T>
  Matrix<T> matrix() {
    const View& v = stack.v;
    rows = 1;
    Index stride = v.shape[v.ndim - 1];
    for (int i = v.ndim - 2; i >= 0; --i) {
      if (rows == 1 && v.shape[i] != 1) stride = stack.strides[i];
      rows *= v.shape[i];
    }
    cols = v.shape[v.ndim - 1];
    return {v.as<T>(), stride, stack.strides[v.ndim - 1]};
  }
};

void check_linear(const View& x, const View& w) {
  if (x.ndim < 1 || w.ndim != 2)
    bad_value("linear: expected x (..., in) and weight (out, in), got " + to_string(x.shape_vector()) + " and " +
              to_string(w.shape_vector()));
  if (x.shape[x.ndim - 1] != w.shape[1])
    bad_value("linear: input has " + std::to_string(x.shape[x.ndim - 1]) + " features, weight " +
              to_string(w.shape_vector()) + " expects " + std::to_string(w.shape[1]));
  require_dtype(w, x.dtype, "linear: weight");
}

Index rows_of(const View& v) {
  Index rows = 1;
  for (int i = 0; i < v.ndim - 1; ++i) rows *= v.shape[i];
  return rows;
}

py::object linear(py::handle x, py::handle w, py::handle b) {
  const View vx = view(x, "linear: x"), vw = view(w, "linear: weight");
  check_linear(vx, vw);
  const Index n = vw.shape[0];
  if (b && !b.is_none()) {
    const View vb = view(b, "linear: bias");
    if (vb.ndim != 1 || vb.shape[0] != n)
      bad_value("linear: bias " + to_string(vb.shape_vector()) + " does not fit weight " +
                to_string(vw.shape_vector()) + "; expected (" + std::to_string(n) + ",)");
    require_dtype(vb, vx.dtype, "linear: bias");
  }
  Index shape[kMaxDims];
  std::copy_n(vx.shape, vx.ndim, shape);
  shape[vx.ndim - 1] = n;
  const auto product = [&](auto t, DType dtype) {
    using T = typename decltype(t)::value;
    py::object bias;
    if (b && !b.is_none()) bias = contiguous(operand<T>(b, "linear: bias"), "linear: bias");
    Folded folded;
    Stack weight;
    Gemm<T> product;
    product.a = folded.read<T>(x, "linear: x");
    weight.read<T>(w, "linear: weight");
    const Matrix<T> m = weight.matrix<T>();
    product.b = {m.data, m.col, m.row};
    product.m = folded.rows;
    product.n = n;
    product.k = folded.cols;
    product.bias = bias ? data_of<T>(bias) : nullptr;
    require_int_sizes("linear", product.m, product.n, product.k);
    py::object out = empty(dtype, shape, vx.ndim);
    product.c = data_of<T>(out);
    multiply(product);
    return out;
  };
  if (pairs_fit(vx.dtype, rows_of(vx), n, vw.shape[1], true)) return product(TypeOf<bfloat16>{}, vx.dtype);
  const DType dtype = compute_dtype(vx.dtype);
  return visit_blas("linear", dtype, [&](auto t) { return narrowed(product(t, dtype), vx.dtype); });
}

// As below, of bfloat16 as it is stored.
py::tuple bfloat_linear_backward(py::handle g, py::handle x, py::handle w, bool need_x, bool need_w, bool need_b) {
  const View vx = view(x, "linear_backward: x"), vw = view(w, "linear_backward: w");
  py::object gx = py::none(), gw = py::none(), gb = py::none();
  Folded fg;
  const Matrix<bfloat16> mg = fg.read<bfloat16>(g, "linear_backward: g");
  const Index rows = fg.rows, n = fg.cols, k = vw.shape[1];
  require_int_sizes("linear_backward", rows, n, k);
  if (need_x) {
    gx = empty(vx.dtype, vx.shape_vector());
    Stack weight;
    weight.read<bfloat16>(w, "linear_backward: w");
    Gemm<bfloat16> p;
    p.m = rows, p.n = k, p.k = n, p.a = mg, p.b = weight.matrix<bfloat16>(), p.c = data_of<bfloat16>(gx);
    multiply(p);
  }
  if (need_b && need_w) gb = empty(vx.dtype, {n});
  if (need_w) {
    gw = empty(vx.dtype, vw.shape_vector());
    Folded fx;
    Gemm<bfloat16> p;
    p.b = fx.read<bfloat16>(x, "linear_backward: x");
    p.m = n, p.n = k, p.k = rows, p.a = {mg.data, mg.col, mg.row}, p.c = data_of<bfloat16>(gw);
    if (need_b) p.row_sums = data_of<bfloat16>(gb);
    multiply(p);
  } else if (need_b) {
    Folded wide;
    const Matrix<float> m = wide.read<float>(g, "linear_backward: g");
    const py::object sums = empty(DType::Float32, {n});
    launch(rows * n, [=, to = data_of<float>(sums)] { column_sum(m, rows, n, to); });
    gb = narrowed(sums, vx.dtype);
  }
  return py::make_tuple(gx, gw, gb);
}

py::tuple linear_backward(py::handle g, py::handle x, py::handle w, py::handle needs) {
  const View vg = view(g, "linear_backward: g"), vx = view(x, "linear_backward: x"), vw = view(w, "linear_backward: w");
  check_linear(vx, vw);
  require_dtype(vg, vx.dtype, "linear_backward: g");
  Shape expected = vx.shape_vector();
  expected.back() = vw.shape[0];
  if (vg.shape_vector() != expected)
    bad_value("linear_backward: g has shape " + to_string(vg.shape_vector()) + ", x " + to_string(vx.shape_vector()) +
              " and weight " + to_string(vw.shape_vector()) + " give " + to_string(expected));
  if (!PyTuple_Check(needs.ptr()) || PyTuple_GET_SIZE(needs.ptr()) != 3)
    bad_value("linear_backward: needs must be a tuple of 3 flags (x, w, b)");
  const bool need_x = flag(PyTuple_GET_ITEM(needs.ptr(), 0)), need_w = flag(PyTuple_GET_ITEM(needs.ptr(), 1)),
             need_b = flag(PyTuple_GET_ITEM(needs.ptr(), 2));
  if (pairs_fit(vx.dtype, rows_of(vx), vw.shape[1], vw.shape[0])) return bfloat_linear_backward(g, x, w, need_x, need_w, need_b);
  const DType dtype = compute_dtype(vx.dtype);
  py::object gx = py::none(), gw = py::none(), gb = py::none();
  visit_blas("linear_backward", dtype, [&](auto t) {
    using T = typename decltype(t)::value;
    Folded fg, fx;
    Stack weight;
    const Matrix<T> mg = fg.read<T>(g, "linear_backward: g"), mx = fx.read<T>(x, "linear_backward: x");
    weight.read<T>(w, "linear_backward: w");
    const Index rows = fg.rows, n = fg.cols, k = fx.cols;
    require_int_sizes("linear_backward", rows, n, k);
    std::vector<Gemm<T>> products;
    if (need_b) gb = empty(dtype, {n});
    // the product for the weight sums g's columns where it packs them
    const bool summed = std::is_floating_point_v<T> && need_w && need_b && rows > 0 && n > 0 && k > 0;
    if (need_x) {
      gx = empty(dtype, vx.shape_vector());
      Gemm<T> p;
      p.m = rows, p.n = k, p.k = n, p.a = mg, p.b = weight.matrix<T>(), p.c = data_of<T>(gx);
      products.push_back(p);
    }
    if (need_w) {
      gw = empty(dtype, vw.shape_vector());
      Gemm<T> p;
      p.m = n, p.n = k, p.k = rows, p.a = {mg.data, mg.col, mg.row}, p.b = mx, p.c = data_of<T>(gw);
      if (summed) p.row_sums = data_of<T>(gb);
      products.push_back(p);
    }
    T* columns = need_b && !summed ? data_of<T>(gb) : nullptr;
    const Index work = rows * n * std::max<Index>(1, k);
    if constexpr (std::is_floating_point_v<T>)
      if (writing()) {
        const PieceLaunch::Touch summed_to{reinterpret_cast<const char*>(columns), n * Index(sizeof(T)), 0, true};
        std::function<void()> sum;
        if (columns) sum = [=] { column_sum(mg, rows, n, columns); };
        return write<T>(work, std::move(products), {}, {}, std::move(sum), columns ? &summed_to : nullptr);
      }
    launch(work, [=, products = std::move(products)] {
      gemm(products);
      if (columns) column_sum(mg, rows, n, columns);
    });
  });
  auto finish = [&](const py::object& made) { return made.is_none() ? made : narrowed(made, vx.dtype); };
  return py::make_tuple(finish(gx), finish(gw), finish(gb));
}

}  // namespace

FAST_BINDING(matmul, 2, "a", "b") { return matmul(a[0], a[1]); }
FAST_BINDING(mv, 2, "a", "x") { return by_vector("mv", a[0], a[1], false); }
FAST_BINDING(dot, 2, "a", "b") { return by_vector("dot", a[0], a[1], true); }
FAST_BINDING(linear, 2, "x", "w", "b") { return linear(a[0], a[1], a[2]); }
FAST_BINDING(linear_backward, 4, "g", "x", "w", "needs") { return linear_backward(a[0], a[1], a[2], a[3]); }

TG_BINDINGS(gemm) {
  add_fast(m, fast_matmul);
  add_fast(m, fast_mv);
  add_fast(m, fast_dot);
  add_fast(m, fast_linear);
  add_fast(m, fast_linear_backward);
}

}  // namespace tg
