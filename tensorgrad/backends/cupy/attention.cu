// Attention: softmax(q k^T scale + mask) v for each of a batch, and its gradients, without the scores in memory (Dao et al.
// 2022, "FlashAttention"; Milakov and Gimelshein 2018 for the running maximum and sum).
//
// Forward a block has 64 queries, 16 a warp, and goes over the keys in tiles; what is kept is the logsumexp of each query.
// Backward the scores are made again: once for the queries' gradient, by blocks of queries over tiles of keys, and once for
// the gradients of keys and values, by blocks of keys over tiles of queries. So nothing is added up by atomics, and the bits
// depend on the shapes alone. The next tile is on its way to shared memory while this one is used.
//
// A width is the most that rows have, zeros filling what they lack. Scores are powers of 2: exp2 is one instruction.

namespace tg {

constexpr int kThreads = 128, kBlockRows = kThreads / 32 * kWarpRows;
constexpr float kLog2E = 1.4426950408889634f, kLn2 = 0.6931471805599453f;
enum { kNoMask, kBoolMask, kAddedMask };

// As attention_kernels.py packs it. Steps count elements: by axis of the batch, then from row to row.
struct Layout {
  i64 batch[3];
  i64 q[4], k[4], v[4], g[4];
  i64 mask[5];  // by axis of the batch, by query, by key
  i64 queries, keys, width, value_width;
  float scale;
  int causal, mask_kind;
};

// Where one of the batch begins.
TG_FN i64 start(const Layout& s, const i64* steps, i64 one) {
  return one % s.batch[2] * steps[2] + one / s.batch[2] % s.batch[1] * steps[1] + one / s.batch[2] / s.batch[1] * steps[0];
}

// Makes products of queries and keys scores, times log2(e); -inf where a query must not look. p: of queries and keys from
// there on, with queries as rows or (kByKey) as columns. Facts are read from `s` anew: there are no registers to spare.
template <bool kByKey, class T, int N>
TG_FN void score(float (&p)[N][4], const Layout& s, const void* mask, i64 one, int query, int key, T) {
  constexpr int kQueries = kByKey ? N * 8 : kWarpRows, kKeys = kByKey ? kWarpRows : N * 8;
  const float none = -infinity(0.0f), factor = s.scale * kLog2E;
  const int kind = s.mask_kind, queries = (int)s.queries, keys = (int)s.keys;
  const bool causal = s.causal;
#pragma unroll
  for (int n = 0; n < N; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) p[n][e] *= factor;
  }
  const bool inside = query + kQueries <= queries && key + kKeys <= keys;
  if (inside && kind == kNoMask && (!causal || key + kKeys <= query + 1)) return;
#pragma unroll
  for (int n = 0; n < N; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int row = row_of(e), column = score_column(n, e, T());
      const int from = query + (kByKey ? column : row), to = key + (kByKey ? row : column);
      if (from >= queries || to >= keys || (causal && to > from)) p[n][e] = none;
    }
  }
  if (kind == kNoMask) return;
  const i64 by_row = s.mask[kByKey ? 4 : 3], by_column = s.mask[kByKey ? 3 : 4];
  const i64 corner = start(s, s.mask, one) + query * s.mask[3] + key * s.mask[4];
  const int rows = kByKey ? keys - key : queries - query, columns = kByKey ? queries - query : keys - key;
#pragma unroll
  for (int n = 0; n < N; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int row = row_of(e), column = score_column(n, e, T());
      if (row >= rows || column >= columns) continue;
      const i64 at = corner + row * by_row + column * by_column;
      if (kind == kAddedMask) p[n][e] += widened(((const T*)mask)[at]) * kLog2E;
      else if (!((const bool*)mask)[at]) p[n][e] = none;
    }
  }
}

TG_FN float over_group(float x, bool largest) {
#pragma unroll
  for (int mask = 1; mask < 4; mask *= 2) {
    const float other = __shfl_xor_sync(0xffffffffu, x, mask);
    x = !largest ? x + other : other > x ? other : x;
  }
  return x;
}

// exp2(x - lse): a query that looks nowhere has lse = -inf, and weights of zero
TG_FN float lse_in_powers_of_2(float lse) { return lse == -infinity(0.0f) ? 0 : lse * kLog2E; }

template <int N> TG_FN void clear(float (&c)[N][4]) {
#pragma unroll
  for (int n = 0; n < N; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) c[n][e] = 0;
  }
}

