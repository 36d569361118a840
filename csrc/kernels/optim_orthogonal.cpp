// Muon: a step along the momentum, made nearly orthogonal (Jordan 2024).
//   m += (1 - momentum) (g - m);  x = nesterov ? g + momentum (m - g) : m;  x /= |x|
//   steps times: G = x x';  F = b G + c G G;  x = a x + F x
//   p = shrink p - rate x
// What is stored between products is rounded to bfloat16, products of such numbers are summed in float. A tall matrix is
// x' of the formulas: G = x' x, and x F in place of F x.
//
// G and F are symmetric: the part above the diagonal is a copy. Results are rounded by the thread that finished them, while
// they are in its cache. A matrix that is little beside the others is one thread's, on all of a large one work all; which
// of them changes no bit, nor does the number of threads: sums are those of gemm.h, or of pieces of a fixed size.
#include <algorithm>
#include <cmath>
#include <functional>
#include <optional>

#include "../core/allocator.h"
#include "../core/parallel.h"
#include "../core/transpose.h"
#include "gemm.h"
#include "optim.h"
#include "optim_bfloat.h"
#include "reduce_lanes.h"

namespace tg {
namespace {

constexpr Index kPiece = 16384;            // elements that a thread takes at once
constexpr Index kLittle = Index(1) << 23;  // multiplications that are one thread's anyhow: as much as waiting for others takes
constexpr Index kLanes = lanes::Lanes<float>::count;

// The direction of n elements, and the sum of its squares.
template <class T>
double direction(const void* grad, void* momentum, float* to, Index n, double keep, bool nesterov) {
  const T *g = static_cast<const T*>(grad), rest = T(1 - keep), ahead = T(keep);
  T* __restrict m = static_cast<T*>(momentum);
  float* __restrict x = to;
  for (Index i = 0; i < n; ++i) {
    m[i] += rest * (g[i] - m[i]);
    x[i] = nearest(float(nesterov ? g[i] + ahead * (m[i] - g[i]) : m[i]));
  }
  return double(sum_products(x, x, n));
}

template <class T>
void subtract(void* param, const float* x, Index n, double keep, double rate) {
  T *__restrict p = static_cast<T*>(param), shrink = T(keep), by = T(rate);
  for (Index i = 0; i < n; ++i) p[i] = shrink * p[i] - by * T(x[i]);
}

// sums = nearest(b x + c sums); or without the first product where x is null.
void finish(float* sums, const float* x, Index n, float b, float c) {
  const auto one = [=](Floats sum, Floats other) {
    sum = lanes::rounded(Floats(c * sum));
    return nearest(x ? lanes::rounded(Floats(b * other)) + sum : sum);
  };
  Index i = 0;
  for (; i + kLanes <= n; i += kLanes) lanes::store(sums + i, one(lanes::load(sums + i), lanes::load((x ? x : sums) + i)));
  if (i == n) return;
  float end[2][kLanes] = {};
  std::copy(sums + i, sums + n, end[0]);
  if (x) std::copy(x + i, x + n, end[1]);
  lanes::store(end[0], one(lanes::load(end[0]), lanes::load(end[1])));
  std::copy(end[0], end[0] + n - i, sums + i);
}

// Of rows [i0, i1) of a symmetric matrix, side n, columns [j0, j1) before the diagonal's are copied to their place above it.
// Squares of vectors, which overlap at the ends.
void mirror(float* c, Index n, Index i0, Index i1, Index j0, Index j1) {
  Index next = i0;
  for (Index i = i0; i1 - i0 >= kLanes && i < i1; i = next) {
    next = i + kLanes;
    i = std::min(i, i1 - kLanes);
    const Index end = std::min(j1, i);
    for (Index j = j0; end - j0 >= kLanes && j < end; j += kLanes) {
      const Index at = std::min(j, end - kLanes);
      Floats r[kLanes];
#pragma GCC unroll 16
      for (Index k = 0; k < kLanes; ++k) r[k] = lanes::load(c + (i + k) * n + at);
      lanes::transpose<float>(r);
#pragma GCC unroll 16
      for (Index k = 0; k < kLanes; ++k) lanes::store(c + (at + k) * n + i, r[k]);
    }
    for (Index k = i; k < i + kLanes; ++k)
      for (Index j = end - j0 >= kLanes ? std::max(j0, end) : j0; j < std::min(j1, k); ++j) c[j * n + k] = c[k * n + j];
  }
  for (Index i = next; i < i1; ++i)
    for (Index j = j0; j < std::min(j1, i); ++j) c[j * n + i] = c[i * n + j];
}

// Calls block(i0, i1, j0, j1) for the rows of n elements that elements [first, last) are of: whole ones, and parts.
template <class Block>
void over_rows(Index n, Index first, Index last, Block block) {
  while (first < last) {
    const Index row = first / n, at = first % n, left = last - first;
    const Index rows = at ? 1 : std::max<Index>(1, left / n), end = rows > 1 ? n : std::min(n, at + left);
    block(row, row + rows, at, end);
    first += rows > 1 ? rows * n : end - at;
  }
}

class Orthogonal {
 public:
  Orthogonal(const MuonSpan& s, const MuonRates& r, bool is_double)
      : span(s), rates(r), item(is_double ? 8 : 4), side(std::min(s.height, s.width)), length(std::max(s.height, s.width)),
        kept(s.size()), sums((s.size() + kPiece - 1) / kPiece), x(kept.data()) {}

