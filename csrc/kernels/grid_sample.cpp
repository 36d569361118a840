// y[c, p] = sum over the corners k of place p of weight[k, p] x[c, index[k, p]].
//
// Corners are found once for a batch of places, then read for all channels: they stay in L1 (forward, and the gradient
// in the grid) or in memory for all places of the batch (the gradient in x, whose planes are a task each, so that no two
// threads add to one element and every one takes its additions in the order of the places).
#include "grid_sample.h"

#include <algorithm>
#include <cmath>

#include "../core/allocator.h"
#include "../core/lanes.h"
#include "../core/parallel.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace tg {
namespace {

constexpr Index kPlaces = 256;

// Up to four corners of kPlaces places; an index below zero lies outside and reads zero. `slope`: of the coordinate in
// pixels with respect to the grid's number.
template <class T>
struct Corners {
  int32_t index[4][kPlaces];
  T weight[4][kPlaces];
  T part[2][kPlaces], slope[2][kPlaces];  // of y, x
};

template <class T>
struct Axis {
  T size;
  bool align;
  Beyond beyond;

  // The coordinate in pixels, and how it changes with the grid's number.
  T at(T place, T& slope) const {
    // aligned (place + 1) (size - 1) / 2, otherwise ((place + 1) size - 1) / 2: with the same steps, so without a jump
    const T unit = align ? T((double(size) - 1) / 2) : size, less = align ? T(0) : T(1), part = align ? T(1) : T(0.5);
    T p = ((place + T(1)) * unit - less) * part;
    slope = unit * part;
    if (beyond == Beyond::zeros) return p;
    if (beyond == Beyond::reflection) p = reflected(p, slope);
    // no gradient at the limits or beyond
    const T last = size - T(1), raised = p > T(0) ? p : T(0);
    if (!(p > T(0)) || !(raised < last)) slope = T(0);
    return raised < last ? raised : last;
  }

