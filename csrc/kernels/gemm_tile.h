// The inner loop of a matrix product, and copies of its operands in the order in which the loop reads them:
//
//   c[r][:] (+)= sum_k a[r][k] * b[k][:]      R rows, V vectors of columns, all sums in registers
//
// b is packed: V vectors for each k, one after the other, so that it streams; only where few rows would use the copy is it
// read in place. a is read where it lies if its rows are contiguous (R streams of scalars, each line serving many steps
// of k), or its columns are (R neighbouring scalars for each k), or packed: R scalars for each k, one after the other.
//
// Ladder, one Zen 3 core whose peak is 98 GFLOP/s, (1024, 384) by (384, 384): OpenBLAS 85, a always packed 89, a in
// place 91.
#pragma once

#include <algorithm>
#include <cstring>

#include "../core/transpose.h"
#include "gemm.h"
#include "gemm_embedded.h"
#include "gemm_tasks.h"

namespace tg::tile {

using lanes::Lanes;
using lanes::load;
using lanes::store;
using lanes::Vec;

// kRows x kVectors sums, kVectors of b and one of a fill the registers: 15 of 16, 27 or 28 of 32.
#if defined(__AVX512F__)
constexpr int kRows = 12, kVectors = 2;
#elif defined(__aarch64__)
constexpr int kRows = 8, kVectors = 3;
#else
constexpr int kRows = 6, kVectors = 2;
#endif

// Terms of a sum that are added up in registers before the tile in L1 takes them. The largest error of 384 and of 1536 terms
// is 9e-8 and 5e-8 of the sum of absolute values so; 19e-8 and 8e-8 where 256 are, which makes a step of gpt or gpt-micro one
// percent shorter at most; PyTorch's (MKL) is 26e-8 and 10e-8.
constexpr Index kSummed = 128;

template <class T>
constexpr int kColumns = kVectors * Lanes<T>::count;

// Three rows to a pointer, which addresses reach by the distance of rows, once and twice: of twelve rows' own pointers
// four lay in vector registers, moved back and forth at every term (Zen 4, GFLOP/s in L1 at a peak of 118: 109 and 114).
template <class T, int R>
struct ByRows {
  static constexpr bool kByRows = true;
  static constexpr int kBases = (R + 2) / 3;
  const T* base[kBases];
  Index stride;
  ByRows(const T* a, Index stride) : stride(stride) {
    for (int r = 0; r < kBases; ++r) base[r] = a + 3 * r * stride;
  }
  T at(int r) const { return base[r / 3][r % 3 * stride]; }
  void next() {
#pragma GCC unroll 16
    for (int r = 0; r < kBases; ++r) {
      ++base[r];
      asm("" : "+r"(base[r]));  // or the compiler makes a pointer for each row again
    }
  }
};
template <class T, int R>
struct ByTerms {
  static constexpr bool kByRows = false;
  static constexpr Index kAhead = 12;
  const T* term;
  Index stride;
  ByTerms(const T* a, Index stride) : term(a), stride(stride) {}
  T at(int r) const { return term[r]; }
  void next() {
    // into L2, where the columns of a task stay: no hardware foresees such steps. In L1 they would push each other out.
    __builtin_prefetch(term + kAhead * stride, 0, 2);
    term += stride;
  }
};

// Copies count < 2 * Piece elements by pieces of fixed size: a call of memcpy would cost more than its bytes.
template <int Piece, class T>
inline void copy_few(const T* from, Index count, T* to) {
  if (count & Piece) {
    std::memcpy(to, from, Piece * sizeof(T));
    from += Piece, to += Piece;
  }
  if constexpr (Piece > 1) copy_few<Piece / 2>(from, count, to);
}
// The largest piece of a copy of fewer than n elements.
constexpr int piece_of(int n) { return n <= 2 ? 1 : 2 * piece_of((n + 1) / 2); }

// Where the sums of a tile go, and what is added to them. `columns` may be fewer than the vectors hold.
template <class T>
struct Target {
  T* c;
  Index ldc, columns;
  const T* add;  // null for nothing; the bias (add_step 0), or c itself
  Index add_step;
};

// sum[r] += sum_k a[r][k] b[k] in registers, where `A` walks a's elements.
template <class T, int R, int V, class A>
[[gnu::always_inline]] inline void add_terms(Vec<T> (&sum)[R][V], Index k, A a, const T* b, Index b_step) {
#pragma GCC unroll 4
  for (Index i = 0; i < k; ++i, b += b_step) {
    Vec<T> bv[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) bv[v] = load(b + v * Lanes<T>::count);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const Vec<T> x = a.at(r) - Vec<T>{};  // minus zero: a broadcast the compiler sees through
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sum[r][v] += x * bv[v];
    }
    a.next();
  }
}

