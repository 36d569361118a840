// Winograd's F(2x2, 3x3): the tiles of a map, the transforms, and the product that both kernels share.
//
// A tile is 2x2 outputs, from 4x4 inputs d and a 3x3 filter g: y = A'[(G g G') * (B' d B)]A with 16 products where the
// sum has 36. Summed over channels the 16 products are 16 products of matrices. Channels lie along the vector
// everywhere, so maps of any size fill it; images are turned from planes to that order a few rows at a time, in L1.
#pragma once

#include <algorithm>

#include "../core/lanes.h"
#include "conv_lanes.h"
#include "conv_slab.h"

namespace tg {

constexpr int kProducts = 16;
constexpr Index kFewTiles = 32, kManyTiles = 96;  // of a block: enough to reuse weights, few enough for L2

// Some rows of tiles (of all images, one below the other) and a range of columns.
struct TileBlock {
  Index row, rows, col, cols;
  Index tiles() const { return rows * cols; }
};

class TileGrid {
 public:
  TileGrid(Index images, Index height, Index width)
      : images_(images), tile_rows(divide_up(height, 2)), tile_cols(divide_up(width, 2)) {
    parts_ = divide_up(tile_cols, kManyTiles);
    // as many rows as leave the smallest rest of a register tile
    const Index cols = divide_up(tile_cols, parts_);
    double least = 2;
    for (Index rows = 1; rows == 1 || rows * cols <= kManyTiles; ++rows) {
      if (rows * cols < kFewTiles && rows < images * tile_rows) continue;
      const double waste = double(round_up(rows * cols, kTileRows)) / double(rows * cols);
      if (waste < least - 0.01) least = waste, rows_ = rows;
      if (rows >= images * tile_rows) break;
    }
    most_tiles = rows_ * cols;
    most_box = (2 * rows_ + 2) * (2 * cols + 2);
  }

  Index blocks() const { return divide_up(images_ * tile_rows, rows_) * parts_; }

  TileBlock block(Index i) const {
    const Index part = i % parts_, row = i / parts_ * rows_;
    const Index first = tile_cols * part / parts_, last = tile_cols * (part + 1) / parts_;
    return {row, std::min(rows_, images_ * tile_rows - row), first, last - first};
  }

  // f(image, first row of tiles, rows of tiles, first tile of the block) for each image that a block meets.
  template <class F>
  void for_each_image(const TileBlock& block, F f) const {
    for (Index row = block.row; row < block.row + block.rows;) {
      const Index y = row % tile_rows, rows = std::min(block.row + block.rows - row, tile_rows - y);
      f(row / tile_rows, y, rows, (row - block.row) * block.cols);
      row += rows;
    }
  }

 private:
  Index images_, parts_ = 1, rows_ = 1;

 public:
  Index tile_rows, tile_cols, most_tiles = 0, most_box = 0;  // of a block: tiles, pixels they read
};

// B' d B of a row of tiles: `from` is a box of four rows `width` pixels long; product p of tile t goes to
// to[p * product + t * tile].
template <class T>
void transform_source(const T* from, Index width, Index tiles, T* to, Index product, Index tile) {
  constexpr int L = Lanes<T>::count;
  Vec<T> c[4][4];  // [column][row of B' d]
  auto column = [&](Vec<T>* v, Index x) {
    const Vec<T> d0 = load(from + x * L), d1 = load(from + (width + x) * L), d2 = load(from + (2 * width + x) * L),
                 d3 = load(from + (3 * width + x) * L);
    v[0] = d0 - d2;
    v[1] = d1 + d2;
    v[2] = d2 - d1;
    v[3] = d1 - d3;
  };
  column(c[0], 0);
  column(c[1], 1);
  for (Index t = 0; t < tiles; ++t, to += tile) {
    column(c[2], 2 * t + 2);
    column(c[3], 2 * t + 3);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      store(to + (4 * i) * product, c[0][i] - c[2][i]);
      store(to + (4 * i + 1) * product, c[1][i] + c[2][i]);
      store(to + (4 * i + 2) * product, c[2][i] - c[1][i]);
      store(to + (4 * i + 3) * product, c[1][i] - c[3][i]);
      c[0][i] = c[2][i];
      c[1][i] = c[3][i];
    }
  }
}

// Transformed inputs of a block of tiles: to[p * product + tile * row + channel], for all channels rounded up to
// vectors. `before` zeros lie in front of the map.
template <class T, class Stored>
void transform_block(const TileGrid& grid, const TileBlock& block, const Stored* source, const Stored* end, Index image_stride,
                     Index height, Index width, Index before_y, Index before_x, Index channels, T* box, T* to,
                     Index product, Index row) {
  constexpr Index L = Lanes<T>::count;
  const Index cols = 2 * block.cols + 2;
  for (Index c = 0; c < channels; c += L)
    grid.for_each_image(block, [&](Index image, Index y, Index rows, Index tile) {
      const Plane<Stored> planes{source + image * image_stride + c * height * width, end, height, width, height * width};
      gather_box(planes, std::min(L, channels - c), 2 * y - before_y, 2 * rows + 2, 2 * block.col - before_x, cols, box);
      for (Index r = 0; r < rows; ++r)
        transform_source(box + 2 * r * cols * L, cols, block.cols, to + (tile + r * block.cols) * row + c, product, row);
    });
}

// c[j][:] (+)= sum over k of x(j, k) * b[k][:], for kTileRows rows j at a time, V vectors wide; x(j, k) is x[k * stride + j]
// where the rows are `Adjacent`, else x[j * stride + k]. Sums of `run` terms are finished before they meet what c holds: a
// long sum is a sum of short ones, and rounds less.
template <class T, int V, bool Adjacent>
void product_rows(const T* x, Index stride, Index rows, const T* b, Index k, Index run, T* c, bool add) {
  constexpr int L = Lanes<T>::count;
  for (Index j0 = 0; j0 < rows; j0 += kTileRows, x += kTileRows * (Adjacent ? 1 : stride), c += kTileRows * V * L) {
    const T *base[kTileRows], *bk = b;
    for (int j = 0; j < kTileRows; ++j) base[j] = x + j * stride;
    for (Index first = 0; first < k; first += run) {
      Vec<T> sum[kTileRows][V] = {};
      auto term = [&](Index i) {
        Vec<T> bv[V];
        for (int v = 0; v < V; ++v) bv[v] = load(bk + v * L);
#pragma GCC unroll 8
        for (int j = 0; j < kTileRows; ++j) {
          // minus zero: a broadcast the compiler sees through
          const Vec<T> xj = (Adjacent ? x[i * stride + j] : base[j][i]) - Vec<T>{};
#pragma GCC unroll 2
          for (int v = 0; v < V; ++v) sum[j][v] += xj * bv[v];
        }
        bk += V * L;
      };
      Index i = first;
      const Index last = std::min(k, first + run);
      // the end of a short loop is foreseen: pieces of 32 terms cost no more than one of 128 did (long ones lose 5 %)
      if constexpr (!Adjacent)
        for (; i + 4 <= last; i += 4) term(i), term(i + 1), term(i + 2), term(i + 3);
      for (; i < last; ++i) term(i);
      const bool keep = add || first > 0;
      for (int j = 0; j < kTileRows; ++j)
        for (int v = 0; v < V; ++v) {
          T* to = c + (j * V + v) * L;
          store(to, keep ? load(to) + sum[j][v] : sum[j][v]);
        }
    }
  }
}

}  // namespace tg
