// The objects of the tape with their fields in C, the switches of each thread, and the module.
#define TG_TAPE_IMPORTS_NUMPY
#include "tape.h"

#include <cstddef>

namespace tape {

Registered known{};
Names names{};
thread_local Switches switches;

namespace {

unsigned long long last_number = 0;

template <class T>
int traverse(PyObject* self, visitproc visit, void* arg) {
  auto* object = reinterpret_cast<T*>(self);
  for (PyObject* field : object->f) Py_VISIT(field);
  if constexpr (std::is_same_v<T, TensorObject>) Py_VISIT(object->dict);
  return 0;
}

template <class T>
int clear(PyObject* self) {
  auto* object = reinterpret_cast<T*>(self);
  for (PyObject*& field : object->f) Py_CLEAR(field);
  if constexpr (std::is_same_v<T, TensorObject>) Py_CLEAR(object->dict);
  return 0;
}

// Graphs may be 100,000 calls deep: their end must not recurse. The trashcan serves subclasses in their own dealloc.
template <class T>
void dealloc(PyObject* self) {
  PyObject_GC_UnTrack(self);
  Py_TRASHCAN_BEGIN(self, dealloc<T>);
  if constexpr (std::is_same_v<T, TensorObject> || std::is_same_v<T, NodeObject>) {
    if (reinterpret_cast<T*>(self)->weak) PyObject_ClearWeakRefs(self);
  }
  clear<T>(self);
  Py_TYPE(self)->tp_free(self);
  Py_TRASHCAN_END;
}

// The fields of a new tensor.
PyObject* const* tensor_defaults() {
  static PyObject* zero = PyLong_FromLong(0);
  static PyObject* empty = PyTuple_New(0);
  static PyObject* const defaults[TensorObject::kFields] = {nullptr, Py_None, zero, Py_False, Py_None, Py_None, Py_None, empty,
                                                            zero, zero, Py_False, Py_None, Py_None, Py_False, Py_False};
  return defaults;
}

void fill(TensorObject* t) {
  PyObject* const* defaults = tensor_defaults();
  for (int i = 0; i < TensorObject::kFields; ++i) {
    Py_XINCREF(defaults[i]);
    t->f[i] = defaults[i];
  }
}

void fill(NodeObject* n) {
  using N = NodeObject;
  static PyObject* empty = PyTuple_New(0);
  static PyObject* no_attrs = PyDict_New();  // never written to
  PyObject* const defaults[N::kFields] = {Py_None, empty, no_attrs, Py_None, empty, empty, Py_None, Py_None, Py_None,
                                          Py_None, Py_None, Py_None, Py_None, Py_None};
  for (int i = 0; i < N::kFields; ++i) {
    Py_INCREF(defaults[i]);
    n->f[i] = defaults[i];
  }
  n->number = ++last_number;
  n->count = 1;
}

void fill(OpObject* op) { op->call = call_op; }
void fill(PlanObject*) {}
void fill(SpecObject*) {}

template <class T>
PyObject* create(PyTypeObject* type, PyObject*, PyObject*) {
  PyObject* self = type->tp_alloc(type, 0);
  if (self) fill(reinterpret_cast<T*>(self));
  return self;
}

template <class T>
constexpr Py_ssize_t at(int field) {
  return static_cast<Py_ssize_t>(offsetof(T, f)) + field * static_cast<Py_ssize_t>(sizeof(PyObject*));
}

#define FIELD(T, name, field) {name, T_OBJECT_EX, at<T>(T::field), 0, nullptr}

PyMemberDef tensor_members[] = {
    FIELD(TensorObject, "_data", kData), FIELD(TensorObject, "_node", kNode), FIELD(TensorObject, "_slot", kSlot),
    FIELD(TensorObject, "_grad", kGrad),
    FIELD(TensorObject, "_cell", kVersion), FIELD(TensorObject, "_base", kBase),
    FIELD(TensorObject, "_chain", kChain), FIELD(TensorObject, "_changes", kChanges),
    FIELD(TensorObject, "_generation", kGeneration), FIELD(TensorObject, "_frozen_view", kFrozen),
    FIELD(TensorObject, "_hooks", kHooks), FIELD(TensorObject, "_post_hooks", kPostHooks),
    FIELD(TensorObject, "_inference", kInference), FIELD(TensorObject, "_keeps_grad", kKeepsGrad), {}};

PyMemberDef node_members[] = {
    FIELD(NodeObject, "op", kOp), FIELD(NodeObject, "edges", kEdges), FIELD(NodeObject, "attrs", kAttrs),
    FIELD(NodeObject, "plan", kPlan), FIELD(NodeObject, "saved", kSaved),
    FIELD(NodeObject, "saved_outputs", kSavedOutputs), FIELD(NodeObject, "slots", kSlots),
    FIELD(NodeObject, "versions", kVersions), FIELD(NodeObject, "line", kLine), FIELD(NodeObject, "hooks", kHooks),
    FIELD(NodeObject, "post_hooks", kPostHooks), FIELD(NodeObject, "retained", kRetained),
    FIELD(NodeObject, "packed", kPacked), FIELD(NodeObject, "extra", kExtra),
    {"number", T_ULONGLONG, offsetof(NodeObject, number), 0, nullptr},
    {"count", T_PYSSIZET, offsetof(NodeObject, count), 0, nullptr},
    {"watched", T_BOOL, offsetof(NodeObject, watched), 0, nullptr}, {}};

PyMemberDef plan_members[] = {
    FIELD(PlanObject, "kernel", kKernel), FIELD(PlanObject, "wrt", kWrt), FIELD(PlanObject, "uses", kUses),
    FIELD(PlanObject, "uses_all", kUsesAll), FIELD(PlanObject, "uses_output", kUsesOutput),
    FIELD(PlanObject, "parts", kParts), {}};

PyMemberDef spec_members[] = {FIELD(SpecObject, "shape", kShape), FIELD(SpecObject, "dtype", kDtype), {}};

PyObject* get_tracked(PyObject* self, void*) {
  auto* t = as_tensor(self);
  if (is_behind(t)) return PyObject_CallMethodNoArgs(self, names.catch_up);
  return PyBool_FromLong(t->f[TensorObject::kTracked] == Py_True);
}

int set_tracked(PyObject* self, PyObject* value, void*) {
  const int truth = value ? PyObject_IsTrue(value) : 0;
  if (truth < 0) return -1;
  set_borrowed(as_tensor(self)->f[TensorObject::kTracked], truth ? Py_True : Py_False);
  return 0;
}

PyGetSetDef tensor_getset[] = {{"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, nullptr, nullptr},
                               {"_tracked", get_tracked, set_tracked, nullptr, nullptr}, {}};

template <class T>
void describe(PyTypeObject& type, const char* name, PyMemberDef* members) {
  type.tp_name = name;
  type.tp_basicsize = sizeof(T);
  type.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC;
  type.tp_new = create<T>;
  type.tp_dealloc = dealloc<T>;
  type.tp_traverse = traverse<T>;
  type.tp_clear = clear<T>;
  type.tp_members = members;
  if constexpr (std::is_same_v<T, TensorObject> || std::is_same_v<T, NodeObject>) type.tp_weaklistoffset = offsetof(T, weak);
  if constexpr (std::is_same_v<T, TensorObject>) {
    type.tp_dictoffset = offsetof(T, dict);
    type.tp_getset = tensor_getset;
  }
  if constexpr (std::is_same_v<T, OpObject>) {
    type.tp_vectorcall_offset = offsetof(T, call);
    type.tp_call = PyVectorcall_Call;
    type.tp_flags |= Py_TPFLAGS_HAVE_VECTORCALL;
  }
}

// --- the switches

template <bool Switches::*Which>
PyObject* get_switch(PyObject*, void*) {
  return PyBool_FromLong(switches.*Which);
}

template <bool Switches::*Which>
int set_switch(PyObject*, PyObject* value, void*) {
  const int truth = value ? PyObject_IsTrue(value) : 0;
  if (truth < 0) return -1;
  switches.*Which = truth != 0;
  return 0;
}

PyObject* get_lead(PyObject*, void*) {
  PyObject* lead = switches.lead ? switches.lead : Py_None;
  Py_INCREF(lead);
  return lead;
}

int set_lead(PyObject*, PyObject* value, void*) {
  set(switches.lead, !value || value == Py_None ? nullptr : (Py_INCREF(value), value));
  return 0;
}

PyGetSetDef state_getset[] = {
    {"recording", get_switch<&Switches::recording>, set_switch<&Switches::recording>, nullptr, nullptr},
    {"inference", get_switch<&Switches::inference>, set_switch<&Switches::inference>, nullptr, nullptr},
    {"extras", get_switch<&Switches::extras>, set_switch<&Switches::extras>, nullptr, nullptr},
    {"casting", get_switch<&Switches::casting>, set_switch<&Switches::casting>, nullptr, nullptr},
    {"lead", get_lead, set_lead, nullptr, nullptr}, {}};

PyTypeObject StateType = {PyVarObject_HEAD_INIT(nullptr, 0)};

// set_doors(doors): those of this thread; None for those of every thread.
PyObject* set_doors(PyObject*, PyObject* given) {
  set(switches.doors, given == Py_None ? nullptr : (Py_INCREF(given), given));
  Py_RETURN_NONE;
}

// register(name=object, ...)
PyObject* register_all(PyObject*, PyObject*, PyObject* keywords) {
  const struct {
    const char* name;
    PyObject** place;
  } places[] = {{"tensor", &known.tensor}, {"node", &known.node}, {"spec", &known.spec},
                {"everywhere", &known.everywhere}, {"raw", &known.raw}, {"inside", &known.inside},
                {"freed", &known.freed}, {"fit", &known.fit}, {"view_of", &known.view_of},
                {"op_record", &known.op_record}, {"op_call", &known.op_call},
                {"op_differentiate", &known.op_differentiate}, {"formula_record", &known.formula_record},
                {"formula_call", &known.formula_call}, {"formula_differentiate", &known.formula_differentiate}, {"reshape", &known.reshape},
                {"permute", &known.permute}, {"index", &known.index}, {"nonzero", &known.nonzero},
                {"dtype", &known.dtype}, {"standard", &known.standard}, {"place", &known.place}, {"accept", &known.accept},
                {"generator", &known.generator}, {"pair", &known.pair}};
  PyObject *key, *value;
  Py_ssize_t position = 0;
  while (keywords && PyDict_Next(keywords, &position, &key, &value)) {
    bool found = false;
    for (const auto& each : places) {
      if (PyUnicode_CompareWithASCIIString(key, each.name)) continue;
      Py_XDECREF(*each.place);
      Py_INCREF(value);
      *each.place = value;
      found = true;
    }
    if (!found) return PyErr_Format(PyExc_TypeError, "register: nothing is called %R", key);
  }
  Py_RETURN_NONE;
}

PyMethodDef functions[] = {
    {"set_doors", set_doors, METH_O, "Choose this thread's doors; None for everybody's."},
    {"register", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(register_all)), METH_VARARGS | METH_KEYWORDS,
     "Tell the module of Python's side."},
    {"go", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(go)), METH_FASTCALL,
     "Visit the nodes of a heap, as _Pass.go does."},
    {"deliver", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(deliver)), METH_FASTCALL,
     "Give the leaves their gradients, as _Pass.deliver does."},
    {"collect", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(collect)), METH_FASTCALL,
     "The arrays of parameters and of their gradients."},
    {"holds", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(facts_hold)), METH_FASTCALL,
     "Whether a program's facts hold, as Reach.changed asks."},
    {"facts", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(pack_facts)), METH_FASTCALL,
     "Reach's lists, laid out for holds and replay."},
    {"lend", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(lend)), METH_FASTCALL,
     "Another array on the same memory, whose base is the lease."},
    {"replay", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(replay)), METH_FASTCALL,
     "The usual call of a compiled function."},
    {"backward", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(backward)), METH_FASTCALL,
     "The backward pass from a loss, as engine.run makes it."},
    {"run_backward", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(run_backward)), METH_FASTCALL,
     "The backward program of a compiled pair."},
    {"admits", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(call_fits)), METH_FASTCALL,
     "Whether a call is the one that a template tells of, as Signature.key says it."},
    {"references", references, METH_O, "How many references each array of a list has."},
    {"unheld", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(unheld)), METH_FASTCALL,
     "Whether each array has as many references as it had."},
    {"grant", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(grant)), METH_FASTCALL,
     "Give leaves their gradients."},
    {"write_numbers", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(write_numbers)), METH_FASTCALL,
     "The elements of a float64 array become these numbers."},
    {"bump", bump, METH_O, "Add one to each version."},
    {"forget", forget, METH_O, "Drop the gradients of a list of tensors."},
    {}};

PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_tape", nullptr, -1, functions, nullptr, nullptr, nullptr, nullptr};

bool add_type(PyObject* module, const char* name, PyTypeObject* type) {
  if (PyType_Ready(type) < 0) return false;
  Py_INCREF(type);
  return PyModule_AddObject(module, name, reinterpret_cast<PyObject*>(type)) == 0;
}

}  // namespace

PyTypeObject TensorType = {PyVarObject_HEAD_INIT(nullptr, 0)};
PyTypeObject NodeType = {PyVarObject_HEAD_INIT(nullptr, 0)};
PyTypeObject PlanType = {PyVarObject_HEAD_INIT(nullptr, 0)};
PyTypeObject SpecType = {PyVarObject_HEAD_INIT(nullptr, 0)};
PyTypeObject OpType = {PyVarObject_HEAD_INIT(nullptr, 0)};

PyObject* new_object(PyObject* type) {
  auto* made = reinterpret_cast<PyTypeObject*>(type);
  return made->tp_new(made, nullptr, nullptr);
}

PyObject* wrapped(PyObject* array, bool inference) {
  PyObject* made = create<TensorObject>(reinterpret_cast<PyTypeObject*>(known.tensor), nullptr, nullptr);
  if (!made) return nullptr;
  auto* t = as_tensor(made);
  Py_INCREF(array);
  t->f[TensorObject::kData] = array;
  if (inference) set_borrowed(t->f[TensorObject::kInference], Py_True);
  return made;
}

