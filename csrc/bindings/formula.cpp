// Formula(name, specialize, sums="", rolls=()): the object that Python calls with arrays and numbers. sums: a letter for each result,
// "." for one that is stored, "s" for one of which the sum of all elements is wanted, "m" for their mean, as 0-d arrays.
// Behind a colon, of how many of the last axes are rows of which something is wanted instead (kLetters), and "k" where these
// axes stay, with a size of 1: "s:1k". rolls: for each operand () or, of one that is read rolled, as roll() gives it, by how
// much along each of its axes; it has the results' shape then.
//
// A call costs less than a NumPy ufunc's machinery, so the type is written against CPython (vectorcall) and the usual
// call, arrays of one shape lying contiguous, allocates nothing but its result.
#include <Python.h>
#include <structmember.h>

#include <new>

#include "formula_call.h"

namespace tg {
namespace formula {
namespace {

PyObject* call_formula(PyObject* callable, PyObject* const* args, std::size_t flags, PyObject* names) {
  auto* self = reinterpret_cast<FormulaObject*>(callable);
  const auto count = static_cast<std::size_t>(PyVectorcall_NARGS(flags));
  PyObject *out = nullptr, *reduction = nullptr;
  if (names) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); ++i) {
      PyObject *name = PyTuple_GET_ITEM(names, i), *value = args[count + static_cast<std::size_t>(i)];
      if (PyUnicode_CompareWithASCIIString(name, "out") == 0) {
        out = value;
      } else if (PyUnicode_CompareWithASCIIString(name, "reduction") == 0) {
        reduction = value;
      } else {
        PyErr_Format(PyExc_TypeError, "%U: unknown keyword %R; valid: out, reduction", self->name, name);
        return nullptr;
      }
    }
  }
  if (self->sums) {
    if (!out && !reduction) return guarded([&] { return Call(self, args, count, nullptr).run_summing().release().ptr(); });
    PyErr_Format(PyExc_TypeError, "%U: takes neither out nor reduction", self->name);
    return nullptr;
  }
  if (!reduction) return guarded([&] { return Call(self, args, count, out).run().release().ptr(); });
  const bool mean = PyUnicode_Check(reduction) && PyUnicode_CompareWithASCIIString(reduction, "mean") == 0;
  if (out || !(mean || (PyUnicode_Check(reduction) && PyUnicode_CompareWithASCIIString(reduction, "sum") == 0))) {
    PyErr_Format(PyExc_ValueError, "%U: reduction is %R; valid: 'mean' and 'sum', without out", self->name, reduction);
    return nullptr;
  }
  return guarded([&] { return Call(self, args, count, nullptr).reduced(mean).release().ptr(); });
}

// Null with an error set.
__attribute__((noinline, cold)) std::unique_ptr<std::vector<std::vector<Index>>> read_rolls(PyObject* given) {
  auto found = std::make_unique<std::vector<std::vector<Index>>>();
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(given); ++i) {
    PyObject* by = PyTuple_GET_ITEM(given, i);
    if (!PyTuple_Check(by)) {
      PyErr_Format(PyExc_TypeError, "Formula: rolls must have a tuple of shifts for each operand, got %R", by);
      return nullptr;
    }
    found->emplace_back();
    for (Py_ssize_t d = 0; d < PyTuple_GET_SIZE(by); ++d) {
      found->back().push_back(PyLong_AsSsize_t(PyTuple_GET_ITEM(by, d)));
      if (PyErr_Occurred()) return nullptr;
    }
  }
  return found;
}

PyObject* make_formula(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
  static const char* names[] = {"name", "specialize", "sums", "rolls", nullptr};
  PyObject *name, *specialize, *sums = nullptr, *rolls = nullptr;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "UO|UO!:Formula", const_cast<char**>(names), &name, &specialize, &sums, &PyTuple_Type, &rolls))
    return nullptr;
  if (sums && PyUnicode_GET_LENGTH(sums) == 0) sums = nullptr;
  if (!PyCallable_Check(specialize)) {
    PyErr_Format(PyExc_TypeError, "Formula: specialize must be callable, got %s", Py_TYPE(specialize)->tp_name);
    return nullptr;
  }
  std::unique_ptr<std::vector<std::vector<Index>>> shifts;
  if (rolls && !(shifts = read_rolls(rolls))) return nullptr;
  auto* self = reinterpret_cast<FormulaObject*>(type->tp_alloc(type, 0));
  if (!self) return nullptr;
  if (shifts && !shifts->empty()) self->rolls = shifts.release();
  self->call = call_formula;
  Py_INCREF(name);
  self->name = name;
  Py_INCREF(specialize);
  self->specialize = specialize;
  Py_XINCREF(sums);
  self->sums = sums;
  self->cache = new (std::nothrow) Cache;
  if (!self->cache) {
    Py_DECREF(self);
    return PyErr_NoMemory();
  }
  return reinterpret_cast<PyObject*>(self);
}