template <class T, int R, int V, class A>
void run(Index k, const T* first, Index stride, const T* b, Index b_step, const Target<T>& t) {
  constexpr int L = Lanes<T>::count;
  Vec<T> sum[R][V] = {};
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) __builtin_prefetch(t.c + r * t.ldc, 1);
  // A tile's rows of c are far apart, and what an Intel core fetches by itself does not bring their second lines before
  // they are written. Emerald Rapids, us without and with this, one core: (960, 128) by (128, 384)' 769 and 633, (240, 128)
  // by the same 171 and 159; two: (2048, 128) by (128, 384)' 967 and 807, of 384 terms and more the same. Others were not
  // measured.
  if (V > 1 && embedded::kPays) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) __builtin_prefetch(t.c + r * t.ldc + L, 1);
  }
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<T, float> && R == kRows && V == kVectors) {
    if (!embedded::kPays) add_terms(sum, k, A(first, stride), b, b_step);
    else if constexpr (A::kByRows) embedded::add_rows<R>(sum, k, first, stride, b, b_step);
    else embedded::add_columns<R>(sum, k, first, stride, b, b_step);
  } else
#endif
    add_terms(sum, k, A(first, stride), b, b_step);
  // What the sums are added to comes last: begun with, it would make one long sum of all stretches of k, with ten times
  // the error.
  const bool whole = t.columns == V * L;
  T edge[R * V * L];  // a tile of few columns ends here
  if (t.add) {
    const T* from = t.add;
    Index step = t.add_step;
    if (!whole) {
      std::fill_n(edge, R * V * L, T(0));
      for (int r = 0; r < R; ++r) copy_few<piece_of(V * L)>(from + r * step, t.columns, edge + r * V * L);
      from = edge, step = V * L;
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sum[r][v] += load(from + r * step + v * L);
  }
  T* to = whole ? t.c : edge;
  const Index step = whole ? t.ldc : V * L;
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) store(to + r * step + v * L, sum[r][v]);
  if (!whole)
    for (int r = 0; r < R; ++r) copy_few<piece_of(V * L)>(edge + r * V * L, t.columns, t.c + r * t.ldc);
}

// The largest tile height that `rows` fills: kRows, then powers of two.
inline int height(Index rows) {
  if (rows >= kRows) return kRows;
  return rows >= 8 ? 8 : rows >= 4 ? 4 : rows >= 2 ? 2 : 1;
}

// f(std::integral_constant<int, R>{}) for a height R.
template <class F>
void visit_height(int rows, F&& f) {
  if (rows == kRows) return f(std::integral_constant<int, kRows>{});
  if constexpr (kRows > 8)
    if (rows == 8) return f(std::integral_constant<int, 8>{});
  if (rows == 4) return f(std::integral_constant<int, 4>{});
  if (rows == 2) return f(std::integral_constant<int, 2>{});
  f(std::integral_constant<int, 1>{});
}

