// Rows are the unit of work. A maximum keeps a vector of neighbouring outputs and their indices in registers over all
// taps. A mean adds the rows of its window first and the columns after, which makes a k x k window cost k + k/stride
// additions per element rather than k * k.
//
// Ladder, 2x2 maximum with stride 2 on rows of 28, per output: taps outermost over rows in memory 10 ns; this 1.5.
// Means, us on two Zen 4 cores, an output summed alone and beside others: 224 rows of 120, 25 taps, 130 and 52; 32 images
// of 64 channels, 56x56, 2x2 with stride 2, 2520 and 1700.
#include "pool.h"

#include <algorithm>
#include <limits>
#include <type_traits>
#include <utility>

#include "../core/allocator.h"
#include "../core/copy_bytes.h"
#include "gemm_tasks.h"
#include "reduce_lanes.h"

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

// N outputs side by side, with their indices in a vector of the same width.
template <class T, int N>
struct Pack {
  using Word = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
  typedef T Values __attribute__((vector_size(N * sizeof(T))));
  typedef T Unaligned __attribute__((vector_size(N * sizeof(T)), aligned(alignof(T)), may_alias));
  typedef Word Places __attribute__((vector_size(N * sizeof(T))));
};

template <class T, int N, std::size_t... I>
inline typename Pack<T, N>::Values every_second(const T* p, std::index_sequence<I...>) {
  // the second load ends at the last element that is needed, so nothing beyond it is read
  const typename Pack<T, N>::Values a = *reinterpret_cast<const typename Pack<T, N>::Unaligned*>(p);
  const typename Pack<T, N>::Values b = *reinterpret_cast<const typename Pack<T, N>::Unaligned*>(p + N - 1);
#if defined(__has_builtin) && __has_builtin(__builtin_shufflevector)
  return __builtin_shufflevector(a, b, (2 * int(I) < N ? 2 * int(I) : 2 * int(I) + 1)...);
#else
  return typename Pack<T, N>::Values{(2 * int(I) < N ? a[(2 * I) % N] : b[(2 * I + 1) % N])...};
#endif
}

template <class T, int N, int Stride>
inline typename Pack<T, N>::Values load_outputs(const T* p, Index stride) {
  if constexpr (Stride == 1) return *reinterpret_cast<const typename Pack<T, N>::Unaligned*>(p);
  if constexpr (Stride == 2) return every_second<T, N>(p, std::make_index_sequence<N>{});
  typename Pack<T, N>::Values v;
  for (int i = 0; i < N; ++i) v[i] = p[i * stride];
  return v;
}

// One row of outputs of one plane.
template <class T>
struct MaxRow {
  const PoolShape& s;
  const T* plane;
  Index d0, d1, h0, h1;  // the window's rows inside the input, stepped by the dilation
  T* y;
  std::int64_t* index;

  // Outputs near an edge, whose windows are cut.
  void edge(Index first, Index last) const {
    for (Index o = first; o < last; ++o) {
      const Index w0 = first_inside(o, s.stride[2], s.padding[2], s.dilation[2]);
      const Index w1 = std::min(s.in[2], o * s.stride[2] - s.padding[2] + s.kernel[2] * s.dilation[2]);
      T best = -std::numeric_limits<T>::infinity();
      Index place = (d0 * s.in[1] + h0) * s.in[2] + w0;
      for (Index d = d0; d < d1; d += s.dilation[0])
        for (Index h = h0; h < h1; h += s.dilation[1])
          for (Index w = w0; w < w1; w += s.dilation[2]) {
            const Index at = (d * s.in[1] + h) * s.in[2] + w;
            const T v = plane[at];
            if (v > best || v != v) {
              best = v;
              place = at;
            }
          }
      y[o] = best;
      if (index) index[o] = place;
    }
  }

