// c = a b (+ bias) in tiles of registers.
//
// Memory: b is packed in panels of kColumns columns, in stretches of at most kDepth terms (a panel of one stretch stays in
// L1 while the rows pass by): once for all threads, or by each for itself where an L2 holds it (packs_each). A task has
// some rows of a and all of b's panels, or, where rows are few, some of them; it walks panel by panel, and per panel down
// its rows. What is packed at once is bounded (kPacked); more is done in waves. Where rows are few and b is large
// (packs_own) a task has all rows and packs its few panels itself. Few rows by a matrix of many are gemm_stream.h's, or
// gemm_dots.h's where both are contiguous along k; some dozen are turned (gemm_turned.h). A batch of many products is
// dealt out by products, each task packing for itself; the smallest are taken side by side (gemm_little.h).
//
// Every element of c is summed in the order of k, in the same stretches, however c is cut into tasks.
//
// Ladder, Zen 3, GFLOP/s in the same run, one core, (1024, 384) by (384, 1536)': OpenBLAS 82, this 89; a row vector by
// (1024, 1024)': OpenBLAS 3, dot products 20. Two undisturbed cores, (1024, 384) by (384, 384)': this 170 (stretches of
// 512 terms). Two cores with an L3 each, ms packed for all and by tasks: (128, 784) by (784, 256)' 0.47 and 0.34, (256,
// 2048) by (2048, 2048)' 18.2 and 16.0, (1024, 384) by (384, 384)' 2.2 and 2.9. No gain: fetching the next panel
// ahead, but of turned columns (Ahead); tasks of several products in turn (gpt-micro 2 % slower).
#include "gemm_panels.h"

#include <algorithm>
#include <iterator>
#include <vector>

#include "../core/allocator.h"
#include "gemm_dots.h"
#include "gemm_little.h"
#include "gemm_stream.h"
#include "gemm_stripe.h"
#include "gemm_tasks.h"
#include "gemm_tile.h"
#include "gemm_turned.h"
#include "linear.h"

