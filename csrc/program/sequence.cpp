// Sequence(): calls of kernels, written down once and made as often as asked, without Python and its lock between them.
//
//   s = Sequence()
//   s.begin()            # this thread writes: what kernels allocate gets addresses that nobody may touch
//   kernel(x, y); ...    # nothing is computed
//   s.end()              # [bytes of each allocation]
//
//   s = Sequence()
//   s.begin(bytes, [offset of each allocation])   # the same calls again, now at places in one block
//   kernel(x, y); ...
//   s.end()
//   s.stage([(first, last), function, (flag, n), ...], [(place, written), ...])   # what to run, in order, and where its
//                             # inputs lie; the n pieces behind a flag, a 0-d bool array, are left out where it is set
//   s.in_blocks(first, last)  # which of these calls are done block by block, what is ahead of a product and what behind
//   s.play(0, [array, ...])   # bring the inputs to their places, run, bring back what was written
//
//   s.settle(function, [number of a place, ...])   # inputs that come to lie at the same addresses again and again are read
//                             # there: function(arrays) is asked for a sequence of the same calls that does, written by
//   t = Sequence(); t.begin_beside(s, [offset of each allocation]); t.there(array); ...; t.end(); t.stage([...], [])
//   s.settle(function, [...], True)   # there are no places to bring them to: s itself reads them where they lie, and play()
//                             # is False, with nothing done, of others
//
// A kernel that can't be written raises NotWritten; rewind(calls, allocations) takes back what it had begun.
//
// Where arrays lie is the caller's to plan between the two: only after the first writing it is known what there is.
#include <pybind11/stl.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <string>

#include "../core/fastcall.h"
#include "../core/launch.h"
#include "../core/parallel.h"
#include "in_blocks.h"
#include "in_pieces.h"

namespace tg {

std::atomic<int> writers{0};
__thread Sequence* written_here = nullptr;

namespace {

PyObject* not_written = nullptr;


constexpr std::size_t kAlign = 64;

// Addresses without memory: whoever reads or writes there is stopped by the processor. Of a program from a file, which may
// hold anything, reading gives zeros: errors show the arrays of calls that went wrong.
class Reserved {
 public:
  explicit Reserved(bool readable) : access_(readable ? PROT_READ : PROT_NONE) {}
  ~Reserved() {
    for (const auto& [start, size] : chunks_) munmap(start, size);
  }
  void* take(std::size_t bytes) {
    bytes = (std::max<std::size_t>(bytes, 1) + kAlign - 1) / kAlign * kAlign;
    if (bytes > left_) {
      const std::size_t size = std::max<std::size_t>(bytes, std::size_t{1} << 28);
      void* start = mmap(nullptr, size, access_, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (start == MAP_FAILED) throw std::bad_alloc();
      chunks_.push_back({start, size});
      next_ = static_cast<char*>(start);
      left_ = size;
    }
    char* found = next_;
    next_ += bytes;
    left_ -= bytes;
    return found;
  }

 private:
  const int access_;
  std::vector<std::pair<void*, std::size_t>> chunks_;
  char* next_ = nullptr;
  std::size_t left_ = 0;
};

void free_arena(PyObject* capsule) { release(PyCapsule_GetPointer(capsule, "tensorgrad")); }
void free_reserved(PyObject* capsule) { delete static_cast<Reserved*>(PyCapsule_GetPointer(capsule, "reserved")); }

// Bytes of an argument that a thread copies at a time: half a megabyte takes 20 us in one piece, 9 in eight.
constexpr Index kBrought = Index(1) << 16;

struct Nothing final : Launch {
  void run() override {}
};

class Written final : public Sequence {
 public:
  void begin(std::size_t bytes, std::vector<std::size_t> offsets, bool planned, bool readable = false) {
    if (writing()) throw std::runtime_error("Sequence: this thread writes another one");
    if (!calls_.empty() || begun_) throw std::runtime_error("Sequence: it was written already");
    for (std::size_t at : offsets)
      if (at % kAlign || at > bytes) throw std::invalid_argument("Sequence: an offset lies outside of the block");
    begun_ = true;
    planned_ = planned;
    offsets_ = std::move(offsets);
    total_ = bytes;
    if (planned) {
      base_ = static_cast<char*>(allocate_lasting(bytes));
      PyObject* capsule = PyCapsule_New(base_, "tensorgrad", free_arena);
      if (!capsule) {
        release(base_);
        throw py::error_already_set();
      }
      owner_ = py::reinterpret_steal<py::object>(capsule);
    } else {
      auto fresh = std::make_unique<Reserved>(readable);
      PyObject* capsule = PyCapsule_New(fresh.get(), "reserved", free_reserved);
      if (!capsule) throw py::error_already_set();
      reserved_ = fresh.release();
      owner_ = py::reinterpret_steal<py::object>(capsule);
    }
    written_here = this;
    ++writers;
  }

