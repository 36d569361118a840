// Where NumPy's table of functions lives in the extension; every other source only declares it (array.h).
#include <Python.h>

#define NPY_NO_DEPRECATED_API NPY_1_7_API_VERSION
#define PY_ARRAY_UNIQUE_SYMBOL tensorgrad_numpy_api
#include <numpy/arrayobject.h>

namespace tg {

int import_numpy() {
  import_array1(-1);
  return 0;
}

}  // namespace tg
