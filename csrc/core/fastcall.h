// Kernels of small arrays are called for a microsecond's work: pybind11's dispatcher would take as long again, and twice
// with keywords. Such a function is given to Python as CPython's own kind, its arguments sorted here.
//
//   FAST_BINDING(linear, 2, "x", "w", "b") { return linear(a[0], a[1], a[2]); }     // `a`: handles; null where left out
//   TG_BINDINGS(gemm) { add_fast(m, fast_linear); }
#pragma once

#include <array>
#include <exception>

#include "bind.h"

namespace tg {

// Within a handler: what was thrown becomes Python's error. Returns null.
PyObject* raised();

// Runs `work` with C++ exceptions turned into Python's, as pybind11 does it. They are told apart in one place: a
// list of handlers in each binding would be 4 % of their library.
template <class Work>
PyObject* guarded(Work work) {
  try {
    return work();
  } catch (const std::exception&) {
    return raised();
  }
}

template <std::size_t N>
using Arguments = std::array<py::handle, N>;

// Finds the n arguments of a call, null where left out. Throws TypeError for what does not fit, as Python does.
void find_arguments(const char* function, const char* const* names, std::size_t n, std::size_t required,
                    PyObject* const* args, Py_ssize_t count, PyObject* keywords, py::handle* found);

template <std::size_t N>
Arguments<N> read_arguments(const char* function, const char* const (&names)[N], std::size_t required,
                            PyObject* const* args, Py_ssize_t count, PyObject* keywords) {
  Arguments<N> found{};
  find_arguments(function, names, N, required, args, count, keywords, found.data());
  return found;
}

// Whether an optional flag was given and is true.
inline bool flag(py::handle given, bool otherwise = false) {
  if (!given) return otherwise;
  const int truth = PyObject_IsTrue(given.ptr());
  if (truth < 0) throw py::error_already_set();
  return truth != 0;
}

inline void add_fast(py::module_& m, PyMethodDef& definition) {
  const py::object module = m.attr("__name__");
  PyObject* made = PyCFunction_NewEx(&definition, nullptr, module.ptr());
  if (!made) throw py::error_already_set();
  m.attr(definition.ml_name) = py::reinterpret_steal<py::object>(made);
}

}  // namespace tg

// The function's body follows; it returns a py::object.
#define FAST_BINDING(function, required, ...)                                                                      \
  static constexpr const char* names_of_##function[] = {__VA_ARGS__};                                              \
  static py::object run_##function(const Arguments<std::size(names_of_##function)>& a);                            \
  static PyObject* call_##function(PyObject*, PyObject* const* args, Py_ssize_t count, PyObject* keywords) {       \
    return guarded([&] {                                                                                           \
      return run_##function(read_arguments(#function, names_of_##function, required, args, count, keywords))       \
          .release()                                                                                               \
          .ptr();                                                                                                  \
    });                                                                                                            \
  }                                                                                                                \
  static PyMethodDef fast_##function = {                                                                           \
      #function, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(call_##function)),                     \
      METH_FASTCALL | METH_KEYWORDS, nullptr};                                                                     \
  static py::object run_##function(const Arguments<std::size(names_of_##function)>& a)
