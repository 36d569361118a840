// The product of a few rows with weights that stay packed for the whole sequence.
//
// Weights are packed in panels: for each block of `kPanel` columns (two vectors), their values k by k. A register tile is
// up to kTileRows rows by one panel; with less than four rows one panel leaves registers idle and the chain of
// multiply-adds waits for itself, so several panels are swept at once. The sum over k has the same order in every form,
// so the bits of a row do not depend on the rows beside it.
#pragma once

#include <algorithm>

#include "conv_tile.h"
#include "gemm_tasks.h"

namespace tg {

template <class T>
constexpr int kPanel = 2 * Lanes<T>::count;
constexpr int kBlockRows = 16;  // rows of one call: their slice of k stays in L1 beside the panel's
constexpr Index kSweep = 256;   // k of one sweep: a panel's slice of 16 KB, half of the smallest L1

// sums[p][r][:] = [sums +] sum over k of rows[r][k] panel_p[k][:]; sums of neighbouring panels lie kBlockRows rows apart.
template <class T, int R, int P>
inline void tile_of(const T* const* rows, Index k0, Index k, const T* panel, Index panel_step, T* sums, bool add) {
  constexpr int L = Lanes<T>::count;
  const T* x[R];
  Vec<T> sum[P][R][2];
  for (int r = 0; r < R; ++r) x[r] = rows[r] + k0;
  for (int p = 0; p < P; ++p)
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < 2; ++v)
        sum[p][r][v] = add ? load(sums + (p * kBlockRows + r) * kPanel<T> + v * L) : Vec<T>{};
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<T, float> && R == kTileRows && P == 1) {
    if (tile::embedded::kPays) {
      tile::embedded::add_rows<R>(sum[0], k, x, panel, kPanel<T>);
      k = 0;
    }
  }
#endif
  for (Index i = 0; i < k; ++i) {
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      const T* b = panel + p * panel_step + i * kPanel<T>;
      const Vec<T> b0 = load(b), b1 = load(b + L);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const Vec<T> xr = x[r][i] - Vec<T>{};
        sum[p][r][0] += xr * b0;
        sum[p][r][1] += xr * b1;
      }
    }
  }
  for (int p = 0; p < P; ++p)
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < 2; ++v) store(sums + (p * kBlockRows + r) * kPanel<T> + v * L, sum[p][r][v]);
}

template <class T, int R>
inline void tile_rows(int rows, const T* const* x, Index k0, Index k, const T* panel, T* sums, bool add) {
  if constexpr (R > 0) {
    if (rows == R) tile_of<T, R, 1>(x, k0, k, panel, 0, sums, add);
    else tile_rows<T, R - 1>(rows, x, k0, k, panel, sums, add);
  }
}

template <class T, int R, int P>
inline int tile_few(const T* const* x, Index k0, Index k, const T* panels, Index panel_step, int count, T* sums,
                    bool add) {
  int p = 0;
  for (; p + P <= count; p += P)
    tile_of<T, R, P>(x, k0, k, panels + p * panel_step + k0 * kPanel<T>, panel_step, sums + p * kBlockRows * kPanel<T>,
                    add);
  return p;
}

// What a cell will read and write, in rows of `width` elements: brought into L2 a row at a time between tiles.
template <class T>
struct RowsAhead {
  struct Part {
    const T* at;
    Index step;
  };
  Part parts[4 + 4 + 2];  // gates of two kinds, and two more
  int count = 0, rows = 0, done = 0;
  Index width = 0;

  void add(const T* at, Index step) { parts[count++] = {at, step}; }
  void fetch(int tiles_left) {
    for (int until = done + static_cast<int>(divide_up(rows - done, std::max(1, tiles_left))); done < until; ++done)
      for (int i = 0; i < count; ++i) {
        const T* from = parts[i].at + done * parts[i].step;
        for (Index j = 0; j < width; j += 64 / Index(sizeof(T))) __builtin_prefetch(from + j, 0, 2);
      }
  }
};

// n <= kBlockRows rows of length k by `count` <= 4 neighbouring panels, added to what sums hold if `more`. `ahead` is fetched
// meanwhile.
template <class T>
void rows_by_panels(const T* const* rows, int n, Index k, const T* panels, int count, T* sums, bool more = false,
                    RowsAhead<T>* ahead = nullptr) {
  const Index panel_step = k * kPanel<T>;
  const int tiles = static_cast<int>(divide_up(n, kTileRows));
  int left = static_cast<int>(divide_up(k, kSweep)) * count * tiles;
  for (Index k0 = 0; k0 < k; k0 += kSweep) {
    const Index length = std::min(kSweep, k - k0);
    const bool add = more || k0 > 0;
    int p = 0;
    if (n == 1) p = tile_few<T, 1, 4>(rows, k0, length, panels, panel_step, count, sums, add);
    if (n == 2) p = tile_few<T, 2, 2>(rows, k0, length, panels, panel_step, count, sums, add);
    if (n == 3) p = tile_few<T, 3, 2>(rows, k0, length, panels, panel_step, count, sums, add);
    for (; p < count; ++p) {
      T* to = sums + p * kBlockRows * kPanel<T>;
      const T* panel = panels + p * panel_step + k0 * kPanel<T>;
      for (int tile = 0; tile < tiles; ++tile) {  // of nearly the same height: a low tile wastes registers
        const int r0 = n * tile / tiles, r1 = n * (tile + 1) / tiles;
        if (ahead) ahead->fetch(left--);
        tile_rows<T, kTileRows>(r1 - r0, rows + r0, k0, length, panel, to + r0 * kPanel<T>, add);
      }
    }
  }
}

// Columns j of w (columns, k), which are its rows: panel[k][j], zero beyond the last.
template <class T>
void pack_transposed(const T* w, Index columns, Index k, T* panel) {
  tile_pack(w, k, k, std::min<Index>(columns, kPanel<T>), panel, kPanel<T>);
}

// Columns of w (k, stride).
template <class T>
void pack_straight(const T* w, Index stride, Index columns, Index k, T* panel) {
  const Index valid = std::min<Index>(columns, kPanel<T>);
  for (Index i = 0; i < k; ++i, w += stride, panel += kPanel<T>) {
    std::copy_n(w, valid, panel);
    std::fill_n(panel + valid, kPanel<T> - valid, T(0));
  }
}

}  // namespace tg