int traverse_formula(PyObject* object, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(object));
  Py_VISIT(reinterpret_cast<FormulaObject*>(object)->specialize);
  return 0;
}

int clear_formula(PyObject* object) {
  Py_CLEAR(reinterpret_cast<FormulaObject*>(object)->specialize);
  return 0;
}

void free_formula(PyObject* object) {
  auto* self = reinterpret_cast<FormulaObject*>(object);
  PyTypeObject* type = Py_TYPE(object);
  PyObject_GC_UnTrack(object);
  clear_formula(object);
  Py_CLEAR(self->name);
  Py_CLEAR(self->sums);
  delete self->rolls;
  delete self->cache;
  type->tp_free(object);
  Py_DECREF(type);
}

PyObject* describe_formula(PyObject* object) {
  return PyUnicode_FromFormat("Formula(%R)", reinterpret_cast<FormulaObject*>(object)->name);
}

PyObject* count_loops(PyObject* object, void*) {
  const Program* last = reinterpret_cast<FormulaObject*>(object)->cache->last;
  return PyLong_FromLong(last ? last->work() : 0);
}

PyGetSetDef computed[] = {
    {"loops", count_loops, nullptr, "Over each block, by the latest program; some of them may be compiled into one.", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

PyMemberDef members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(FormulaObject, call), READONLY, nullptr},
    {"name", T_OBJECT_EX, offsetof(FormulaObject, name), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr},
};

PyType_Slot slots[] = {
    {Py_tp_new, reinterpret_cast<void*>(make_formula)},
    {Py_tp_dealloc, reinterpret_cast<void*>(free_formula)},
    {Py_tp_traverse, reinterpret_cast<void*>(traverse_formula)},
    {Py_tp_clear, reinterpret_cast<void*>(clear_formula)},
    {Py_tp_repr, reinterpret_cast<void*>(describe_formula)},
    {Py_tp_call, reinterpret_cast<void*>(PyVectorcall_Call)},
    {Py_tp_members, members},
    {Py_tp_getset, computed},
    {0, nullptr},
};

PyType_Spec spec = {
    "tensorgrad._C.Formula",
    sizeof(FormulaObject),
    0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL,
    slots,
};

// Whether all that is done for an element of such operands can be compiled, here.
bool compiles_whole(const py::tuple& program, const py::sequence& keys) {
  std::vector<Input> inputs;
  for (const py::handle key : keys) {
    const std::string name = py::cast<std::string>(key), dtype = name.substr(0, name.find(':'));
    if (dtype == "py") inputs.push_back({Input::Python, DType::Float64});
    else inputs.push_back({dtype == name ? Input::Array : Input::Scalar, dtype_named(dtype)});
  }
  const Program made(read_source(program, inputs));
  return writes_machine_code() && made.work() && made.last_compiled(0) == made.work() - 1 && made.can_compile(0);
}

}  // namespace

}  // namespace formula

TG_BINDINGS(formula) {
  py::object type = py::reinterpret_steal<py::object>(PyType_FromSpec(&formula::spec));
  if (!type) throw py::error_already_set();
  m.attr("Formula") = type;
  m.def("set_machine_code", &set_machine_code, "Whether formulas are compiled from now on, where that is possible.");
  m.def("writes_machine_code", &writes_machine_code);
  m.def("compiles_whole", &formula::compiles_whole, "Whether a program (code, outputs) of operands of these keys becomes machine code.");
  m.def("forget_formulas", [] { ++formula::generation; },
        "Programs are specialized anew at their next call: what specialize() answers has changed.");
}

}  // namespace tg