  T reflected(T p, T& slope) const {
    const T low = align ? T(0) : T(-0.5), span = align ? size - T(1) : size;
    if (span == T(0)) {
      slope = T(0);
      return p * T(0);
    }
    T away = p - low;
    if (away < T(0)) {
      away = -away;
      slope = -slope;
    }
    const T extra = std::fmod(away, span);
    if (std::fmod(std::floor(away / span), T(2)) > T(0.5)) {
      slope = -slope;
      return span - extra + low;
    }
    return extra + low;
  }
};

// The place of a corner, -1 outside, and so for NaN. Without jumps, as all of the loop that asks, which is done by vectors.
template <class T>
inline int32_t inside(T y, T x, T bottom, T right, int32_t width) {
  const bool in = (y >= T(0)) & (y <= bottom) & (x >= T(0)) & (x <= right);
  const int32_t at = int32_t(in ? y : T(0)) * width + int32_t(in ? x : T(0));
  return in ? at : -1;
}

// All of kPlaces, zeros behind the n that are given: loops of so many vectors, and no more code.
template <class T>
[[gnu::noinline]] void find(const GridShape& s, const T* grid, Index n, Corners<T>& k) {
  const T bottom = T(s.height - 1), right = T(s.width - 1);
  const int32_t width = int32_t(s.width);
  T place[2 * kPlaces], (&y)[kPlaces] = k.part[0], (&x)[kPlaces] = k.part[1];
  std::fill(std::copy_n(grid, 2 * n, place), place + 2 * kPlaces, T(0));
  const auto pixels = [&](bool align, Beyond beyond) {
    const Axis<T> rows{T(s.height), align, beyond}, columns{T(s.width), align, beyond};
    for (Index p = 0; p < kPlaces; ++p) {
      x[p] = columns.at(place[2 * p], k.slope[1][p]);
      y[p] = rows.at(place[2 * p + 1], k.slope[0][p]);
    }
  };
  // told apart here, so that these loops have no jumps either
  if (s.beyond == Beyond::zeros) pixels(s.align_corners, Beyond::zeros);
  else if (s.beyond == Beyond::border) pixels(s.align_corners, Beyond::border);
  else pixels(s.align_corners, Beyond::reflection);
  if (s.nearest) {
    for (Index p = 0; p < kPlaces; ++p)
      k.index[0][p] = inside(std::nearbyint(y[p]), std::nearbyint(x[p]), bottom, right, width);
    return;
  }
  for (Index p = 0; p < kPlaces; ++p) {
    const T y0 = std::floor(y[p]), x0 = std::floor(x[p]), b = y[p] - y0, a = x[p] - x0;
    y[p] = b;
    x[p] = a;
    k.index[0][p] = inside(y0, x0, bottom, right, width);
    k.index[1][p] = inside(y0, x0 + T(1), bottom, right, width);
    k.index[2][p] = inside(y0 + T(1), x0, bottom, right, width);
    k.index[3][p] = inside(y0 + T(1), x0 + T(1), bottom, right, width);
    k.weight[0][p] = (T(1) - b) * (T(1) - a);
    k.weight[1][p] = (T(1) - b) * a;
    k.weight[2][p] = b * (T(1) - a);
    k.weight[3][p] = b * a;
  }
}

template <class T>
inline T read(const T* plane, int32_t index) {
  const T v = plane[std::max(index, 0)];
  return index < 0 ? T(0) : v;
}

using lanes::Lanes;
using lanes::load;
using lanes::Vec;

// So for a vector of corners. The compiler does not find these gathers, for the indices below zero. Forward, two Emerald Rapids
// cores, us, one by one and so: (4, 16, 64, 64) AVX-512 345 and 154, AVX2 419 and 230; (8, 1, 100, 100) 201 and 102, 204 and
// 127. AVX2 without gathers: 1 to 1.5 times as long as one by one.
template <class T>
inline Vec<T> read_lanes(const T* plane, const int32_t* index) {
  Vec<T> v;
  for (int l = 0; l < Lanes<T>::count; ++l) v[l] = read(plane, index[l]);
  return v;
}
#if defined(__AVX512F__)
template <>
inline Vec<float> read_lanes(const float* plane, const int32_t* index) {
  const __m512i at = _mm512_loadu_si512(index);
  const __mmask16 in = _mm512_cmpge_epi32_mask(at, _mm512_setzero_si512());
  return Vec<float>(_mm512_mask_i32gather_ps(_mm512_setzero_ps(), in, at, plane, sizeof(float)));
}
template <>
inline Vec<double> read_lanes(const double* plane, const int32_t* index) {
  const __m256i at = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(index));
  const __mmask8 in = _mm256_cmpge_epi32_mask(at, _mm256_setzero_si256());
  return Vec<double>(_mm512_mask_i32gather_pd(_mm512_setzero_pd(), in, at, plane, sizeof(double)));
}
#elif defined(__AVX2__)
template <>
inline Vec<float> read_lanes(const float* plane, const int32_t* index) {
  const __m256i at = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(index));
  const __m256 in = _mm256_castsi256_ps(_mm256_cmpgt_epi32(at, _mm256_set1_epi32(-1)));
  return Vec<float>(_mm256_mask_i32gather_ps(_mm256_setzero_ps(), plane, at, in, sizeof(float)));
}
template <>
inline Vec<double> read_lanes(const double* plane, const int32_t* index) {
  const __m128i at = _mm_loadu_si128(reinterpret_cast<const __m128i*>(index));
  const __m256d in = _mm256_castsi256_pd(_mm256_cvtepi32_epi64(_mm_cmpgt_epi32(at, _mm_set1_epi32(-1))));
  return Vec<double>(_mm256_mask_i32gather_pd(_mm256_setzero_pd(), plane, at, in, sizeof(double)));
}
#endif

// use(image, first place, places, corners) for all places in batches.
template <class T, class Use>
void over_places(const GridShape& s, const T* grid, Use use) {
  const Index batches = (s.count + kPlaces - 1) / kPlaces;
  parallel_for(s.n * batches, std::max<Index>(1, 64 / s.c), [&](Index first, Index last) {
    Corners<T> corners;
    for (Index t = first; t < last; ++t) {
      const Index image = t / batches, at = t % batches * kPlaces, n = std::min(kPlaces, s.count - at);
      find(s, grid + 2 * (image * s.count + at), n, corners);
      use(image, at, n, corners);
    }
  });
}