  std::vector<std::size_t> end() {
    if (written_here != this) throw std::runtime_error("Sequence: this thread does not write it");
    written_here = nullptr;
    --writers;
    if (planned_ && sizes_.size() != offsets_.size())
      throw std::runtime_error("Sequence: " + std::to_string(sizes_.size()) + " allocations where " +
                               std::to_string(offsets_.size()) + " were planned");
    return sizes_;
  }

  void add(Index work, std::unique_ptr<Launch> call) override {
    work_.push_back(work);
    calls_.push_back(std::move(call));
  }

  void* place(std::size_t bytes, py::object& owner) override {
    owner = owner_;
    const std::size_t at = sizes_.size();
    sizes_.push_back(bytes);
    if (!planned_) {
      void* found = reserved_->take(bytes);
      addresses_.push_back(reinterpret_cast<std::uintptr_t>(found));
      return found;
    }
    if (at >= offsets_.size() || offsets_[at] + bytes > total_)
      throw std::runtime_error("Sequence: allocation " + std::to_string(at) + " is not as planned");
    return base_ + offsets_[at];
  }

  void keep(py::handle array) override { arrays_.push_back(py::reinterpret_borrow<py::object>(array)); }

  const std::vector<std::uintptr_t>& addresses() const { return addresses_; }
  std::size_t calls() const { return calls_.size(); }
  std::size_t allocations() const { return sizes_.size(); }

  // Calls from number `first` to before `last`, or else a function of Python, or a flag: where it is set, the `last` pieces
  // behind it are left out.
  struct Piece {
    std::size_t first, last;
    Index work;
    py::object function;
    py::object flag;
  };
  struct Place {
    py::object array;
    bool written;
  };
  struct Stage {
    std::vector<Piece> pieces;
    std::vector<Place> places;
  };

  void stage(const py::list& pieces, const py::list& places) {
    Stage made;
    for (py::handle each : pieces) {
      if (!PyTuple_Check(each.ptr())) {
        made.pieces.push_back({0, 0, 0, py::reinterpret_borrow<py::object>(each), {}});
        continue;
      }
      if (PyTuple_GET_SIZE(each.ptr()) == 2 && PyArray_Check(PyTuple_GET_ITEM(each.ptr(), 0))) {
        auto [flag, count] = py::cast<std::pair<py::object, std::size_t>>(each);
        auto* array = reinterpret_cast<PyArrayObject*>(flag.ptr());
        if (PyArray_TYPE(array) != NPY_BOOL || PyArray_SIZE(array) != 1)
          throw py::type_error("Sequence: a flag is a bool array of one element");
        if (count > pieces.size() - made.pieces.size() - 1) throw std::out_of_range("Sequence: there are no such pieces");
        made.pieces.push_back({0, count, 0, {}, std::move(flag)});
        continue;
      }
      const auto [first, last] = py::cast<std::pair<std::size_t, std::size_t>>(each);
      if (first > last || last > calls_.size()) throw std::out_of_range("Sequence: there are no such calls");
      Index work = 0;
      for (std::size_t i = first; i < last; ++i) work += std::min(work_[i], kReleaseFrom);
      join_blocks(first, last);
      join_pieces(first, last);
      made.pieces.push_back({first, last, work, {}, {}});
    }
    for (py::handle each : places) {
      auto pair = py::cast<std::pair<py::object, bool>>(each);
      if (!PyArray_Check(pair.first.ptr())) throw py::type_error("Sequence: a place is an array");
      made.places.push_back({std::move(pair.first), pair.second});
    }
    stages_.push_back(std::move(made));
  }