// A tile of `rows` rows (a height()); of a, `stride` is the distance of its contiguous rows (by_rows), or else of its
// columns, whose `rows` elements are contiguous: `rows` where they are packed; b's rows are `b_step` apart.
template <class T>
void run(int rows, Index k, const T* a, Index stride, bool by_rows, const T* b, Index b_step, Target<T> t) {
  const Index piece = k <= kSummed ? k : divide_up(k, divide_up(k, kSummed));
  for (Index left = k; left > 0; left -= piece) {
    const Index terms = std::min(left, piece);
    visit_height(rows, [&](auto height) {
      constexpr int R = height, L = Lanes<T>::count;
      if (t.columns > L) {
        if (by_rows) run<T, R, kVectors, ByRows<T, R>>(terms, a, stride, b, b_step, t);
        else run<T, R, kVectors, ByTerms<T, R>>(terms, a, stride, b, b_step, t);
      } else {
        if (by_rows) run<T, R, 1, ByRows<T, R>>(terms, a, stride, b, b_step, t);
        else run<T, R, 1, ByTerms<T, R>>(terms, a, stride, b, b_step, t);
      }
    });
    a += by_rows ? piece : piece * stride, b += piece * b_step;
    t.add = t.c, t.add_step = t.ldc;
  }
}

// Columns of b (k, panels kColumns), each row contiguous, as `panels` panels: to[panel][k][kColumns]. ns an element of
// 1,024 terms at a distance of 1.5 KB, from a cache and from memory: panel by panel 0.18 and 0.67, four at once and
// fetched ahead 0.15 and 0.41.
template <class T>
void pack_panels(const Matrix<T>& b, Index k, Index panels, T* to) {
  constexpr Index kAhead = 8, L = Lanes<T>::count, N = kColumns<T>;
  for (Index i = 0; i < k; ++i) {
    const T* row = b.data + i * b.row;
    if (i + kAhead < k)
      for (Index j = 0; j < panels * N; j += 64 / sizeof(T)) __builtin_prefetch(row + kAhead * b.row + j);
    for (Index panel = 0; panel < panels; ++panel)
#pragma GCC unroll 4
      for (Index v = 0; v < N; v += L) store(to + (panel * k + i) * N + v, load(row + panel * N + v));
  }
}

// Columns of b (k, valid) as one panel: to[k][kColumns], zero from `valid` on.
template <class T>
void pack_columns(const Matrix<T>& b, Index k, Index valid, T* to) {
  constexpr Index L = Lanes<T>::count, N = kColumns<T>;
  Index i = 0;
  if (b.row == 1 && valid == N) {
    for (; i + L <= k; i += L)
      for (Index v = 0; v < N; v += L) {
        Vec<T> r[L];
#pragma GCC unroll 16
        for (Index j = 0; j < L; ++j) r[j] = load(b.data + (v + j) * b.col + i);
        lanes::transpose<T>(r);
#pragma GCC unroll 16
        for (Index j = 0; j < L; ++j) store(to + (i + j) * N + v, r[j]);
      }
  }
  for (; i < k; ++i) {
    if (b.col == 1) copy_few<piece_of(2 * N)>(b.data + i * b.row, valid, to + i * N);
    else
      for (Index j = 0; j < valid; ++j) to[i * N + j] = b.data[i * b.row + j * b.col];
    std::fill_n(to + i * N + valid, N - valid, T(0));
  }
}