  // Outputs whose windows lie inside the row, in the widest vector that is no longer than they are; the last one
  // overlaps the one before, which computes some outputs twice and none singly.
  template <int N, int Stride, bool Indexed>
  void inner(Index first, Index last) const {
    if (last - first < N) {
      if constexpr (N * sizeof(T) > 16) inner<N / 2, Stride, Indexed>(first, last);
      else edge(first, last);
      return;
    }
    using P = Pack<T, N>;
    using Word = typename P::Word;
    typedef std::int64_t Wide __attribute__((vector_size(N * 8)));
    typedef std::int64_t Stored __attribute__((vector_size(N * 8), aligned(8), may_alias));
    const Index stride = Stride ? Stride : s.stride[2];
    typename P::Places lane;
    for (int i = 0; i < N; ++i) lane[i] = static_cast<Word>(i * stride);
    for (Index o = first; o < last; o = o + 2 * N <= last || o + N == last ? o + N : last - N) {
      typename P::Values best = typename P::Values{} - std::numeric_limits<T>::infinity();
      const Index start = o * stride - s.padding[2];
      typename P::Places place = lane + static_cast<Word>((d0 * s.in[1] + h0) * s.in[2] + start);
      for (Index d = d0; d < d1; d += s.dilation[0])
        for (Index h = h0; h < h1; h += s.dilation[1]) {
          Index at = (d * s.in[1] + h) * s.in[2] + start;
          for (Index k = 0; k < s.kernel[2]; ++k, at += s.dilation[2]) {
            const typename P::Values v = load_outputs<T, N, Stride>(plane + at, stride);
            const auto take = (v > best) | (v != v);
            best = take ? v : best;
            if constexpr (Indexed) place = take ? lane + static_cast<Word>(at) : place;
          }
        }
      *reinterpret_cast<typename P::Unaligned*>(y + o) = best;
      if constexpr (Indexed) *reinterpret_cast<Stored*>(index + o) = __builtin_convertvector(place, Wide);
    }
  }
};

// Without places: for a stride of two alone, see max_values.
template <class T, bool Indexed>
[[gnu::noinline]] void max_planes(const PoolShape& s, const T* x, T* y, std::int64_t* index, Index first, Index last) {
  // Indices are as wide as the values while they are compared; a plane too large for that goes singly.
  const bool narrow = sizeof(T) == 8 || volume(s.in) < std::numeric_limits<std::int32_t>::max();
  const Index width = s.out[2];
  const Span left = inside(-s.padding[2], s.stride[2], s.in[2], width);
  const Span right = inside((s.kernel[2] - 1) * s.dilation[2] - s.padding[2], s.stride[2], s.in[2], width);
  const Index from = narrow ? left.first : width, to = std::max(from, right.last);
  for (Index p = first; p < last; ++p)
    for (Index od = 0; od < s.out[0]; ++od)
      for (Index oh = 0; oh < s.out[1]; ++oh) {
        const Index out = ((p * s.out[0] + od) * s.out[1] + oh) * width;
        const Index d0 = first_inside(od, s.stride[0], s.padding[0], s.dilation[0]);
        const Index h0 = first_inside(oh, s.stride[1], s.padding[1], s.dilation[1]);
        const Index d1 = std::min(s.in[0], od * s.stride[0] - s.padding[0] + s.kernel[0] * s.dilation[0]);
        const Index h1 = std::min(s.in[1], oh * s.stride[1] - s.padding[1] + s.kernel[1] * s.dilation[1]);
        const MaxRow<T> row{s, x + p * volume(s.in), d0, d1, h0, h1, y + out, Indexed ? index + out : nullptr};
        constexpr int lanes = lanes::Lanes<T>::count;
        row.edge(0, from);
        if constexpr (!Indexed) row.template inner<lanes, 2, false>(from, to);
        else if (s.stride[2] == 1) row.template inner<lanes, 1, true>(from, to);
        else if (s.stride[2] == 2) row.template inner<lanes, 2, true>(from, to);
        else row.template inner<lanes, 0, true>(from, to);
        row.edge(to, width);
      }
}

// f(step), of which the common ones are known to the compiler.
template <class F>
void visit_step(Index step, F&& f) {
  if (step == 1) f(std::integral_constant<Index, 1>{});
  else if (step == 2) f(std::integral_constant<Index, 2>{});
  else f(step);
}