bool is_untouched(PyObject* tensor) {
  const TensorObject* t = as_tensor(tensor);
  if (Py_REFCNT(tensor) != 1 || reinterpret_cast<PyObject*>(Py_TYPE(tensor)) != known.tensor || t->dict || t->weak) return false;
  PyObject* const* defaults = tensor_defaults();
  for (int i = TensorObject::kData + 1; i < TensorObject::kFields; ++i)
    if (t->f[i] != defaults[i]) return false;
  return true;
}

}  // namespace tape

PyMODINIT_FUNC PyInit__tape() {
  using namespace tape;
  import_array1(nullptr);
  PyObject* module = PyModule_Create(&definition);
  if (!module) return nullptr;
  const std::pair<PyObject**, const char*> all[] = {
      {&names.add, "add"}, {&names.call, "call"}, {&names.catch_up, "_catch_up"}, {&names.check, "check"}, {&names.differentiate, "differentiate"},
      {&names.dims, "dims"}, {&names.finish, "finish"}, {&names.key, "key"}, {&names.land, "land"},
      {&names.needs, "needs"}, {&names.np, "np"}, {&names.private_views, "private_views"}, {&names.shape, "shape"},
      {&names.record, "record"}, {&names.record_one, "record_one"}, {&names.send, "send"}, {&names.visit, "visit"}};
  for (const auto& [place, text] : all)
    if (!(*place = PyUnicode_InternFromString(text))) return nullptr;
  describe<TensorObject>(TensorType, "tensorgrad._tape.TensorCore", tensor_members);
  describe<NodeObject>(NodeType, "tensorgrad._tape.NodeCore", node_members);
  describe<PlanObject>(PlanType, "tensorgrad._tape.PlanCore", plan_members);
  describe<SpecObject>(SpecType, "tensorgrad._tape.SpecCore", spec_members);
  describe<OpObject>(OpType, "tensorgrad._tape.OpCore", nullptr);
  StateType.tp_name = "tensorgrad._tape.GradState";
  StateType.tp_basicsize = sizeof(PyObject);
  StateType.tp_flags = Py_TPFLAGS_DEFAULT;
  StateType.tp_new = PyType_GenericNew;
  StateType.tp_getset = state_getset;
  if (!add_type(module, "TensorCore", &TensorType) || !add_type(module, "NodeCore", &NodeType) ||
      !add_type(module, "PlanCore", &PlanType) || !add_type(module, "SpecCore", &SpecType) ||
      !add_type(module, "OpCore", &OpType) || !add_type(module, "GradState", &StateType) ||
      !add_type(module, "Operator", &OperatorType) || !add_type(module, "Renamed", &RenamedType) ||
      !add_type(module, "View", &ViewType) || !add_type(module, "Function", &FunctionType) ||
      !add_type(module, "Factory", &FactoryType) || PyModule_AddFunctions(module, view_kernels) < 0 || !add_heap(module) ||
      !add_compiled(module) || !add_numbers(module))
    return nullptr;
  return module;
}
