#include "gemm.h"

#include <algorithm>
#include <limits>
#include <type_traits>

#include "../core/allocator.h"
#include "../core/blas.h"
#include "../core/lanes.h"
#include "gemm_panels.h"
#include "gemm_tasks.h"

namespace tg {
namespace {

constexpr Index kBlasLimit = std::numeric_limits<int>::max();


// Strides of a single row or column mean nothing; give them the value that makes the matrix readable.
template <class T>
Matrix<T> canonical(Matrix<T> a, Index rows, Index cols) {
  if (rows == 1) a.row = a.col == 1 ? std::max<Index>(1, cols) : 1;
  if (cols == 1) a.col = a.row == 1 && rows > 1 ? rows : 1;
  return a;
}

// How one product is cut: tiles of c, and stretches of k whose partial sums are added in order.
struct Cut {
  Index tile_m, tile_n, tiles_m, tiles_n, parts;
  Index tiles() const { return tiles_m * tiles_n; }
};

constexpr Index kSmall = Index(1) << 18;  // multiplications done before a second thread pays

// Complex products go to BLAS, whose tiles pack their operands anew. So the longer side is cut first, tiles keep a side of
// 128 (256 in large products), and there are few: 2 to 8, more only above 2^31 multiplications.
Cut cut_product(Index m, Index n, Index k, Index batch) {
  const Index work = m * n * k;
  Cut cut{m, n, 1, 1, 1};
  if (work * batch < 2 * kSmall) return cut;
  Index wanted = std::max(std::clamp<Index>(work >> 23, 2, 8), work >> 28);
  wanted = std::clamp<Index>(divide_up(16, batch), 1, wanted);
  const Index least = work < (Index(1) << 22) ? 64 : work < (Index(1) << 27) ? 128 : 256;
  auto split = [&](Index length, Index& tile, Index& tiles) {
    const Index count = std::clamp<Index>(length / least, 1, wanted);
    tile = round_up(divide_up(length, count), 16);
    tiles = divide_up(length, tile);
    wanted /= tiles;
  };
  if (m >= n) {
    split(m, cut.tile_m, cut.tiles_m);
    split(n, cut.tile_n, cut.tiles_n);
  } else {
    split(n, cut.tile_n, cut.tiles_n);
    split(m, cut.tile_m, cut.tiles_m);
  }
  cut.parts = std::clamp<Index>(k / 512, 1, std::max<Index>(1, wanted));
  return cut;
}

// One entry of a list with its cut and the place of its tasks in the list's loop.
template <class T>
struct Planned {
  const Gemm<T>* product;
  Cut cut;
  Index batch_grain, tasks, first_task;
  T* partial;  // (parts - 1) stacked (batch, m, n), or null
};

template <class T>
void fill_bias(const T* bias, Index rows, Index cols, T* c, Index ldc) {
  for (Index i = 0; i < rows; ++i) std::copy_n(bias, cols, c + i * ldc);
}

template <class T>
void run_tile(const Planned<T>& p, Index entry, Index tile, Index part) {
  const Gemm<T>& g = *p.product;
  const Cut& cut = p.cut;
  const Index i = tile / cut.tiles_n * cut.tile_m, j = tile % cut.tiles_n * cut.tile_n;
  const Index rows = std::min(cut.tile_m, g.m - i), cols = std::min(cut.tile_n, g.n - j);
  const Index k0 = g.k * part / cut.parts, k1 = g.k * (part + 1) / cut.parts;
  Matrix<T> a = g.left(entry), b = g.right(entry);
  a.data += i * a.row + k0 * a.col;
  b.data += k0 * b.row + j * b.col;
  T* c = part == 0 ? g.c : p.partial + (part - 1) * g.batch * g.m * g.n;
  c += (entry * g.m + i) * g.n + j;
  const bool biased = g.bias && part == 0;
  if (biased) fill_bias(g.bias + j, rows, cols, c, g.n);
  gemm_block(rows, cols, k1 - k0, a, b, c, g.n, biased);
}

template <class T>
void run_task(const Planned<T>& p, Index task) {
  const Cut& cut = p.cut;
  const Index part = task % cut.parts, tile = task / cut.parts % cut.tiles();
  const Index first = task / cut.parts / cut.tiles() * p.batch_grain;
  const Index last = std::min(p.product->batch, first + p.batch_grain);
  for (Index entry = first; entry < last; ++entry) run_tile(p, entry, tile, part);
}

template <class T>
void add_parts(const Planned<T>& p) {
  const Index size = p.product->batch * p.product->m * p.product->n, chunk = 1 << 14;
  for_each_task(divide_up(size, chunk), [&](Index task) {
    const Index first = task * chunk, last = std::min(size, first + chunk);
    for (Index part = 0; part + 1 < p.cut.parts; ++part) {
      const T* from = p.partial + part * size;
      for (Index i = first; i < last; ++i) p.product->c[i] += from[i];
    }
  });
}

}  // namespace

template <class T>
bool readable(const Matrix<T>& given, Index rows, Index cols) {
  if constexpr (std::is_floating_point_v<T>) return true;
  const Matrix<T> a = canonical(given, rows, cols);
  return (a.col == 1 && a.row >= cols && a.row < kBlasLimit) || (a.row == 1 && a.col >= rows && a.col < kBlasLimit);
}

template <class T>
void gemm_block(Index m, Index n, Index k, Matrix<T> a, Matrix<T> b, T* c, Index ldc, bool add, T alpha) {
  if (m == 0 || n == 0) return;
  if (k == 0) {
    if (!add)
      for (Index i = 0; i < m; ++i) std::fill_n(c + i * ldc, n, T(0));
    return;
  }
  a = canonical(a, m, k);
  b = canonical(b, k, n);
  const bool ta = a.col != 1, tb = b.col != 1;
  blas_gemm(ta, tb, m, n, k, alpha, a.data, ta ? a.col : a.row, b.data, tb ? b.col : b.row, add ? T(1) : T(0), c, ldc);
}

template <class T>
void blas_list(const std::vector<Gemm<T>>& products) {
  std::vector<Planned<T>> plans;
  Index tasks = 0, scratch = 0, work = 0;
  for (const Gemm<T>& g : products) {
    Planned<T> p{&g, cut_product(g.m, g.n, g.k, g.batch), 1, 0, tasks, nullptr};
    if (p.cut.tiles() == 1) p.batch_grain = std::max<Index>(1, kSmall / (g.m * g.n * g.k));
    p.tasks = divide_up(g.batch, p.batch_grain) * p.cut.tiles() * p.cut.parts;
    tasks += p.tasks;
    scratch += (p.cut.parts - 1) * g.batch * g.m * g.n;
    work += g.m * g.n * g.k * g.batch;
    plans.push_back(p);
  }
  if (work < 2 * kSmall) {
    for (const Planned<T>& p : plans)
      for (Index t = 0; t < p.tasks; ++t) run_task(p, t);
    return;
  }
  Scratch<T> partial(scratch);
  scratch = 0;
  for (Planned<T>& p : plans) {
    p.partial = partial.data() + scratch;
    scratch += (p.cut.parts - 1) * p.product->batch * p.product->m * p.product->n;
  }
  for_each_task(tasks, [&](Index task) {
    std::size_t i = plans.size() - 1;
    while (plans[i].first_task > task) --i;
    run_task(plans[i], task - plans[i].first_task);
  });
  for (const Planned<T>& p : plans)
    if (p.cut.parts > 1) add_parts(p);
}

template <class T>
void gemm(const std::vector<Gemm<T>>& products) {
  if constexpr (std::is_floating_point_v<T>) {
    const auto has_work = [](const Gemm<T>& g) { return g.m > 0 && g.n > 0 && g.k > 0 && g.batch > 0; };
    if (std::all_of(products.begin(), products.end(), has_work)) return panel_gemm(products.data(), products.size());
  }
  std::vector<Gemm<T>> whole;
  for (const Gemm<T>& g : products) {
    if (g.m == 0 || g.n == 0 || g.batch == 0) continue;
    if (g.k > 0) whole.push_back(g);
    else
      for (Index i = 0; i < g.batch * g.m; ++i)
        for (Index j = 0; j < g.n; ++j) g.c[i * g.n + j] = g.bias ? g.bias[j] : T(0);
    if (g.k == 0 && g.finished) (*g.finished)(0, g.batch * g.m * g.n);
  }
  if constexpr (std::is_floating_point_v<T>) panel_gemm(whole.data(), whole.size());
  else blas_list(whole);
}

template <class T>
void gemm(const Gemm<T>& g) {
  if constexpr (std::is_floating_point_v<T>)
    if (g.m > 0 && g.n > 0 && g.k > 0 && g.batch > 0) return panel_gemm(&g, 1);
  gemm(std::vector<Gemm<T>>{g});
}

namespace {

// Ladder, two Emerald Rapids cores, microseconds as a loop over sums of 64 bits in memory, as tiles, and PyTorch's: int64 (512,
// 512) by (512, 512) 60100, 10200, 16200; int32 56600, 4300, 14000; int8 (256, 256) by (256, 256) 6660, 560, 690.

// What integers of T are multiplied and summed in: it wraps, and what is left of it after that is T's result.
template <class T>
using Wrapping = std::conditional_t<sizeof(T) == 8, std::uint64_t, std::uint32_t>;

template <class U>
struct Side {
  typedef U Lane __attribute__((vector_size(lanes::kVectorBytes), may_alias));
};

constexpr Index kTall = 4, kTerms = 256;  // rows of a tile; terms of a panel, which fills half of an L1
template <class T>
constexpr Index kWide = 2 * lanes::kVectorBytes / Index(sizeof(Wrapping<T>));

// Rows [first, last) of c by the columns of one panel from column j on.
template <class T>
void multiply_integers(const Gemm<T>& g, Index entry, Index first, Index last, Index j) {
  using U = Wrapping<T>;
  using Lane = typename Side<U>::Lane;
  static_assert(sizeof(Lane) == lanes::kVectorBytes, "a vector");
  const Matrix<T> a = g.left(entry), b = g.right(entry);
  const Index columns = std::min(kWide<T>, g.n - j);
  Scratch<U> packed(kWide<T> * std::min(kTerms, g.k));
  const Lane* panel = reinterpret_cast<const Lane*>(packed.data());
  for (Index k0 = 0; k0 < g.k; k0 += kTerms) {
    const Index terms = std::min(kTerms, g.k - k0);
    for (Index k = 0; k < terms; ++k) {
      U* to = packed.data() + k * kWide<T>;
      const T* from = b.data + (k0 + k) * b.row + j * b.col;
      for (Index v = 0; v < columns; ++v) to[v] = static_cast<U>(from[v * b.col]);
      std::fill(to + columns, to + kWide<T>, U(0));
    }
    for (Index i = first; i < last; i += kTall) {
      const Index rows = std::min(kTall, last - i);
      const T* row[kTall];  // the last one again where there are fewer
      for (Index r = 0; r < kTall; ++r) row[r] = a.data + (i + std::min(r, rows - 1)) * a.row + k0 * a.col;
      Lane sum[kTall][2] = {};
      for (Index k = 0; k < terms; ++k)
#pragma GCC unroll 4
        for (Index r = 0; r < kTall; ++r) {
          const U x = static_cast<U>(row[r][k * a.col]);
          sum[r][0] += x * panel[2 * k], sum[r][1] += x * panel[2 * k + 1];
        }
      for (Index r = 0; r < rows; ++r) {
        T* c = g.c + (entry * g.m + i + r) * g.n + j;
        for (Index v = 0; v < columns; ++v) {
          const U made = reinterpret_cast<const U*>(sum[r])[v];
          c[v] = static_cast<T>(k0 > 0 ? static_cast<U>(c[v]) + made : made);
        }
      }
    }
  }
}

// Where a panel would be idle for the most part: elements of c one by one.
template <class T>
void integer_dots(const Gemm<T>& g, Index entry, Index first, Index last) {
  using U = Wrapping<T>;
  const Matrix<T> a = g.left(entry), b = g.right(entry);
  for (Index i = first; i < last; ++i)
    for (Index j = 0; j < g.n; ++j) {
      U sum = 0;
      for (Index k = 0; k < g.k; ++k)
        sum += static_cast<U>(a.data[i * a.row + k * a.col]) * static_cast<U>(b.data[k * b.row + j * b.col]);
      g.c[(entry * g.m + i) * g.n + j] = static_cast<T>(sum);
    }
}

}  // namespace

template <class T>
void integer_gemm(const Gemm<T>& g) {
  if (g.m == 0 || g.n == 0) return;
  const bool few = 4 * g.n < kWide<T> || g.k == 0;
  const Index wide = few ? g.n : kWide<T>, panels = divide_up(g.n, wide);
  const Index least = std::max<Index>(1, kSmall / 4 / std::max<Index>(1, wide * g.k)), rows = std::min(g.m, round_up(least, kTall));
  const Index blocks = divide_up(g.m, rows);
  for_each_task(g.batch * panels * blocks, [&](Index task) {
    const Index entry = task / blocks / panels, j = task / blocks % panels * wide, first = task % blocks * rows;
    const Index last = std::min(g.m, first + rows);
    if (few) integer_dots(g, entry, first, last);
    else multiply_integers(g, entry, first, last, j);
  });
}

#define TG_GEMM(T)                                                                                     \
  template bool readable(const Matrix<T>&, Index, Index);                                         \
  template void gemm_block(Index, Index, Index, Matrix<T>, Matrix<T>, T*, Index, bool, T);              \
  template void gemm(const std::vector<Gemm<T>>&);                                                      \
  template void gemm(const Gemm<T>&);
TG_GEMM(float)
TG_GEMM(double)
TG_GEMM(std::complex<float>)
TG_GEMM(std::complex<double>)
#undef TG_GEMM

template void integer_gemm(const Gemm<std::int8_t>&);
template void integer_gemm(const Gemm<std::int16_t>&);
template void integer_gemm(const Gemm<std::int32_t>&);
template void integer_gemm(const Gemm<std::int64_t>&);
template void integer_gemm(const Gemm<std::uint8_t>&);

}  // namespace tg
