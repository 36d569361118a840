// unfold   y[p, i, j, r, c] = x[p, r s0 - p0 + i d0, c s1 - p1 + j d1]; each line of y is zeros, a copy, zeros
// fold     each row of the planes gathers the taps that reach it, so rows need not wait for each other
// edges    each padded line is added to its source; lines of one place go to one thread
#include "fold.h"

#include <algorithm>
#include <cstring>

#include "../core/copy_bytes.h"
#include "../core/parallel.h"

namespace tg {
namespace {

constexpr Index kGrain = 16384;

Index grain(Index each) { return std::max<Index>(1, kGrain / std::max<Index>(1, each)); }

// The columns whose tap at `offset` lies within a row: [first, last).
struct Inside {
  Index first, last;
  Inside(Index offset, Index stride, Index width, Index columns) {
    first = offset < 0 ? std::min(columns, (-offset + stride - 1) / stride) : 0;
    last = offset >= width ? first : std::max(first, std::min(columns, (width - 1 - offset) / stride + 1));
  }
};

template <class I>
void copy_steps(const char* from, Index stride, char* to, Index n) {
  for (Index i = 0; i < n; ++i) std::memcpy(to + i * Index(sizeof(I)), from + i * stride, sizeof(I));
}

struct Item16 {
  uint64_t a, b;
};

void copy_columns(Index itemsize, const char* from, Index stride, char* to, Index n) {
  if (stride == 1) return copy_bytes(to, from, n * itemsize);
  switch (itemsize) {
    case 1: return copy_steps<uint8_t>(from, stride, to, n);
    case 2: return copy_steps<uint16_t>(from, stride * 2, to, n);
    case 4: return copy_steps<uint32_t>(from, stride * 4, to, n);
    case 8: return copy_steps<uint64_t>(from, stride * 8, to, n);
    default: return copy_steps<Item16>(from, stride * 16, to, n);
  }
}

}  // namespace

void unfold_planes(Index itemsize, const Patches& w, const char* x, char* y) {
  const Index taps = w.kernel[0] * w.kernel[1], line = w.columns * itemsize;
  parallel_for(w.planes * taps, grain(w.rows * w.columns), [&](Index begin, Index end) {
    for (Index k = begin; k < end; ++k) {
      const Index tap = k % taps, plane = k / taps;
      const Index down = (tap / w.kernel[1]) * w.dilation[0] - w.padding[0];
      const Index across = (tap % w.kernel[1]) * w.dilation[1] - w.padding[1];
      const Inside inside(across, w.stride[1], w.width, w.columns);
      char* to = y + k * w.rows * line;
      for (Index r = 0; r < w.rows; ++r, to += line) {
        const Index at = r * w.stride[0] + down;
        if (at < 0 || at >= w.height || inside.first == inside.last) {
          std::memset(to, 0, size_t(line));
          continue;
        }
        const char* from = x + ((plane * w.height + at) * w.width + inside.first * w.stride[1] + across) * itemsize;
        std::memset(to, 0, size_t(inside.first * itemsize));
        copy_columns(itemsize, from, w.stride[1], to + inside.first * itemsize, inside.last - inside.first);
        std::memset(to + inside.last * itemsize, 0, size_t((w.columns - inside.last) * itemsize));
      }
    }
  });
}

template <class T>
void fold_planes(const Patches& w, const T* x, T* y) {
  const Index taps = w.kernel[0] * w.kernel[1];
  parallel_for(w.planes * w.height, grain(taps * w.columns), [&](Index begin, Index end) {
    for (Index k = begin; k < end; ++k) {
      const Index plane = k / w.height, at = k % w.height;
      T* to = y + k * w.width;
      std::fill_n(to, w.width, T(0));
      for (Index i = 0; i < w.kernel[0]; ++i) {
        const Index reach = at + w.padding[0] - i * w.dilation[0], r = reach / w.stride[0];
        if (reach < 0 || reach % w.stride[0] || r >= w.rows) continue;
        for (Index j = 0; j < w.kernel[1]; ++j) {
          const Index across = j * w.dilation[1] - w.padding[1];
          const Inside inside(across, w.stride[1], w.width, w.columns);
          const T* from = x + ((plane * taps + i * w.kernel[1] + j) * w.rows + r) * w.columns;
          if (w.stride[1] == 1)
            for (Index c = inside.first; c < inside.last; ++c) to[c + across] += from[c];
          else
            for (Index c = inside.first; c < inside.last; ++c) to[c * w.stride[1] + across] += from[c];
        }
      }
    }
  });
}

template <class T>
void fold_edges(Edge edge, Index outer, Index before, Index size, Index after, Index inner, T* x) {
  const Index length = before + size + after;
  parallel_for(outer, grain((before + after) * inner), [&](Index begin, Index end) {
    for (Index o = begin; o < end; ++o) {
      T* block = x + o * length * inner;
      const auto add = [&](Index from, Index to) {
        const T* source = block + from * inner;
        T* target = block + to * inner;
        for (Index i = 0; i < inner; ++i) target[i] += source[i];
      };
      for (Index k = 0; k < before; ++k)
        add(k, edge == Edge::reflect ? 2 * before - k : edge == Edge::replicate ? before : k + size);
      const Index stop = before + size;
      for (Index k = stop; k < length; ++k)
        add(k, edge == Edge::reflect ? 2 * stop - 2 - k : edge == Edge::replicate ? stop - 1 : k - size);
    }
  });
}

#define TG_ADDED(T)                                                   \
  template void fold_planes<T>(const Patches&, const T*, T*);         \
  template void fold_edges<T>(Edge, Index, Index, Index, Index, Index, T*);
TG_ADDED(float)
TG_ADDED(double)
TG_ADDED(uint64_t)
TG_ADDED(c64)
TG_ADDED(c128)
#undef TG_ADDED

}  // namespace tg
