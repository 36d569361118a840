// A kernel's call is made now, or written down for a program that makes it many times.
//
//   launch(work, [=] { softmax(shape, from, to); });
//
// Bindings check their arguments, make their results, and hand what is left, arithmetic on addresses that were found, to
// launch(). While this thread writes a program it is not run: so it owns all it reads but the arrays' elements (captured by
// value, never by reference; vectors too), and what the elements say is read within it. Arrays that were looked at (view())
// or made (empty()) meanwhile live as long as the program, so it may point to their shapes.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "bind.h"

namespace tg {

struct Launch {
  virtual ~Launch() = default;
  virtual void run() = 0;
};

// The calls of a program, in order, and the memory that arrays are given while they are written.
class Sequence {
 public:
  virtual ~Sequence() = default;
  virtual void add(Index work, std::unique_ptr<Launch> call) = 0;
  // Memory for an array, and what keeps it alive.
  virtual void* place(std::size_t bytes, py::object& owner) = 0;
  // Arrays that calls may read shapes and elements of live as long as the sequence.
  virtual void keep(py::handle array) = 0;
};

// What this thread writes; null: calls are made at once.
extern thread_local Sequence* writing;

template <class F>
void launch(Index work, F&& call) {
  if (writing) {
    struct Kept final : Launch {
      std::decay_t<F> call;
      explicit Kept(F&& f) : call(std::forward<F>(f)) {}
      void run() override { call(); }
    };
    writing->add(work, std::make_unique<Kept>(std::forward<F>(call)));
    return;
  }
  MaybeRelease release(work);
  call();
}

// What a call captures of an input, whose type it is told by a template.
template <class T>
const T* in(const char* data) {
  return reinterpret_cast<const T*>(data);
}

}  // namespace tg
