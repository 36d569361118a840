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

// A call that can be made a piece at a time, over arrays of n elements which lie contiguous: a program may do several of
// them so, one behind the other, and what one wrote is in the cache for the next.
//
// A piece begins at a multiple of `unit` elements (a row's, say) and ends at one, or at n. Where `order` is not zero the
// pieces from one multiple of it to the next come in their order and from one thread, as sums want it; otherwise from any.
struct PieceLaunch : Launch {
  // Of the arrays, and of what else is touched: `item` bytes for `per` elements (a row's, say), or 0 for what pieces share,
  // and for what they touch elsewhere than at their elements' places.
  struct Touch {
    const char* start;
    Index bytes, item;
    bool written;
    Index per = 1;
    bool meets(const Touch& other) const {
      return (written || other.written) && start < other.start + other.bytes && other.start < start + bytes;
    }
    bool same_items(const Touch& other) const { return item && item == other.item && start == other.start; }
    // Whether a piece of one touches what the same piece of the other does, and no more, wherever it begins.
    bool aligned(const Touch& other) const { return same_items(other) && per == 1 && other.per == 1; }
  };
  Index n = 0;
  Index unit = 1, order = 0;
  bool anywhere = false;  // pieces may be of whatever length, and start where they will
  std::vector<Touch> touches;
  virtual void begin() {}
  virtual void piece(Index first, Index last) = 0;  // by several threads
  virtual void end() {}
};

// A call that finishes results block by block, each contiguous: what goes over their elements next can do so while a block
// is near, on the thread that has made it. And which may read an operand block by block: what makes its elements can do so
// right before.
struct BlockLaunch : Launch {
  // By several threads: elements [first, last) of result number `which` are there. Of each element once.
  using Finished = std::function<void(std::size_t which, Index first, Index last)>;
  // By several threads, before they are read: elements [first, last) of operand number `which`. For each element once.
  using Needed = std::function<void(std::size_t which, Index first, Index last)>;
  // One that is read so, and in blocks of how many elements, or several times that.
  struct Operand {
    PieceLaunch::Touch touch;
    Index unit;
  };
  std::vector<PieceLaunch::Touch> results;
  std::vector<PieceLaunch::Touch> others;  // what else is read, and written
  std::vector<Operand> operands;
  virtual void run(const Needed& needed, const Finished& finished) = 0;  // either may be empty
  // Whether all of it is near anyhow, so that blocks would only cost.
  virtual bool little() const { return false; }
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

// A kernel that goes over rows of `length` elements, each by itself: call(first, last) does those from number `first` to
// before `last`. `touches` are the arrays, with items of the elements' size where they have an element for each.
template <class F>
void launch_rows(Index work, Index rows, Index length, std::vector<PieceLaunch::Touch> touches, F&& call) {
  if (!writing()) {
    MaybeRelease release(work);
    return call(Index(0), rows);
  }
  struct Rows final : PieceLaunch {
    std::decay_t<F> call;
    Index rows, length;
    Rows(F&& f, Index r, Index l) : call(std::forward<F>(f)), rows(r), length(l) {}
    void piece(Index first, Index last) override { call(first / length, last / length); }
    void run() override { call(Index(0), rows); }
  };
  auto made = std::make_unique<Rows>(std::forward<F>(call), rows, length);
  made->n = rows * length;
  made->unit = length;
  made->touches = std::move(touches);
  writing()->add(work, std::move(made));
}

// The same of one that sums over rows on its way. Its pieces are `unit` rows long, or several times that; those from one
// multiple of `order` rows to the next come in order, unless it is zero. make() is the kernel in parts (row_run.h), and
// call() does all at once.
template <class Make, class F>
void launch_row_sums(Index work, Index rows, Index length, Index unit, Index order, std::vector<PieceLaunch::Touch> touches,
                     Make make, F call) {
  if (!writing()) {
    MaybeRelease release(work);
    return call();
  }
  struct Rows final : PieceLaunch {
    Make make;
    F call;
    Index length;
    std::decay_t<decltype(std::declval<Make>()())> running;
    Rows(Make m, F f, Index l) : make(std::move(m)), call(std::move(f)), length(l) {}
    void begin() override { running = make(); }
    void piece(Index first, Index last) override { running->rows(first / length, last / length); }
    void end() override {
      running->end();
      running.reset();
    }
    void run() override { call(); }
  };
  auto made = std::make_unique<Rows>(std::move(make), std::move(call), length);
  made->n = rows * length;
  made->unit = unit * length;
  made->order = order * length;
  made->touches = std::move(touches);
  writing()->add(work, std::move(made));
}

// What a call captures of an input, whose type it is told by a template.
template <class T>
const T* in(const char* data) {
  return reinterpret_cast<const T*>(data);
}

}  // namespace tg
