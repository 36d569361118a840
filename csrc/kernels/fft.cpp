// Stockham's transform: passes of radix 4, 2, 3, 5 and small primes, from one buffer to another and back, after which values
// lie in order. Lengths with large prime factors are a convolution with a chirp (Bluestein), of a length that is a power
// of two. As many lines as a vector has elements go side by side, so passes know no shuffles: a complex number is a vector
// of real parts and one of imaginary parts behind it, and lines that lie along memory are transposed on their way in and
// out. An inverse transform is one with the two parts exchanged. No value meets one of another line.
//
// Where lines are few or long, one goes alone: as a matrix, of which first the columns are such lines, and then, turned by
// the roots between, the rows. Its parts lie in the cache, and all threads take some.
//
// Real lines of even length n are read as n / 2 complex numbers, and untangled behind the transform (or entangled before).
#include "fft.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "../core/allocator.h"
#include "../core/parallel.h"
#include "../core/transpose.h"
#include "fft_plan.h"

namespace tg {
namespace {

using lanes::Lanes;
using lanes::Vec;

constexpr Index kFar = 1 << 20;   // bytes of scratch above which lines go one by one: no cache holds it
constexpr Index kWork = 1 << 13;  // values worth a task

template <class V>
inline void butterfly2(V* re, V* im) {
  const V r = re[0] - re[1], i = im[0] - im[1];
  re[0] += re[1];
  im[0] += im[1];
  re[1] = r;
  im[1] = i;
}

template <class V>
inline void butterfly4(V* re, V* im) {
  const V ar = re[0] + re[2], ai = im[0] + im[2], br = re[0] - re[2], bi = im[0] - im[2];
  const V cr = re[1] + re[3], ci = im[1] + im[3], dr = re[1] - re[3], di = im[1] - im[3];
  re[0] = ar + cr;
  im[0] = ai + ci;
  re[1] = br + di;
  im[1] = bi - dr;
  re[2] = ar - cr;
  im[2] = ai - ci;
  re[3] = br - di;
  im[3] = bi + dr;
}

// x[k] and x[R - k] enter as their sum and difference; `roots`: of order R, `unit` apart.
template <int R, class T, class V>
inline void butterfly_odd(V* re, V* im, const T* roots, Index unit) {
  constexpr int H = R / 2;
  V ar[H], ai[H], br[H], bi[H];
  V sum_r = re[0], sum_i = im[0];
#pragma GCC unroll 4
  for (int k = 1; k <= H; ++k) {
    ar[k - 1] = re[k] + re[R - k];
    ai[k - 1] = im[k] + im[R - k];
    br[k - 1] = re[k] - re[R - k];
    bi[k - 1] = im[k] - im[R - k];
    sum_r += ar[k - 1];
    sum_i += ai[k - 1];
  }
#pragma GCC unroll 4
  for (int j = 1; j <= H; ++j) {
    V cr = re[0], ci = im[0], dr{}, di{};
#pragma GCC unroll 4
    for (int k = 1; k <= H; ++k) {
      const T* w = roots + 2 * unit * (j * k % R);
      cr += w[0] * ar[k - 1];
      ci += w[0] * ai[k - 1];
      dr += w[1] * br[k - 1];
      di += w[1] * bi[k - 1];
    }
    re[j] = cr - di;
    im[j] = ci + dr;
    re[R - j] = cr + di;
    im[R - j] = ci - dr;
  }
  re[0] = sum_r;
  im[0] = sum_i;
}

// What a pass knows: r * m values are left of n, s numbers to each; parts of a number lie at `re` and 1 - `re`.
template <class T>
struct Pass {
  Index m, s, unit;  // unit: between roots of order r * m
  const T* roots;
  int re;
};

template <int R, bool Turned, class T>
void pass(const Pass<T>& p, const Vec<T>* x, Vec<T>* y) {
  using V = Vec<T>;
  const V *xr = x + p.re, *xi = x + 1 - p.re;
  V *yr = y + p.re, *yi = y + 1 - p.re;
  const Index m = p.m, s = p.s;
  for (Index i = 0; i < m; ++i) {
    T c[R], d[R];
#pragma GCC unroll 8
    for (int j = 1; j < R && Turned; ++j) {
      c[j] = p.roots[2 * p.unit * i * j];
      d[j] = p.roots[2 * p.unit * i * j + 1];
    }
    for (Index q = 0; q < s; ++q) {
      V re[R], im[R];
#pragma GCC unroll 8
      for (int k = 0; k < R; ++k) {
        const Index at = 2 * (q + s * (i + m * k));
        re[k] = xr[at];
        im[k] = xi[at];
      }
      if constexpr (R == 2) butterfly2(re, im);
      else if constexpr (R == 4) butterfly4(re, im);
      else butterfly_odd<R>(re, im, p.roots, p.unit * m);
#pragma GCC unroll 8
      for (int j = 0; j < R; ++j) {
        const Index at = 2 * (q + s * (R * i + j));
        yr[at] = Turned && j ? re[j] * c[j] - im[j] * d[j] : re[j];
        yi[at] = Turned && j ? re[j] * d[j] + im[j] * c[j] : im[j];
      }
    }
  }
}

// The same for any odd r up to kFftPrime.
template <class T>
void pass_prime(int r, const Pass<T>& p, const Vec<T>* x, Vec<T>* y) {
  using V = Vec<T>;
  const int half = r / 2;
  const Index m = p.m, s = p.s;
  V a[kFftPrime + 1], b[kFftPrime + 1];  // sums and differences, real and imaginary parts
  for (Index i = 0; i < m; ++i)
    for (Index q = 0; q < s; ++q) {
      const auto in = [&](Index k, int part) { return x[2 * (q + s * (i + m * k)) + part]; };
      const auto out = [&](Index j, V re, V im) {
        V* to = y + 2 * (q + s * (r * i + j));
        const T *w = p.roots + 2 * p.unit * i * j, c = w[0], d = w[1];
        to[p.re] = re * c - im * d;
        to[1 - p.re] = re * d + im * c;
      };
      const V first_r = in(0, p.re), first_i = in(0, 1 - p.re);
      V sum_r = first_r, sum_i = first_i;
      for (int k = 1; k <= half; ++k) {
        const V xr = in(k, p.re), xi = in(k, 1 - p.re), zr = in(r - k, p.re), zi = in(r - k, 1 - p.re);
        sum_r += a[2 * k] = xr + zr;
        sum_i += a[2 * k + 1] = xi + zi;
        b[2 * k] = xr - zr;
        b[2 * k + 1] = xi - zi;
      }
      out(0, sum_r, sum_i);
      for (int j = 1; j <= half; ++j) {
        V cr = first_r, ci = first_i, dr{}, di{};
        for (int k = 1, turn = j; k <= half; ++k, turn = (turn + j) % r) {
          const T* w = p.roots + 2 * p.unit * m * turn;
          cr += w[0] * a[2 * k];
          ci += w[0] * a[2 * k + 1];
          dr += w[1] * b[2 * k];
          di += w[1] * b[2 * k + 1];
        }
        out(j, cr - di, ci + dr);
        out(r - j, cr + di, ci - dr);
      }
    }
}

template <class T>
void pass_of(int r, const Pass<T>& p, const Vec<T>* x, Vec<T>* y) {
  switch (r) {
    case 2: return pass<2, true>(p, x, y);
    case 3: return pass<3, true>(p, x, y);
    case 4: return p.m > 1 ? pass<4, true>(p, x, y) : pass<4, false>(p, x, y);
    case 5: return pass<5, true>(p, x, y);
    default: return pass_prime(r, p, x, y);
  }
}

// Passes over n values with roots `step` apart; returns the buffer where the result lies.
template <class T>
Vec<T>* passes(Index n, const int* factor, const T* roots, Index step, int re, Vec<T>* a, Vec<T>* b) {
  Index s = 1;
  for (; n > 1; ++factor) {
    const int r = *factor;
    n /= r;
    const Pass<T> p{n, s, step * s, roots, re};
    pass_of(r, p, a, b);
    std::swap(a, b);
    s *= r;
  }
  return a;
}

// V: a vector, or T.
template <class V, class T>
void multiply(Index n, const T* by, int re, V* x) {
  for (Index k = 0; k < n; ++k) {
    V *xr = x + 2 * k + re, *xi = x + 2 * k + 1 - re;
    const T c = by[2 * k], d = by[2 * k + 1];
    const V r = *xr * c - *xi * d;
    *xi = *xr * d + *xi * c;
    *xr = r;
  }
}

// Of what lies in a; the result lies in the buffer that is returned.
template <class T>
Vec<T>* transform(const FftPlan<T>& plan, int re, Vec<T>* a, Vec<T>* b) {
  if (!plan.inner) return passes(plan.n, plan.factors.data(), plan.roots.data(), plan.step, re, a, b);
  const FftPlan<T>& inner = *plan.inner;
  multiply(plan.n, plan.chirp.data(), re, a);
  std::fill(a + 2 * plan.n, a + 2 * inner.n, Vec<T>{});
  Vec<T>* x = passes(inner.n, inner.factors.data(), inner.roots.data(), Index(1), re, a, b);
  multiply(inner.n, plan.spectrum.data(), re, x);
  x = passes(inner.n, inner.factors.data(), inner.roots.data(), Index(1), 1 - re, x, x == a ? b : a);
  multiply(plan.n, plan.chirp.data(), re, x);
  return x;
}

// ---- to and from memory ------------------------------------------------------------------------------------------------

// Every second element of a pair of vectors, and back.
template <class T, int Odd>
struct Second {
  static constexpr int at(int i) { return 2 * i + Odd; }
};
template <class T, int From>
struct Zip {
  static constexpr int at(int i) { return From + i / 2 + (i % 2 ? Lanes<T>::count : 0); }
};

template <class T>
bool beside(const char* const* at, Index item) {
  for (int l = 1; l < Lanes<T>::count; ++l)
    if (at[l] != at[0] + l * item) return false;
  return true;
}

// n numbers of every line, which lie side by side, as n vectors; and back.
template <class T>
void load_along(const char* const* at, Index n, Vec<T>* x) {
  constexpr int W = Lanes<T>::count;
  const auto numbers = [&](int l) { return reinterpret_cast<const T*>(at[l]); };
  Index k = 0;
  for (; k + W <= n; k += W) {
    for (int l = 0; l < W; ++l) x[k + l] = lanes::load(numbers(l) + k);
    lanes::transpose<T>(x + k);
  }
  for (; k < n; ++k)
    for (int l = 0; l < W; ++l) x[k][l] = numbers(l)[k];
}

template <class T>
void store_along(char* const* at, int lines, Index n, T factor, const Vec<T>* x) {
  constexpr int W = Lanes<T>::count;
  const auto numbers = [&](int l) { return reinterpret_cast<T*>(at[l]); };
  Index k = 0;
  for (; k + W <= n; k += W) {
    Vec<T> r[W];
#pragma GCC unroll 16
    for (int l = 0; l < W; ++l) r[l] = x[k + l] * factor;
    lanes::transpose<T>(r);
    for (int l = 0; l < lines; ++l) lanes::store(numbers(l) + k, r[l]);
  }
  for (; k < n; ++k)
    for (int l = 0; l < lines; ++l) numbers(l)[k] = x[k][l] * factor;
}

// `count` items (of Parts numbers each) of every line, `step` bytes apart, as vectors.
template <int Parts, class T>
void load_lines(const char* const* at, Index step, Index count, Vec<T>* x) {
  constexpr int W = Lanes<T>::count;
  const auto floats = [](const char* p) { return reinterpret_cast<const T*>(p); };
  if (step == Index(Parts * sizeof(T))) return load_along<T>(at, Parts * count, x);
  const bool together = beside<T>(at, Parts * sizeof(T));
  for (Index k = 0; k < count; ++k) {
    if (!together) {
      for (int l = 0; l < W; ++l)
        for (int part = 0; part < Parts; ++part) x[Parts * k + part][l] = floats(at[l] + k * step)[part];
      continue;
    }
    const T* from = floats(at[0] + k * step);
    const Vec<T> first = lanes::load(from);
    if constexpr (Parts == 1) {
      x[k] = first;
    } else {
      const Vec<T> second = lanes::load(from + W);
      x[2 * k] = lanes::detail::picked<T, Second<T, 0>>(first, second);
      x[2 * k + 1] = lanes::detail::picked<T, Second<T, 1>>(first, second);
    }
  }
}

template <int Parts, class T>
void store_lines(char* const* at, int lines, Index step, Index count, T factor, const Vec<T>* x) {
  constexpr int W = Lanes<T>::count;
  const auto floats = [](char* p) { return reinterpret_cast<T*>(p); };
  if (step == Index(Parts * sizeof(T))) return store_along<T>(at, lines, Parts * count, factor, x);
  const bool together = lines == W && beside<T>(at, Parts * sizeof(T));
  for (Index k = 0; k < count; ++k) {
    if (!together) {
      for (int l = 0; l < lines; ++l)
        for (int part = 0; part < Parts; ++part) floats(at[l] + k * step)[part] = x[Parts * k + part][l] * factor;
      continue;
    }
    T* to = floats(at[0] + k * step);
    if constexpr (Parts == 1) {
      lanes::store(to, x[k] * factor);
    } else {
      const Vec<T> re = x[2 * k] * factor, im = x[2 * k + 1] * factor;
      lanes::store(to, lanes::detail::picked<T, Zip<T, 0>>(re, im));
      lanes::store(to + W, lanes::detail::picked<T, Zip<T, W / 2>>(re, im));
    }
  }
}

// ---- real lines of even length, as half as many complex values --------------------------------------------------------

// From the transform z of x[2 k] + i x[2 k + 1] twice that of x, values 0 to h. V: a vector, or T.
template <class V, class T>
void untangle(Index h, const T* roots, const V* z, V* y) {
  for (Index k = 0; 2 * k <= h; ++k) {
    const V *a = z + 2 * k, *b = z + 2 * ((h - k) % h);
    const T c = roots[2 * k], d = roots[2 * k + 1];
    const V er = a[0] + b[0], ei = a[1] - b[1], pr = a[1] + b[1], pi = b[0] - a[0];
    const V wr = pr * c - pi * d, wi = pr * d + pi * c;
    V *low = y + 2 * k, *high = y + 2 * (h - k);
    low[0] = er + wr;
    low[1] = ei + wi;
    high[0] = er - wr;
    high[1] = wi - ei;
  }
}

// From values 0 to h of a transform of x the values 0 to h - 1 whose inverse transform is x[2 k] + i x[2 k + 1]. Writes one
// more.
template <class V, class T>
void entangle(Index h, const T* roots, const V* y, V* z) {
  for (Index k = 0; 2 * k <= h; ++k) {
    const V *a = y + 2 * k, *b = y + 2 * (h - k);
    const T c = roots[2 * k], d = roots[2 * k + 1];
    const V er = a[0] + b[0], ei = a[1] - b[1], pr = a[0] - b[0], pi = a[1] + b[1];
    // i times the root's conjugate times p
    const V wr = pr * d - pi * c, wi = pr * c + pi * d;
    V *low = z + 2 * k, *high = z + 2 * (h - k);
    low[0] = er + wr;
    low[1] = ei + wi;
    high[0] = er - wr;
    high[1] = wi - ei;
  }
}

// What a transform of n real values can't have is left out; where n is odd, the other half is written behind this one.
template <class V>
void make_hermitian(Index n, V* y) {
  y[1] = V{};
  if (n % 2 == 0) y[n + 1] = V{};
  for (Index k = 1; k <= n / 2 && n % 2; ++k) {
    y[2 * (n - k)] = y[2 * k];
    y[2 * (n - k) + 1] = -y[2 * k + 1];
  }
}

// ---- lines -------------------------------------------------------------------------------------------------------------

void copy_items(Index count, Index size, const char* from, Index from_step, char* to, Index to_step) {
  for (Index k = 0; k < count; ++k) std::memcpy(to + k * to_step, from + k * from_step, std::size_t(size));
}

// f(group, a, b) for groups of lines, by several threads, with buffers of `room` vectors.
template <class T, class F>
void for_each_group(Index groups, Index work, Index room, F f) {
  parallel_for(groups, std::max<Index>(1, kWork / work), [&](Index first, Index last) {
    const Scratch<Vec<T>> a(room), b(room);
    for (Index g = first; g < last; ++g) f(g, a.data(), b.data());
  });
}

// One line alone, of n complex values: its columns, `rows` apart, are lines to be transformed; and then what came out of all
// for the same place.
template <class T>
void transform_alone(const FftPlan<T>& plan, int re, const char* from, Index from_step, char* to, Index to_step, T factor) {
  constexpr Index W = Lanes<T>::count, pair = 2 * sizeof(T);
  if (plan.inner) {  // as transform() does it
    const FftPlan<T>& inner = *plan.inner;
    const Scratch<T> line(2 * inner.n), other(2 * inner.n);
    char *first = reinterpret_cast<char*>(line.data()), *second = reinterpret_cast<char*>(other.data());
    copy_items(plan.n, pair, from, from_step, first, pair);
    multiply(plan.n, plan.chirp.data(), re, line.data());
    std::fill(line.data() + 2 * plan.n, line.data() + 2 * inner.n, T(0));
    transform_alone(inner, re, first, pair, second, pair, T(1));
    multiply(inner.n, plan.spectrum.data(), re, other.data());
    transform_alone(inner, 1 - re, second, pair, first, pair, factor);
    multiply(plan.n, plan.chirp.data(), re, line.data());
    return copy_items(plan.n, pair, first, pair, to, to_step);
  }
  const Index rows = plan.rows, columns = plan.n / rows, room = plan.room_alone();
  const Scratch<T> between(2 * plan.n);
  char* z = reinterpret_cast<char*>(between.data());
  for_each_group<T>((rows + W - 1) / W, columns * W, room, [&](Index g, Vec<T>* a, Vec<T>* b) {
    const char* sources[W];
    char* targets[W];
    for (Index j = 0; j < W; ++j) {
      const Index l = std::min(g * W + j, rows - 1);
      sources[j] = from + l * from_step;
      targets[j] = z + l * columns * pair;
    }
    load_lines<2, T>(sources, rows * from_step, columns, a);
    const Vec<T>* y = passes(columns, plan.factors.data(), plan.roots.data(), plan.step * rows, re, a, b);
    store_lines<2, T>(targets, int(std::min(W, rows - g * W)), pair, columns, T(1), y);
  });
  for_each_group<T>((columns + W - 1) / W, rows * W, room, [&](Index g, Vec<T>* a, Vec<T>* b) {
    const char* sources[W];
    char* targets[W];
    for (Index j = 0; j < W; ++j) {
      const Index q = std::min(g * W + j, columns - 1);
      sources[j] = z + q * pair;
      targets[j] = to + q * to_step;
    }
    load_lines<2, T>(sources, columns * pair, rows, a);
    const T* root = plan.across.data() + 2 * W * rows * g;
    for (Index l = 0; l < rows; ++l, root += 2 * W) {
      const Vec<T> c = lanes::load(root), d = lanes::load(root + W), r = a[2 * l + re], i = a[2 * l + 1 - re];
      a[2 * l + re] = r * c - i * d;
      a[2 * l + 1 - re] = r * d + i * c;
    }
    const Vec<T>* y =
        passes(rows, plan.factors.data() + plan.split, plan.roots.data(), plan.step * columns, re, a, b);
    store_lines<2, T>(targets, int(std::min(W, columns - g * W)), columns * to_step, rows, factor, y);
  });
}

template <class T>
void run_alone(const Fft<T>& f, const char* from, char* to) {
  const FftPlan<T>& plan = *f.plan;
  const T* roots = plan.roots.data();
  constexpr Index real = sizeof(T), pair = 2 * real;
  const T factor = T(f.factor);
  if (f.kind == Transform::complex)
    return transform_alone(plan, f.inverse, from, f.from_step, to, f.to_step, factor);
  const Index n = f.n, half = n / 2 + 1;
  const bool even = plan.step == 2;
  const Scratch<T> line(2 * n + 2), other(2 * n + 2);
  char *first = reinterpret_cast<char*>(line.data()), *second = reinterpret_cast<char*>(other.data());
  if (f.kind == Transform::half) {
    if (!even) std::fill(line.data(), line.data() + 2 * n, T(0));
    copy_items(n, real, from, f.from_step, first, even ? real : pair);
    transform_alone(plan, 0, first, pair, second, pair, even ? factor / 2 : factor);
    if (even) untangle<T>(plan.n, roots, other.data(), line.data());
    return copy_items(half, pair, even ? first : second, pair, to, f.to_step);
  }
  const Index there = std::min(f.given, half);
  copy_items(there, pair, from, f.from_step, first, pair);
  std::fill(line.data() + 2 * there, line.data() + 2 * half, T(0));
  make_hermitian(n, line.data());
  if (even) entangle<T>(plan.n, roots, line.data(), other.data());
  transform_alone(plan, 1, even ? second : first, pair, even ? first : second, pair, factor);
  copy_items(n, real, even ? first : second, even ? real : pair, to, f.to_step);
}

// As many lines as a vector has elements, of which the first `lines` are stored.
template <class T>
void run_group(const Fft<T>& f, const char* const* from, char* const* to, int lines, Vec<T>* a, Vec<T>* b) {
  using V = Vec<T>;
  const FftPlan<T>& plan = *f.plan;
  const T* roots = plan.roots.data();
  const Index n = f.n, half = n / 2 + 1;
  const T factor = T(f.factor);
  const bool even = plan.step == 2;
  const auto other = [&](const V* x) { return x == a ? b : a; };
  if (f.kind == Transform::complex) {
    load_lines<2, T>(from, f.from_step, n, a);
    return store_lines<2, T>(to, lines, f.to_step, n, factor, transform(plan, f.inverse, a, b));
  }
  if (f.kind == Transform::half) {
    if (even) {
      load_lines<1, T>(from, f.from_step, n, a);
      V* z = transform(plan, 0, a, b);
      untangle(plan.n, roots, z, other(z));
      return store_lines<2, T>(to, lines, f.to_step, half, factor / 2, other(z));
    }
    load_lines<1, T>(from, f.from_step, n, b);
    for (Index k = 0; k < n; ++k) {
      a[2 * k] = b[k];
      a[2 * k + 1] = V{};
    }
    return store_lines<2, T>(to, lines, f.to_step, half, factor, transform(plan, 0, a, b));
  }
  const Index there = std::min(f.given, half);
  V* y = even ? b : a;
  load_lines<2, T>(from, f.from_step, there, y);
  std::fill(y + 2 * there, y + 2 * half, V{});
  make_hermitian(n, y);
  if (even) {
    entangle(plan.n, roots, y, a);
    return store_lines<1, T>(to, lines, f.to_step, n, factor, transform(plan, 1, a, b));
  }
  const V* x = transform(plan, 1, a, b);
  V* packed = other(x);
  for (Index k = 0; k < n; ++k) packed[k] = x[2 * k];
  store_lines<1, T>(to, lines, f.to_step, n, factor, packed);
}

}  // namespace

template <class T>
void Fft<T>::prepare() {
  const bool halved = kind != Transform::complex && n % 2 == 0;
  plan = find_fft_plan<T>(halved ? n / 2 : n, halved ? 2 : 1, Lanes<T>::count);
}

template <class T>
void Fft<T>::run() const {
  constexpr Index W = Lanes<T>::count;
  Index lines = 1;
  for (int k = 0; k < ndim; ++k) lines *= shape[k];
  const Index room = plan->room(), groups = (lines + W - 1) / W;
  // Where line number `rest` begins.
  const auto find = [&](Index rest, const char*& source, char*& target) {
    source = from;
    target = to;
    for (int k = ndim - 1; k >= 0; --k) {
      const Index at = rest % shape[k];
      rest /= shape[k];
      source += at * from_strides[k];
      target += at * to_strides[k];
    }
  };
  const bool divisible = plan->rows || (plan->inner && plan->inner->rows);
  if (divisible && (lines < W || 2 * room * W * Index(sizeof(T)) > kFar)) {
    parallel_for(lines, lines < W ? lines : 1, [&](Index first, Index last) {  // few: each by all threads
      for (Index l = first; l < last; ++l) {
        const char* source;
        char* target;
        find(l, source, target);
        run_alone(*this, source, target);
      }
    });
    return;
  }
  for_each_group<T>(groups, n * W, room, [&](Index g, Vec<T>* a, Vec<T>* b) {
    const char* sources[W];
    char* targets[W];
    for (Index l = 0; l < W; ++l) find(std::min(g * W + l, lines - 1), sources[l], targets[l]);  // the last one fills up
    run_group(*this, sources, targets, int(std::min(W, lines - g * W)), a, b);
  });
}

template struct Fft<float>;
template struct Fft<double>;

}  // namespace tg