namespace tg {
namespace {

constexpr Index kPacked = Index(1) << 22;      // elements packed at once: what a shared L3 holds
constexpr Index kRowsPacked = Index(1) << 20;  // of many rows of a
constexpr Index kOwnPacked = Index(1) << 16;   // elements a task packs for itself at once: half an L2
constexpr Index kSmall = Index(1) << 18;       // multiplications done before a second thread pays
constexpr Index kManyRows = 512;               // with the panels of a task and its part of c they fit an L2
constexpr Index kBrief = 16;                    // terms of all rows: for more a tile saves reading b again
constexpr Index kLittleRows = Index(1) << 18;  // bytes of a that stay in an L2
constexpr Index kFollowed = Index(384) << 10;  // bytes of c that are still near when their task ends: most of an L2
constexpr Index kToldAtOnce = 16384;           // elements, where tasks finish something else than whole rows
constexpr Index kAskedAtOnce = 8192;           // and where what they read is needed before

// Few terms for few rows: each vector of c is summed from b as it lies, with no copies and no tiles.
template <class T>
bool brief_fits(const Gemm<T>& g) {
  return g.m * g.k <= kBrief && g.b.col == 1;
}

template <class T>
void brief(const Gemm<T>& g, Index entry) {
  using namespace lanes;
  constexpr Index L = Lanes<T>::count;
  const Matrix<T> a = g.left(entry), b = g.right(entry);
  T* c = g.c + entry * g.m * g.n;
  for (Index i = 0; i < g.m; ++i, c += g.n) {
    const T* x = a.data + i * a.row;
    Index j = 0;
    for (; j + L <= g.n; j += L) {
      Vec<T> sum = g.bias ? load(g.bias + j) : Vec<T>{};
      for (Index k = 0; k < g.k; ++k) sum += x[k * a.col] * load(b.data + k * b.row + j);
      store(c + j, sum);
    }
    for (; j < g.n; ++j) {
      T sum = g.bias ? g.bias[j] : T(0);
      for (Index k = 0; k < g.k; ++k) sum += x[k * a.col] * b.data[k * b.row + j];
      c[j] = sum;
    }
  }
}

// One panel, few rows and few terms: the loops of multiply() have one turn each, and would cost more than the products
// (ns a product of 4 x 4 in a program: 181 and 60; of 16 x 16 249 and 173).
template <class T>
bool is_tile(const Gemm<T>& g) { return g.n <= kColumns<T> && g.k <= tile::kSummed && g.m <= 8 * kRows; }

template <class T>
void multiply_tile(const Gemm<T>& g, const Matrix<T>& a, const Matrix<T>& b, T* c) {
  constexpr Index L = Lanes<T>::count;
  const Index wide = g.n <= L ? L : kColumns<T>;
  const bool b_in_place = b.col == 1 && g.n == wide, a_in_place = in_place(g), by_rows = a_in_place && a.col == 1;
  Scratch<T, kOnStack> scratch((b_in_place ? 0 : g.k * wide) + (a_in_place ? 0 : g.m * g.k));
  T* to = scratch.data();
  if (!b_in_place && wide > L) tile::pack_columns(b, g.k, g.n, to);
  for (Index k = 0; k < g.k && !b_in_place && wide == L; ++k) {
    lanes::store(to + k * L, lanes::Vec<T>{});
    for (Index j = 0; j < g.n; ++j) to[k * L + j] = b.data[k * b.row + j * b.col];
  }
  if (!b_in_place) to += g.k * wide;
  if (!a_in_place) tile::pack_rows(a, g.m, g.k, to);
  for (Index i = 0; i < g.m;) {
    const int tall = tile::height(g.m - i);
    tile::run(tall, g.k, a_in_place ? a.data + i * a.row : to + i * g.k, by_rows ? a.row : a_in_place ? a.col : tall,
              by_rows, b_in_place ? b.data : scratch.data(), b_in_place ? b.row : wide,
              tile::Target<T>{c + i * g.n, g.n, g.n, g.bias, 0});
    i += tall;
  }
}

// One entry of a batch on the calling thread.
template <class T>
void alone(const Gemm<T>& g, Index entry) {
  if (dots_fit(g)) return dots(g, entry);
  if (brief_fits(g)) return brief(g, entry);
  const Matrix<T> a = g.left(entry);
  T* c = g.c + entry * g.m * g.n;
  if (is_tile(g)) return multiply_tile(g, a, g.right(entry), c);
  const Index depth = std::min(g.k, kDepth);
  const Index wide = std::max<Index>(1, kOwnPacked / depth / kColumns<T>) * kColumns<T>;
  const Index width = std::min(wide, round_up(g.n, kColumns<T>)), tall = std::min<Index>(g.m, 8 * kRows);
  Scratch<T, kOnStack> scratch(depth * (width + (in_place(g) ? 0 : tall)));
  for (Index j = 0; j < g.n; j += width)
    for (Index k = 0; k < g.k; k += depth) {
      Stripe<T> s(g, entry, j, std::min(width, g.n - j), k, std::min(depth, g.k - k));
      s.packed = scratch.data();
      s.pack();
      for (Index i = 0; i < g.m; i += tall)
        multiply(g, a, c, s, i, std::min(g.m, i + tall), 0, s.panels(), {scratch.data() + depth * width, false});
    }
}

// One stripe of one product, or a whole batch of small ones, with its places in the loops.
template <class T>
struct Part {
  const Gemm<T>* g;
  Index entry;  // of the stripe; -1 for a whole batch
  Stripe<T> s;
  Index tall, row_blocks, wide, column_blocks;  // a task: rows and panels
  Index packs, first_pack, tasks, first_task;
  T* rows;  // of a, packed for all tasks; null where they are read in place or would be too many
  std::vector<unsigned char> packed_by;  // of threads that pack b's panels for themselves, who has

