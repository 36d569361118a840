// What a Formula keeps between calls, and the codes of operands by which it finds the program for a call.
#pragma once

#include <Python.h>

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "../core/fastcall.h"
#include "../kernels/formula.h"

namespace tg {
namespace formula {

// An array of n elements on the stack up to N, beyond on the heap.
template <class T, int N>
class Local {
 public:
  explicit Local(std::size_t n) {
    if (n > N) {
      heap_.resize(n);
      data_ = heap_.data();
    }
  }
  T& operator[](std::size_t i) { return data_[i]; }
  T* data() { return data_; }

 private:
  T stack_[N];
  std::vector<T> heap_;
  T* data_ = stack_;
};

inline constexpr unsigned char kScalar = 0x10, kPython = 0x20, kGiven = 0x40;
inline constexpr const char* kPythonKeys[] = {"py:bool", "py:int", "py:float", "py:complex"};

inline std::uint32_t generation = 0;  // part of every key: forget_formulas() makes all known programs unreachable

struct Cache {
  std::string last_key;
  Program* last = nullptr;
  std::unordered_map<std::string, std::unique_ptr<Program>> programs;
};

struct FormulaObject {
  PyObject_HEAD
  vectorcallfunc call;
  PyObject* name;
  PyObject* specialize;
  PyObject* sums;  // str or null
  std::vector<std::vector<Index>>* rolls;  // by operand, a shift for each axis of one that is rolled; null if none is
  Cache* cache;
};

inline PyArrayObject* as_array(PyObject* object) { return reinterpret_cast<PyArrayObject*>(object); }

inline std::string name_of(const FormulaObject* self) {
  const char* text = PyUnicode_AsUTF8(self->name);
  if (!text) throw py::error_already_set();
  return text;
}

inline std::string shape_text(PyArrayObject* array) {
  return to_string(Shape(PyArray_SHAPE(array), PyArray_SHAPE(array) + PyArray_NDIM(array)));
}

}  // namespace formula

}  // namespace tg
