// Forward, per block of queries: for each block of keys, scores S = scale q k^T (+ mask), then the running softmax:
// with m the largest score so far, l the sum of exp(S - m): rescale what is there by exp(m_old - m_new), add P v.
// Backward recomputes P = exp(S - lse) tile by tile: dv += P^T g, dS = P (g v^T - rowsum(g out)), dq += dS k,
// dk += dS^T q.
//
// Source: Milakov and Gimelshein 2018 (running softmax); Dao et al. 2022 (tiles, and the backward pass from lse).
//
// A tile of scores and its blocks of q, k and v stay in L2. Forward deals out blocks of queries. Backward deals out
// heads of keys, each summed in one order; with fewer than kFewHeads of them, blocks of keys (for dk and dv), then blocks
// of queries (for dq), at the price of two products more. Either way the order of sums depends on shapes alone.
//
// Ladder, one Zen 3 core, (8, 12 heads, 197, 64) without mask, heads side by side in memory: rows in place and keys
// packed for every block of queries, forward 18.4 ms, both ways 61; keys packed once, rows copied as panels 16.9 and 55.
// No gain: the tile's loop unrolled four times, blocks of 48 queries.
//
// The products are attention_tile.h's where the widths of the heads are whole vectors, else BLAS'.
#include "attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "../core/allocator.h"
#include "attention_rows.h"
#include "attention_tile.h"
#include "gemm.h"
#include "gemm_tasks.h"

namespace tg {
namespace {

constexpr Index kQueries = 96, kKeys = 128;  // 16 groups of rows; a tile of scores is 48 KiB
constexpr Index kBlocksATask = 8, kWantedTasks = 16;  // forward: of queries, where that leaves enough tasks
constexpr Index kMostCopied = 1024;   // queries, backward: beyond, the copies would leave L2
constexpr Index kFewHeads = 8;
constexpr Index kLittle = 1 << 18;  // products: less is not worth a second thread's waking
constexpr Index kFewQueries = 4;  // of fewer than these, dot products with keys as they lie: a copy would not pay

template <class T>
struct Head {
  const T *q, *k, *v;
  const std::uint8_t* keep;
  const T* add;
  Index b, h, shared;  // the head of keys

  Head(const Attention<T>& a, Index head)
      : keep(a.mask.keep), add(a.mask.add), b(head / a.heads), h(head % a.heads), shared(h / a.group) {
    q = a.q.data + b * a.q.batch + h * a.q.head;
    k = a.k.data + b * a.k.batch + shared * a.k.head;
    v = a.v.data + b * a.v.batch + shared * a.v.head;
    const Index offset = b * a.mask.batch + h * a.mask.head;
    if (keep) keep += offset;
    if (add) add += offset;
  }
};

template <class T>
Matrix<T> rows(const T* data, Index stride) { return {data, stride, 1}; }
template <class T>
Matrix<T> transposed(const T* data, Index stride) { return {data, 1, stride}; }

// f(task) for tasks of one block of queries each, a chunk of them having work enough for a thread.
template <class T, class F>
void for_blocks(const Attention<T>& a, Index count, F f) {
  const Index work = std::min(a.queries, kQueries) * a.keys * (a.dim + a.value_dim);
  parallel_for(count, std::max<Index>(1, kLittle / std::max<Index>(1, work)), [&](Index first, Index last) {
    for (Index task = first; task < last; ++task) f(task);
  });
}

// Keys that block of queries [i0, i1) sees.
template <class T>
Index last_key(const Attention<T>& a, Index i1) { return a.causal ? std::min(a.keys, i1) : a.keys; }

// What row i of the tile from (i0, j0) on, m keys wide, sees of it.
template <class T>
Index seen_by(const Attention<T>& a, Index i0, Index i, Index j0, Index m) {
  return a.causal ? std::clamp<Index>(i0 + i + 1 - j0, 0, m) : m;
}

// Whether a mask over keys alone, as padding gives, leaves nothing of the block.
template <class T>
bool hidden(const Attention<T>& a, const Head<T>& head, Index j0, Index j1) {
  if (!head.keep || a.mask.query != 0) return false;
  for (Index j = j0; j < j1; ++j)
    if (head.keep[j * a.mask.key]) return false;
  return true;
}

// Rows that a product goes along: as they lie, or `count` of them copied as panels of their columns.
template <class T>
struct Panels {
  const T* data;
  Index row, next;