  void run() {
    pieces([this](Index at, Index n) {
      sums[at / kPiece] = (item == 8 ? direction<double> : direction<float>)(in(span.grad, at), in(span.momentum, at), x + at, n,
                                                                             rates.momentum, rates.nesterov);
    });
    scale();
    if (!bfloat_iterations(x, span.height, span.width, rates.coefficients, rates.steps)) iterate();
    pieces([this](Index at, Index n) {
      (item == 8 ? subtract<double> : subtract<float>)(in(span.param, at), x + at, n, rates.shrink, *span.rate);
    });
  }

 private:
  void iterate() {
    const auto [a, b, c] = rates.coefficients;
    const bool tall = span.height > span.width;
    more.emplace(span.size() + 2 * side * side);
    float *other = more->data(), *gram = other + span.size(), *factor = gram + side * side;
    for (Index k = 0; k < rates.steps; ++k) {
      const Matrix<float> lying{x, tall ? 1 : length, tall ? side : 1}, standing{x, lying.col, lying.row};
      product(side, side, length, lying, standing, gram, nullptr, 0, 1, true);
      product(side, side, side, {gram, side, 1}, {gram, side, 1}, factor, gram, float(b), float(c), true);
      if (tall) product(length, side, side, {x, side, 1}, {factor, side, 1}, other, x, float(a), 1, false);
      else product(side, length, side, {factor, side, 1}, {x, length, 1}, other, x, float(a), 1, false);
      std::swap(x, other);
    }
  }

  template <class Body>
  void pieces(Body body) const {
    parallel_for(span.size(), kPiece, [&](Index first, Index last) {
      for (; first < last; first += kPiece) body(first, std::min(kPiece, last - first));
    });
  }

  // By the norm, but no less than eps.
  void scale() const {
    double total = 0;
    for (Index k = 0; k * kPiece < span.size(); ++k) total += sums[k];
    const float norm = nearest(std::sqrt(float(total))), least = float(rates.eps), by = norm < least ? least : norm;
    pieces([this, by](Index at, Index n) {
      for (float *one = x + at, *end = one + n; one < end; ++one) *one = nearest(*one / by);
    });
  }

  // c = nearest(by added + times a b)
  static void product(Index m, Index n, Index k, Matrix<float> a, Matrix<float> b, float* c, const float* added, float by,
                      float times, bool symmetric) {
    const std::function<void(Index, Index)> finished = [=](Index first, Index last) {
      if (!symmetric) return finish(c + first, added ? added + first : nullptr, last - first, by, times);
      over_rows(n, first, last, [=](Index i0, Index i1, Index j0, Index j1) {
        for (Index i = i0; i < i1; ++i)
          if (const Index at = i * n + j0, count = std::min(j1, i + 1) - j0; count > 0)
            finish(c + at, added ? added + at : nullptr, count, by, times);
        mirror(c, n, i0, i1, j0, j1);
      });
    };
    Gemm<float> g;
    g.m = m, g.n = n, g.k = k, g.a = a, g.b = b, g.c = c;
    g.symmetric = symmetric, g.finished = &finished;
    gemm(g);
  }

  char* in(const void* array, Index at) const { return static_cast<char*>(const_cast<void*>(array)) + at * item; }

  const MuonSpan& span;
  const MuonRates& rates;
  const Index item, side, length;
  Scratch<float> kept;
  std::optional<Scratch<float>> more;  // where x lies after one step, or three
  Scratch<double> sums;                // by piece
  float* x;
};

}  // namespace

void muon_step(const std::vector<MuonSpan>& spans, const MuonRates& rates, bool is_double) {
  const auto work = [&](const MuonSpan& s) {
    const Index side = std::min(s.height, s.width);
    return s.size() + rates.steps * side * (side * side + 3 * s.size()) / 2;
  };
  Index total = 0;
  for (const MuonSpan& s : spans) total += work(s);
  const Index little = std::max(kLittle, total / (4 * num_threads()));
  std::vector<const MuonSpan*> left;
  for (const MuonSpan& s : spans)
    if (work(s) > little) Orthogonal(s, rates, is_double).run();
    else left.push_back(&s);
  parallel_for(Index(left.size()), 1, [&](Index first, Index last) {
    for (Index k = first; k < last; ++k) Orthogonal(*left[std::size_t(k)], rates, is_double).run();
  });
}

}  // namespace tg
