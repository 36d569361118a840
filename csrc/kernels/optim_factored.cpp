// Adafactor: the second moment of a matrix as an outer product of means over its rows and columns (Shazeer, Stern 2018).
//   R_i += rest (mean_j g_ij^2 - R_i);  C_j += rest (mean_i g_ij^2 - C_j);  v_ij = R_i C_j / max(mean R, eps1)
//   u = g / sqrt(max(v, eps1^2));  p = shrink p - rho max(rms p, eps2) / max(rms u / clip, 1) u
// The factor of g is min(a_i b_j, 1 / eps1), with a = 1 / sqrt(R / max(mean R, eps1)) and b = 1 / sqrt(C): no root and no
// division for each element. A vector has a v for each, which moves as R does.
//
// Three passes: sums of squares; those of the update, which is computed and forgotten; the update again, and p. A tensor is
// cut into tiles that depend on its shape alone, sums are kept for each and joined in order: the same bits for any threads.
// Of a small tensor one thread makes all passes, while it is in its cache; of a large one all threads make each.
#include <algorithm>
#include <cmath>

#include "../core/allocator.h"
#include "../core/parallel.h"
#include "optim.h"
#include "reduce_lanes.h"

namespace tg {
namespace {

constexpr Index kWide = 2048, kTall = 256;  // elements of a tile's sides, so of what is summed in T
constexpr Index kWork = 32768;              // elements of a tile, or of the tiles that a thread takes at once
constexpr Index kSmall = 65536;             // elements of a tensor that is one thread's
constexpr Index kNarrow = 16;               // elements of rows whose elements are taken one by one

// --- what is done to elements

template <class T>
double squares(const void* x, Index n) {
  return double(sum_products(static_cast<const T*>(x), static_cast<const T*>(x), n));
}

// Sums of squares over each row and each column of a tile, whose rows lie `stride` apart.
template <class T>
void squares_both_ways(const void* from, Index stride, Index height, Index width, void* of_rows, void* of_cols) {
  T *__restrict rows = static_cast<T*>(of_rows), *__restrict cols = static_cast<T*>(of_cols);
  const T* x = static_cast<const T*>(from);
  if (width < kNarrow) {
    for (Index j = 0; j < width; ++j) {
      T sum = 0;
      for (Index i = 0; i < height; ++i) {
        const T square = x[i * stride + j] * x[i * stride + j];
        rows[i] = j ? rows[i] + square : square;
        sum += square;
      }
      cols[j] = sum;
    }
    return;
  }
  std::fill(cols, cols + width, T(0));
  for (Index i = 0; i < height; ++i, x += stride) {
    rows[i] = T(squares<T>(x, width));
    for (Index j = 0; j < width; ++j) cols[j] += x[j] * x[j];
  }
}

template <class T>
void move_by_squares(void* to, const void* from, Index n, double by) {
  T* __restrict v = static_cast<T*>(to);
  const T *g = static_cast<const T*>(from), rest = T(by);
  for (Index i = 0; i < n; ++i) v[i] += rest * (g[i] * g[i] - v[i]);
}

// Means of n rows or columns move to those of now, whose sums lie in `parts` runs of n; returns the mean of all.
template <class T>
double move_means(void* to, void* from, Index n, Index parts, Index count, double by) {
  T *__restrict mean = static_cast<T*>(to), *__restrict sums = static_cast<T*>(from);
  const T rest = T(by), length = T(count);
  for (Index k = 1; k < parts; ++k)
    for (Index i = 0; i < n; ++i) sums[i] += sums[k * n + i];
  for (Index i = 0; i < n; ++i) mean[i] += rest * (sums[i] / length - mean[i]);
  double total[4] = {};  // a chain of additions would take longer than all else
  for (Index i = 0; i < n; ++i) total[i % 4] += double(mean[i]);
  return ((total[0] + total[1]) + (total[2] + total[3])) / double(n);
}

// 1 / sqrt(x / scale)
template <class T>
void inverse_roots(const void* from, double by, void* to, Index n) {
  const T *x = static_cast<const T*>(from), scale = T(by);
  T* __restrict y = static_cast<T*>(to);
  for (Index i = 0; i < n; ++i) y[i] = T(1) / std::sqrt(x[i] / scale);
}

template <class T>
void update_of_rows(const void* grad, Index stride, Index height, Index width, const void* of_rows, const void* of_cols, double eps,
                    void* to) {
  const T *g = static_cast<const T*>(grad), *a = static_cast<const T*>(of_rows), *b = static_cast<const T*>(of_cols);
  T* __restrict u = static_cast<T*>(to);
  const T most = T(1) / std::sqrt(T(eps * eps));
  const auto one = [=](Index i, Index j) {
    const T factor = a[i] * b[j];
    u[i * width + j] = g[i * stride + j] * (factor > most ? most : factor);
  };
  Index i = 0, j = 0;
  while (width < kNarrow && i < height) {  // a loop for each row would take longer than what is done in it
    one(i, j);
    if (++j == width) j = 0, ++i;
  }
  for (; i < height; ++i)
    for (Index k = 0; k < width; ++k) one(i, k);
}

template <class T>
void update_of_each(const void* grad, const void* moment, Index n, double eps, void* to) {
  const T *g = static_cast<const T*>(grad), *v = static_cast<const T*>(moment), least = T(eps * eps);
  T* __restrict u = static_cast<T*>(to);
  for (Index i = 0; i < n; ++i) u[i] = g[i] / std::sqrt(v[i] < least ? least : v[i]);
}

template <class T>
void subtract(void* to, const void* update, Index n, double keep, double rate) {
  T *__restrict p = static_cast<T*>(to), shrink = T(keep), by = T(rate);
  const T* u = static_cast<const T*>(update);
  for (Index i = 0; i < n; ++i) p[i] = shrink * p[i] - by * u[i];
}

// For one type of elements; what calls them is the same code for both.
struct Loops {
  Index item;
  double (*squares)(const void* x, Index n);
  void (*squares_both_ways)(const void* x, Index stride, Index height, Index width, void* rows, void* cols);
  void (*move_by_squares)(void* v, const void* g, Index n, double rest);
  double (*move_means)(void* means, void* sums, Index n, Index parts, Index count, double rest);
  void (*inverse_roots)(const void* x, double scale, void* y, Index n);
  void (*update_of_rows)(const void* g, Index stride, Index height, Index width, const void* a, const void* b, double eps, void* u);
  void (*update_of_each)(const void* g, const void* v, Index n, double eps, void* u);
  void (*subtract)(void* p, const void* u, Index n, double shrink, double by);
};

template <class T>
constexpr Loops kLoops = {sizeof(T), squares<T>, squares_both_ways<T>, move_by_squares<T>, move_means<T>, inverse_roots<T>,
                          update_of_rows<T>, update_of_each<T>, subtract<T>};

// --- what is done to a tensor

struct Tile {
  Index number, matrix, down, across;  // its place among all, and among its matrix's
  Index row, col, height, width, at;   // at: of its first element in the tensor
};

class Step {
 public:
  Step(const Loops& l, const FactoredSpan& s, const FactoredRates& r)
      : loop(l), span(s), rates(r), tile_width(std::min(s.width, kWide)),
        tile_height(std::min({s.height, kTall, std::max<Index>(1, kWork / tile_width)})),
        across((s.width + tile_width - 1) / tile_width), down((s.height + tile_height - 1) / tile_height),
        tiles(s.matrices * across * down), sums(tiles),
        kept(s.cols ? s.matrices * (across * s.height + down * s.width) * l.item : 0) {}