  Panels(const T* copied, Index count)
      : data(copied), row(attention_tile::kPanel<T>), next(count * attention_tile::kPanel<T>) {}
  static Panels in_place(const T* data, Index row) { return {data, row, attention_tile::kPanel<T>}; }

 private:
  Panels(const T* data, Index row, Index next) : data(data), row(row), next(next) {}
};

// One block of keys and values, and the products of a tile with it.
template <class T>
class KeyBlock {
 public:
  KeyBlock(const Attention<T>& a, bool with_values)
      : a_(a), own_(owns(a)),
        packs_(own_ && a.queries >= kFewQueries), copies_(copies(a)),
        keys_(packs_ ? kKeys * a.dim : 0), values_(packs_ && with_values ? kKeys * a.value_dim : 0),
        rows_(copies_ ? kKeys * round_up(with_values ? a.dim : a.value_dim, attention_tile::kPanel<T>) : 0),
        with_values_(with_values) {}

  static bool owns(const Attention<T>& a) { return a.dim % Lanes<T>::count == 0 && a.value_dim % Lanes<T>::count == 0; }
  // Whether rows are copied as panels first: where more than one tile multiplies along them.
  static bool copies(const Attention<T>& a) { return owns(a) && a.queries > kQueries; }

  void take(const Head<T>& head, Index j0, Index j1) {
    j0_ = j0, m_ = j1 - j0;
    k_ = head.k + j0 * a_.k.row;
    v_ = head.v + j0 * a_.v.row;
    if (!packs_) return;
    attention_tile::pack(k_, a_.k.row, m_, a_.dim, keys_.data());
    if (copies_ && with_values_) attention_tile::copy(k_, a_.k.row, m_, a_.dim, rows_.data());
    else if (copies_) attention_tile::copy(v_, a_.v.row, m_, a_.value_dim, rows_.data());
    if (with_values_) attention_tile::pack(v_, a_.v.row, m_, a_.value_dim, values_.data());
  }

  // s = scale q k^T
  void scores(const T* q, Index i0, Index n, Index m, T* s) const {
    if (!own_) return gemm_block(n, m, a_.dim, rows(q, a_.q.row), transposed(k_, a_.k.row), s, kKeys, false, a_.scale);
    if (!packs_) return dots(n, m, a_.dim, q, a_.q.row, k_, a_.k.row, s, a_.scale);
    across(n, m, a_.dim, q, a_.q.row, keys_.data(), s, i0, a_.scale);
  }
  // d = g v^T
  void slopes(const T* g, Index g_row, Index i0, Index n, Index m, T* d) const {
    if (!own_) return gemm_block(n, m, a_.value_dim, rows(g, g_row), transposed(v_, a_.v.row), d, kKeys, false);
    if (!packs_) return dots(n, m, a_.value_dim, g, g_row, v_, a_.v.row, d, T(1));
    across(n, m, a_.value_dim, g, g_row, values_.data(), d, i0, T(1));
  }
  // to (n, width) (+)= p v, or ds k
  void add_values(const T* p, Index i0, Index n, Index m, T* to, Index to_row, bool add) const {
    along(p, i0, n, m, panels(v_, a_.v.row), a_.value_dim, to, to_row, add);
  }
  void add_keys(const T* p, Index i0, Index n, Index m, T* to, Index to_row, bool add) const {
    along(p, i0, n, m, panels(k_, a_.k.row), a_.dim, to, to_row, add);
  }
  // to (m, width) (+)= p^T x
  void gather(const T* p, Index i0, Index n, Index m, const Panels<T>& x, Index width, T* to, Index to_row,
              bool add) const {
    if (!own_) return gemm_block(m, width, n, transposed<T>(p, kKeys), rows(x.data, x.row), to, to_row, add);
    const Index hidden = a_.causal ? j0_ - i0 : -kKeys - kQueries;  // queries before key j see nothing of it
    attention_tile::multiply<T>(m, width, p, 1, kKeys, x.data, x.row, x.next, to, to_row, add, T(1),
                                [=](Index j, Index) {
                                  return attention_tile::Part{std::clamp<Index>(hidden + j, 0, n), n, width};
                                });
  }