  // Whether it could: inputs that have no place may lie elsewhere.
  bool play(std::size_t number, const py::list& given) {
    if (writing() || !planned_) throw std::runtime_error("Sequence: it is not ready to run");
    if (number >= stages_.size()) throw std::out_of_range("Sequence: there is no such stage");
    const Stage& stage = stages_[number];
    at_ = calls_.size();
    if (given.size() != stage.places.size()) throw std::invalid_argument("Sequence: as many arrays as places");
    const Written* beside = number == 0 && settling_ ? settling_->beside(given, stage, *this) : nullptr;
    if (!beside && number == 0 && settling_ && settling_->only) return false;
    for (std::size_t i = 0; i < stage.places.size(); ++i)
      if (!beside || !settling_->stays[i]) bring(PyList_GET_ITEM(given.ptr(), static_cast<Py_ssize_t>(i)), stage.places[i].array.ptr());
    const Written& who = beside ? *beside : *this;
    const std::vector<Piece>& pieces = who.stages_[number].pieces;
    for (std::size_t k = 0; k < pieces.size(); ++k) {
      const Piece& piece = pieces[k];
      if (piece.flag) {
        if (*static_cast<const bool*>(PyArray_DATA(reinterpret_cast<PyArrayObject*>(piece.flag.ptr())))) k += piece.last;
        continue;
      }
      if (piece.function) {
        at_ = calls_.size();
        PyObject* result = PyObject_CallNoArgs(piece.function.ptr());
        if (!result) throw py::error_already_set();
        Py_DECREF(result);
        continue;
      }
      at_ = piece.first;
      MaybeRelease unlock(piece.work);
      for (; at_ < piece.last; ++at_) who.calls_[at_]->run();
    }
    for (std::size_t i = 0; i < stage.places.size(); ++i)
      if (stage.places[i].written)
        bring(stage.places[i].array.ptr(), PyList_GET_ITEM(given.ptr(), static_cast<Py_ssize_t>(i)));
    return true;
  }

  // Writes the calls of another one again, for the same block.
  void begin_beside(const Written& other, std::vector<std::size_t> offsets) {
    if (writing() || begun_ || !other.planned_) throw std::runtime_error("Sequence: there is nothing to write beside");
    begun_ = planned_ = true;
    offsets_ = std::move(offsets);
    total_ = other.total_;
    base_ = other.base_;
    owner_ = other.owner_;
    written_here = this;
    ++writers;
  }

  void settle(py::object function, const std::vector<std::size_t>& places, bool only) {
    if (stages_.empty()) throw std::runtime_error("Sequence: it has no stage yet");
    auto made = std::make_unique<Settling>();
    made->function = std::move(function);
    made->stays.resize(stages_[0].places.size());
    for (const std::size_t i : places) {
      if (i >= made->stays.size() || stages_[0].places[i].written) throw std::out_of_range("Sequence: there is no such place to read");
      made->stays[i] = true;
    }
    for (std::size_t i = 0; i < made->stays.size() && only; ++i)
      if (made->stays[i]) made->written.push_back(PyArray_DATA(reinterpret_cast<PyArrayObject*>(stages_[0].places[i].array.ptr())));
    made->only = only;
    settling_ = std::move(made);
  }

  // Of calls from number `first` to before `last`, stretches that will be done block by block: their first call, the one
  // whose blocks it are, and their last.
  std::vector<std::array<std::size_t, 3>> in_blocks(std::size_t first, std::size_t last) const {
    if (first > last || last > calls_.size()) throw std::out_of_range("Sequence: there are no such calls");
    std::vector<std::array<std::size_t, 3>> found;
    each_in_blocks(first, last, [&](std::size_t head, const Numbered& ahead, const Numbered& behind) {
      found.push_back({head - ahead.size(), head, head + behind.size()});
    });
    return found;
  }

