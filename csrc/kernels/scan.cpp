// y_i = x_0 op ... op x_i. Float accumulates in double. A long line alone is cut into blocks of 16k: totals of the blocks
// first, then every block from where the ones before it end; the blocks depend on the length alone. Four lines (or
// blocks) go in step, since a sum waits for the one before it and a core can have that many under way.
#include "scan.h"

#include <algorithm>
#include <type_traits>
#include <vector>

#include "../core/allocator.h"
#include "scan_walk.h"

namespace tg {
namespace {

constexpr Index kBlock = 16384;

template <class T>
using Acc = std::conditional_t<std::is_same_v<T, float>, double, std::conditional_t<std::is_integral_v<T>, uint64_t, T>>;

template <Scan Kind, class A>
inline A step(A a, A x) {
  return Kind == Scan::sum ? a + x : a * x;
}

template <Scan Kind, class T>
Acc<T> scan_run(const T* x, T* y, Index n, Acc<T> a) {
  for (Index i = 0; i < n; ++i) {
    a = step<Kind>(a, Acc<T>(x[i]));
    y[i] = T(a);
  }
  return a;
}

// `count` lines of n elements, `apart` elements from each other, from `start` on.
template <Scan Kind, class T>
void scan_lines_in_step(const T* x, T* y, Index count, Index apart, Index n, const Acc<T>* start) {
  Index l = 0;
  for (; l + 4 <= count; l += 4) {
    const T *x0 = x + l * apart, *x1 = x0 + apart, *x2 = x1 + apart, *x3 = x2 + apart;
    T *y0 = y + l * apart, *y1 = y0 + apart, *y2 = y1 + apart, *y3 = y2 + apart;
    Acc<T> a0 = start[l], a1 = start[l + 1], a2 = start[l + 2], a3 = start[l + 3];
    for (Index i = 0; i < n; ++i) {
      a0 = step<Kind>(a0, Acc<T>(x0[i]));
      a1 = step<Kind>(a1, Acc<T>(x1[i]));
      a2 = step<Kind>(a2, Acc<T>(x2[i]));
      a3 = step<Kind>(a3, Acc<T>(x3[i]));
      y0[i] = T(a0);
      y1[i] = T(a1);
      y2[i] = T(a2);
      y3[i] = T(a3);
    }
  }
  for (; l < count; ++l) scan_run<Kind>(x + l * apart, y + l * apart, n, start[l]);
}

template <Scan Kind, class T>
void scan_all(Index outer, Index length, Index inner, const T* x, T* y) {
  const Acc<T> neutral = Kind == Scan::sum ? Acc<T>(0) : Acc<T>(1);
  if (inner == 1) {
    if (length >= 4 * kBlock) {
      const Index blocks = (length + kBlock - 1) / kBlock;
      std::vector<Acc<T>> start(static_cast<size_t>(blocks));
      for (Index o = 0; o < outer; ++o) {
        const T* from = x + o * length;
        T* to = y + o * length;
        parallel_for(blocks, 1, [&](Index first, Index last) {
          for (Index b = first; b < last; ++b) {
            Acc<T> part[4] = {neutral, neutral, neutral, neutral};
            const Index end = std::min(length, (b + 1) * kBlock);
            Index i = b * kBlock;
            for (; i + 4 <= end; i += 4)
              for (int l = 0; l < 4; ++l) part[l] = step<Kind>(part[l], Acc<T>(from[i + l]));
            for (; i < end; ++i) part[0] = step<Kind>(part[0], Acc<T>(from[i]));
            start[size_t(b)] = step<Kind>(step<Kind>(part[0], part[1]), step<Kind>(part[2], part[3]));
          }
        });
        Acc<T> a = neutral;
        for (Index b = 0; b < blocks; ++b) {
          const Acc<T> total = start[size_t(b)];
          start[size_t(b)] = a;
          a = step<Kind>(a, total);
        }
        const Index whole = length / kBlock;
        parallel_for(whole, 4, [&](Index first, Index last) {
          scan_lines_in_step<Kind>(from + first * kBlock, to + first * kBlock, last - first, kBlock, kBlock, &start[size_t(first)]);
        });
        if (whole < blocks)
          scan_run<Kind>(from + whole * kBlock, to + whole * kBlock, length - whole * kBlock, start[size_t(whole)]);
      }
      return;
    }
    const Acc<T> neutrals[4] = {neutral, neutral, neutral, neutral};
    parallel_for(outer, std::max<Index>(4, kScanPiece / std::max<Index>(1, length) / 4 * 4), [&](Index first, Index last) {
      for (Index o = first; o < last; o += 4)
        scan_lines_in_step<Kind>(x + o * length, y + o * length, std::min<Index>(4, last - o), length, length, neutrals);
    });
    return;
  }
  walk_columns(outer, length, inner, neutral, [=](Acc<T>* a, Index, Index at, Index n) {
    for (Index j = 0; j < n; ++j) {
      a[j] = step<Kind>(a[j], Acc<T>(x[at + j]));
      y[at + j] = T(a[j]);
    }
  });
}

}  // namespace

template <class T>
void scan_lines(Scan kind, Index outer, Index length, Index inner, const T* x, T* y) {
  if (kind == Scan::sum) scan_all<Scan::sum>(outer, length, inner, x, y);
  else scan_all<Scan::product>(outer, length, inner, x, y);
}

// The products before each element, then those after it from the end; four lines in step, as above.
template <class T>
void products_of_others(Index lines, Index n, const T* x, T* y) {
  if (n == 0) return;
  using A = Acc<T>;
  parallel_for(lines, std::max<Index>(4, kBlock / n / 4 * 4), [&](Index first, Index last) {
    Scratch<A> before(4 * n);
    const auto go = [&](Index line, auto count) {
      constexpr Index R = count;
      const T* from = x + line * n;
      T* to = y + line * n;
      A a[R];
      std::fill_n(a, R, A(1));
      for (Index i = 0; i < n; ++i)
        for (Index r = 0; r < R; ++r) {
          before[i * R + r] = a[r];
          a[r] *= A(from[r * n + i]);
        }
      std::fill_n(a, R, A(1));
      for (Index i = n; i-- > 0;)
        for (Index r = 0; r < R; ++r) {
          const A own = A(from[r * n + i]);
          to[r * n + i] = T(before[i * R + r] * a[r]);
          a[r] *= own;
        }
    };
    Index line = first;
    for (; line + 4 <= last; line += 4) go(line, std::integral_constant<Index, 4>{});
    for (; line < last; ++line) go(line, std::integral_constant<Index, 1>{});
  });
}

template void scan_lines(Scan, Index, Index, Index, const float*, float*);
template void scan_lines(Scan, Index, Index, Index, const double*, double*);
template void scan_lines(Scan, Index, Index, Index, const int64_t*, int64_t*);
template void products_of_others(Index, Index, const float*, float*);
template void products_of_others(Index, Index, const double*, double*);

}  // namespace tg
