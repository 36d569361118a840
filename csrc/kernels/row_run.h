// A kernel that goes over rows and sums over them on its way, in parts: what eager calls do at once, with the same bits.
#pragma once

#include "../core/dtype.h"

namespace tg {

struct RowRun {
  virtual ~RowRun() = default;
  // Rows from number `first` to before `last`. Which of them have to come in order, and from one thread, is the kernel's to
  // say.
  virtual void rows(Index first, Index last) = 0;
  virtual void end() = 0;  // after all rows: the sums are stored
};

}  // namespace tg
