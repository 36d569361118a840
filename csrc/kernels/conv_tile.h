// The one inner loop of convolution, forward and both gradients:
//
//   c[j][:] (+)= sum_k x[row[j] + col[k]] * b[k][:]
//
// The address of an im2col entry is a sum, base(position) + offset(channel, tap). So the patch matrix need not exist:
// forward takes positions as rows and (channel, tap) as k, the weight gradient takes them the other way round.
// Output channels lie along the vector, `width` of them (one vector or two) in every row of b and c.
//
// Ladder, one Zen 4 core, 64 channels, 32x32, 3x3: this loop 108 GFLOP/s with two vectors a row of c, 117 with one;
// ten rows instead of eight, 94.
#pragma once

#include <algorithm>

#include "../core/transpose.h"
#include "conv_tail.h"
#include "gemm_tile.h"

namespace tg {

using lanes::Lanes;
using lanes::load;
using lanes::store;
using lanes::Vec;

// Rows of one register tile; `row` and `c` are padded to a multiple.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kTileRows = 8;
#else
constexpr int kTileRows = 6;  // 12 sums, 2 of b, 1 of x: of 16 registers
#endif

template <class T, int V>
void tile_width(const T* x, const std::int32_t* row, Index row_count, const std::int32_t* col, Index k, const T* b,
                T* c, bool add) {
  constexpr int L = Lanes<T>::count;
  for (Index j0 = 0; j0 < row_count; j0 += kTileRows, c += kTileRows * V * L) {
    const T* base[kTileRows];
    Vec<T> sum[kTileRows][V];
    for (int j = 0; j < kTileRows; ++j) {
      base[j] = x + row[j0 + j];
      for (int v = 0; v < V; ++v) sum[j][v] = Vec<T>{};
    }
    const T* bk = b;
    for (Index i = 0; i < k; ++i, bk += V * L) {
      const Index offset = col[i];
      Vec<T> bv[V];
      for (int v = 0; v < V; ++v) bv[v] = load(bk + v * L);
#pragma GCC unroll 8
      for (int j = 0; j < kTileRows; ++j) {
        const Vec<T> xj = base[j][offset] - Vec<T>{};  // minus zero: a broadcast the compiler sees through
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v) sum[j][v] += xj * bv[v];
      }
    }
    // what c holds is added last: begun with, it would make one long sum of all calls, which rounds more
    for (int j = 0; j < kTileRows; ++j)
      for (int v = 0; v < V; ++v) {
        T* to = c + (j * V + v) * L;
        store(to, add ? load(to) + sum[j][v] : sum[j][v]);
      }
  }
}

// `row_count` is a multiple of kTileRows. `add` keeps what c holds, otherwise it starts at zero.
template <class T>
void tile_run(const T* x, const std::int32_t* row, Index row_count, const std::int32_t* col, Index k, const T* b, T* c,
         Index width, bool add) {
  if (width == Lanes<T>::count) tile_width<T, 1>(x, row, row_count, col, k, b, c, add);
  else tile_width<T, 2>(x, row, row_count, col, k, b, c, add);
}

// Rows of n elements, fewer than a vector's.
template <class T>
[[gnu::noinline]] void copy_rows(const T* from, Index from_step, Index rows, Index n, T* to, Index to_step) {
  for (Index j = 0; j < rows; ++j) {
    asm("" : "+r"(n));  // or the compiler makes a loop of its own for each set of pieces
    tile::copy_few<Lanes<T>::count / 2>(from + j * from_step, n, to + j * to_step);
  }
}

// dst[channel * dst_stride + i] = src[i * width + channel], and the tail, for i < count, channel < channels. Two vectors
// of one channel are written one after the other: where channels are a power of two apart and share a few sets of L1,
// half a line would come back to be filled (forward, 64 channels, 3x3, 32x32 and 56x56: 1.1 to 1.2 times as fast). What is
// left of a vector turns like a whole one, for short sequences are little else (forward, 64-128 and 128-128 3 @12, 128 of them:
// 1.5 and 1.35 times as fast with sixteen lanes, 1.0 to 1.1 with eight).
template <class T>
void tile_unpack(const T* src, Index width, Index count, Index channels, const Tail<T>& tail, T* dst, Index dst_stride) {
  constexpr int L = Lanes<T>::count;
  const T* bias = tail.shift;
  const bool plain = tail.plain();
  auto turn = [&](Index i, Index c0) {
    const Index valid = channels - c0 < L ? channels - c0 : L, n = count - i < L ? count - i : L;
    Vec<T> r[L];
    if (n == L) {
#pragma GCC unroll 16
      for (int j = 0; j < L; ++j) r[j] = load(src + (i + j) * width + c0);
    } else {
#pragma GCC unroll 16
      for (int j = 0; j < L; ++j) r[j] = j < n ? load(src + (i + j) * width + c0) : Vec<T>{};
    }
    lanes::transpose<T>(r);
    T edge[L * L];  // what is left of a vector ends here, and begins here what is added to it
    const T* other = tail.other ? tail.other + c0 * dst_stride + i : nullptr;
    T* to = dst + c0 * dst_stride + i;
    Index other_step = dst_stride, step = dst_stride;
    if (n < L) {
      to = edge, step = L;
      if (other) {
        std::fill_n(edge, L * L, T(0));
        copy_rows(other, dst_stride, valid, n, edge, L);
        other = edge, other_step = L;
      }
    }
#pragma GCC unroll 16
    for (int j = 0; j < L; ++j)
      if (j < valid) {
        if (tail.scale) r[j] *= tail.scale[c0 + j];
        if (bias) r[j] += bias[c0 + j];
        if (!plain) {
          if (other) r[j] += load(other + j * other_step);
          r[j] = tail.clamped(r[j]);
        }
        store(to + j * step, r[j]);
      }
    if (n < L) copy_rows<T>(edge, L, valid, n, dst + c0 * dst_stride + i, dst_stride);
  };
  for (Index i = 0; i < count; i += 2 * L)
    for (Index c0 = 0; c0 < channels; c0 += L)
      for (Index k = i; k < count && k < i + 2 * L; k += L) turn(k, c0);
  if (tail.finished)
    for (Index c = 0; c < channels; ++c) tail.tell(dst + c * dst_stride, count);
}

// dst[i * width + channel] = src[channel * src_stride + i], zero from `channels` to `width`. The last vectors overlap those
// before; only where there are none, elements are read in pieces.
template <class T>
void tile_pack(const T* src, Index src_stride, Index count, Index channels, T* dst, Index width) {
  constexpr int L = Lanes<T>::count;
  for (Index start = 0; start < count; start += L) {
    const Index n = count < L ? count : L, i = start + n > count ? count - n : start;
    for (Index c0 = 0; c0 < width; c0 += L) {
      const Index valid = channels - c0 < L ? channels - c0 : L;
      const T* from = src + c0 * src_stride + i;
      Index step = src_stride;
      T edge[L * L];
      if (n < L) {
        std::fill_n(edge, L * L, T(0));
        copy_rows(from, step, valid, n, edge, L);
        from = edge, step = L;
      }
      Vec<T> r[L];
#pragma GCC unroll 16
      for (int j = 0; j < L; ++j) r[j] = j < valid ? load(from + j * step) : Vec<T>{};
      lanes::transpose<T>(r);
#pragma GCC unroll 16
      for (int j = 0; j < L; ++j)
        if (j < n) store(dst + (i + j) * width + c0, r[j]);
    }
  }
}

}  // namespace tg