 private:
  static void dots(Index n, Index m, Index dim, const T* x, Index x_row, const T* y, Index y_row, T* to, T alpha) {
    for (Index j = 0; j < m; ++j)
      for (Index i = 0; i < n; ++i)
        to[i * kKeys + j] = alpha * attention_rows::dot<T>(x + i * x_row, y + j * y_row, dim);
  }
  void across(Index n, Index m, Index dim, const T* x, Index x_row, const T* packed, T* to, Index i0, T alpha) const {
    attention_tile::multiply<T>(n, m, x, x_row, 1, packed, attention_tile::kPanel<T>, dim * attention_tile::kPanel<T>,
                                to, kKeys, false, alpha, [=](Index i, Index count) {
                                  return attention_tile::Part{0, dim, seen_by(a_, i0, i + count - 1, j0_, m)};
                                });
  }
  void along(const T* p, Index i0, Index n, Index m, const Panels<T>& x, Index width, T* to, Index to_row,
             bool add) const {
    if (!own_) return gemm_block(n, width, m, rows<T>(p, kKeys), rows(x.data, x.row), to, to_row, add);
    attention_tile::multiply<T>(n, width, p, kKeys, 1, x.data, x.row, x.next, to, to_row, add, T(1),
                                [=](Index i, Index count) {
                                  return attention_tile::Part{0, seen_by(a_, i0, i + count - 1, j0_, m), width};
                                });
  }
  // Of this block: the copy, or `data` in place.
  Panels<T> panels(const T* data, Index row) const {
    return copies_ ? Panels<T>(rows_.data(), m_) : Panels<T>::in_place(data, row);
  }