// Rows of a (rows, k) as panels of height() rows: to[panel][k][height]. Term by term: where rows lie side by side, the
// lines read for one panel serve the next, and a whole vector is stored, of which the next term overwrites the end.
// From memory every term is a page of its own, which no hardware fetches ahead. ns an element of 1,024 terms at a
// distance of 1.5 KB, from a cache and from memory: panels by stretches of 4 terms 0.56 and 1.2, fetched ahead 0.56 and
// 0.64, this 0.26 and 0.44.
template <class T>
[[gnu::noinline]] void pack_rows(const Matrix<T>& a, Index rows, Index k, T* to) {
  constexpr Index kAhead = 8, L = Lanes<T>::count;
  constexpr bool kSpills = kRows < L && 2 * kRows >= L;
  const Index squares = kSpills && a.col == 1 ? (k - 1) / L * L : 0, whole = squares > 0 ? rows / kRows * kRows : 0;
  for (Index i = 0; i < whole; i += kRows)  // of rows that are contiguous: by squares
    for (Index j = 0; j < squares; j += L) {
      Vec<T> r[L] = {};
#pragma GCC unroll 16
      for (Index row = 0; row < kRows; ++row) r[row] = load(a.data + (i + row) * a.row + j);
      lanes::transpose<T>(r);
#pragma GCC unroll 16
      for (Index term = 0; term < L; ++term) store(to + i * k + (j + term) * kRows, r[term]);
    }
  for (Index j = 0; j < k; ++j) {
    const T* from = a.data + j * a.col;
    Index i = j < squares ? whole : 0;
    if (a.row == 1) {
      if (j + kAhead < k)
        for (Index line = 0; line < rows; line += 64 / sizeof(T)) __builtin_prefetch(from + kAhead * a.col + line);
      if (kSpills && j + 1 < k)
        for (; i + L <= rows; i += kRows) store(to + i * k + j * kRows, load(from + i));
      for (; i + kRows <= rows; i += kRows) std::memcpy(to + i * k + j * kRows, from + i, kRows * sizeof(T));
    }
    while (i < rows) {
      const int tall = height(rows - i);
      visit_height(tall, [&](auto height) {
        constexpr int R = height;
        for (int r = 0; r < R; ++r) to[i * k + j * R + r] = from[(i + r) * a.row];
      });
      i += tall;
    }
  }
}

// to[i] (+)= the sum of row i of what pack_rows made, in one sum a lane.
template <class T>
void sum_rows(const T* packed, Index rows, Index k, T* to, bool add) {
  constexpr Index L = Lanes<T>::count;
  for (Index i = 0; i < rows;) {
    const int tall = height(rows - i);
    visit_height(tall, [&](auto height) {
      constexpr int R = height;
      const T* panel = packed + i * k;
      Vec<T> lanes_of[R] = {};
      Index j = 0;
      for (; j + L <= k; j += L)
#pragma GCC unroll 16
        for (int v = 0; v < R; ++v) lanes_of[v] += load(panel + j * R + v * L);
      T lane[R * L], sum[R] = {};
      for (int v = 0; v < R; ++v) store(lane + v * L, lanes_of[v]);
      for (Index at = 0; at < R * L; ++at) sum[at % R] += lane[at];
      for (; j < k; ++j)
        for (int r = 0; r < R; ++r) sum[r] += panel[j * R + r];
      for (int r = 0; r < R; ++r) to[i + r] = add ? to[i + r] + sum[r] : sum[r];
    });
    i += tall;
  }
}

// to[i] (+)= the sum of row i of a, whose columns are contiguous and `stride` apart: term by term, in four sums.
template <class T>
void sum_columns(const T* a, Index stride, Index rows, Index k, T* to, bool add) {
  constexpr Index L = Lanes<T>::count;
  constexpr int kSums = 4;
  for (Index i = 0; i < rows; i += L) {
    const Index valid = std::min(L, rows - i);
    Vec<T> sum[kSums] = {};
    auto add_term = [&](int to_sum, const T* from) {
      T few[L] = {};
      if (valid < L) copy_few<piece_of(L)>(from, valid, few);
      sum[to_sum] += load(valid < L ? few : from);
    };
    Index j = 0;
    for (; j + kSums <= k; j += kSums)
#pragma GCC unroll 4
      for (int to_sum = 0; to_sum < kSums; ++to_sum) add_term(to_sum, a + (j + to_sum) * stride + i);
    for (; j < k; ++j) add_term(0, a + j * stride + i);
    T total[L];
    store(total, (sum[0] + sum[1]) + (sum[2] + sum[3]));
    for (Index lane = 0; lane < valid; ++lane) to[i + lane] = add ? to[i + lane] + total[lane] : total[lane];
  }
}

}  // namespace tg::tile
