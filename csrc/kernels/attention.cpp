// Forward, per block of queries: for each block of keys, scores S = scale q k^T (+ mask), then the running softmax:
// with m the largest score so far, l the sum of exp(S - m): rescale what is there by exp(m_old - m_new), add P v.
// Backward recomputes P = exp(S - lse) tile by tile: dv += P^T g, dS = P (g v^T - rowsum(g out)), dq += dS k,
// dk += dS^T q.
//
// Source: Milakov and Gimelshein 2018 (running softmax); Dao et al. 2022 (tiles, and the backward pass from lse).
//
// A tile of scores and its blocks of q, k and v stay in L2. Forward deals out blocks of queries. Backward deals out
// heads, each summed in one order; with fewer than kFewHeads of them, blocks of keys (for dk and dv), then blocks of
// queries (for dq), at the price of two products more. Either way the order of sums depends on shapes alone.
#include "attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "../core/allocator.h"
#include "attention_rows.h"
#include "gemm.h"
#include "gemm_tasks.h"

namespace tg {
namespace {

constexpr Index kMostQueries = 128, kKeys = 256;
constexpr Index kFewHeads = 8;


// Queries per tile: long tiles multiply faster, short ones leave out more of what causality hides.
template <class T>
Index query_block_size(const Attention<T>& a) { return a.causal && a.queries < 1024 ? kMostQueries / 2 : kMostQueries; }

template <class T>
struct Head {
  const T *q, *k, *v;
  const std::uint8_t* keep;
  const T* add;
  Index b, h;

  Head(const Attention<T>& a, Index head)
      : keep(a.mask.keep), add(a.mask.add), b(head / a.heads), h(head % a.heads) {
    q = a.q.data + b * a.q.batch + h * a.q.head;
    k = a.k.data + b * a.k.batch + h * a.k.head;
    v = a.v.data + b * a.v.batch + h * a.v.head;
    const Index offset = b * a.mask.batch + h * a.mask.head;
    if (keep) keep += offset;
    if (add) add += offset;
  }
};

template <class T>
Matrix<T> rows(const T* data, Index stride) { return {data, stride, 1}; }
template <class T>
Matrix<T> transposed(const T* data, Index stride) { return {data, 1, stride}; }

// Keys that block of queries [i0, i1) sees.
template <class T>
Index last_key(const Attention<T>& a, Index i1) { return a.causal ? std::min(a.keys, i1) : a.keys; }

// s (i1 - i0, j1 - j0), rows kKeys apart: scores with the mask applied.
template <class T>
void scores(const Attention<T>& a, const Head<T>& head, Index i0, Index i1, Index j0, Index j1, T* s) {
  const Index n = i1 - i0, m = j1 - j0;
  gemm_block(n, m, a.dim, rows(head.q + i0 * a.q.row, a.q.row), transposed(head.k + j0 * a.k.row, a.k.row), s, kKeys,
             false, a.scale);
  const T none = -std::numeric_limits<T>::infinity();
  for (Index i = 0; i < n; ++i) {
    T* row = s + i * kKeys;
    const Index at = (i0 + i) * a.mask.query + j0 * a.mask.key;
    if (head.add)
      for (Index j = 0; j < m; ++j) row[j] += head.add[at + j * a.mask.key];
    if (head.keep)
      for (Index j = 0; j < m; ++j) row[j] = head.keep[at + j * a.mask.key] ? row[j] : none;
    if (a.causal)
      for (Index j = std::max<Index>(0, i0 + i + 1 - j0); j < m; ++j) row[j] = none;
  }
}

template <class T>
void forward_block(const Attention<T>& a, Index index, Index i0, HeadView<T> out, T* lse) {
  const Head<T> head(a, index);
  const Index i1 = std::min(a.queries, i0 + query_block_size(a)), n = i1 - i0, last = last_key(a, i1);
  Scratch<T> s(kMostQueries * kKeys);
  T top[kMostQueries], sum[kMostQueries];
  T* o = out.data + head.b * out.batch + head.h * out.head + i0 * out.row;
  std::fill_n(top, n, -std::numeric_limits<T>::infinity());
  std::fill_n(sum, n, T(0));
  for (Index i = 0; i < n; ++i) std::fill_n(o + i * out.row, a.value_dim, T(0));
  for (Index j0 = 0; j0 < last; j0 += kKeys) {
    const Index j1 = std::min(last, j0 + kKeys);
    scores(a, head, i0, i1, j0, j1, s.data());
    for (Index i = 0; i < n; ++i) {
      T* row = s.data() + i * kKeys;
      const T before = top[i], here = attention_rows::row_max<T>(row, j1 - j0);
      const T now = here <= before ? before : here;  // NaN comes through
      if (now == -std::numeric_limits<T>::infinity()) {
        std::fill_n(row, j1 - j0, T(0));  // nothing seen yet; exp(-inf + inf) would be NaN
        continue;
      }
      const T part = attention_rows::exp_shifted<T>(row, j1 - j0, now);
      if (now != before && j0 > 0) {
        const T by = std::exp(before - now);
        sum[i] *= by;
        for (Index d = 0; d < a.value_dim; ++d) o[i * out.row + d] *= by;
      }
      sum[i] += part;
      top[i] = now;
    }
    gemm_block(n, a.value_dim, j1 - j0, rows<T>(s.data(), kKeys), rows(head.v + j0 * a.v.row, a.v.row), o, out.row,
               j0 > 0);
  }
  for (Index i = 0; i < n; ++i) {
    const T by = sum[i] == T(0) ? T(0) : T(1) / sum[i];
    for (Index d = 0; d < a.value_dim; ++d) o[i * out.row + d] *= by;
    lse[index * a.queries + i0 + i] = sum[i] == T(0) ? -std::numeric_limits<T>::infinity() : top[i] + std::log(sum[i]);
  }
}

template <class T>
struct Backward {
  const Attention<T>& a;
  HeadView<const T> g, out;
  const T* lse;
  HeadView<T> gq, gk, gv;
  const Index block = query_block_size(a);