  std::size_t at() const { return at_; }  // the call that failed; beyond all where none of these did
  // Calls that could be done a piece at a time together, where they lie now, of those that are not done block by block: the
  // first's number, and the number after the last's.
  std::vector<std::pair<std::size_t, std::size_t>> groups(std::size_t first, std::size_t last) const {
    if (first > last || last > calls_.size()) throw std::out_of_range("Sequence: there are no such calls");
    std::vector<std::pair<std::size_t, std::size_t>> found;
    const auto note = [&](const Group&, std::size_t begin, std::size_t end) { found.push_back({begin, end}); };
    std::size_t begin = first;
    each_in_blocks(first, last, [&](std::size_t head, const Numbered& ahead, const Numbered& behind) {
      each_group(begin, head - ahead.size(), note);
      begin = head + behind.size() + 1;
    });
    each_group(begin, last, note);
    return found;
  }
  // Those that are.
  const std::vector<std::pair<std::size_t, std::size_t>>& joined() const { return joined_; }

  // Forgets what was written since there were so many calls and allocations: of a kernel that could not be written.
  void rewind(std::size_t calls, std::size_t allocations) {
    if (written_here != this || calls > calls_.size() || allocations > sizes_.size())
      throw std::runtime_error("Sequence: there is nothing to take back");
    calls_.resize(calls);
    work_.resize(calls);
    sizes_.resize(allocations);
    if (!planned_) addresses_.resize(allocations);
  }
  // Of the allocations from number `first` on.
  std::size_t bytes_from(std::size_t first) const {
    return std::accumulate(sizes_.begin() + std::ptrdiff_t(std::min(first, sizes_.size())), sizes_.end(), std::size_t{0});
  }

 private:
  static bool lie_alike(PyArrayObject* source, PyArrayObject* target) {
    return PyArray_IS_C_CONTIGUOUS(source) && PyArray_IS_C_CONTIGUOUS(target) &&
           PyArray_DESCR(source)->type_num == PyArray_DESCR(target)->type_num && PyArray_ISNOTSWAPPED(source) &&
           PyArray_NDIM(source) == PyArray_NDIM(target) &&
           PyArray_CompareLists(PyArray_SHAPE(source), PyArray_SHAPE(target), PyArray_NDIM(target));
  }

  // Of inputs some need not be brought: those that lie where they lay before.
  struct Settling {
    static constexpr int kPatience = 3;  // calls with inputs at the same addresses, until that is relied upon
    py::object function;
    std::vector<bool> stays;          // by place
    std::vector<const void*> seen;    // where those lay at the last call
    std::vector<const void*> written;  // where `sequence` reads them
    py::object sequence;              // none: the one that asks reads them there
    bool only = false;                // they have no place to be brought to
    int times = 0, left = 4;          // how often it may be written yet

    // Who runs the calls; null where the inputs have to be brought.
    const Written* beside(const py::list& given, const Stage& stage, const Written& self) {
      std::vector<const void*> now;
      for (std::size_t i = 0; i < stays.size(); ++i) {
        if (!stays[i]) continue;
        PyObject* from = PyList_GET_ITEM(given.ptr(), static_cast<Py_ssize_t>(i));
        auto* array = reinterpret_cast<PyArrayObject*>(from);
        if (!PyArray_Check(from) || !lie_alike(array, reinterpret_cast<PyArrayObject*>(stage.places[i].array.ptr()))) return nullptr;
        now.push_back(PyArray_DATA(array));
        // kernels are chosen as in the block
        if (!only && reinterpret_cast<std::uintptr_t>(now.back()) % kAlign) return nullptr;
      }
      if (now == written) return sequence ? &sequence.cast<const Written&>() : &self;
      if (!left) return nullptr;
      times = now == seen ? times + 1 : 1;
      seen = std::move(now);
      if (times <= kPatience) return nullptr;
      --left;
      sequence = function(given);
      written = seen;
      if (sequence.is_none()) left = 0, sequence = py::object(), written.clear();
      return sequence ? &sequence.cast<const Written&>() : nullptr;
    }
  };