template <class T>
void add_to_planes(const GridShape& s, const T* g, const T* grid, T* dx) {
  const Index plane = s.height * s.width, corners = s.nearest ? 1 : 4, all = s.n * s.count;
  Scratch<int32_t> index(all * corners);
  Scratch<T> weight(s.nearest ? 0 : all * corners);
  over_places(s, grid, [&](Index image, Index at, Index n, const Corners<T>& k) {
    for (Index p = 0; p < n; ++p)
      for (Index c = 0; c < corners; ++c) {
        const Index to = (image * s.count + at + p) * corners + c;
        index[to] = k.index[c][p];
        if (!s.nearest) weight[to] = k.weight[c][p];
      }
  });
  parallel_for(s.n * s.c, std::max<Index>(1, 4096 / std::max<Index>(1, s.count)), [&](Index first, Index last) {
    for (Index t = first; t < last; ++t) {
      T* to = dx + t * plane;
      std::fill(to, to + plane, T(0));
      const T* from = g + t * s.count;
      const int32_t* i = index.data() + t / s.c * s.count * corners;
      const T* w = s.nearest ? nullptr : weight.data() + t / s.c * s.count * corners;
      for (Index p = 0; p < s.count; ++p)
        for (Index c = 0; c < corners; ++c)
          if (const int32_t at = i[p * corners + c]; at >= 0) to[at] += s.nearest ? from[p] : w[p * corners + c] * from[p];
    }
  });
}

}  // namespace

template <class T>
void grid_sample(const GridShape& s, const T* x, const T* grid, T* y) {
  const Index plane = s.height * s.width;
  over_places(s, grid, [&](Index image, Index at, Index n, const Corners<T>& k) {
    for (Index c = 0; c < s.c; ++c) {
      const T* from = x + (image * s.c + c) * plane;
      T* to = y + (image * s.c + c) * s.count + at;
      if (s.nearest) {
        for (Index p = 0; p < n; ++p) to[p] = read(from, k.index[0][p]);
        continue;
      }
      for (Index p = 0; p < n; p += Lanes<T>::count) {
        Vec<T> sum = load(k.weight[0] + p) * read_lanes(from, k.index[0] + p);
        for (int i = 1; i < 4; ++i) sum += load(k.weight[i] + p) * read_lanes(from, k.index[i] + p);
        lanes::store_first(to + p, sum, n - p);
      }
    }
  });
}

template <class T>
void grid_sample_backward(const GridShape& s, const T* g, const T* x, const T* grid, T* dx, T* dgrid) {
  if (dx) add_to_planes(s, g, grid, dx);
  if (!dgrid) return;
  if (s.nearest) {
    std::fill(dgrid, dgrid + s.n * s.count * 2, T(0));
    return;
  }
  const Index plane = s.height * s.width;
  over_places(s, grid, [&](Index image, Index at, Index n, const Corners<T>& k) {
    T by_y[kPlaces] = {}, by_x[kPlaces] = {};
    for (Index c = 0; c < s.c; ++c) {
      const T* from = x + (image * s.c + c) * plane;
      const T* up = g + (image * s.c + c) * s.count + at;
      for (Index p = 0; p < n; p += Lanes<T>::count) {
        Vec<T> v[4];
        for (int i = 0; i < 4; ++i) v[i] = read_lanes(from, k.index[i] + p);
        const Vec<T> from_above = lanes::load_first(up + p, n - p), a = load(k.part[1] + p), b = load(k.part[0] + p);
        lanes::store(by_y + p, load(by_y + p) + from_above * ((v[2] - v[0]) * (T(1) - a) + (v[3] - v[1]) * a));
        lanes::store(by_x + p, load(by_x + p) + from_above * ((v[1] - v[0]) * (T(1) - b) + (v[3] - v[2]) * b));
      }
    }
    T* to = dgrid + 2 * (image * s.count + at);
    for (Index p = 0; p < n; ++p) {
      to[2 * p] = by_x[p] * k.slope[1][p];
      to[2 * p + 1] = by_y[p] * k.slope[0][p];
    }
  });
}

template void grid_sample(const GridShape&, const float*, const float*, float*);
template void grid_sample(const GridShape&, const double*, const double*, double*);
template void grid_sample_backward(const GridShape&, const float*, const float*, const float*, float*, float*);
template void grid_sample_backward(const GridShape&, const double*, const double*, const double*, double*, double*);

}  // namespace tg