  const Attention<T>& a_;
  const bool own_, packs_, copies_;
  Scratch<T> keys_, values_;  // packed for products across
  Scratch<T> rows_;           // values forward, keys backward: panels for the product along them
  const bool with_values_;
  const T *k_ = nullptr, *v_ = nullptr;
  Index j0_ = 0, m_ = 0;
};

// Scores of a tile, the mask applied to what causality leaves.
template <class T>
void masked_scores(const Attention<T>& a, const Head<T>& head, const KeyBlock<T>& block, Index i0, Index n, Index j0,
                   Index m, T* s) {
  block.scores(head.q + i0 * a.q.row, i0, n, m, s);
  if (!head.add && !head.keep) return;
  const T none = -std::numeric_limits<T>::infinity();
  const Index step = a.mask.key;
  for (Index i = 0; i < n; ++i) {
    T* row = s + i * kKeys;
    const Index at = (i0 + i) * a.mask.query + j0 * step, seen = seen_by(a, i0, i, j0, m);
    if (head.add) {
      const T* add = head.add + at;
      if (step == 1) for (Index j = 0; j < seen; ++j) row[j] += add[j];
      else for (Index j = 0; j < seen; ++j) row[j] += add[j * step];
    } else {
      const std::uint8_t* keep = head.keep + at;
      if (step == 1) for (Index j = 0; j < seen; ++j) row[j] = keep[j] ? row[j] : none;
      else for (Index j = 0; j < seen; ++j) row[j] = keep[j * step] ? row[j] : none;
    }
  }
}

// Query blocks [first, last) of one head, at most kBlocksATask: a block of keys is packed once for all of them.
template <class T>
void forward_blocks(const Attention<T>& a, Index index, Index first, Index last, HeadView<T> out, T* lse) {
  const Head<T> head(a, index);
  const Index begin = first * kQueries, end = std::min(a.queries, last * kQueries);
  Scratch<T> s(kQueries * kKeys);
  KeyBlock<T> block(a, false);
  T top[kBlocksATask * kQueries], sum[kBlocksATask * kQueries];
  bool started[kBlocksATask] = {};
  T* o = out.data + head.b * out.batch + head.h * out.head + begin * out.row;
  std::fill_n(top, end - begin, -std::numeric_limits<T>::infinity());
  std::fill_n(sum, end - begin, T(0));
  const Index keys = last_key(a, end);
  for (Index j0 = 0; j0 < keys; j0 += kKeys) {
    const Index j1 = std::min(keys, j0 + kKeys);
    if (hidden(a, head, j0, j1)) continue;
    block.take(head, j0, j1);
    for (Index i0 = begin; i0 < end; i0 += kQueries) {
      const Index i1 = std::min(end, i0 + kQueries), n = i1 - i0, m = std::min(j1, last_key(a, i1)) - j0;
      if (m <= 0) continue;
      bool& more = started[(i0 - begin) / kQueries];
      masked_scores(a, head, block, i0, n, j0, m, s.data());
      for (Index i = 0; i < n; ++i) {
        T *row = s.data() + i * kKeys, &most = top[i0 - begin + i], &total = sum[i0 - begin + i];
        const Index seen = seen_by(a, i0, i, j0, m);
        const T before = most, here = attention_rows::row_max<T>(row, seen);
        const T now = here <= before ? before : here;  // NaN comes through
        if (now == -std::numeric_limits<T>::infinity()) {
          std::fill_n(row, m, T(0));  // nothing seen yet; exp(-inf + inf) would be NaN
          continue;
        }
        const T part = attention_rows::exp_shifted<T>(row, seen, now);
        std::fill(row + seen, row + m, T(0));
        if (now != before && more) {
          const T by = std::exp(before - now);
          total *= by;
          for (Index d = 0; d < a.value_dim; ++d) o[(i0 - begin + i) * out.row + d] *= by;
        }
        total += part;
        most = now;
      }
      block.add_values(s.data(), i0, n, m, o + (i0 - begin) * out.row, out.row, more);
      more = true;
    }
  }
  for (Index i = 0; i < end - begin; ++i) {
    const T by = sum[i] == T(0) ? T(0) : T(1) / sum[i];
    if (!started[i / kQueries]) std::fill_n(o + i * out.row, a.value_dim, T(0));
    else for (Index d = 0; d < a.value_dim; ++d) o[i * out.row + d] *= by;
    lse[index * a.queries + begin + i] =
        sum[i] == T(0) ? -std::numeric_limits<T>::infinity() : top[i] + std::log(sum[i]);
  }
}

template <class T>
struct Backward {
  const Attention<T>& a;
  HeadView<const T> g, out;
  const T* lse;
  HeadView<T> gq, gk, gv;

  // delta[i] = sum_d g[i][d] out[i][d], for one head
  void deltas(const Head<T>& head, Index first, Index last, T* delta) const {
    for (Index i = first; i < last; ++i) {
      const T* x = g.data + head.b * g.batch + head.h * g.head + i * g.row;
      const T* y = out.data + head.b * out.batch + head.h * out.head + i * out.row;
      delta[i - first] = attention_rows::dot<T>(x, y, a.value_dim);
    }
  }

  // p and ds of one tile; `p` ends as P, `ds` as scale * dS, both with rows kKeys apart.
  void tile(const Head<T>& head, const KeyBlock<T>& block, Index index, Index i0, Index n, Index j0, Index m,
            const T* delta, T* p, T* ds) const {
    masked_scores(a, head, block, i0, n, j0, m, p);
    block.slopes(g_row(head, i0), g.row, i0, n, m, ds);
    for (Index i = 0; i < n; ++i) {
      T *pi = p + i * kKeys, *di = ds + i * kKeys;
      const T shift = lse[index * a.queries + i0 + i];
      const Index seen = shift == -std::numeric_limits<T>::infinity() ? 0 : seen_by(a, i0, i, j0, m);
      if (seen) {
        attention_rows::exp_shifted<T>(pi, seen, shift);
        attention_rows::softmax_grad<T>(pi, di, seen, delta[i], a.scale);
      }
      std::fill(pi + seen, pi + m, T(0));
      std::fill(di + seen, di + m, T(0));
    }
  }

