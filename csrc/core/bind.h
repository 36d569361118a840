// Each bindings file adds itself to the module: TG_BINDINGS(softmax) { m.def("softmax", ...); }
#pragma once

#include <pybind11/pybind11.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "array.h"

namespace tg {

using Binder = void (*)(pybind11::module_&);
bool add_binder(Binder binder);
void run_binders(pybind11::module_& m);

// Below this many elements releasing the interpreter's lock costs more than it gives.
constexpr Index kReleaseFrom = 20000;

// What this thread writes down instead of computing it (core/launch.h); null: calls are made at once. Every kernel asks a
// few times, so a number of all threads is looked at first: a thread's own variable takes a call.
class Sequence;
extern std::atomic<int> writers;
extern __thread Sequence* written_here;
inline Sequence* writing() { return writers.load(std::memory_order_relaxed) ? written_here : nullptr; }

// A kernel that computes without launch() can't be written into a program; whoever writes one calls it in each run.
struct NotWritten final : pybind11::builtin_exception {
  NotWritten() : builtin_exception("this kernel can't be written into a program") {}
  void set_error() const override;
};

struct StayIfUnwound {
  bool back = false;
  ~StayIfUnwound() {
    while (!back) std::this_thread::sleep_for(std::chrono::hours(1));
  }
};

class MaybeRelease {
 public:
  explicit MaybeRelease(Index work) {
    if (writing()) throw NotWritten();  // its caller is about to compute
    state_ = work >= kReleaseFrom ? PyEval_SaveThread() : nullptr;
  }
  // When the interpreter ends, up to 3.13 a daemon thread that asks for its lock is ended by pthread_exit, whose unwinding
  // would cross C++ frames that must not throw, and release Python objects without the lock. Such a thread stays here
  // until the process is gone, as Python itself lets it from 3.14 on.
  ~MaybeRelease() noexcept(false) {
    if (!state_) return;
    StayIfUnwound guard;
    PyEval_RestoreThread(state_);
    guard.back = true;
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