  // delta[i] = sum_d g[i][d] out[i][d], for one head
  void deltas(const Head<T>& head, Index first, Index last, T* delta) const {
    for (Index i = first; i < last; ++i) {
      const T* x = g.data + head.b * g.batch + head.h * g.head + i * g.row;
      const T* y = out.data + head.b * out.batch + head.h * out.head + i * out.row;
      delta[i - first] = attention_rows::dot<T>(x, y, a.value_dim);
    }
  }

  // p and ds of one tile; `p` ends as P, `ds` as scale * dS, both with rows kKeys apart.
  void tile(const Head<T>& head, Index index, Index i0, Index i1, Index j0, Index j1, const T* delta, T* p,
            T* ds) const {
      scores(a, head, i0, i1, j0, j1, p);
    const T* gi = g.data + head.b * g.batch + head.h * g.head + i0 * g.row;
    gemm_block(i1 - i0, j1 - j0, a.value_dim, rows(gi, g.row), transposed(head.v + j0 * a.v.row, a.v.row), ds, kKeys,
               false);
    for (Index i = 0; i < i1 - i0; ++i) {
      T *pi = p + i * kKeys, *di = ds + i * kKeys;
      const T shift = lse[index * a.queries + i0 + i];
      if (shift == -std::numeric_limits<T>::infinity()) {
        std::fill_n(pi, j1 - j0, T(0));
        std::fill_n(di, j1 - j0, T(0));
        continue;
      }
      attention_rows::exp_shifted<T>(pi, j1 - j0, shift);
      attention_rows::softmax_grad<T>(pi, di, j1 - j0, delta[i], a.scale);
    }
  }

  const T* g_row(const Head<T>& head, Index i) const { return g.data + head.b * g.batch + head.h * g.head + i * g.row; }
  static T* row(const HeadView<T>& view, const Head<T>& head, Index i) {
    return view.data + head.b * view.batch + head.h * view.head + i * view.row;
  }

