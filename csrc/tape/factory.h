// What the functions that make tensors from nothing but a shape have in common.
#pragma once

#include "method.h"

namespace tape {

// Those from kDraw on ask the default generator: see draw.cpp.
enum class Making { kSizes, kFull, kLike, kFullLike, kNew, kRange, kDraw, kDrawLike, kDrawInto, kIntegers, kPermutation, kBernoulli };

// The door of NumPy arrays in this thread, if nobody listens at it and no other device is the default.
PyObject* open_door();
// f(2, 3) or f((2, 3)); null without an error where Python must look.
Ref sizes_of(PyObject* const* args, Py_ssize_t n);
// The dtype that was asked for, else `otherwise`; null without an error where Python must look.
Ref dtype_of(PyObject* const* values, PyObject* keywords, PyObject* otherwise);
// Numbers from the default generator, by the kernel of this name; null without an error where Python must look, with one
// if the kernel raised it.
PyObject* draw(Making form, PyObject* door, PyObject* kernel, PyObject* const* args, Py_ssize_t n, PyObject* keywords);

}  // namespace tape
