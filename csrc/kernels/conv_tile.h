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

#include <utility>

#include "../core/lanes.h"
#include "conv_tail.h"

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

// Exchanges the off-diagonal blocks of side H in a square of vectors.
template <class T, int H, std::size_t... I>
inline void exchange(Vec<T>& a, Vec<T>& b, std::index_sequence<I...>) {
  constexpr int L = Lanes<T>::count;
#if defined(__has_builtin) && __has_builtin(__builtin_shufflevector)
  Vec<T> low = __builtin_shufflevector(a, b, ((int(I) & H) == 0 ? int(I) : L + int(I) - H)...);
  Vec<T> high = __builtin_shufflevector(a, b, ((int(I) & H) == 0 ? int(I) + H : L + int(I))...);
#else
  Vec<T> low = {((int(I) & H) == 0 ? a[I] : b[(I - H) & (L - 1)])...};
  Vec<T> high = {((int(I) & H) == 0 ? a[(I + H) & (L - 1)] : b[I])...};
#endif
  a = low;
  b = high;
}

template <class T, int H>
inline void transpose_from(Vec<T>* r) {
  constexpr int L = Lanes<T>::count;
#pragma GCC unroll 16
  for (int i = 0; i < L; ++i)
    if ((i & H) == 0) exchange<T, H>(r[i], r[i + H], std::make_index_sequence<L>{});
  if constexpr (H > 1) transpose_from<T, H / 2>(r);
}

// dst[channel * dst_stride + i] = src[i * width + channel], and the tail, for i < count, channel < channels. Two vectors
// of one channel are written one after the other: where channels are a power of two apart and share a few sets of L1,
// half a line would come back to be filled (forward, 64 channels, 3x3, 32x32 and 56x56: 1.1 to 1.2 times as fast).
template <class T>
void tile_unpack(const T* src, Index width, Index count, Index channels, const Tail<T>& tail, T* dst, Index dst_stride) {
  constexpr int L = Lanes<T>::count;
  const T* bias = tail.shift;
  const bool plain = tail.plain();
  auto turn = [&](Index i, Index c0) {
    Vec<T> r[L];
#pragma GCC unroll 16
    for (int j = 0; j < L; ++j) r[j] = load(src + (i + j) * width + c0);
    transpose_from<T, L / 2>(r);
    const Index valid = channels - c0 < L ? channels - c0 : L;
    T* to = dst + c0 * dst_stride + i;
#pragma GCC unroll 16
    for (int j = 0; j < L; ++j)
      if (j < valid) {
        if (tail.scale) r[j] *= tail.scale[c0 + j];
        if (bias) r[j] += bias[c0 + j];
        if (!plain) {
          if (tail.other) r[j] += load(tail.other + (c0 + j) * dst_stride + i);
          r[j] = tail.clamped(r[j]);
        }
        store(to + j * dst_stride, r[j]);
      }
  };
  Index i = 0;
  for (; i + 2 * L <= count; i += 2 * L)
    for (Index c0 = 0; c0 < channels; c0 += L) turn(i, c0), turn(i + L, c0);
  for (; i + L <= count; i += L)
    for (Index c0 = 0; c0 < channels; c0 += L) turn(i, c0);
  for (Index c = 0; c < channels; ++c)
    for (Index k = i; k < count; ++k) {
      T v = src[k * width + c];
      if (tail.scale) v *= tail.scale[c];
      v += bias ? bias[c] : T(0);
      if (tail.other) v += tail.other[c * dst_stride + k];
      dst[c * dst_stride + k] = tail.clamped(v);
    }
  if (tail.finished)
    for (Index c = 0; c < channels; ++c) tail.tell(dst + c * dst_stride, count);
}

// dst[i * width + channel] = src[channel * src_stride + i], zero from `channels` to `width`
template <class T>
void tile_pack(const T* src, Index src_stride, Index count, Index channels, T* dst, Index width) {
  constexpr int L = Lanes<T>::count;
  Index i = 0;
  for (; i + L <= count; i += L)
    for (Index c0 = 0; c0 < width; c0 += L) {
      Vec<T> r[L];
#pragma GCC unroll 16
      for (int j = 0; j < L; ++j) r[j] = c0 + j < channels ? load(src + (c0 + j) * src_stride + i) : Vec<T>{};
      transpose_from<T, L / 2>(r);
#pragma GCC unroll 16
      for (int j = 0; j < L; ++j) store(dst + (i + j) * width + c0, r[j]);
    }
  for (Index k = i; k < count; ++k)
    for (Index c = 0; c < width; ++c) dst[k * width + c] = c < channels ? src[c * src_stride + k] : T(0);
}

}  // namespace tg
