// Discrete Fourier transforms along one axis of arrays of any strides.
#pragma once

#include <memory>

#include "../core/dtype.h"

namespace tg {

// What transforms of one length need to know: roots of unity and factors. Kept for the lengths used last.
template <class T>
struct FftPlan;

enum class Transform { complex, half, real };  // complex to complex, real to the half of its transform, and back

template <class T>
struct Fft {
  Transform kind;
  bool inverse;     // of `complex`; `half` never is, `real` always
  Index n;          // values of a line: of both sides, or of the real one
  Index given;      // values of a line that are there to be read; `real` takes zeros for the rest
  double factor;
  int ndim;         // the axes other than the transformed one
  Index shape[kMaxDims], from_strides[kMaxDims], to_strides[kMaxDims];  // in bytes
  Index from_step, to_step;  // from value to value of a line
  const char* from;
  char* to;                  // may be `from`, with the same strides
  std::shared_ptr<const FftPlan<T>> plan;

  void prepare();  // finds the plan: takes a lock, and time for a new length
  void run() const;
};

}  // namespace tg