  static void bring(PyObject* from, PyObject* to) {
    if (!PyArray_Check(from)) throw py::type_error("Sequence: expected arrays");
    auto *source = reinterpret_cast<PyArrayObject*>(from), *target = reinterpret_cast<PyArrayObject*>(to);
    if (lie_alike(source, target)) {
      char* to = static_cast<char*>(PyArray_DATA(target));
      const char* data = static_cast<const char*>(PyArray_DATA(source));
      parallel_for(static_cast<Index>(PyArray_NBYTES(target)), kBrought, [=](Index first, Index last) {
        std::memcpy(to + first, data + first, static_cast<std::size_t>(last - first));
      });
    } else if (PyArray_CopyInto(target, source) < 0)
      throw py::error_already_set();
  }

  // Calls call(head, ahead, behind) for each call that others right ahead of it (the nearest first) or behind it can join
  // block by block. None joins two.
  template <class Call>
  void each_in_blocks(std::size_t first, std::size_t last, Call call) const {
    std::size_t begin = first;
    for (std::size_t i = first; i < last; ++i) {
      const auto* head = dynamic_cast<const BlockLaunch*>(calls_[i].get());
      if (!head) continue;
      Numbered ahead, behind;
      for (std::size_t k = i + 1; k < last; ++k) {
        const auto* next = dynamic_cast<const PieceLaunch*>(calls_[k].get());
        const int which = next ? followed_by(*head, behind, *next) : -1;
        if (which < 0) break;
        behind.emplace_back(next, which);
      }
      for (std::size_t k = i; k > begin; --k) {
        const auto* next = dynamic_cast<const PieceLaunch*>(calls_[k - 1].get());
        const int which = next ? led_by(*head, ahead, behind, *next) : -1;
        if (which < 0) break;
        ahead.emplace_back(next, which);
      }
      if (!ahead.empty() || !behind.empty()) call(i, ahead, behind);
      i += behind.size();
      begin = i + 1;
    }
  }

  // Each call keeps its number, those that have joined another with nothing to do.
  void join_blocks(std::size_t first, std::size_t last) {
    each_in_blocks(first, last, [&](std::size_t head, const Numbered& ahead, const Numbered& behind) {
      auto all = std::make_unique<InBlocks>();
      const auto take = [&](std::size_t at, int which) {
        auto* call = static_cast<PieceLaunch*>(calls_[at].release());
        calls_[at] = std::make_unique<Nothing>();
        return InBlocks::Other{std::unique_ptr<PieceLaunch>(call), static_cast<std::size_t>(which)};
      };
      for (std::size_t k = ahead.size(); k > 0; --k) all->ahead.push_back(take(head - k, ahead[k - 1].second));
      for (std::size_t k = 0; k < behind.size(); ++k) all->behind.push_back(take(head + 1 + k, behind[k].second));
      all->head.reset(static_cast<BlockLaunch*>(calls_[head].release()));
      calls_[head] = std::move(all);
    });
  }

  // Calls call(group, first, last) for neighbours that can be done in pieces together.
  template <class Call>
  void each_group(std::size_t first, std::size_t last, Call call) const {
    for (std::size_t i = first; i < last; ++i) {
      auto* start = dynamic_cast<PieceLaunch*>(calls_[i].get());
      if (!start || start->n < kBriefFrom || (start->n > kBriefTo && start->n < kJoinedFrom)) continue;
      Group group(start), found(start);
      std::size_t end = i + 1;
      for (std::size_t k = end; k < last; ++k) {
        const Group::Taken taken = group.take(calls_[k].get());
        if (taken == Group::Taken::no) break;
        if (taken == Group::Taken::meets) found = group, end = k + 1;
      }
      if (end > i + 1) call(std::move(found), i, end);
      i = end - 1;
    }
  }

  // Each keeps its number, the later ones with nothing to do.
  void join_pieces(std::size_t first, std::size_t last) {
    each_group(first, last, [this](Group group, std::size_t begin, std::size_t end) {
      auto joined = std::make_unique<Joined>(std::move(group));
      for (std::size_t k = begin; k < end; ++k) {
        joined->owned.push_back(std::move(calls_[k]));
        calls_[k] = std::make_unique<Nothing>();
      }
      calls_[begin] = std::move(joined);
      joined_.push_back({begin, end});
    });
  }