  // Whether tasks should finish whole rows of c, for who waits for them to find them near: where they fit, and where
  // nothing is lost by it: a large b beside few rows is better packed by tasks, and few rows are no work for all threads
  // (16 of 256 by 512 with a GELU took 1.1 to 1.2 times as long).
  bool wants_rows() const {
    return (g->finished || g->needed) && entry >= 0 && s.columns == g->n && s.depth == g->k &&
           (g->m > kManyRows || !large()) && least() * g->n * Index(sizeof(T)) <= kFollowed &&
           divide_up(g->m, least()) >= std::min<Index>(wanted(), 2 * num_threads());
  }
  // Tasks of 2^19 multiplications (10 us), and not more than 48.
  Index wanted() const { return std::clamp<Index>((g->m * s.columns * s.depth) >> 19, 1, 48); }
  bool whole_rows() const { return wants_rows() && column_blocks == 1; }
  // Whether tasks ask for the rows of a that they read.
  bool asks() const { return g->needed && !g->row_sums && whole_rows() && g->a.col == 1 && in_place(*g); }
  bool large() const { return s.size() > kLargeStripe; }
  bool reads_rows() const { return in_place(*g) || packs_rows(); }
  // Rows of a task: a panel serves at least 24 rows, 48 where panels have to come from L3, and only 12 where every task
  // packs rows for itself: no two tasks should have the same. Taller tiles don't need taller tasks.
  Index least() const { return round_up(large() ? 48 : reads_rows() ? 24 : 12, kRows); }
  // Whether a's rows are packed for all tasks. Where rows are many, tasks that pack their own read a once and write nothing
  // that another has to read (gradients of weights, (1024, 2048) by (2048, 256): a step of lstm 3 % faster).
  bool packs_rows() const {
    return entry >= 0 && !in_place(*g) && g->m * s.depth <= (g->m < 2 * kManyRows ? kPacked : kRowsPacked);
  }
  // Whether tasks have all rows and pack b's columns for themselves: where b is large beside the result, it passes each
  // cache once, and not as a copy that another core wrote.
  bool packs_own() const {
    return entry >= 0 && !s.in_place && !wants_rows() && g->m <= kManyRows && s.size() >= kOwnPacked &&
           s.panels() >= 8 * num_threads();
  }
  // Whether each thread packs all panels for itself: as many as an L2 holds would lie in those of the threads that packed
  // them, from where others read them more slowly than they pack (two Zen 4 cores, 1 ns an element; 0.15 to pack it).
  bool packs_each() const { return entry >= 0 && !packs_own() && !large() && num_threads() > 1; }
  Index copy_size() const { return round_up(s.size(), 64); }
  Index size() const {
    const Index copies = packs_own() ? 0 : std::max<Index>(1, Index(packed_by.size()));
    return entry < 0 ? 0 : copies * copy_size() + (packs_rows() ? g->m * s.depth : 0);
  }
};
constexpr Index kRowsAPack = 8 * kRows;

template <class T>
void pack_rows(const Part<T>& p, Index i0, Index i1) {
  const Matrix<T> a = p.g->left(p.entry);
  for (Index k = 0; k < p.s.depth; k += p.s.step()) {
    const Index depth = std::min(p.s.step(), p.s.depth - k);
    const T* from = a.data + i0 * a.row + (p.s.k0 + k) * a.col;
    T* to = p.rows + k * p.g->m + i0 * depth;
    tile::pack_rows(Matrix<T>{from, a.row, a.col}, i1 - i0, depth, to);
    if (p.g->row_sums && p.s.j0 == 0) tile::sum_rows(to, i1 - i0, depth, p.g->row_sums + i0, p.s.k0 + k > 0);
  }
}

// Asks for all of a, in parts.
template <class T>
void ask(const Gemm<T>& g) {
  if (!g.needed) return;
  const Index rows = std::max<Index>(1, kAskedAtOnce / g.k);
  parallel_for(g.m, rows, [&](Index first, Index last) { (*g.needed)(first * g.k, last * g.k); });
}

template <class T>
void sum_rows(const Gemm<T>& g) {
  if (g.row_sums) column_sum(Matrix<T>{g.a.data, g.a.col, g.a.row}, g.k, g.m, g.row_sums);
}

template <class T>
void cut(Part<T>& p) {
  const Index m = p.g->m, panels = p.s.panels();
  p.packs = p.packs_rows() ? divide_up(m, kRowsAPack) : 0;
  if (p.packs_own()) {
    // where a stays in L2, small tasks cost nothing, and no thread waits long for the last one
    p.tall = m, p.row_blocks = 1, p.wide = m * p.s.depth * Index(sizeof(T)) <= kLittleRows ? 1 : 4;
    p.tasks = p.column_blocks = divide_up(panels, p.wide);
    return;
  }
  const Index wanted = p.wanted();
  p.row_blocks = std::clamp<Index>(divide_up(m, p.least()), 1, wanted);
  p.tall = round_up(divide_up(m, p.row_blocks), kRows);
  p.row_blocks = divide_up(m, p.tall);
  const bool whole = p.wants_rows() || (!p.reads_rows() && p.row_blocks >= 8);
  p.column_blocks = whole ? 1 : std::clamp<Index>(wanted / p.row_blocks, 1, divide_up(panels, 4));
  p.wide = divide_up(panels, p.column_blocks);
  p.column_blocks = divide_up(panels, p.wide);
  p.tasks = p.row_blocks * p.column_blocks;
  if (p.packs_each()) p.packed_by.resize(num_threads());
  else p.packs += p.s.packs();
}

// All rows by panels [first, last), of which a copy is made stretch by stretch. What is copied next is fetched meanwhile
// where it has to be turned: the copy would wait for every line of many (two Zen 4 cores, 32 to 128 rows, weights from L3
// and from memory: 0.86 to 0.94 of the time). Rows of b are fetched by pack_panels; asked for twice, they came later.
template <class T>
void multiply_packing(const Part<T>& p, Index first, Index last, T* room_for_rows) {
  const Gemm<T>& g = *p.g;
  const Index j = first * kColumns<T>, columns = std::min(p.s.columns, last * kColumns<T>) - j, step = p.s.step();
  Scratch<T> copy((last - first) * kColumns<T> * step);
  for (Index k = 0; k < p.s.depth; k += step) {
    Stripe<T> s(g, p.entry, p.s.j0 + j, columns, p.s.k0 + k, std::min(step, p.s.depth - k));
    s.packed = copy.data();
    s.pack();
    const Rows<T> rows = p.rows ? Rows<T>{p.rows + k * g.m, true} : Rows<T>{room_for_rows, false, tasks_sum(g)};
    Ahead<T> ahead;  // the next stretch of terms, or after the last one the first of the next task's panels
    if (p.s.b.row == 1) {
      const Index next = k + step < p.s.depth ? k + step : 0, from = next > 0 ? j : last * kColumns<T>;
      const Matrix<T> b{p.s.b.data + next + from * p.s.b.col, 1, p.s.b.col};
      ahead = Ahead<T>(b, std::clamp<Index>(p.s.columns - from, 0, columns), std::min(step, p.s.depth - next));
    }
    multiply(g, g.left(p.entry), g.c + p.entry * g.m * g.n, s, 0, g.m, 0, s.panels(), rows, ahead);
  }
}

// Packs and multiplies the parts of one wave.
template <class T>
void run_wave(std::vector<Part<T>>& parts) {
  Index packed = 0, packs = 0, tasks = 0;
  for (Part<T>& p : parts) {
    p.first_pack = packs, p.first_task = tasks;
    packs += p.packs, tasks += p.tasks;
    packed += p.size();
  }
  Scratch<T, kOnStack> scratch(packed);
  packed = 0;
  for (Part<T>& p : parts) {
    p.s.packed = scratch.data() + packed;
    packed += p.size();
    if (p.packs_rows()) p.rows = scratch.data() + packed - p.g->m * p.s.depth;
  }
  auto pack = [&](Index task) {
    std::size_t i = parts.size() - 1;
    while (parts[i].first_pack > task) --i;
    const Part<T>& p = parts[i];
    task -= p.first_pack;
    // panels and rows in turn: a thread packs the part of the rows that it will multiply
    const Index panel_packs = p.packs_own() || !p.packed_by.empty() ? 0 : p.s.packs();
    const Index before = task * panel_packs / p.packs;
    if ((task + 1) * panel_packs / p.packs == before) {
      const Index i = (task - before) * kRowsAPack;
      return pack_rows(p, i, std::min(p.g->m, i + kRowsAPack));
    }
    p.s.pack(before);
  };
  if (packed < (Index(1) << 15)) {
    for (Index task = 0; task < packs; ++task) pack(task);
  } else {
    for_each_task(packs, pack);
  }
  for_each_task(tasks, [&](Index task) {
    std::size_t i = parts.size() - 1;
    while (parts[i].first_task > task) --i;
    Part<T>& p = parts[i];
    const Gemm<T>& g = *p.g;
    task -= p.first_task;
    if (p.entry < 0) {
      const Index last = std::min(g.batch, (task + 1) * p.tall);
      if (are_little(g)) little(g, task * p.tall, last);
      else for (Index entry = task * p.tall; entry < last; ++entry) alone(g, entry);
      if (g.finished) (*g.finished)(task * p.tall * g.m * g.n, last * g.m * g.n);
      return;
    }
    // the same rows to the same thread as in the ops before and after: its cache has them
    Index block = task / p.column_blocks;
    if (g.symmetric) {  // where lower rows are longer: every other one for the first thread, the longest first
      const Index half = divide_up(p.row_blocks, 2);
      block = p.row_blocks - 1 - (block < half ? 2 * block : 2 * (block - half) + 1);
    }
    const Index i0 = block * p.tall, i1 = std::min(g.m, i0 + p.tall);
    const Index first = task % p.column_blocks * p.wide, last = std::min(p.s.panels(), first + p.wide);
    Scratch<T> own(in_place(g) || p.rows ? 0 : (i1 - i0) * p.s.step());
    if (p.packs_own()) return multiply_packing(p, first, last, own.data());
    const Rows<T> rows = p.rows ? Rows<T>{p.rows, true} : Rows<T>{own.data(), false, tasks_sum(g)};
    if (p.asks()) (*g.needed)(i0 * g.k, i1 * g.k);
    Stripe<T> s = p.s;
    const std::size_t thread = worker_index();
    // threads that came after cut() counted them have no room
    const bool has_room = thread < p.packed_by.size();
    Scratch<T> late(p.packed_by.empty() || has_room ? 0 : s.size());
    if (!p.packed_by.empty()) {
      s.packed = has_room ? s.packed + Index(thread) * p.copy_size() : late.data();
      if (!has_room || !p.packed_by[thread]) s.pack();
      if (has_room) p.packed_by[thread] = true;
    }
    multiply(g, g.left(p.entry), g.c + p.entry * g.m * g.n, s, i0, i1, first, last, rows);
    if (g.finished && p.whole_rows()) (*g.finished)((p.entry * g.m + i0) * g.n, (p.entry * g.m + i1) * g.n);
  });
  parts.clear();
}

// Tells of all of c at once, or of entry number `entry`.
template <class T>
void tell(const Gemm<T>& g, Index entry = -1) {
  if (!g.finished) return;
  const Index size = g.m * g.n, start = std::max<Index>(0, entry) * size;
  parallel_for(entry < 0 ? g.batch * size : size, kToldAtOnce, [&](Index first, Index last) {
    (*g.finished)(start + first, start + last);
  });
}

template <class T>
void run_waves(const Gemm<T>* products, std::size_t count) {
  std::vector<Part<T>> wave;
  std::vector<std::pair<const Gemm<T>*, Index>> untold;  // finished in parts, which nobody waits for
  Index packed = 0;
  for (std::size_t at = 0; at < count; ++at) {
    const Gemm<T>& g = products[at];
    const Index work = g.m * g.n * g.k;
    if (g.batch < 8 && dots_fit(g)) {
      ask(g);
      sum_rows(g);
      for (Index entry = 0; entry < g.batch; ++entry) dots(g, entry);
      tell(g);
      continue;
    }
    if (const Long side = g.batch < 8 ? long_side(g) : Long::none; side != Long::none) {
      ask(g);
      sum_rows(g);
      for (Index entry = 0; entry < g.batch; ++entry) stream(g, entry, side);
      tell(g);
      continue;
    }
    if (g.batch < 8 && turn_fits(g)) {
      ask(g);
      for (Index entry = 0; entry < g.batch; ++entry) multiply_turned(g, entry);
      tell(g);
      continue;
    }
    if (g.batch >= 8 || work < 2 * kSmall) {
      Part<T> p{&g, -1, Stripe<T>(g, 0, 0, 0, 0, 0), 0, 1, 0, 1, 0, 0, 0, 0, nullptr, {}};
      p.tall = are_little(g) ? little_task(g) : std::max<Index>(1, kSmall / work);  // entries of a task
      p.tasks = divide_up(g.batch, p.tall);
      ask(g);
      sum_rows(g);
      wave.push_back(p);
      continue;
    }
    const Index depth = std::min(g.k, kPacked / 256);
    const Index width = std::max<Index>(256, kPacked / depth / kColumns<T> * kColumns<T>);
    for (Index entry = 0; entry < g.batch; ++entry)
      for (Index j = 0; j < g.n; j += width)
        for (Index k = 0; k < g.k; k += depth) {
          const Stripe<T> s(g, entry, j, std::min(width, g.n - j), k, std::min(depth, g.k - k));
          Part<T> p{&g, entry, s, 0, 0, 0, 0, 0, 0, 0, 0, nullptr, {}};
          cut(p);
          if (j == 0 && k == 0 && g.finished && !p.whole_rows()) untold.emplace_back(&g, entry);
          if (j == 0 && k == 0 && !p.asks()) ask(g);
          const Index size = p.size();
          if (j == 0 && k == 0 && !p.packs_rows() && !tasks_sum(g)) sum_rows(g);
          // a wave's parts run in any order: later terms of the same sums wait for the next
          if (!wave.empty() && (k > 0 || packed + size > kPacked)) run_wave(wave), packed = 0;
          packed += size;
          wave.push_back(p);
        }
  }
  if (!wave.empty()) run_wave(wave);
  for (const auto& [g, entry] : untold) tell(*g, entry);
}

}  // namespace

namespace {

// A column whose matrix has contiguous columns is a row whose matrix has contiguous rows, in the same memory.
template <class T>
bool turns(const Gemm<T>& g) {
  return g.n == 1 && g.m > 1 && g.a.row == 1 && g.a.col != 1 && !g.bias && !g.row_sums && !g.needed;
}
template <class T>
Gemm<T> turned(Gemm<T> g) {
  if (!turns(g)) return g;
  const Matrix<T> matrix{g.a.data, g.a.col, 1};
  g.a = {g.b.data, 1, g.b.row};
  g.b = matrix;
  std::swap(g.m, g.n);
  std::swap(g.a_offset, g.b_offset);
  std::swap(g.a_step, g.b_step);
  return g;
}

}  // namespace

template <class T>
void panel_gemm(const Gemm<T>* products, std::size_t count) {
  std::vector<Gemm<T>> others;
  if (std::any_of(products, products + count, turns<T>)) {
    std::transform(products, products + count, std::back_inserter(others), turned<T>);
    products = others.data();
  }
  Index work = 0;
  bool many = false;  // whose elements are worth a thread, if their multiplications are not
  for (std::size_t i = 0; i < count; ++i) {
    work += products[i].m * products[i].n * products[i].k * products[i].batch;
    many = many || (are_little(products[i]) && products[i].batch > little_task(products[i]));
  }
  if (work >= 2 * kSmall || many) return run_waves(products, count);
  for (std::size_t i = 0; i < count; ++i) {
    ask(products[i]);
    sum_rows(products[i]);
    if (are_little(products[i])) little(products[i], 0, products[i].batch);
    else for (Index entry = 0; entry < products[i].batch; ++entry) alone(products[i], entry);
    tell(products[i]);
  }
}

template void panel_gemm(const Gemm<float>*, std::size_t);
template void panel_gemm(const Gemm<double>*, std::size_t);

}  // namespace tg