  const T* g_row(const Head<T>& head, Index i) const { return g.data + head.b * g.batch + head.h * g.head + i * g.row; }
  static T* row(const HeadView<T>& view, const Head<T>& head, Index i) {
    return view.data + head.b * view.batch + head.h * view.head + i * view.row;
  }
  // of gk or gv, which heads of queries share
  static T* key_row(const HeadView<T>& view, const Head<T>& head, Index j) {
    return view.data + head.b * view.batch + head.shared * view.head + j * view.row;
  }

  // One head's g and q for the products with P^T and dS^T: as they lie, or copied as panels, block by block.
  class QueryRows {
   public:
    QueryRows(const Backward& of, Index index, bool again)
        : of_(of), head_(of.a, index), copied_(again && KeyBlock<T>::copies(of.a) && of.a.queries <= kMostCopied),
          g_(copied_ ? of.a.queries * wide(of.a.value_dim) : 0), q_(copied_ ? of.a.queries * wide(of.a.dim) : 0) {
      const Attention<T>& a = of.a;
      for (Index i = 0; copied_ && i < a.queries; i += kQueries) {
        const Index n = std::min(a.queries - i, kQueries);
        attention_tile::copy(of.g_row(head_, i), of.g.row, n, a.value_dim, g_.data() + i * wide(a.value_dim));
        attention_tile::copy(head_.q + i * a.q.row, a.q.row, n, a.dim, q_.data() + i * wide(a.dim));
      }
    }
    Panels<T> g(Index i, Index n) const { return from(g_, of_.a.value_dim, of_.g_row(head_, i), of_.g.row, i, n); }
    Panels<T> q(Index i, Index n) const {
      const HeadView<const T>& q = of_.a.q;
      return from(q_, of_.a.dim, head_.q + i * q.row, q.row, i, n);
    }

   private:
    static Index wide(Index width) { return round_up(width, attention_tile::kPanel<T>); }
    Panels<T> from(const Scratch<T>& copy, Index width, const T* data, Index row, Index i, Index n) const {
      return copied_ ? Panels<T>(copy.data() + i * wide(width), n) : Panels<T>::in_place(data, row);
    }

    const Backward& of_;
    const Head<T> head_;
    const bool copied_;
    Scratch<T> g_, q_;
  };

  // Keys from j0 on against every block of queries, in order. The first head that shares these keys begins their sums.
  void key_block(Index index, Index j0, const T* delta, bool with_gq, const QueryRows& from) const {
    const Head<T> head(a, index);
    const Index j1 = std::min(a.keys, j0 + kKeys);
    Scratch<T> p(kQueries * kKeys), ds(kQueries * kKeys);
    KeyBlock<T> block(a, true);
    bool first = head.h % a.group == 0;
    const Index start = a.causal ? j0 / kQueries * kQueries : 0;
    const bool none = hidden(a, head, j0, j1);
    if (!none) block.take(head, j0, j1);
    for (Index i0 = start; i0 < a.queries && !none; i0 += kQueries) {
      const Index i1 = std::min(a.queries, i0 + kQueries), n = i1 - i0, last = std::min(j1, last_key(a, i1));
      if (last <= j0) continue;
      const Index seen = last - j0;
      tile(head, block, index, i0, n, j0, seen, delta + i0, p.data(), ds.data());
      if (first) clear_keys(head, j0 + seen, j1);
      block.gather(p.data(), i0, n, seen, from.g(i0, n), a.value_dim, key_row(gv, head, j0), gv.row, !first);
      block.gather(ds.data(), i0, n, seen, from.q(i0, n), a.dim, key_row(gk, head, j0), gk.row, !first);
      if (with_gq) block.add_keys(ds.data(), i0, n, seen, row(gq, head, i0), gq.row, true);
      first = false;
    }
    if (first) clear_keys(head, j0, j1);
  }

