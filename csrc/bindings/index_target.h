// What bindings that write through indices share: the type they add in, and the array they write to.
#pragma once

#include <cstring>

#include "lines.h"

namespace tg {

// Integers add in uint64, where wrapping is defined; narrow floats in float.
inline DType add_compute(DType type) {
  if (is_complex(type) || type == DType::Float32 || type == DType::Float64) return type;
  return is_narrow_float(type) ? DType::Float32 : DType::Int64;
}

template <class F>
void visit_add(DType type, F f) {
  switch (type) {
    case DType::Float32: return f(float{});
    case DType::Float64: return f(double{});
    case DType::Complex64: return f(c64{});
    case DType::Complex128: return f(c128{});
    default: return f(uint64_t{});
  }
}

// x itself (`into`) or a copy of it, as contiguous memory of the type `compute`. finish() brings back what was written
// elsewhere and returns the result.
class Target {
 public:
  Target(const View& x, DType compute, bool into) : x_(x), into_(into) {
    if (into) require_writable(x, "the array written to");
    const py::object own = py::reinterpret_borrow<py::object>(x.array);
    made_ = ready(x, compute);
    direct_ = into && made_.is(own);
    if (into || !made_.is(own)) return;
    made_ = empty(compute, x.shape_vector());
    char* to = tg::data_of<char>(made_);
    const Index stride = size_of(compute), n = x.size();
    launch(n, [=, from = x.data] { copy_strided(stride, 1, &n, from, &stride, to, &stride); });
  }
  template <class T>
  T* data() const { return tg::data_of<T>(made_); }

  const py::object& made() const { return made_; }

  py::object finish() {
    if (direct_) return made_;
    py::object stored = ready_as(made_, x_.dtype);
    if (!into_) return stored;
    launch(x_.size(), [copy = Copy(view(stored), x_.data, x_.strides)] { copy.run(); });
    return py::reinterpret_borrow<py::object>(x_.array);
  }

 private:
  View x_;
  bool into_, direct_ = false;
  py::object made_;
};

}  // namespace tg