template <class T, int kWidth>
TG_FN void forward(const Layout& s, const T* q, const T* k, const T* v, const void* mask, T* out, float* lse) {
  constexpr int kTile = sizeof(T) == 2 ? 64 : kWidth <= 64 ? 64 : 32, N = kTile / 8;
  alignas(16) __shared__ typename tile_row<T, kWidth>::type keys[kTile], values[kTile];
  const i64 blocks = (s.queries + kBlockRows - 1) / kBlockRows, all = blocks * s.batch[0] * s.batch[1] * s.batch[2];
  for (i64 block = blockIdx.x; block < all; block += gridDim.x) {
    // those who see most keys first, so that the last ones to begin end soon
    const i64 one = block / blocks, first = (blocks - 1 - block % blocks) * kBlockRows;
    const int from_row = (int)first + threadIdx.x / 32 * kWarpRows;
    const Matrix<T> of_k = matrix(k + start(s, s.k, one), s.k[3], s.keys, s.width);
    const Matrix<T> of_v = matrix(v + start(s, s.v, one), s.v[3], s.keys, s.value_width);
    const Rows<T, kWidth> rows(matrix(q + start(s, s.q, one), s.q[3], s.queries, s.width), from_row);
    const int seen = s.causal && first + kBlockRows < s.keys ? (int)first + kBlockRows : (int)s.keys;
    float made[kWidth / 8][4], most[2] = {-infinity(0.0f), -infinity(0.0f)}, sum[2] = {0, 0};
    clear(made);
    stage<kTile, kWidth, kThreads>(keys, of_k, 0);
    end_of_copies();
    for (int from = 0; from < seen; from += kTile) {
      wait_for_copies<0>();
      __syncthreads();  // these keys are there, and nobody reads the last values any more
      stage<kTile, kWidth, kThreads>(values, of_v, from);
      end_of_copies();
      float p[N][4];
      clear(p);
      times_transposed(p, rows, keys);
      wait_for_copies<0>();
      __syncthreads();
      if (from + kTile < seen) stage<kTile, kWidth, kThreads>(keys, of_k, from + kTile);
      end_of_copies();
      score<false>(p, s, mask, one, from_row, from, T());
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float top = most[half];
#pragma unroll
        for (int n = 0; n < N; ++n) {
#pragma unroll
          for (int e = 0; e < 2; ++e) top = p[n][2 * half + e] > top ? p[n][2 * half + e] : top;
        }
        top = over_group(top, true);
        const float shift = top == -infinity(0.0f) ? 0 : top, shrink = exp2(most[half] - shift);
        most[half] = top;
        sum[half] *= shrink;
#pragma unroll
        for (int n = 0; n < kWidth / 8; ++n) {
#pragma unroll
          for (int e = 0; e < 2; ++e) made[n][2 * half + e] *= shrink;
        }
#pragma unroll
        for (int n = 0; n < N; ++n) {
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            float& x = p[n][2 * half + e];
            x = exp2(x - shift);
            sum[half] += x;
          }
        }
      }
      times(made, p, values, T());
    }
    float scale[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float total = over_group(sum[half], false);
      const int row = from_row + row_of(2 * half);
      scale[half] = total == 0 ? 0 : 1 / total;
      if (lane_in_group() == 0 && row < s.queries) {
        const float top = most[half];  // -inf where nothing is seen, inf where infinity is
        lse[one * s.queries + row] = top == infinity(0.0f) || total == 0 ? top : top * kLn2 + log(total);
      }
    }
    write_rows<kWidth>(made, scale[0], scale[1], out + one * s.queries * s.value_width, from_row, (int)s.queries,
                       (int)s.value_width);
  }
}

// delta = sum of g * out over a query's row
template <class T>
TG_FN void slopes_along(const Layout& s, const T* g, const T* out, float* delta) {
  const i64 all = s.queries * s.batch[0] * s.batch[1] * s.batch[2];
  for (i64 row = (blockIdx.x * (i64)blockDim.x + threadIdx.x) / 32; row < all; row += gridDim.x * (i64)blockDim.x / 32) {
    const i64 one = row / s.queries;
    const T* slope = g + start(s, s.g, one) + row % s.queries * s.g[3];
    float sum = 0;
    for (i64 i = threadIdx.x % 32; i < s.value_width; i += 32) {
      sum += widened(slope[i]) * widened(out[row * s.value_width + i]);
    }
    for (int mask = 16; mask; mask /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, mask);
    if (threadIdx.x % 32 == 0) delta[row] = sum;
  }
}

// Of tiles that two matrices share: both of 2 tiles at a time fit into 40 KiB.
template <class T, int kWidth> TG_FN constexpr int backward_tile() { return 4096 / (kWidth * (int)sizeof(T)) * 2; }

