#include "gemm_arrays.h"

namespace tg {

void require_dtype(const View& v, DType dtype, const char* what) {
  if (v.dtype != dtype)
    throw py::type_error(std::string(what) + " is " + name_of(v.dtype) + ", the other arrays are " + name_of(dtype) +
                         "; convert one of them");
}

py::object widened(py::handle array, const char* what) {
  const View v = view(array, what);
  if (!is_half(v.dtype)) return py::reinterpret_borrow<py::object>(array);
  const py::object from = contiguous(array, what);
  py::object to = empty(DType::Float32, v.shape_vector());
  const Index n = v.size();
  const char* source = data_of<char>(from);
  float* target = data_of<float>(to);
  const bool half_ = v.dtype == DType::Float16;
  launch(n, [=] {
    if (half_) widen(reinterpret_cast<const half*>(source), n, target);
    else widen(reinterpret_cast<const bfloat16*>(source), n, target);
  });
  return to;
}

py::object narrowed(const py::object& array, DType dtype) {
  if (!is_half(dtype)) return array;
  const View v = view(array);
  py::object to = empty(dtype, v.shape_vector());
  const Index n = v.size();
  const float* source = data_of<float>(array);
  char* target = data_of<char>(to);
  launch(n, [=] {
    if (dtype == DType::Float16) narrow(source, n, reinterpret_cast<half*>(target));
    else narrow(source, n, reinterpret_cast<bfloat16*>(target));
  });
  return to;
}

py::object dense(py::handle array, DType dtype, const char* what) {
  require_dtype(view(array, what), dtype, what);
  return contiguous(widened(array, what), what);
}

bool element_strides(const View& v, Index* strides) {
  const Index size = size_of(v.dtype);
  for (int i = 0; i < v.ndim; ++i) {
    if (v.strides[i] % size != 0) return false;
    strides[i] = v.strides[i] / size;
  }
  return v.aligned();
}

Shape shape_of(py::handle array) { return view(array).shape_vector(); }

Index product(const Shape& shape) {
  Index n = 1;
  for (Index s : shape) n *= s;
  return n;
}

std::vector<Index> numbers(py::handle given) {
  const py::object all = py::reinterpret_steal<py::object>(PySequence_Fast(given.ptr(), "expected a sequence of integers"));
  if (!all) throw py::error_already_set();
  std::vector<Index> values(static_cast<std::size_t>(PySequence_Fast_GET_SIZE(all.ptr())));
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = py::cast<Index>(py::handle(PySequence_Fast_GET_ITEM(all.ptr(), static_cast<Py_ssize_t>(i))));
  return values;
}

}  // namespace tg