  void clear_keys(const Head<T>& head, Index from, Index to) const {
    for (Index j = from; j < to; ++j) {
      std::fill_n(key_row(gv, head, j), a.value_dim, T(0));
      std::fill_n(key_row(gk, head, j), a.dim, T(0));
    }
  }
  void clear_queries(const Head<T>& head, Index from, Index to) const {
    for (Index i = from; i < to; ++i) std::fill_n(row(gq, head, i), a.dim, T(0));
  }

  void query_block(Index index, Index i0, const T* delta) const {
    const Head<T> head(a, index);
    const Index i1 = std::min(a.queries, i0 + kQueries), n = i1 - i0, last = last_key(a, i1);
    Scratch<T> p(kQueries * kKeys), ds(kQueries * kKeys);
    KeyBlock<T> block(a, true);
    clear_queries(head, i0, i1);
    for (Index j0 = 0; j0 < last; j0 += kKeys) {
      const Index j1 = std::min(last, j0 + kKeys);
      if (hidden(a, head, j0, j1)) continue;
      block.take(head, j0, j1);
      tile(head, block, index, i0, n, j0, j1 - j0, delta + i0, p.data(), ds.data());
      block.add_keys(ds.data(), i0, n, j1 - j0, row(gq, head, i0), gq.row, true);
    }
  }

  void run() const {
    const Index heads = a.batch * a.heads, shared = heads / a.group, key_blocks = divide_up(a.keys, kKeys);
    const Index query_blocks = divide_up(a.queries, kQueries);
    if (a.keys == 0) {
      for (Index h = 0; h < heads; ++h) clear_queries(Head<T>(a, h), 0, a.queries);
      return;
    }
    if (shared >= kFewHeads || key_blocks * query_blocks == 1) {
      for_blocks(a, shared, [&](Index task) {
        Scratch<T> delta(a.queries);
        for (Index h = task * a.group; h < (task + 1) * a.group; ++h) {
          deltas(Head<T>(a, h), 0, a.queries, delta.data());
          clear_queries(Head<T>(a, h), 0, a.queries);
          const QueryRows from(*this, h, key_blocks > 1);
          for (Index j = 0; j < key_blocks; ++j) key_block(h, j * kKeys, delta.data(), true, from);
        }
      });
      return;
    }
    Scratch<T> delta(heads * a.queries);
    for_blocks(a, heads * query_blocks, [&](Index task) {
      const Index h = task / query_blocks, i0 = task % query_blocks * kQueries;
      deltas(Head<T>(a, h), i0, std::min(a.queries, i0 + kQueries), delta.data() + h * a.queries + i0);
    });
    const Index parts = key_blocks + a.group * query_blocks;
    for_blocks(a, shared * parts, [&](Index task) {
      const Index begin = task / parts * a.group, part = task % parts;
      if (part >= key_blocks) {
        const Index h = begin + (part - key_blocks) / query_blocks, block = (part - key_blocks) % query_blocks;
        return query_block(h, block * kQueries, delta.data() + h * a.queries);
      }
      for (Index h = begin; h < begin + a.group; ++h)
        key_block(h, part * kKeys, delta.data() + h * a.queries, false, QueryRows(*this, h, false));
    });
  }
};

}  // namespace

template <class T>
void attention(const Attention<T>& a, HeadView<T> out, T* lse) {
  const Index blocks = divide_up(a.queries, kQueries), heads = a.batch * a.heads;
  if (blocks == 0) return;
  const Index grain = std::clamp<Index>(heads * blocks / kWantedTasks, 1, std::min(blocks, kBlocksATask));
  const Index parts = divide_up(blocks, grain);
  for_blocks(a, heads * parts, [&](Index task) {
    const Index first = task % parts * grain;
    forward_blocks(a, task / parts, first, std::min(blocks, first + grain), out, lse);
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
