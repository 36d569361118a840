// Attention: softmax(q k^T scale + mask) v for each of a batch, and its gradients, without the scores in memory (Dao et al.
// 2022, "FlashAttention"; Milakov and Gimelshein 2018 for the running maximum and sum).
//
// Forward a block has 64 queries, 16 a warp, and goes over the keys in tiles; what is kept is the logsumexp of each query.
// Backward the scores are made again: once for the queries' gradient, by blocks of queries over tiles of keys, and once for
// the gradients of keys and values, by blocks of keys over tiles of queries. So nothing is added up by atomics, and the bits
// depend on the shapes alone. The next tile is on its way to shared memory while this one is used.
//
// A width is the most that rows have, zeros filling what they lack. Scores are powers of 2: exp2 is one instruction.
//
// Dropout of the weights draws the numbers that generic/random.py gives a dropout of all scores, tile by tile, a bit each
// in shared memory: forward and backward draw the same ones, and nobody keeps them.
//
// Heads wider than 128 have no registers for two sums of the full width, so that the gradients of keys and of values are
// two kernels; in half precision a block of theirs has 32 rows, so that what registers do not hold fits into 48 KiB.

namespace tg {

constexpr float kLog2E = 1.4426950408889634f, kLn2 = 0.6931471805599453f;
enum { kNoMask, kBoolMask, kAddedMask };
enum { kBoth, kOfKeys, kOfValues };  // which gradients a kernel makes

// As attention_kernels.py packs it. Steps count elements: by axis of the batch, then from row to row.
struct Layout {
  i64 batch[3];
  i64 q[4], k[4], v[4], g[4];
  i64 mask[5];  // by axis of the batch, by query, by key
  i64 queries, keys, width, value_width;
  i64 heads, q_head, g_head, mask_head;  // of queries: how many a block of keys goes through, and the steps between them
  float scale, dropped, kept;            // the probability that a weight is dropped, and what it is multiplied by if not
  int causal, mask_kind;
};

// A stream of philox.cuh: seed and offset, or where they are in device memory.
struct Stream {
  u64 seed, offset;
  const u64* place;
  TG_FN u64 key() const { return place ? place[0] : seed; }
  TG_FN u64 counter() const { return place ? place[1] : offset; }
};

// Threads of a block of the kernels for gradients, where `kWide` rows take more shared memory than four warps' have.
TG_FN constexpr int threads_for(bool wide) { return wide ? 64 : 128; }
TG_FN constexpr int rows_for(int threads) { return threads / 32 * kWarpRows; }

// Where one of the batch begins. Divisions of 64 bits are calls, for which registers would have to be free.
TG_FN i64 start(const Layout& s, const i64* steps, i64 one) {
  const unsigned int at = (unsigned int)one, inner = (unsigned int)s.batch[2], middle = (unsigned int)s.batch[1];
  return at % inner * steps[2] + at / inner % middle * steps[1] + at / inner / middle * steps[0];
}

// Makes products of queries and keys scores, times log2(e); -inf where a query must not look. p: of queries and keys from
// there on, with queries as rows or (kByKey) as columns. Facts are read from `s` anew: there are no registers to spare.
template <bool kByKey, class T, int N>
TG_FN void score(float (&p)[N][4], const Layout& s, const void* mask, i64 one, i64 head, int query, int key, T) {
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
  const i64 corner = start(s, s.mask, one) + head * s.mask_head + query * s.mask[3] + key * s.mask[4];
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

// Which weights dropout keeps, a bit each: of kRows queries from `query` on, of `one` of the batch (or of all its heads
// of queries), and kColumns keys from `key` on. Call it with the whole block.
template <int kRows, int kColumns, int kThreads>
TG_FN void draw(unsigned char (*stays)[kColumns / 8], const Layout& s, const Stream& stream, i64 one, int query, int key) {
  constexpr int kFair = kRows * kColumns / kThreads, kShare = kFair < 8 ? 8 : kFair, kParts = kColumns / kShare;
  static_assert(kShare <= 56 && kColumns % kShare == 0, "a thread's share and what lies beside it are one word");
  for (int i = threadIdx.x; i < kRows * kParts; i += kThreads) {
    const int row = i / kParts, column = i % kParts * kShare;
    const u64 first = (u64)(one * s.queries + query + row) * s.keys + key + column;
    const int blocks = kShare / 4 + (first % 4 != 0);
    u64 bits = 0;
#pragma unroll 1
    for (int block = 0; block < blocks; ++block) {
      const words drawn = philox(stream.key(), first / 4 + block, stream.counter());
      unsigned int four = 0;
#pragma unroll
      for (int e = 0; e < 4; ++e) four |= (unsigned int)(uniform32(drawn.w[e]) >= s.dropped) << e;
      bits |= (u64)four << block * 4;
    }
    bits >>= first % 4;
#pragma unroll
    for (int part = 0; part < kShare / 8; ++part) stays[row][column / 8 + part] = (unsigned char)(bits >> part * 8);
  }
}
TG_FN bool stays_at(const unsigned char* stays, int column) { return stays[column / 8] >> column % 8 & 1; }

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

template <class T, int kWidth, bool kDrops>
TG_FN void forward(const Layout& s, const T* q, const T* k, const T* v, const void* mask, T* out, float* lse,
                   const Stream& stream, u64* place) {
  constexpr int kThreads = threads_for(false), kBlockRows = rows_for(kThreads);
  constexpr bool kWide = sizeof(T) == 2 && kWidth > 128;
  constexpr int kFits = (kWidth > 128 ? 64 : 128) / sizeof(T), N = (kWidth <= 64 ? 64 : kWide && kDrops ? 16 : kFits) / 8;
  constexpr int kTile = N * 8;
  typedef Kept<T, kWidth, !kWide ? kWidth : kDrops ? kWidth / 2 : kWidth * 5 / 8> KeptQ;
  alignas(16) __shared__ typename tile_row<T, kWidth>::type keys[kTile], values[kTile];
  alignas(16) __shared__ typename KeptQ::tile kept_q[kWide ? kBlockRows : 1];
  __shared__ unsigned char stays[kDrops ? kBlockRows : 1][kTile / 8];
  if (kDrops && blockIdx.x == 0 && threadIdx.x == 0) {  // what backward draws from
    place[0] = stream.key();
    place[1] = stream.counter();
  }
  const i64 blocks = (s.queries + kBlockRows - 1) / kBlockRows, all = blocks * s.batch[0] * s.batch[1] * s.batch[2];
  for (i64 block = blockIdx.x; block < all; block += gridDim.x) {
    // those who see most keys first, so that the last ones to begin end soon
    const i64 one = block / blocks, first = (blocks - 1 - block % blocks) * kBlockRows;
    const int from_row = (int)first + threadIdx.x / 32 * kWarpRows;
    const Matrix<T> of_k = matrix(k + start(s, s.k, one), s.k[3], s.keys, s.width);
    const Matrix<T> of_v = matrix(v + start(s, s.v, one), s.v[3], s.keys, s.value_width);
    const Matrix<T> of_q = matrix(q + start(s, s.q, one), s.q[3], s.queries, s.width);
    KeptQ::template prepare<kBlockRows, kThreads>(kept_q, of_q, (int)first);
    const auto rows = KeptQ::of(of_q, from_row, kept_q + (from_row - first) * kWide);
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
      if (kDrops) draw<kBlockRows, kTile, kThreads>(stays, s, stream, one, (int)first, from);
      float p[N][4];
      clear(p);
      times_transposed(p, rows, keys);
      wait_for_copies<0>();
      __syncthreads();
      if (from + kTile < seen) stage<kTile, kWidth, kThreads>(keys, of_k, from + kTile);
      end_of_copies();
      score<false>(p, s, mask, one, 0, from_row, from, T());
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
            if (kDrops && !stays_at(stays[from_row - first + row_of(2 * half)], score_column(n, e, T()))) x = 0;
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
      scale[half] = total == 0 ? 0 : (kDrops ? s.kept : 1) / total;
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

template <class T, int kWidth, bool kDrops>
TG_FN void backward_of_queries(const Layout& s, const T* g, const T* q, const T* k, const T* v, const void* mask,
                               const float* lse, const float* delta, const Stream& stream, T* to_q) {
  constexpr bool kWide = sizeof(T) == 2 && kWidth > 128;
  constexpr int kThreads = threads_for(kWide), kBlockRows = rows_for(kThreads), kTurns = kWide ? 1 : 2;
  constexpr int kTile = backward_tile<T, kWidth>(), N = kTile / 8;
  alignas(16) __shared__ typename tile_row<T, kWidth>::type keys[kTurns][kTile], values[kTurns][kTile];
  typedef Kept<T, kWidth, kWide ? kWidth / (kDrops ? 8 : 4) : kWidth> KeptQ;
  typedef Kept<T, kWidth, kWide ? 0 : kWidth> KeptG;
  alignas(16) __shared__ typename KeptQ::tile kept_q[kWide ? kBlockRows : 1];
  alignas(16) __shared__ typename KeptG::tile kept_g[kWide ? kBlockRows : 1];
  __shared__ unsigned char stays[kDrops ? kBlockRows : 1][kTile / 8];
  const i64 blocks = (s.queries + kBlockRows - 1) / kBlockRows, all = blocks * s.batch[0] * s.batch[1] * s.batch[2];
  for (i64 block = blockIdx.x; block < all; block += gridDim.x) {
    const i64 one = block / blocks, first = (blocks - 1 - block % blocks) * kBlockRows;
    const int from_row = (int)first + threadIdx.x / 32 * kWarpRows;
    const Matrix<T> of_k = matrix(k + start(s, s.k, one), s.k[3], s.keys, s.width);
    const Matrix<T> of_v = matrix(v + start(s, s.v, one), s.v[3], s.keys, s.value_width);
    const Matrix<T> of_g = matrix(g + start(s, s.g, one), s.g[3], s.queries, s.value_width);
    const Matrix<T> of_q = matrix(q + start(s, s.q, one), s.q[3], s.queries, s.width);
    KeptQ::template prepare<kBlockRows, kThreads>(kept_q, of_q, (int)first);
    KeptG::template prepare<kBlockRows, kThreads>(kept_g, of_g, (int)first);
    const auto rows_q = KeptQ::of(of_q, from_row, kept_q + (from_row - first) * kWide);
    const auto rows_g = KeptG::of(of_g, from_row, kept_g + (from_row - first) * kWide);
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
    const auto fetch = [&](int turn, int from) {
      stage<kTile, kWidth, kThreads>(keys[turn], of_k, from);
      stage<kTile, kWidth, kThreads>(values[turn], of_v, from);
    };
    fetch(0, 0);
    end_of_copies();
    for (int from = 0, turn = 0; from < seen; from += kTile, turn ^= kTurns - 1) {
      if (kTurns == 2 && from + kTile < seen) fetch(turn ^ 1, from + kTile);
      end_of_copies();
      if (kDrops) draw<kBlockRows, kTile, kThreads>(stays, s, stream, one, (int)first, from);
      wait_for_copies<kTurns - 1>();
      __syncthreads();
      float p[N][4], slope[N][4];
      clear(p);
      clear(slope);
      times_transposed(p, rows_q, keys[turn]);
      times_transposed(slope, rows_g, values[turn]);
      score<false>(p, s, mask, one, 0, from_row, from, T());
#pragma unroll
      for (int n = 0; n < N; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          float& x = slope[n][e];
          if (kDrops) x = stays_at(stays[from_row - first + row_of(e)], score_column(n, e, T())) ? x * s.kept : 0;
          p[n][e] = exp2(p[n][e] - shift[e / 2]) * (x - along[e / 2]);
        }
      }
      times(made, p, keys[turn], T());
      __syncthreads();  // before this tile's place is filled again
      if (kTurns == 1 && from + kTile < seen) fetch(0, from + kTile);
    }
    write_rows<kWidth>(made, s.scale, s.scale, to_q + one * s.queries * s.width, from_row, (int)s.queries, (int)s.width);
  }
}

// The gradients of a block of keys, of their values, or of both, summed over all queries of the heads that look at them.
template <class T, int kWidth, bool kDrops, int kWhich>
TG_FN void backward_of_keys(const Layout& s, const T* g, const T* q, const T* k, const T* v, const void* mask,
                            const float* lse, const float* delta, const Stream& stream, T* to_k, T* to_v) {
  constexpr bool kKeys = kWhich != kOfValues, kValues = kWhich != kOfKeys;
  constexpr bool kInTile = kKeys && sizeof(T) == 2 && kWidth > 64, kWide = kInTile && kWidth > 128;
  constexpr int kThreads = threads_for(kWide), kBlockRows = rows_for(kThreads), kTurns = kWide ? 1 : 2;
  // two sums of the full width leave few registers for anything else
  constexpr int kMost = sizeof(T) == 2 ? 4096 / kWidth / 2 : 16, kAllowed = kMost < 16 ? 16 : kMost;
  constexpr int kTile = backward_tile<T, kWidth>() < kAllowed ? backward_tile<T, kWidth>() : kAllowed, N = kTile / 8;
  alignas(16) __shared__ typename tile_row<T, kWidth>::type queries[kTurns][kTile], slopes[kTurns][kTile];
  __shared__ float shift[kTurns][kTile], along[kTurns][kTile];
  typedef Kept<T, kWidth, kWide ? kWidth / 8 : kWidth> KeptK;
  typedef Kept<T, kWidth, kInTile ? 0 : kWidth> KeptV;
  alignas(16) __shared__ typename KeptK::tile kept_k[kWide ? kBlockRows : 1];
  alignas(16) __shared__ typename KeptV::tile kept_v[kInTile ? kBlockRows : 1];
  __shared__ unsigned char stays[kDrops ? kTile : 1][kBlockRows / 8];
  const i64 blocks = (s.keys + kBlockRows - 1) / kBlockRows, all = blocks * s.batch[0] * s.batch[1] * s.batch[2];
  for (i64 block = blockIdx.x; block < all; block += gridDim.x) {
    const int one = (int)(block / blocks), first = (int)(block % blocks) * kBlockRows;
    const int from_row = first + threadIdx.x / 32 * kWarpRows;
    const Matrix<T> of_k = matrix(k + start(s, s.k, one), s.k[3], s.keys, s.width);
    const Matrix<T> of_v = matrix(v + start(s, s.v, one), s.v[3], s.keys, s.value_width);
    KeptK::template prepare<kBlockRows, kThreads>(kept_k, of_k, first);
    KeptV::template prepare<kBlockRows, kThreads>(kept_v, of_v, first);
    const auto rows_k = KeptK::of(of_k, from_row, kept_k + (from_row - first) * kWide);
    const auto rows_v = KeptV::of(of_v, from_row, kept_v + (from_row - first) * kInTile);
    float made_k[kKeys ? kWidth / 8 : 1][4], made_v[kValues ? kWidth / 8 : 1][4];
    clear(made_k);
    clear(made_v);
    const int queries_end = (int)s.queries, begin = s.causal ? first / kTile * kTile : 0;  // earlier ones see none
    Matrix<T> of_q = matrix(q + start(s, s.q, one), s.q[3], s.queries, s.width);
    Matrix<T> of_g = matrix(g + start(s, s.g, one), s.g[3], s.queries, s.value_width);
    of_q.aligned = of_q.aligned && s.q_head % (16 / (int)sizeof(T)) == 0;
    of_g.aligned = of_g.aligned && s.g_head % (16 / (int)sizeof(T)) == 0;
    for (int head = 0; head < (int)s.heads; ++head, of_q.at += s.q_head, of_g.at += s.g_head) {
      const int sums = one * (int)s.heads + head;
      const auto fetch = [&](int turn, int from) {
        stage<kTile, kWidth, kThreads>(queries[turn], of_q, from);
        stage<kTile, kWidth, kThreads>(slopes[turn], of_g, from);
        const int i = threadIdx.x;
        if (i < kTile) {
          const bool there = from + i < s.queries;
          shift[turn][i] = there ? lse_in_powers_of_2(lse[sums * s.queries + from + i]) : 0;
          if (kKeys) along[turn][i] = there ? delta[sums * s.queries + from + i] : 0;
        }
      };
      if (begin < queries_end) fetch(0, begin);
      end_of_copies();
      for (int from = begin, turn = 0; from < queries_end; from += kTile, turn ^= kTurns - 1) {
        if (kTurns == 2 && from + kTile < queries_end) fetch(turn ^ 1, from + kTile);
        end_of_copies();
        if (kDrops) draw<kTile, kBlockRows, kThreads>(stays, s, stream, sums, from, first);
        wait_for_copies<kTurns - 1>();
        __syncthreads();
        float p[N][4];
        clear(p);
        times_transposed(p, rows_k, queries[turn]);
        score<true>(p, s, mask, one, head, from, from_row, T());
        if constexpr (kKeys) {
          float slope[N][4];
          clear(slope);
          times_transposed(slope, rows_v, slopes[turn]);
#pragma unroll
          for (int n = 0; n < N; ++n) {
#pragma unroll
            for (int e = 0; e < 4; ++e) {
              const int column = score_column(n, e, T());
              float& x = slope[n][e];
              const bool stay = !kDrops || stays_at(stays[column], from_row - first + row_of(e));
              if (kDrops) x = stay ? x * s.kept : 0;
              p[n][e] = exp2(p[n][e] - shift[turn][column]);
              x = p[n][e] * (x - along[turn][column]);
              if (!stay) p[n][e] = 0;
            }
          }
          times(made_k, slope, queries[turn], T());
        } else {
#pragma unroll
          for (int n = 0; n < N; ++n) {
#pragma unroll
            for (int e = 0; e < 4; ++e) {
              const int column = score_column(n, e, T());
              const bool stay = !kDrops || stays_at(stays[column], from_row - first + row_of(e));
              p[n][e] = stay ? exp2(p[n][e] - shift[turn][column]) : 0;
            }
          }
        }
        if constexpr (kValues) times(made_v, p, slopes[turn], T());
        __syncthreads();
        if (kTurns == 1 && from + kTile < queries_end) fetch(0, from + kTile);
      }
    }
    wait_for_copies<0>();  // where no query sees these keys
    if constexpr (kKeys) {
      write_rows<kWidth>(made_k, s.scale, s.scale, to_k + one * s.keys * s.width, from_row, (int)s.keys, (int)s.width);
    }
    if constexpr (kValues) {
      const float kept_weight = kDrops ? s.kept : 1;
      write_rows<kWidth>(made_v, kept_weight, kept_weight, to_v + one * s.keys * s.value_width, from_row, (int)s.keys,
                         (int)s.value_width);
    }
  }
}

}  // namespace tg

// Each at least two blocks a multiprocessor, so that one computes while the other waits.
#define ATTENTION_KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads, 256 / (threads))
#define FORWARD(name, T, width, drops)                                                                                  \
  ATTENTION_KERNEL(128) name(const tg::Layout s, const T* q, const T* k, const T* v, const void* mask, T* out,          \
                             float* lse, const tg::u64 seed, const tg::u64 offset, const tg::u64* from, tg::u64* place) {\
    tg::forward<T, width, drops>(s, q, k, v, mask, out, lse, tg::Stream{seed, offset, from}, place);                    \
  }
#define DELTA(name, T)                                                                                                  \
  ATTENTION_KERNEL(128) name(const tg::Layout s, const T* g, const T* out, float* delta) {                              \
    tg::slopes_along(s, g, out, delta);                                                                                 \
  }
#define OF_QUERIES(name, T, width, drops)                                                                               \
  ATTENTION_KERNEL(tg::threads_for(sizeof(T) == 2 && width > 128)) name(                                                \
      const tg::Layout s, const T* g, const T* q, const T* k, const T* v, const void* mask, const float* lse,           \
      const float* delta, const tg::u64* place, T* to_q) {                                                              \
    tg::backward_of_queries<T, width, drops>(s, g, q, k, v, mask, lse, delta, tg::Stream{0, 0, place}, to_q);           \
  }
#define OF_KEYS(name, T, width, drops, which)                                                                           \
  ATTENTION_KERNEL(tg::threads_for(sizeof(T) == 2 && width > 128 && which != tg::kOfValues)) name(                      \
      const tg::Layout s, const T* g, const T* q, const T* k, const T* v, const void* mask, const float* lse,           \
      const float* delta, const tg::u64* place, T* to_k, T* to_v) {                                                     \
    tg::backward_of_keys<T, width, drops, which>(s, g, q, k, v, mask, lse, delta, tg::Stream{0, 0, place}, to_k, to_v); \
  }
