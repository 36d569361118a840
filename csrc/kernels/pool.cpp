// Rows are the unit of work: for each row of outputs, taps outside and positions inside, so the inner loop runs along
// the last axis of x and vectorizes; a mean adds the rows of its window first and the columns after, which makes a
// k x k window cost k + k/stride additions per element rather than k * k.
#include "pool.h"

#include <algorithm>
#include <limits>
#include <type_traits>

#include "gemm_tasks.h"

namespace tg {
namespace {

// Planes per task: enough elements to be worth handing out.
Index planes_per_task(const PoolShape& s) {
  return std::max<Index>(1, (Index(1) << 15) / std::max<Index>(1, std::max(volume(s.in), volume(s.out))));
}

template <class F>
void for_planes(const PoolShape& s, F f) {
  const Index grain = planes_per_task(s);
  for_each_task(divide_up(s.planes, grain), [&](Index task) {
    f(task * grain, std::min(s.planes, (task + 1) * grain));
  });
}

// Outputs whose tap at input offset `shift` (o * stride + shift) lies in [0, in).
struct Span {
  Index first, last;
};
Span inside(Index shift, Index stride, Index in, Index out) {
  const Index first = shift >= 0 ? 0 : divide_up(-shift, stride);
  const Index last = in - shift <= 0 ? 0 : divide_up(in - shift, stride);
  return {std::min(first, out), std::clamp(last, std::min(first, out), out)};
}

// The first input position of a window that is not padding.
Index first_inside(Index o, Index stride, Index padding, Index dilation) {
  const Index start = o * stride - padding;
  return start >= 0 ? start : start + divide_up(-start, dilation) * dilation;
}

template <int Stride, class T, class I>
void max_row(const T* row, Index runtime_stride, Span span, I place, T* best, I* index) {
  const Index stride = Stride ? Stride : runtime_stride;
  for (Index o = span.first; o < span.last; ++o) {
    const T v = row[o * stride];
    const bool take = (v > best[o]) | (v != v);
    best[o] = take ? v : best[o];
    index[o] = take ? static_cast<I>(place + o * stride) : index[o];
  }
}

template <class T, class I>
void max_planes(const PoolShape& s, const T* x, T* y, std::int64_t* index, Index first, Index last) {
  const Index plane = volume(s.in), width = s.out[2];
  std::vector<I> place(width);
  std::vector<I> first_column(width);
  for (Index o = 0; o < width; ++o)
    first_column[o] = static_cast<I>(first_inside(o, s.stride[2], s.padding[2], s.dilation[2]));
  for (Index p = first; p < last; ++p)
    for (Index od = 0; od < s.out[0]; ++od)
      for (Index oh = 0; oh < s.out[1]; ++oh) {
        const Index out = ((p * s.out[0] + od) * s.out[1] + oh) * width;
        T* best = y + out;
        const Index d0 = first_inside(od, s.stride[0], s.padding[0], s.dilation[0]);
        const Index h0 = first_inside(oh, s.stride[1], s.padding[1], s.dilation[1]);
        for (Index o = 0; o < width; ++o) {
          best[o] = -std::numeric_limits<T>::infinity();
          place[o] = static_cast<I>((d0 * s.in[1] + h0) * s.in[2]) + first_column[o];
        }
        const Index d1 = std::min(s.in[0], od * s.stride[0] - s.padding[0] + s.kernel[0] * s.dilation[0]);
        const Index h1 = std::min(s.in[1], oh * s.stride[1] - s.padding[1] + s.kernel[1] * s.dilation[1]);
        for (Index d = d0; d < d1; d += s.dilation[0])
          for (Index h = h0; h < h1; h += s.dilation[1])
            for (Index k = 0; k < s.kernel[2]; ++k) {
              const Index shift = k * s.dilation[2] - s.padding[2];
              const Span span = inside(shift, s.stride[2], s.in[2], width);
              const Index at = (d * s.in[1] + h) * s.in[2] + shift;
              const T* row = x + p * plane + at;
              const I base = static_cast<I>(at);
              if (s.stride[2] == 1) max_row<1>(row, 1, span, base, best, place.data());
              else if (s.stride[2] == 2) max_row<2>(row, 2, span, base, best, place.data());
              else max_row<0>(row, s.stride[2], span, base, best, place.data());
            }
        for (Index o = 0; o < width; ++o) index[out + o] = place[o];
      }
}

}  // namespace

Windows pool_windows(const PoolShape& s, bool count_include_pad) {
  Windows windows;
  for (int a = 0; a < 3; ++a)
    for (Index o = 0; o < s.out[a]; ++o) {
      const Index start = o * s.stride[a] - s.padding[a];
      const Index end = std::min(start + s.kernel[a], s.in[a] + s.padding[a]);
      const Index first = std::max<Index>(0, start), last = std::max(first, std::min(end, s.in[a]));
      windows[a].first.push_back(first);
      windows[a].last.push_back(last);
      windows[a].weight.push_back(static_cast<double>(count_include_pad ? end - start : last - first));
    }
  return windows;
}

Windows adaptive_windows(const Triple& in, const Triple& out) {
  Windows windows;
  for (int a = 0; a < 3; ++a)
    for (Index o = 0; o < out[a]; ++o) {
      const Index first = o * in[a] / out[a], last = divide_up((o + 1) * in[a], out[a]);
      windows[a].first.push_back(first);
      windows[a].last.push_back(last);
      windows[a].weight.push_back(static_cast<double>(last - first));
    }
  return windows;
}

template <class T>
void max_pool(const PoolShape& s, const T* x, T* y, std::int64_t* index) {
  // Indices as wide as the values while they are compared, so both fill one vector.
  using Narrow = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
  const bool narrow = volume(s.in) < std::numeric_limits<std::int32_t>::max();
  for_planes(s, [&](Index first, Index last) {
    if (narrow) max_planes<T, Narrow>(s, x, y, index, first, last);
    else max_planes<T, std::int64_t>(s, x, y, index, first, last);
  });
}

template <class T>
void adaptive_max_pool(const PoolShape& s, const T* x, T* y, std::int64_t* index) {
  const Windows w = adaptive_windows(s.in, s.out);
  const Index plane = volume(s.in);
  for_planes(s, [&](Index first, Index last) {
    Index out = first * volume(s.out);
    for (Index p = first; p < last; ++p)
      for (Index od = 0; od < s.out[0]; ++od)
        for (Index oh = 0; oh < s.out[1]; ++oh)
          for (Index ow = 0; ow < s.out[2]; ++ow, ++out) {
            Index best = (w[0].first[od] * s.in[1] + w[1].first[oh]) * s.in[2] + w[2].first[ow];
            T value = -std::numeric_limits<T>::infinity();
            for (Index d = w[0].first[od]; d < w[0].last[od]; ++d)
              for (Index h = w[1].first[oh]; h < w[1].last[oh]; ++h)
                for (Index k = w[2].first[ow]; k < w[2].last[ow]; ++k) {
                  const Index at = (d * s.in[1] + h) * s.in[2] + k;
                  const T v = x[p * plane + at];
                  if (v > value || v != v) {
                    value = v;
                    best = at;
                  }
                }
            y[out] = value;
            index[out] = best;
          }
  });
}

bool indices_inside(const std::int64_t* index, Index count, Index plane) {
  std::uint64_t most = 0;  // a negative index is a huge one
  for (Index i = 0; i < count; ++i) most = std::max(most, static_cast<std::uint64_t>(index[i]));
  return count == 0 || most < static_cast<std::uint64_t>(plane);
}

template <class T>
void max_pool_backward(const PoolShape& s, const T* g, const std::int64_t* index, T* gx) {
  const Index in = volume(s.in), out = volume(s.out);
  for_planes(s, [&](Index first, Index last) {
    std::fill(gx + first * in, gx + last * in, T(0));
    for (Index p = first; p < last; ++p)
      for (Index o = 0; o < out; ++o) gx[p * in + index[p * out + o]] += g[p * out + o];
  });
}

template <class T>
void mean_pool(const PoolShape& s, const Windows& w, double divisor, const T* x, T* y) {
  const Index plane = volume(s.in), width = s.in[2];
  for_planes(s, [&](Index first, Index last) {
    std::vector<T> columns(width);
    T* out = y + first * volume(s.out);
    for (Index p = first; p < last; ++p)
      for (Index od = 0; od < s.out[0]; ++od)
        for (Index oh = 0; oh < s.out[1]; ++oh) {
          std::fill(columns.begin(), columns.end(), T(0));
          for (Index d = w[0].first[od]; d < w[0].last[od]; ++d)
            for (Index h = w[1].first[oh]; h < w[1].last[oh]; ++h) {
              const T* row = x + p * plane + (d * s.in[1] + h) * width;
              for (Index k = 0; k < width; ++k) columns[k] += row[k];
            }
          for (Index ow = 0; ow < s.out[2]; ++ow) {
            T sum = 0;
            for (Index k = w[2].first[ow]; k < w[2].last[ow]; ++k) sum += columns[k];
            const double by = divisor != 0 ? divisor : w[0].weight[od] * w[1].weight[oh] * w[2].weight[ow];
            *out++ = sum / static_cast<T>(by);
          }
        }
  });
}

template <class T>
void mean_pool_backward(const PoolShape& s, const Windows& w, double divisor, const T* g, T* gx) {
  const Index plane = volume(s.in), width = s.in[2];
  for_planes(s, [&](Index first, Index last) {
    std::vector<T> columns(width);
    std::fill(gx + first * plane, gx + last * plane, T(0));
    const T* from = g + first * volume(s.out);
    for (Index p = first; p < last; ++p)
      for (Index od = 0; od < s.out[0]; ++od)
        for (Index oh = 0; oh < s.out[1]; ++oh) {
          std::fill(columns.begin(), columns.end(), T(0));
          for (Index ow = 0; ow < s.out[2]; ++ow) {
            const double by = divisor != 0 ? divisor : w[0].weight[od] * w[1].weight[oh] * w[2].weight[ow];
            const T part = *from++ / static_cast<T>(by);
            for (Index k = w[2].first[ow]; k < w[2].last[ow]; ++k) columns[k] += part;
          }
          for (Index d = w[0].first[od]; d < w[0].last[od]; ++d)
            for (Index h = w[1].first[oh]; h < w[1].last[oh]; ++h) {
              T* row = gx + p * plane + (d * s.in[1] + h) * width;
              for (Index k = 0; k < width; ++k) row[k] += columns[k];
            }
        }
  });
}

#define TG_POOL(T)                                                                     \
  template void max_pool(const PoolShape&, const T*, T*, std::int64_t*);               \
  template void adaptive_max_pool(const PoolShape&, const T*, T*, std::int64_t*);      \
  template void max_pool_backward(const PoolShape&, const T*, const std::int64_t*, T*); \
  template void mean_pool(const PoolShape&, const Windows&, double, const T*, T*);     \
  template void mean_pool_backward(const PoolShape&, const Windows&, double, const T*, T*);
TG_POOL(float)
TG_POOL(double)
#undef TG_POOL

}  // namespace tg
