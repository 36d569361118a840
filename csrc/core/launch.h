// A kernel's call is made now, or written down for a program that makes it many times.
//
//   launch(work, [=] { softmax(shape, from, to); });
//
// Bindings check their arguments, make their results, and hand what is left, arithmetic on addresses that were found, to
// launch(). While this thread writes a program it is not run: so it owns all it reads but the arrays' elements (captured by
// value, never by reference; vectors too), and what the elements say is read within it. Arrays that were looked at (view())
// or made (empty()) meanwhile live as long as the program, so it may point to their shapes.
//
// What a kernel finds wrong with elements it throws within, and so in every run: as it would at once, with the same words.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bind.h"

namespace tg {

// A Python exception of a class given by its owner, thrown where the interpreter's lock may be away.
struct Raised final : py::builtin_exception {
  Raised(PyObject* type_, const std::string& text) : builtin_exception(text.c_str()), type(type_) {}
  void set_error() const override { PyErr_SetString(type, what()); }
  PyObject* type;
};

struct Launch {
  virtual ~Launch() = default;
  virtual void run() = 0;
};

// A call that goes element by element over arrays of n elements which lie contiguous: a program may do several of them a
// piece at a time, so that what one wrote is in the cache for the next.
struct PieceLaunch : Launch {
  // Of the arrays, and of what else is touched: `item` bytes for each element, or 0 for what pieces share.
  struct Touch {
    const char* start;
    Index bytes, item;
    bool written;
    bool meets(const Touch& other) const {
      return (written || other.written) && start < other.start + other.bytes && other.start < start + bytes;
    }
    // Whether a piece of one touches what the same piece of the other does, and no more.
    bool aligned(const Touch& other) const { return item && item == other.item && start == other.start; }
  };
  Index n = 0;
  Index grain = 16384;  // pieces are as long, or several times, or reach to the end
  bool anywhere = false;  // or they are of whatever length, and start where they will
  std::vector<Touch> touches;
  virtual void begin() = 0;
  virtual void piece(Index first, Index last) = 0;  // by several threads
  virtual void end() {}
};

// A call that finishes results block by block, each contiguous: what goes over their elements next can do so while a block
// is near, on the thread that has made it.
struct BlockLaunch : Launch {
  // By several threads: elements [first, last) of result number `which` are there. Of each element once.
  using Finished = std::function<void(std::size_t which, Index first, Index last)>;
  std::vector<PieceLaunch::Touch> results;
  std::vector<PieceLaunch::Touch> others;  // what else is read, and written
  virtual void run(const Finished& finished) = 0;
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

template <class F>
void launch(Index work, F&& call) {
  if (writing()) {
    struct Kept final : Launch {
      std::decay_t<F> call;
      explicit Kept(F&& f) : call(std::forward<F>(f)) {}
      void run() override { call(); }
    };
    writing()->add(work, std::make_unique<Kept>(std::forward<F>(call)));
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