template <class T, int kWidth>
TG_FN void backward_of_queries(const Layout& s, const T* g, const T* q, const T* k, const T* v, const void* mask,
                               const float* lse, const float* delta, T* to_q) {
  constexpr int kTile = backward_tile<T, kWidth>(), N = kTile / 8;
  alignas(16) __shared__ typename tile_row<T, kWidth>::type keys[2][kTile], values[2][kTile];
  const i64 blocks = (s.queries + kBlockRows - 1) / kBlockRows, all = blocks * s.batch[0] * s.batch[1] * s.batch[2];
  for (i64 block = blockIdx.x; block < all; block += gridDim.x) {
    const i64 one = block / blocks, first = (blocks - 1 - block % blocks) * kBlockRows;
    const int from_row = (int)first + threadIdx.x / 32 * kWarpRows;
    const Matrix<T> of_k = matrix(k + start(s, s.k, one), s.k[3], s.keys, s.width);
    const Matrix<T> of_v = matrix(v + start(s, s.v, one), s.v[3], s.keys, s.value_width);
    const Rows<T, kWidth> rows_q(matrix(q + start(s, s.q, one), s.q[3], s.queries, s.width), from_row);
    const Rows<T, kWidth> rows_g(matrix(g + start(s, s.g, one), s.g[3], s.queries, s.value_width), from_row);
    const int seen = s.causal && first + kBlockRows < s.keys ? (int)first + kBlockRows : (int)s.keys;
    float made[kWidth / 8][4], shift[2], along[2];
    clear(made);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = from_row + row_of(2 * half);
      const i64 at = one * s.queries + (row < s.queries ? row : s.queries - 1);
      shift[half] = lse_in_powers_of_2(lse[at]);
      along[half] = delta[at];
    }
    stage<kTile, kWidth, kThreads>(keys[0], of_k, 0);
    stage<kTile, kWidth, kThreads>(values[0], of_v, 0);
    end_of_copies();
    for (int from = 0, turn = 0; from < seen; from += kTile, turn ^= 1) {
      if (from + kTile < seen) {
        stage<kTile, kWidth, kThreads>(keys[turn ^ 1], of_k, from + kTile);
        stage<kTile, kWidth, kThreads>(values[turn ^ 1], of_v, from + kTile);
      }
      end_of_copies();
      wait_for_copies<1>();
      __syncthreads();
      float p[N][4], slope[N][4];
      clear(p);
      clear(slope);
      times_transposed(p, rows_q, keys[turn]);
      times_transposed(slope, rows_g, values[turn]);
      score<false>(p, s, mask, one, from_row, from, T());
#pragma unroll
      for (int n = 0; n < N; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          p[n][e] = exp2(p[n][e] - shift[e / 2]) * (slope[n][e] - along[e / 2]);
        }
      }
      times(made, p, keys[turn], T());
      __syncthreads();  // before this tile's place is filled again
    }
    write_rows<kWidth>(made, s.scale, s.scale, to_q + one * s.queries * s.width, from_row, (int)s.queries, (int)s.width);
  }
}

// The rows of values that a block has, in registers or in a tile of their own.
template <class T, int kWidth, bool kInTile> struct Kept {
  typedef Rows<T, kWidth> type;
  TG_FN static type of(const Matrix<T>& m, int first, const typename tile_row<T, kWidth>::type*) { return {m, first}; }
};
template <class T, int kWidth> struct Kept<T, kWidth, true> {
  typedef TileRows<T, kWidth> type;
  TG_FN static type of(const Matrix<T>&, int, const typename tile_row<T, kWidth>::type* tile) { return {tile}; }
};

