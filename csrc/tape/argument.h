// The arguments of a call, in a record's words: what a parameter takes, and what the record hears of it.
#pragma once

#include "method.h"

namespace tape {

// What a parameter takes; ops/calls.py says it to those who use them.
enum class Kind {
  kTensor, kOperand, kIndex, kLike, kSameIndex, kFlat, kList,  // inputs
  kPlaces,                                                     // inputs and an attribute
  kDim, kNewDim, kDims, kAlong, kAll, kInt, kInts, kSizes, kPair, kPads, kReal, kNumber, kFlag, kText, kDtype, kLeft,
};

// Its objects stay for ever, as functions do.
struct Parameter {
  Kind kind;
  char rank, how;      // of kTensor: '2' and '\0', '+' or '~', or zeros
  PyObject* name;
  PyObject* missing;   // the default; null where it must be given
  PyObject* meaning;   // what the default means to the record; null: itself. Of kLeft null: nothing is said of it
  PyObject* choices;   // of kText; null: any
};

// Fills all but name, missing and meaning from the word of ops/calls.py. False with an error set.
bool describe(const char* word, Parameter& p);
inline bool is_attribute(const Parameter& p) {
  return p.kind >= Kind::kPlaces && (p.kind != Kind::kLeft || p.meaning);
}

// The call of the record, parameter by parameter.
class Call {
 public:
  // `alike`: all tensors must be of one floating dtype.
  explicit Call(bool alike) : alike_(alike) {}
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;
  ~Call();

  // `given` may be the default. False where Python must look; there may be an error set.
  bool read(const Parameter& p, PyObject* given);
  // After the last one: the inputs that come last, the attributes and the `fixed` ones behind them. False as above.
  bool complete(PyObject* fixed);

  PyObject* all[2 * kMost];
  Py_ssize_t inputs = 0, count = 0;  // of all; count once it is complete

 private:
  bool input(PyObject* x);
  bool fits(const Parameter& p) const;
  bool flat(PyObject* x);
  bool list(PyObject* given);
  bool places(PyObject* given);
  bool attribute(Ref value);
  Ref heard(const Parameter& p, PyObject* given) const;

  PyObject* attributes_[kMost];  // owned
  Py_ssize_t said_ = 0;
  PyArrayObject *first_ = nullptr, *latest_ = nullptr;  // the array of the first input, and of the latest
  PyObject* places_ = nullptr;                          // tensors that are the last inputs
  Ref flat_;
  const bool alike_;
};

}  // namespace tape
