// Kernels of small arrays are called for a microsecond's work: pybind11's dispatcher would take as long again, and twice
// with keywords. Such a function is given to Python as CPython's own kind, its arguments sorted here.
//
//   FAST_BINDING(linear, 2, "x", "w", "b") { return linear(a[0], a[1], a[2]); }     // `a`: handles; null where left out
//   TG_BINDINGS(gemm) { add_fast(m, fast_linear); }
#pragma once

#include <array>

#include "bind.h"

namespace tg {

// Runs `work` with C++ exceptions turned into Python's, as pybind11 does it.
template <class Work>
PyObject* guarded(Work work) {
  try {
    return work();
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (const py::builtin_exception& error) {
    error.set_error();
  } catch (const std::bad_alloc&) {  // empty() names what it was asked for; this is memory that a kernel works in
    PyErr_SetString(PyExc_MemoryError, "there is not enough memory for what this is computed in, or its size is beyond 64 bits");
  } catch (const std::out_of_range& error) {
    PyErr_SetString(PyExc_IndexError, error.what());
  } catch (const std::logic_error& error) {  // invalid_argument, domain_error, length_error
    PyErr_SetString(PyExc_ValueError, error.what());
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return nullptr;
}

template <std::size_t N>
using Arguments = std::array<py::handle, N>;

// Throws TypeError for what does not fit, as Python does.
template <std::size_t N>
Arguments<N> read_arguments(const char* function, const char* const (&names)[N], std::size_t required,
                            PyObject* const* args, Py_ssize_t count, PyObject* keywords) {
  Arguments<N> found{};
  if (static_cast<std::size_t>(count) > N)
    throw py::type_error(std::string(function) + "() takes " + std::to_string(N) + " arguments, got " +
                         std::to_string(count));
  for (Py_ssize_t i = 0; i < count; ++i) found[static_cast<std::size_t>(i)] = args[i];
  const Py_ssize_t named = keywords ? PyTuple_GET_SIZE(keywords) : 0;
  for (Py_ssize_t k = 0; k < named; ++k) {
    PyObject* name = PyTuple_GET_ITEM(keywords, k);
    std::size_t at = 0;
    while (at < N && PyUnicode_CompareWithASCIIString(name, names[at]) != 0) ++at;
    if (at == N || found[at])
      throw py::type_error(std::string(function) + (at == N ? "() has no argument '" : "() got twice the argument '") +
                           py::cast<std::string>(py::handle(name)) + "'");
    found[at] = args[count + k];
  }
  for (std::size_t i = 0; i < required; ++i)
    if (!found[i]) throw py::type_error(std::string(function) + "() needs the argument '" + names[i] + "'");
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
