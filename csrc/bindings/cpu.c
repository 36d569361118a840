// tensorgrad._cpu: what this processor can do. Plain C for the baseline, so that it loads everywhere.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

static PyObject* features(PyObject* self, PyObject* none) {
  PyObject* list = PyList_New(0);
  if (!list) return NULL;
#if defined(__x86_64__)
  __builtin_cpu_init();
#define TG_FEATURE(name)                                 \
  if (__builtin_cpu_supports(name)) {                    \
    PyObject* text = PyUnicode_FromString(name);         \
    if (!text || PyList_Append(list, text) < 0) {        \
      Py_XDECREF(text);                                  \
      Py_DECREF(list);                                   \
      return NULL;                                       \
    }                                                    \
    Py_DECREF(text);                                     \
  }
  TG_FEATURE("sse4.2")
  TG_FEATURE("avx")
  TG_FEATURE("avx2")
  TG_FEATURE("fma")
  TG_FEATURE("avx512f")
  TG_FEATURE("avx512bw")
  TG_FEATURE("avx512dq")
  TG_FEATURE("avx512vl")
#endif
  return list;
}

static PyMethodDef methods[] = {{"features", features, METH_NOARGS, "Names of the instruction sets present."},
                                {NULL, NULL, 0, NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_cpu", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__cpu(void) { return PyModule_Create(&module); }