// The first zero of a window of which that is the maximum.
template <class T>
[[gnu::noinline]] T first_zero(const PoolShape& s, const T* x, Index od, Index oh, Index ow) {
  const auto end = [&](int axis, Index o) { return std::min(s.in[axis], o * s.stride[axis] - s.padding[axis] + s.kernel[axis] * s.dilation[axis]); };
  for (Index d = first_inside(od, s.stride[0], s.padding[0], s.dilation[0]); d < end(0, od); d += s.dilation[0])
    for (Index h = first_inside(oh, s.stride[1], s.padding[1], s.dilation[1]); h < end(1, oh); h += s.dilation[1])
      for (Index w = first_inside(ow, s.stride[2], s.padding[2], s.dilation[2]); w < end(2, ow); w += s.dilation[2])
        if (const T found = x[(d * s.in[1] + h) * s.in[2] + w]; found == 0) return found;
  return 0;
}

// Values alone. The rows of a window are compared first, then a row with itself, shifted by more each time: for windows of k
// that is log2(k) comparisons of a vector, where every stride-th element of a row is none. Of several rows at once: a vector
// of what two stores wrote is not there before both have left the core. Of equal values the first stays, of NaN the last, as
// where places are kept; of zeros in several rows, which may differ by their sign, the first is looked for.
template <class T>
void max_values(const PoolShape& s, const T* x, T* y, Index first, Index last) {
  using W = Wide<T>;
  constexpr Index kColumns = 2048;  // of a buffer, which stays in L1
  const Index taps = (s.kernel[2] - 1) * s.dilation[2] + 1, stride = s.stride[2];
  const Index most = std::max<Index>(1, std::min(s.out[2], (kColumns - taps) / stride)), longest = (most - 1) * stride + taps;
  const Index end = last * s.out[0] * s.out[1], together = most < s.out[2] ? 1 : std::max<Index>(1, kColumns / longest);
  const Scratch<T> room(together * longest + 2 * W::lanes);
  const auto keep = [](T* a, typename W::Vector b) { W::store(a, extreme_lanes<1, T>(b, W::load(a))); };
  for (Index t = first * s.out[0] * s.out[1]; t < end; t += together)
    for (Index o = 0; o < s.out[2]; o += most) {
      const Index rows = std::min(together, end - t), count = std::min(most, s.out[2] - o), columns = (count - 1) * stride + taps;
      const Index start = o * stride - s.padding[2], from = std::max<Index>(0, start);
      const Index n = std::max<Index>(0, std::min(s.in[2], start + columns) - from);
      const auto blank = [&](T* at, Index items) { std::fill_n(at, items, -std::numeric_limits<T>::infinity()); };
      blank(room.data() + rows * columns, W::lanes);
      for (Index r = 0; r < rows; ++r) {
        const Index oh = (t + r) % s.out[1], od = (t + r) / s.out[1] % s.out[0], p = (t + r) / s.out[1] / s.out[0];
        T* to = room.data() + r * columns + (from - start);
        blank(room.data() + r * columns, from - start);
        blank(to + n, columns - n - (from - start));
        bool fresh = true;
        for (Index d = first_inside(od, s.stride[0], s.padding[0], s.dilation[0]);
             d < std::min(s.in[0], od * s.stride[0] - s.padding[0] + s.kernel[0] * s.dilation[0]); d += s.dilation[0])
          for (Index h = first_inside(oh, s.stride[1], s.padding[1], s.dilation[1]);
               h < std::min(s.in[1], oh * s.stride[1] - s.padding[1] + s.kernel[1] * s.dilation[1]); h += s.dilation[1]) {
            const T* row = x + ((p * s.in[0] + d) * s.in[1] + h) * s.in[2] + from;
            if (fresh) {
              copy_bytes(reinterpret_cast<char*>(to), reinterpret_cast<const char*>(row), n * Index(sizeof(T)));
              fresh = false;
              continue;
            }
            if (n < W::lanes)
              for (Index i = 0; i < n; ++i)
                if (row[i] > to[i] || row[i] != row[i]) to[i] = row[i];
            for (Index i = 0; i < n && n >= W::lanes; i += W::lanes) {
              const Index at = std::min(i, n - W::lanes);
              keep(to + at, W::load(row + at));
            }
          }
        if (fresh) blank(to, n);
      }
      for (Index have = 1, more; have < s.kernel[2]; have += more) {
        more = std::min(have, s.kernel[2] - have);
        const Index shift = more * s.dilation[2], left = rows * columns - (have + more - 1) * s.dilation[2];
        for (Index i = 0; i < left; i += W::lanes) keep(room.data() + i, W::load(room.data() + i + shift));
      }
      const auto pick = [&](auto step) {
        for (Index r = 0; r < rows; ++r) {
          const T* at = room.data() + r * columns;
          T* __restrict to = y + (t + r) * s.out[2] + o;
          bool zeros = false;
          for (Index i = 0; i < count; ++i) {
            to[i] = at[i * step];
            zeros |= to[i] == 0;
          }
          if (!zeros || s.kernel[0] * s.kernel[1] == 1) continue;
          const Index oh = (t + r) % s.out[1], od = (t + r) / s.out[1] % s.out[0], p = (t + r) / s.out[1] / s.out[0];
          for (Index i = 0; i < count; ++i)
            if (to[i] == 0) to[i] = first_zero(s, x + p * volume(s.in), od, oh, o + i);
        }
      };
      if (stride == 3) pick(std::integral_constant<Index, 3>{});
      else if (stride == 4) pick(std::integral_constant<Index, 4>{});
      else visit_step(stride, pick);
    }
}