  void run() {
    each([this](const Tile& t) {
      const char* g = in(span.grad, t.at);
      if (span.cols) {
        loop.squares_both_ways(g, span.width, t.height, t.width, of_rows((t.matrix * across + t.across) * span.height + t.row),
                               of_cols((t.matrix * down + t.down) * span.width + t.col));
      } else {
        loop.move_by_squares(in(span.rows, t.col), g, t.width, rates.rest);
      }
      double total = 0;
      runs(t, [&](Index row, Index count) { total += loop.squares(in(span.param, t.at + row * span.width), count * t.width); });
      sums[t.number] = total;
    });
    const double size = root_mean(), rate = rates.rho * (size < rates.eps2 ? rates.eps2 : size);
    if (span.cols) factor();
    each([this](const Tile& t) {
      alignas(64) double u[kWide];
      double total = 0;
      runs(t, [&](Index row, Index count) {
        update(t, row, count, u);
        total += loop.squares(u, count * t.width);
      });
      sums[t.number] = total;
    });
    const double large = root_mean() / rates.clip;
    const double by = (rates.maximize ? -rate : rate) / (large < 1 ? 1 : large);
    each([this, by](const Tile& t) {
      alignas(64) double u[kWide];
      runs(t, [&](Index row, Index count) {
        update(t, row, count, u);
        loop.subtract(in(span.param, t.at + row * span.width), u, count * t.width, rates.shrink, by);
      });
    });
  }

