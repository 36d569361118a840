#include "formula_source.h"

#include <stdexcept>

namespace tg {
namespace formula {
namespace {

template <class T>
Number packed(T value) {
  Number number;
  std::memcpy(number.bytes, &value, sizeof(T));
  return number;
}

double real_of(PyObject* value) {
  if (PyComplex_Check(value)) return PyComplex_RealAsDouble(value);
  const double x = PyFloat_AsDouble(value);
  if (x == -1.0 && PyErr_Occurred()) throw py::error_already_set();
  return x;
}

std::int64_t integer_of(PyObject* value) {
  const py::object whole = py::reinterpret_steal<py::object>(
      PyComplex_Check(value) ? PyLong_FromDouble(PyComplex_RealAsDouble(value)) : PyNumber_Long(value));
  if (!whole) throw py::error_already_set();
  int overflow = 0;
  const long long number = PyLong_AsLongLongAndOverflow(whole.ptr(), &overflow);
  if (overflow) {
    PyErr_Format(PyExc_OverflowError, "the number %S does not fit int64", whole.ptr());
    throw py::error_already_set();
  }
  if (number == -1 && PyErr_Occurred()) throw py::error_already_set();
  return number;
}

std::complex<double> complex_of(PyObject* value) {
  if (!PyComplex_Check(value)) return {real_of(value), 0.0};
  return {PyComplex_RealAsDouble(value), PyComplex_ImagAsDouble(value)};
}

}  // namespace

Number number_of(PyObject* value, Type type) {
  switch (type) {
    case Type::Bool: {
      const int truth = PyObject_IsTrue(value);
      if (truth < 0) throw py::error_already_set();
      return packed(static_cast<Truth>(truth));
    }
    case Type::I64: return packed(integer_of(value));
    case Type::F32: return packed(static_cast<float>(real_of(value)));
    case Type::F64: return packed(real_of(value));
    case Type::C64: {
      const std::complex<double> z = complex_of(value);
      return packed(c64(static_cast<float>(z.real()), static_cast<float>(z.imag())));
    }
    case Type::C128: return packed(complex_of(value));
    default: break;  // Python numbers come in wide
  }
  return {};
}

DType dtype_named(const std::string& name) {
  for (int i = 0; i <= static_cast<int>(DType::Complex128); ++i) {
    if (name == tg::name_of(static_cast<DType>(i))) return static_cast<DType>(i);
  }
  throw std::invalid_argument("formula: unknown dtype " + name);
}

Source read_source(py::handle program, const std::vector<Input>& inputs) {
  Source source;
  source.inputs = inputs;
  const auto parts = py::cast<py::tuple>(program);
  if (parts.size() != 2) throw std::invalid_argument("formula: specialize must return (code, outputs)");
  for (py::handle item : py::cast<py::sequence>(parts[0])) {
    const auto given = py::cast<py::tuple>(item);
    if (given.size() != 3) throw std::invalid_argument("formula: an instruction is (op, type, operands)");
    const auto operands = py::cast<py::tuple>(given[2]);
    Instruction instruction;
    instruction.op = py::cast<std::string>(given[0]);
    instruction.type = type_named(py::cast<std::string>(given[1]));
    if (instruction.op == "const") {
      if (operands.size() != 1) throw std::invalid_argument("formula: const takes one value");
      instruction.constant = number_of(py::object(operands[0]).ptr(), instruction.type);
    } else if (instruction.op == "wrap") {
      if (operands.size() != 2) throw std::invalid_argument("formula: wrap takes a value and a width");
      instruction.args.push_back(py::cast<int>(operands[0]));
      instruction.width = dtype_named(py::cast<std::string>(operands[1]));
    } else {
      for (py::handle operand : operands) instruction.args.push_back(py::cast<int>(operand));
    }
    source.code.push_back(std::move(instruction));
  }
  for (py::handle item : py::cast<py::sequence>(parts[1])) {
    const auto given = py::cast<py::tuple>(item);
    if (given.size() != 2) throw std::invalid_argument("formula: an output is (value, dtype)");
    const DType dtype = dtype_named(py::cast<std::string>(given[1]));
    source.outputs.push_back({py::cast<int>(given[0]), dtype, dtype});
  }
  if (source.outputs.empty()) throw std::invalid_argument("formula: a program without outputs");
  return source;
}

}  // namespace formula
}  // namespace tg
