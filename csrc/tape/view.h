// Where the elements of a view lie: geometry over shapes and strides, for the kernels of view ops and the methods.
#pragma once

#include "tape.h"

namespace tape {

constexpr int kMostDims = 64;  // of a NumPy array

struct Form {
  int ndim = 0;
  npy_intp shape[kMostDims], strides[kMostDims];
  char* data = nullptr;
  bool writeable = true;
};

PyObject* made_view(PyArrayObject* x, const Form& form);

// Each fills `out` and says whether there is such a view; the sizes and dims are the caller's to check for sense.
bool reshaped(PyArrayObject* x, const npy_intp* shape, int ndim, Form& out);
void permuted(PyArrayObject* x, const npy_intp* dims, Form& out);
bool expanded(PyArrayObject* x, const npy_intp* shape, int ndim, Form& out);
// `key`: integers counted from the front, slices of integers or None with steps above 0, and None.
bool sliced(PyArrayObject* x, PyObject* key, Form& out);

// A tuple or list of ints. False where it holds anything else, or more than an array has dimensions.
bool read_integers(PyObject* given, npy_intp* out, int& count);

}  // namespace tape
