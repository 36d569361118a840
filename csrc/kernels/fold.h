// Windows over planes as columns, columns added up where they lie, and padding's gradient.
#pragma once

#include "../core/dtype.h"

namespace tg {

// Planes of height x width under kernel[0] * kernel[1] taps at rows x columns places.
struct Patches {
  Index planes, height, width, rows, columns;
  Index kernel[2], stride[2], padding[2], dilation[2];
};

// x (planes, height, width) -> y (planes, kernel[0], kernel[1], rows, columns), contiguous; zero outside.
void unfold_planes(Index itemsize, const Patches& w, const char* x, char* y);

// The adjoint: what lies on one place is added in the order of the taps. Types as in index.h's combine_slabs.
template <class T>
void fold_planes(const Patches& w, const T* x, T* y);

enum class Edge { reflect, replicate, circular };

// One dimension of what was padded: in place, the `before` lines ahead of `size` and the `after` behind are added to those
// their values came from. x (outer, before + size + after, inner).
template <class T>
void fold_edges(Edge edge, Index outer, Index before, Index size, Index after, Index inner, T* x);

}  // namespace tg
