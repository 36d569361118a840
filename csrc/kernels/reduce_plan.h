// The axes of a reduction, sorted and joined: which are kept, which are folded, and which of them is innermost.
#pragma once

#include <cstdlib>

#include "../core/dtype.h"

namespace tg {

struct ReducePlan {
  int kn = 0, rn = 0;  // kept and reduced axes left after joining
  Index kshape[kMaxDims], kstride[kMaxDims];  // kept, in the order of the output
  Index rshape[kMaxDims], rstride[kMaxDims];  // reduced, the closest together last
  Index outputs = 1, reduced = 1;
  bool columns = false;  // the innermost axis in memory is a kept one

  // `reduce[k]` says whether axis k is folded; strides are in bytes.
  ReducePlan(int ndim, const Index* shape, const Index* strides, const bool* reduce) {
    for (int k = 0; k < ndim; ++k) {
      if (reduce[k]) {
        reduced *= shape[k];
        if (shape[k] != 1) push(rn, rshape, rstride, shape[k], strides[k]);
      } else {
        outputs *= shape[k];
        if (shape[k] != 1) push(kn, kshape, kstride, shape[k], strides[k]);
      }
    }
    sort_reduced();
    if (kn) {
      const Index kept = std::llabs(kstride[kn - 1]);
      columns = rn == 0 || kept < std::llabs(rstride[rn - 1]);
      // Many runs of a few values: one strided row per value is read faster than a run per output (two Zen 4 cores, us,
      // (500, 8, 30, 3) with the middle axes exchanged 780 and 145, (32, 24, 7, 3) 33 and 9).
      if (!columns && rn == 1 && rshape[0] <= 8 && kshape[kn - 1] >= 4) columns = true;
      // Tiles this narrow pay only where the rows follow each other, and can be taken side by side.
      const bool follow = rn == 1 && rstride[0] == kshape[kn - 1] * kstride[kn - 1];
      if (columns && rn && kshape[kn - 1] < 4 && rshape[rn - 1] >= 64 && !follow) columns = false;
    }
  }

 private:
  // Joins an axis with the one before it where both together are one stride.
  static void push(int& n, Index* shapes, Index* strides, Index shape, Index stride) {
    if (n && strides[n - 1] == shape * stride) {
      shapes[n - 1] *= shape;
      strides[n - 1] = stride;
      return;
    }
    shapes[n] = shape;
    strides[n++] = stride;
  }

  // Reduced axes may be taken in any order: largest stride first, so the walk runs forward through memory.
  void sort_reduced() {
    for (int i = 1; i < rn; ++i)
      for (int j = i; j > 0 && std::llabs(rstride[j - 1]) < std::llabs(rstride[j]); --j) {
        std::swap(rstride[j - 1], rstride[j]);
        std::swap(rshape[j - 1], rshape[j]);
      }
    int n = 0;
    for (int i = 0; i < rn; ++i) push(n, rshape, rstride, rshape[i], rstride[i]);
    rn = n;
  }
};

}  // namespace tg