// The sum of a contiguous run, sixteen sums side by side.
template <class T>
T sum_plane(const T* x, Index n) {
  T lane[16] = {};
  Index i = 0;
  for (; i + 16 <= n; i += 16)
    for (Index j = 0; j < 16; ++j) lane[j] += x[i + j];
  for (; i < n; ++i) lane[i % 16] += x[i];
  for (Index width = 8; width > 0; width /= 2)
    for (Index j = 0; j < width; ++j) lane[j] += lane[j + width];
  return lane[0];
}

// Every output is the mean of a whole plane.
bool whole_planes(const PoolShape& s, const Windows& w) {
  if (volume(s.out) != 1) return false;
  for (int a = 0; a < 3; ++a)
    if (w[a].first[0] != 0 || w[a].last[0] != s.in[a]) return false;
  return true;
}

double divisor_at(const Windows& w, double divisor, Index d, Index h, Index k) {
  return divisor != 0 ? divisor : w[0].weight[d] * w[1].weight[h] * w[2].weight[k];
}

// Outputs [first, last) along the rows whose windows are equally long and equally far from each other: taken side by side,
// one tap after the other, so that an output is summed in the order of its taps and an input in that of its outputs. Fewer
// than kSideBySide are taken one by one, in the same orders.
struct Run {
  Index first, last, length, step;
};
constexpr Index kSideBySide = 8;
std::vector<Run> runs_of(const AxisWindows& w) {
  std::vector<Run> runs;
  const Index count = static_cast<Index>(w.first.size());
  for (Index o = 0; o < count; ++o) {
    const Index length = w.last[o] - w.first[o], step = o > 0 ? w.first[o] - w.first[o - 1] : 0;
    Run* run = runs.empty() || runs.back().length != length ? nullptr : &runs.back();
    if (run && run->last - run->first == 1) run->step = step;
    if (run && run->step == step) run->last = o + 1;
    else runs.push_back({o, o + 1, length, 1});
  }
  return runs;
}

template <class T>
T sum_window(const AxisWindows& w, const T* columns, Index o) {
  T sum = 0;
  for (Index k = w.first[o]; k < w.last[o]; ++k) sum += columns[k];
  return sum;
}

// sums[o] = the sum of columns of o's window
template <class T>
void sum_windows(const std::vector<Run>& runs, const AxisWindows& w, const T* columns, T* sums) {
  for (const Run& run : runs) {
    if (run.last - run.first < kSideBySide) {
      for (Index o = run.first; o < run.last; ++o) sums[o] = sum_window(w, columns, o);
      continue;
    }
    visit_step(run.step, [&](auto step) {
      const T* __restrict from = columns + w.first[run.first];
      T* __restrict to = sums + run.first;
      std::fill_n(to, run.last - run.first, T(0));
      for (Index k = 0; k < run.length; ++k, ++from)
        for (Index i = 0; i < run.last - run.first; ++i) to[i] += from[i * step];
    });
  }
}