  // Keys [j0, j1) against every block of queries, in order.
  void key_block(Index index, Index j0, const T* delta, bool with_gq) const {
    const Head<T> head(a, index);
    const Index j1 = std::min(a.keys, j0 + kKeys), m = j1 - j0;
    Scratch<T> p(kMostQueries * kKeys), ds(kMostQueries * kKeys);
    bool first = true;
    const Index start = a.causal ? j0 / block * block : 0;
    for (Index i0 = start; i0 < a.queries; i0 += block) {
      const Index i1 = std::min(a.queries, i0 + block), n = i1 - i0, last = std::min(j1, last_key(a, i1));
      if (last <= j0) continue;
      const Index seen = last - j0;
      tile(head, index, i0, i1, j0, last, delta + i0, p.data(), ds.data());
      if (first)
        for (Index j = seen; j < m; ++j) {
          std::fill_n(row(gv, head, j0 + j), a.value_dim, T(0));
          std::fill_n(row(gk, head, j0 + j), a.dim, T(0));
        }
      gemm_block(seen, a.value_dim, n, transposed<T>(p.data(), kKeys), rows(g_row(head, i0), g.row),
                 row(gv, head, j0), gv.row, !first);
      gemm_block(seen, a.dim, n, transposed<T>(ds.data(), kKeys), rows(head.q + i0 * a.q.row, a.q.row),
                 row(gk, head, j0), gk.row, !first);
      if (with_gq)
        gemm_block(n, a.dim, seen, rows<T>(ds.data(), kKeys), rows(head.k + j0 * a.k.row, a.k.row),
                   row(gq, head, i0), gq.row, j0 > 0);
      first = false;
    }
    if (first)
      for (Index j = j0; j < j1; ++j) {
        std::fill_n(row(gv, head, j), a.value_dim, T(0));
        std::fill_n(row(gk, head, j), a.dim, T(0));
      }
  }

  void query_block(Index index, Index i0, const T* delta) const {
    const Head<T> head(a, index);
    const Index i1 = std::min(a.queries, i0 + block), last = last_key(a, i1);
    Scratch<T> p(kMostQueries * kKeys), ds(kMostQueries * kKeys);
    for (Index j0 = 0; j0 < last; j0 += kKeys) {
      const Index j1 = std::min(last, j0 + kKeys);
      tile(head, index, i0, i1, j0, j1, delta + i0, p.data(), ds.data());
      gemm_block(i1 - i0, a.dim, j1 - j0, rows<T>(ds.data(), kKeys), rows(head.k + j0 * a.k.row, a.k.row),
                 row(gq, head, i0), gq.row, j0 > 0);
    }
  }

  void run() const {
    const Index heads = a.batch * a.heads, key_blocks = divide_up(a.keys, kKeys);
    const Index query_blocks = divide_up(a.queries, block);
    if (a.keys == 0) {
      for (Index h = 0; h < heads; ++h)
        for (Index i = 0; i < a.queries; ++i) std::fill_n(row(gq, Head<T>(a, h), i), a.dim, T(0));
      return;
    }
    if (heads >= kFewHeads || key_blocks * query_blocks == 1) {
      for_each_task(heads, [&](Index h) {
        Scratch<T> delta(a.queries);
        deltas(Head<T>(a, h), 0, a.queries, delta.data());
        for (Index j = 0; j < key_blocks; ++j) key_block(h, j * kKeys, delta.data(), true);
      });
      return;
    }
    Scratch<T> delta(heads * a.queries);
    for_each_task(heads * query_blocks, [&](Index task) {
      const Index h = task / query_blocks, i0 = task % query_blocks * block;
      deltas(Head<T>(a, h), i0, std::min(a.queries, i0 + block), delta.data() + h * a.queries + i0);
    });
    for_each_task(heads * (key_blocks + query_blocks), [&](Index task) {
      const Index h = task / (key_blocks + query_blocks), part = task % (key_blocks + query_blocks);
      const T* d = delta.data() + h * a.queries;
      if (part < key_blocks) key_block(h, part * kKeys, d, false);
      else query_block(h, (part - key_blocks) * block, d);
    });
  }
};

}  // namespace

template <class T>
void attention(const Attention<T>& a, HeadView<T> out, T* lse) {
  const Index size = query_block_size(a), blocks = divide_up(a.queries, size);
  for_each_task(a.batch * a.heads * blocks, [&](Index task) {
    forward_block(a, task / blocks, task % blocks * size, out, lse);
  });
}

template <class T>
void attention_backward(const Attention<T>& a, HeadView<const T> g, HeadView<const T> out, const T* lse, HeadView<T> gq,
                        HeadView<T> gk, HeadView<T> gv) {
  Backward<T>{a, g, out, lse, gq, gk, gv}.run();
}

#define TG_ATTENTION(T)                                                                                 \
  template void attention(const Attention<T>&, HeadView<T>, T*);                                        \
  template void attention_backward(const Attention<T>&, HeadView<const T>, HeadView<const T>, const T*, \
                                   HeadView<T>, HeadView<T>, HeadView<T>);
TG_ATTENTION(float)
TG_ATTENTION(double)
#undef TG_ATTENTION

}  // namespace tg
