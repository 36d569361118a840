// Connectionist temporal classification (Graves, Fernandez, Gomez, Schmidhuber 2006): what ops/ctc.py defines.
#pragma once

#include "../core/dtype.h"

namespace tg {

struct CtcShape {
  Index steps, n, classes, states;
  const int64_t *labels, *lengths, *last;  // (n, states), (n), (n)
  const uint8_t* skips;                    // (n, states): the state may be entered from two before it
};

// loss (n) of x (steps, n, classes).
template <class T>
void ctc(const CtcShape& s, const T* x, T* loss);
template <class T>
void ctc_backward(const CtcShape& s, const T* g, const T* x, T* dx);

}  // namespace tg