  std::vector<std::unique_ptr<Launch>> calls_;
  std::vector<Index> work_;
  std::vector<std::pair<std::size_t, std::size_t>> joined_;
  std::vector<Stage> stages_;
  std::vector<std::size_t> sizes_, offsets_;
  std::vector<std::uintptr_t> addresses_;
  std::vector<py::object> arrays_;
  std::unique_ptr<Settling> settling_;
  std::size_t total_ = 0, at_ = 0;
  py::object owner_;
  Reserved* reserved_ = nullptr;
  char* base_ = nullptr;
  bool begun_ = false, planned_ = false;
};

// An array on the memory of another, which may go: only runs that are given it again read there.
py::object there(const py::object& array) {
  if (!PyArray_Check(array.ptr())) throw py::type_error("there: expected an array");
  auto* like = reinterpret_cast<PyArrayObject*>(array.ptr());
  Py_INCREF(PyArray_DESCR(like));
  PyObject* made = PyArray_NewFromDescr(&PyArray_Type, PyArray_DESCR(like), PyArray_NDIM(like), PyArray_SHAPE(like),
                                        PyArray_STRIDES(like), PyArray_DATA(like), NPY_ARRAY_ALIGNED, nullptr);
  if (!made) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(made);
}

// play(stage, arrays) of a sequence as CPython's own kind of function: a replay of small kernels would spend as long in
// pybind11's dispatcher as in one of them.
PyObject* play_stage(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  return guarded([&]() -> PyObject* {
    if (count != 2 || !PyLong_Check(args[0]) || !PyList_Check(args[1]))
      throw py::type_error("play: expected the number of a stage, and a list of arrays");
    const std::size_t stage = PyLong_AsSize_t(args[0]);
    if (PyErr_Occurred()) throw py::error_already_set();
    return PyBool_FromLong(
        static_cast<Written*>(PyCapsule_GetPointer(self, "sequence"))->play(stage, py::reinterpret_borrow<py::list>(args[1])));
  });
}
PyMethodDef play_definition = {"play", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(play_stage)), METH_FASTCALL,
                               nullptr};

// It keeps the sequence alive.
py::object player(const py::object& sequence) {
  PyObject* capsule = PyCapsule_New(&sequence.cast<Written&>(), "sequence", [](PyObject* made) {
    Py_XDECREF(static_cast<PyObject*>(PyCapsule_GetContext(made)));
  });
  if (!capsule) throw py::error_already_set();
  const auto owner = py::reinterpret_steal<py::object>(capsule);
  PyCapsule_SetContext(capsule, sequence.ptr());
  sequence.inc_ref();
  PyObject* made = PyCFunction_New(&play_definition, capsule);
  if (!made) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(made);
}

}  // namespace

void NotWritten::set_error() const { PyErr_SetString(not_written, what()); }

TG_BINDINGS(sequence) {
  not_written = PyErr_NewException("tensorgrad._C.NotWritten", PyExc_RuntimeError, nullptr);
  if (!not_written) throw py::error_already_set();
  m.attr("NotWritten") = py::handle(not_written);
  m.def("writing", [] { return writing() != nullptr; });
  py::class_<Written>(m, "Sequence")
      .def(py::init<>())
      .def("begin", [](Written& s, bool readable) { s.begin(0, {}, false, readable); }, py::arg("readable") = false)
      .def("begin", [](Written& s, std::size_t bytes, std::vector<std::size_t> offsets) { s.begin(bytes, std::move(offsets), true); })
      .def("end", &Written::end)
      .def("begin_beside", &Written::begin_beside)
      .def_static("there", &there)
      .def("settle", &Written::settle, py::arg("function"), py::arg("places"), py::arg("only") = false)
      .def("stage", &Written::stage)
      .def_property_readonly("play", &player)
      .def("rewind", &Written::rewind)
      .def("bytes_from", &Written::bytes_from)
      .def("in_blocks", &Written::in_blocks)
      .def_property_readonly("calls", &Written::calls)
      .def_property_readonly("allocations", &Written::allocations)
      .def_property_readonly("addresses", &Written::addresses)
      .def_property_readonly("at", &Written::at)
      .def("groups", &Written::groups)
      .def_property_readonly("joined", &Written::joined);
}

}  // namespace tg
