// Each bindings file adds itself to the module: TG_BINDINGS(softmax) { m.def("softmax", ...); }
#pragma once

#include <pybind11/pybind11.h>

#include "array.h"

namespace tg {

using Binder = void (*)(pybind11::module_&);
bool add_binder(Binder binder);
void run_binders(pybind11::module_& m);

// Below this many elements releasing the interpreter's lock costs more than it gives.
constexpr Index kReleaseFrom = 20000;

class MaybeRelease {
 public:
  explicit MaybeRelease(Index work) : state_(work >= kReleaseFrom ? PyEval_SaveThread() : nullptr) {}
  ~MaybeRelease() {
    if (state_) PyEval_RestoreThread(state_);
  }
  MaybeRelease(const MaybeRelease&) = delete;
  MaybeRelease& operator=(const MaybeRelease&) = delete;

 private:
  PyThreadState* state_;
};

}  // namespace tg

#define TG_BINDINGS(family)                                                 \
  static void tg_bind_##family(pybind11::module_& m);                       \
  static const bool tg_added_##family = ::tg::add_binder(tg_bind_##family); \
  static void tg_bind_##family(pybind11::module_& m)
