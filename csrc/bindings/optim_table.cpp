#include "optim_table.h"

#include <algorithm>

namespace tg {

Table::Table(const char* op, const char* what, py::handle params, bool written, bool narrow) : op_(op) {
  add_list(what, params, written);
  rows_ = columns_[0].size();
  if (rows_ == 0) return;
  type_ = columns_[0][0].view.dtype;
  if (!is_floating(type_) || (is_narrow_float(type_) && !narrow))
    throw py::type_error(std::string(op) + ": arrays must be " + (narrow ? "floating point" : "float32 or float64") + ", got " +
                         name_of(type_));
}

void Table::add(const char* what, py::handle list, bool written, bool optional) {
  add_list(what, list, written);
  if (!optional || !columns_.back().empty()) require_rows(what);
}

void Table::add_means(const char* what, py::handle list, int over, const std::vector<bool>& factored) {
  add_list(what, list, true, over == 2);
  require_rows(what);
  for (size_t r = 0; r < rows_; ++r) {
    Operand& o = columns_.back()[r];
    if (!factored[r]) continue;
    if (columns_[0][r].view.ndim < 2)
      throw py::value_error(std::string(op_) + ": " + where(columns_.size() - 1, r) + " has means of columns, but " + where(0, r) +
                            " is no matrix");
    o.over = over;
  }
}

void Table::require_rows(const char* what) const {
  if (columns_.back().size() != rows_)
    throw py::value_error(std::string(op_) + ": " + what + " has " + std::to_string(columns_.back().size()) + " arrays, " + names_[0] +
                          " has " + std::to_string(rows_));
}

std::string Table::where(size_t column, size_t row) const {
  return std::string(names_[column]) + "[" + std::to_string(row) + "]";
}

void Table::check_arrays() const {
  for (size_t c = 0; c < columns_.size(); ++c)
    for (size_t r = 0; r < columns_[c].size(); ++r) {
      const View &v = columns_[c][r].view, &p = columns_[0][r].view;
      if (!v.array) continue;
      if (v.dtype != type_) require_dtype(op_, where(c, r).c_str(), v, type_);
      const int short_axis = columns_[c][r].over ? p.ndim - columns_[c][r].over : -1;
      bool same = v.ndim == p.ndim;
      for (int k = 0; same && k < p.ndim; ++k) same = v.shape[k] == (k == short_axis ? 1 : p.shape[k]);
      if (!same) {
        Shape expected = p.shape_vector();
        if (short_axis >= 0) expected[size_t(short_axis)] = 1;
        require_shape(op_, where(c, r).c_str(), v, expected);
      }
      if (columns_[c][r].written && !PyArray_ISWRITEABLE(reinterpret_cast<PyArrayObject*>(v.array.ptr())))
        throw py::value_error(std::string(op_) + ": " + where(c, r) + " is read-only");
    }
}

void Table::point(size_t r, bool by_axes) {
  const bool plain = !by_axes && same_order(r);
  for (size_t c = 0; c < columns_.size(); ++c) {
    pointers_[c] = nullptr;
    if (columns_[c].empty() || !columns_[c][r].view.array) continue;
    const Operand& o = columns_[c][r];
    pointers_[c] = o.view.data;
    if (plain) continue;
    py::object copy = ready(o.view);
    if (copy.is(py::reinterpret_borrow<py::object>(o.view.array))) continue;
    pointers_[c] = data_of<char>(copy);
    copies_.push_back({std::move(copy), &o});
  }
}

void Table::copy_back() {
  for (const auto& [copy, operand] : copies_) {
    if (!operand->written) continue;
    const View to = operand->view;
    launch(to.size(), [all = Copy(view(copy), to.data, to.strides)] { all.run(); });
  }
}

Index Table::total() const {
  Index n = 0;
  if (!columns_.empty())
    for (const Operand& o : columns_[0]) n += o.view.size();
  return n;
}

void Table::add_list(const char* what, py::handle list, bool written, bool none) {
  names_.push_back(what);
  columns_.emplace_back();
  if (list.is_none()) return;
  const bool is_list = PyList_Check(list.ptr());
  if (!is_list && !PyTuple_Check(list.ptr()))
    throw py::type_error(std::string(op_) + ": " + what + " must be a list of arrays, got " + Py_TYPE(list.ptr())->tp_name);
  const Py_ssize_t n = is_list ? PyList_GET_SIZE(list.ptr()) : PyTuple_GET_SIZE(list.ptr());
  columns_.back().reserve(size_t(n));
  for (Py_ssize_t i = 0; i < n; ++i) {
    PyObject* item = is_list ? PyList_GET_ITEM(list.ptr(), i) : PyTuple_GET_ITEM(list.ptr(), i);
    columns_.back().push_back({none && item == Py_None ? View{} : view(item, what), written});
  }
}

// All arrays of a row are dense and laid out alike (any order of axes), so memory order serves for all.
bool Table::same_order(size_t r) const {
  const View& p = columns_[0][r].view;
  auto* array = reinterpret_cast<PyArrayObject*>(p.array.ptr());
  if (!PyArray_IS_C_CONTIGUOUS(array) && !PyArray_IS_F_CONTIGUOUS(array)) return false;
  for (const auto& column : columns_) {
    if (column.empty()) continue;
    const View& v = column[r].view;
    if (!v.aligned()) return false;
    for (int k = 0; k < v.ndim; ++k)
      if (v.shape[k] > 1 && v.strides[k] != p.strides[k]) return false;
  }
  return true;
}

// What is written must not share memory with anything else of the call. Neighbouring ranges are compared first; only
// arrays whose ranges cross (interleaved views) are asked for exactly.
void Table::check_overlap() const {
  std::vector<Extent> extents;
  extents.reserve(rows_ * columns_.size());
  for (size_t c = 0; c < columns_.size(); ++c)
    for (size_t r = 0; r < columns_[c].size(); ++r) {
      const View& v = columns_[c][r].view;
      if (!v.array || v.size() == 0) continue;
      const char *low = v.data, *high = v.data + size_of(v.dtype);
      for (int k = 0; k < v.ndim; ++k) (v.strides[k] < 0 ? low : high) += (v.shape[k] - 1) * v.strides[k];
      extents.push_back({low, high, &columns_[c][r], r, c});
    }
  std::sort(extents.begin(), extents.end(), [](const Extent& a, const Extent& b) { return a.low < b.low; });
  for (size_t i = 0; i < extents.size(); ++i) {
    const Extent& a = extents[i];
    for (size_t j = i + 1; j < extents.size() && extents[j].low < a.high; ++j) {
      const Extent& b = extents[j];
      if (!a.operand->written && !b.operand->written) continue;
      const py::object shares = py::module_::import("numpy").attr("shares_memory");
      if (!py::cast<bool>(shares(a.operand->view.array, b.operand->view.array))) continue;
      throw py::value_error(std::string(op_) + ": " + where(a.column, a.row) + " and " + where(b.column, b.row) +
                            " share memory, and one of them is written; pass each parameter once, state in arrays of its own");
    }
    check_self(a);
  }
}

// An array that is written must not visit an element twice (an expanded view).
void Table::check_self(const Extent& e) const {
  if (!e.operand->written) return;
  const View& v = e.operand->view;
  for (int k = 0; k < v.ndim; ++k)
    if (v.shape[k] > 1 && v.strides[k] == 0)
      throw py::value_error(std::string(op_) + ": " + where(e.column, e.row) +
                            " is an expanded view; its elements share memory and can't be updated one by one");
}

}  // namespace tg