// columns of o's window += parts[o]
template <class T>
void spread_windows(const std::vector<Run>& runs, const AxisWindows& w, const T* parts, T* columns) {
  for (const Run& run : runs) {
    if (run.last - run.first < kSideBySide) {
      for (Index o = run.first; o < run.last; ++o)
        for (Index k = w.first[o]; k < w.last[o]; ++k) columns[k] += parts[o];
      continue;
    }
    visit_step(run.step, [&](auto step) {
      const T* __restrict from = parts + run.first;
      T* __restrict to = columns + w.first[run.first] + run.length - 1;
      for (Index k = 0; k < run.length; ++k, --to)
        for (Index i = 0; i < run.last - run.first; ++i) to[i * step] += from[i];
    });
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
  for_planes(s, [&](Index first, Index last) {
    if (index) max_planes<T, true>(s, x, y, index, first, last);
    else if (s.kernel[0] * s.kernel[1] > 1 && s.kernel[2] <= 2 && s.stride[2] == 2)
      max_planes<T, false>(s, x, y, nullptr, first, last);  // a vector of pairs of several rows is soon made
    else max_values<T>(s, x, y, first, last);
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
            if (index) index[out] = best;
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
  const Index plane = volume(s.in), width = s.in[2], wide = s.out[2];
  if (whole_planes(s, w)) {
    const T by = static_cast<T>(divisor_at(w, divisor, 0, 0, 0));
    for_planes(s, [&](Index first, Index last) {
      for (Index p = first; p < last; ++p) y[p] = sum_plane(x + p * plane, plane) / by;
    });
    return;
  }
  const std::vector<Run> runs = runs_of(w[2]);
  for_planes(s, [&](Index first, Index last) {
    std::vector<T> columns(width);
    T* out = y + first * volume(s.out);
    for (Index p = first; p < last; ++p)
      for (Index od = 0; od < s.out[0]; ++od)
        for (Index oh = 0; oh < s.out[1]; ++oh, out += wide) {
          std::fill(columns.begin(), columns.end(), T(0));
          for (Index d = w[0].first[od]; d < w[0].last[od]; ++d)
            for (Index h = w[1].first[oh]; h < w[1].last[oh]; ++h) {
              const T* row = x + p * plane + (d * s.in[1] + h) * width;
              for (Index k = 0; k < width; ++k) columns[k] += row[k];
            }
          if (wide < kSideBySide) {
            for (Index ow = 0; ow < wide; ++ow)
              out[ow] = sum_window(w[2], columns.data(), ow) / static_cast<T>(divisor_at(w, divisor, od, oh, ow));
            continue;
          }
          sum_windows(runs, w[2], columns.data(), out);
          for (Index ow = 0; ow < wide; ++ow) out[ow] /= static_cast<T>(divisor_at(w, divisor, od, oh, ow));
        }
  });
}

template <class T>
void mean_pool_backward(const PoolShape& s, const Windows& w, double divisor, const T* g, T* gx) {
  const Index plane = volume(s.in), width = s.in[2], wide = s.out[2];
  if (whole_planes(s, w)) {
    const T by = static_cast<T>(divisor_at(w, divisor, 0, 0, 0));
    for_planes(s, [&](Index first, Index last) {
      for (Index p = first; p < last; ++p) std::fill_n(gx + p * plane, plane, g[p] / by);
    });
    return;
  }
  const std::vector<Run> runs = runs_of(w[2]);
  for_planes(s, [&](Index first, Index last) {
    std::vector<T> columns(width), parts(wide);
    std::fill(gx + first * plane, gx + last * plane, T(0));
    const T* from = g + first * volume(s.out);
    for (Index p = first; p < last; ++p)
      for (Index od = 0; od < s.out[0]; ++od)
        for (Index oh = 0; oh < s.out[1]; ++oh, from += wide) {
          std::fill(columns.begin(), columns.end(), T(0));
          for (Index ow = 0; ow < wide; ++ow) parts[ow] = from[ow] / static_cast<T>(divisor_at(w, divisor, od, oh, ow));
          spread_windows(runs, w[2], parts.data(), columns.data());
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
