#include "../core/fastcall.h"

#include <string>

namespace tg {

PyObject* raised() {
  try {
    throw;
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

void find_arguments(const char* function, const char* const* names, std::size_t n, std::size_t required,
                    PyObject* const* args, Py_ssize_t count, PyObject* keywords, py::handle* found) {
  if (static_cast<std::size_t>(count) > n)
    throw py::type_error(std::string(function) + "() takes " + std::to_string(n) + " arguments, got " +
                         std::to_string(count));
  for (Py_ssize_t i = 0; i < count; ++i) found[i] = args[i];
  const Py_ssize_t named = keywords ? PyTuple_GET_SIZE(keywords) : 0;
  for (Py_ssize_t k = 0; k < named; ++k) {
    PyObject* name = PyTuple_GET_ITEM(keywords, k);
    std::size_t at = 0;
    while (at < n && PyUnicode_CompareWithASCIIString(name, names[at]) != 0) ++at;
    if (at == n || found[at])
      throw py::type_error(std::string(function) + (at == n ? "() has no argument '" : "() got twice the argument '") +
                           py::cast<std::string>(py::handle(name)) + "'");
    found[at] = args[count + k];
  }
  for (std::size_t i = 0; i < required; ++i)
    if (!found[i]) throw py::type_error(std::string(function) + "() needs the argument '" + names[i] + "'");
}

}  // namespace tg