template <class T, int kWidth>
TG_FN void backward_of_keys(const Layout& s, const T* g, const T* q, const T* k, const T* v, const void* mask,
                            const float* lse, const float* delta, T* to_k, T* to_v) {
  // two sums of the full width leave few registers for anything else
  constexpr int kMost = sizeof(T) == 2 ? 4096 / kWidth / 2 : 16;
  constexpr int kTile = backward_tile<T, kWidth>() < kMost ? backward_tile<T, kWidth>() : kMost, N = kTile / 8;
  alignas(16) __shared__ typename tile_row<T, kWidth>::type queries[2][kTile], slopes[2][kTile];
  __shared__ float shift[2][kTile], along[2][kTile];
  constexpr bool kInTile = sizeof(T) == 2 && kWidth > 64;
  alignas(16) __shared__ typename tile_row<T, kWidth>::type kept[kInTile ? kBlockRows : 1];
  const i64 blocks = (s.keys + kBlockRows - 1) / kBlockRows, all = blocks * s.batch[0] * s.batch[1] * s.batch[2];
  for (i64 block = blockIdx.x; block < all; block += gridDim.x) {
    const i64 one = block / blocks, first = block % blocks * kBlockRows;
    const int from_row = (int)first + threadIdx.x / 32 * kWarpRows;
    const Matrix<T> of_q = matrix(q + start(s, s.q, one), s.q[3], s.queries, s.width);
    const Matrix<T> of_g = matrix(g + start(s, s.g, one), s.g[3], s.queries, s.value_width);
    const Rows<T, kWidth> rows_k(matrix(k + start(s, s.k, one), s.k[3], s.keys, s.width), from_row);
    const Matrix<T> of_v = matrix(v + start(s, s.v, one), s.v[3], s.keys, s.value_width);
    if (kInTile) stage<kBlockRows, kWidth, kThreads>(kept, of_v, (int)first);
    const auto rows_v = Kept<T, kWidth, kInTile>::of(of_v, from_row, kept + (from_row - (int)first) * kInTile);
    float made_k[kWidth / 8][4], made_v[kWidth / 8][4];
    clear(made_k);
    clear(made_v);
    const auto fetch = [&](int turn, int from) {
      stage<kTile, kWidth, kThreads>(queries[turn], of_q, from);
      stage<kTile, kWidth, kThreads>(slopes[turn], of_g, from);
      for (int i = threadIdx.x; i < kTile; i += kThreads) {
        const bool there = from + i < s.queries;
        shift[turn][i] = there ? lse_in_powers_of_2(lse[one * s.queries + from + i]) : 0;
        along[turn][i] = there ? delta[one * s.queries + from + i] : 0;
      }
    };
    const int queries_end = (int)s.queries, begin = s.causal ? (int)first / kTile * kTile : 0;  // earlier ones see none
    if (begin < queries_end) fetch(0, begin);
    end_of_copies();
    for (int from = begin, turn = 0; from < queries_end; from += kTile, turn ^= 1) {
      if (from + kTile < queries_end) fetch(turn ^ 1, from + kTile);
      end_of_copies();
      wait_for_copies<1>();
      __syncthreads();
      float p[N][4], slope[N][4];
      clear(p);
      clear(slope);
      times_transposed(p, rows_k, queries[turn]);
      times_transposed(slope, rows_v, slopes[turn]);
      score<true>(p, s, mask, one, from, from_row, T());
#pragma unroll
      for (int n = 0; n < N; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int column = score_column(n, e, T());
          p[n][e] = exp2(p[n][e] - shift[turn][column]);
          slope[n][e] = p[n][e] * (slope[n][e] - along[turn][column]);
        }
      }
      times(made_v, p, slopes[turn], T());
      times(made_k, slope, queries[turn], T());
      __syncthreads();
    }
    wait_for_copies<0>();  // where no query sees these keys
    write_rows<kWidth>(made_k, s.scale, s.scale, to_k + one * s.keys * s.width, from_row, (int)s.keys, (int)s.width);
    write_rows<kWidth>(made_v, 1, 1, to_v + one * s.keys * s.value_width, from_row, (int)s.keys, (int)s.value_width);
  }
}

}  // namespace tg

#define ATTENTION_KERNEL(name) extern "C" __global__ void __launch_bounds__(tg::kThreads, 2) name
#define FORWARD(name, T, width)                                                                                         \
  ATTENTION_KERNEL(attention_##name)(const tg::Layout s, const T* q, const T* k, const T* v, const void* mask, T* out,  \
                                     float* lse) {                                                                      \
    tg::forward<T, width>(s, q, k, v, mask, out, lse);                                                                  \
  }
#define BACKWARD(name, T, width)                                                                                        \
  ATTENTION_KERNEL(attentiondelta_##name)(const tg::Layout s, const T* g, const T* out, float* delta) {                 \
    tg::slopes_along(s, g, out, delta);                                                                                 \
  }                                                                                                                     \
  ATTENTION_KERNEL(attentionquery_##name)(const tg::Layout s, const T* g, const T* q, const T* k, const T* v,           \
                                          const void* mask, const float* lse, const float* delta, T* to_q) {            \
    tg::backward_of_queries<T, width>(s, g, q, k, v, mask, lse, delta, to_q);                                           \
  }                                                                                                                     \
  ATTENTION_KERNEL(attentionkey_##name)(const tg::Layout s, const T* g, const T* q, const T* k, const T* v,             \
                                        const void* mask, const float* lse, const float* delta, T* to_k, T* to_v) {     \
    tg::backward_of_keys<T, width>(s, g, q, k, v, mask, lse, delta, to_k, to_v);                                        \
  }
