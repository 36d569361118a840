// The lists of arrays that a step of an optimizer takes, checked before the first write: shapes, dtypes, writability, overlap.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "lines.h"

namespace tg {

// The lists of one call, one row per parameter.
class Table {
 public:
  // Of float32 or float64, or, where `narrow`, float16 or bfloat16.
  Table(const char* op, const char* what, py::handle params, bool written, bool narrow = true);

  // Empty lists stand for "not used" where `optional`.
  void add(const char* what, py::handle list, bool written, bool optional = false);

  // Means over one axis of matrices' elements, `over` from the end (1, the rows' means, or 2, the columns'), written. For a
  // parameter that is not `factored`: what has an entry for each element; of columns then None.
  void add_means(const char* what, py::handle list, int over, const std::vector<bool>& factored);

  // Call once all lists are in.
  void check() const {
    check_arrays();
    check_overlap();
  }
  void check_arrays() const;

  // Runs `use(pointers, parameter)` once per parameter. Pointers follow the lists, each array's elements in one order for
  // all: that of axes where `by_axes`. A list left empty, or None in it, gives null.
  template <class Use>
  void each(Use use, bool by_axes = false) {
    pointers_.resize(columns_.size());
    for (size_t r = 0; r < rows_; ++r) {
      point(r, by_axes);
      use(pointers_, columns_[0][r].view);
    }
  }

  // What had to be brought into one order goes back.
  void copy_back();

  bool copied() const { return !copies_.empty(); }
  Index total() const;
  size_t rows() const { return rows_; }
  DType type() const { return type_; }
  bool is_double() const { return type_ == DType::Float64; }

 private:
  struct Operand {
    View view;  // without an array where None stands
    bool written;
    int over = 0;  // the axis, from the end, that is one long
  };
  struct Extent {
    const char *low, *high;
    const Operand* operand;
    size_t row, column;
  };

  void add_list(const char* what, py::handle list, bool written, bool none = false);
  void require_rows(const char* what) const;
  void point(size_t r, bool by_axes);
  bool same_order(size_t r) const;
  void check_overlap() const;
  void check_self(const Extent& e) const;
  std::string where(size_t column, size_t row) const;

  const char* op_;
  size_t rows_ = 0;
  DType type_ = DType::Float32;
  std::vector<const char*> names_;
  std::vector<std::vector<Operand>> columns_;
  std::vector<char*> pointers_;
  std::vector<std::pair<py::object, const Operand*>> copies_;
};

}  // namespace tg