 private:
  template <class Body>
  void each(Body body) const {
    parallel_for(tiles, kWork / (tile_width * tile_height), [&](Index first, Index last) {
      Tile t;
      t.across = first % across;
      t.down = first / across % down;
      t.matrix = first / across / down;
      for (t.number = first; t.number < last; ++t.number) {
        t.row = t.down * tile_height;
        t.col = t.across * tile_width;
        t.height = std::min(tile_height, span.height - t.row);
        t.width = std::min(tile_width, span.width - t.col);
        t.at = (t.matrix * span.height + t.row) * span.width + t.col;
        body(t);
        if (++t.across < across) continue;
        t.across = 0;
        if (++t.down < down) continue;
        t.down = 0;
        ++t.matrix;
      }
    });
  }

  // Rows of a tile by as many as lie together and have no more than kWide elements.
  template <class Body>
  void runs(const Tile& t, Body body) const {
    const Index most = across > 1 ? 1 : kWide / t.width;
    for (Index row = 0; row < t.height; row += most) body(row, std::min(most, t.height - row));
  }

  // What rows and columns give to the second moment: a and b, where the sums of the first tiles were.
  void factor() {
    const Index height = span.height, width = span.width;
    parallel_for(span.matrices, std::max<Index>(1, kWork / (height * width)), [&](Index first, Index last) {
      for (Index m = first; m < last; ++m) {
        char *a = of_rows(m * across * height), *b = of_cols(m * down * width);
        char *rows = in(span.rows, m * height), *cols = in(span.cols, m * width);
        const double mean = loop.move_means(rows, a, height, across, width, rates.rest);
        loop.move_means(cols, b, width, down, height, rates.rest);
        loop.inverse_roots(rows, mean < rates.eps1 ? rates.eps1 : mean, a, height);
        loop.inverse_roots(cols, 1, b, width);
      }
    });
  }

  void update(const Tile& t, Index row, Index count, void* u) const {
    const char* g = in(span.grad, t.at + row * span.width);
    if (span.cols)
      loop.update_of_rows(g, span.width, count, t.width, of_rows(t.matrix * across * span.height + t.row + row),
                          of_cols(t.matrix * down * span.width + t.col), rates.eps1, u);
    else loop.update_of_each(g, in(span.rows, t.col), t.width, rates.eps1, u);
  }

  double root_mean() const {
    double total = 0;
    for (Index k = 0; k < tiles; ++k) total += sums[k];
    return std::sqrt(total / double(span.size()));
  }

  char* in(const void* array, Index at) const { return static_cast<char*>(const_cast<void*>(array)) + at * loop.item; }
  char* of_rows(Index at) const { return kept.data() + at * loop.item; }
  char* of_cols(Index at) const { return of_rows(span.matrices * across * span.height + at); }

  const Loops& loop;
  const FactoredSpan& span;
  const FactoredRates& rates;
  const Index tile_width, tile_height, across, down, tiles;
  Scratch<double> sums;  // by tile
  Scratch<char> kept;
};

}  // namespace

void factored_step(const std::vector<FactoredSpan>& spans, const FactoredRates& rates, bool is_double) {
  const Loops& loops = is_double ? kLoops<double> : kLoops<float>;
  Index work = 0;
  for (const FactoredSpan& s : spans)
    if (s.size() <= kSmall) work += s.size();
    else Step(loops, s, rates).run();
  const Index count = Index(spans.size());
  parallel_for(count, work <= kWork ? count : 1, [&](Index first, Index last) {
    for (Index k = first; k < last; ++k)
      if (const FactoredSpan& s = spans[std::size_t(k)]; s.size() <= kSmall) Step(loops, s, rates).run();
  });
}

}  // namespace tg
