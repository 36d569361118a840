// Reading images at the places of a grid: bilinear or nearest, of (n, c, height, width).
#pragma once

#include "../core/dtype.h"

namespace tg {

enum class Beyond { zeros, border, reflection };

struct GridShape {
  Index n, c, height, width, count;  // count: places of each image
  bool nearest, align_corners;
  Beyond beyond;
};

// y (n, c, count) from x (n, c, height, width) at grid (n, count, 2) of (x, y).
template <class T>
void grid_sample(const GridShape& s, const T* x, const T* grid, T* y);

// The gradients in x and grid; either may be null.
template <class T>
void grid_sample_backward(const GridShape& s, const T* g, const T* x, const T* grid, T* dx, T* dgrid);

}  // namespace tg
