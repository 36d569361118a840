// Reductions over dense arrays, by the reducers of `reducers.cuh`.
//
// A set is what one result is made of. The shape alone decides its parts, who of a group of threads takes which elements of
// a part, and the tree that merges them; the states of parts are merged by a second launch, in an order as fixed. So the
// bits do not depend on the grid, and nothing is added by atomics.

namespace tg {

// The state of a group of `width` neighbouring threads, a power of two: part of a warp, or the whole block.
template <class R>
TG_FN typename R::State together(typename R::State s, int width) {
  for (int mask = 1; mask < width && mask < kWarp; mask *= 2) R::merge(s, from_lane(s, mask));
  if (width <= kWarp) return s;
  __shared__ typename R::State of_warps[kMostWarps];
  const int warps = width / kWarp;
  __syncthreads();  // the last call's states have been read
  if (threadIdx.x % kWarp == 0) of_warps[threadIdx.x / kWarp] = s;
  __syncthreads();
  s = of_warps[0];
  for (int w = 1; w < warps; ++w) R::merge(s, of_warps[w]);
  return s;
}

// x: (outer, runs, middle, run); a set is what has one place in `outer` and `middle`, `runs` stretches of `run` neighbours.
// A part is `chunk` elements of a set and has `width` threads. Without a chunk, the states of `parts` parts are merged:
// partial: (outer, parts, middle). Less than 2^31 parts, and elements of a set in several runs.
struct Rows {
  i64 outer, runs, middle, run, chunk, parts, width;
};

template <class R, class E>
TG_FN typename R::State taken(const E& x, const R& r, Rows at, u32 set, u32 part, int rank) {
  constexpr int N = E::kPack;
  const i64 length = at.runs * at.run, begin = part * at.chunk;
  const i64 end = begin + at.chunk < length ? begin + at.chunk : length;
  const u32 middle = (u32)at.middle, run = (u32)at.run;
  const i64 base = set / middle * (length * middle) + set % middle * at.run;
  const auto place = [=](i64 j) {
    if (at.runs == 1) return base + j;
    const u32 whole = (u32)j / run;
    return base + whole * (at.middle * at.run) + ((u32)j - whole * run);
  };
  typename R::State s = R::none();
  // neighbours must lie in one run, and begin where 16 bytes do
  const bool packed = N > 1 && (at.run % N == 0 || (at.runs == 1 && at.outer * at.middle == 1));
  i64 i = begin + (packed ? rank * (i64)N : rank);
  if (packed) {
#pragma unroll 2
    for (; i + N <= end; i += N * at.width) {
      typename E::W some[N];
      x.some(place(i), some);
      r.take(s, some, i, 1);
    }
  }
  const i64 stride = packed ? 1 : at.width;  // what is left of a pack, or all
#pragma unroll 4
  for (; i < end; i += stride) {
    typename E::W one[1] = {x.one(place(i))};
    r.take(s, one, i, 1);
  }
  return s;
}

template <class R, class E>
TG_FN void over_rows(const E& x, Rows at, How how, void* partial, void* to, void* places) {
  typedef typename R::State S;
  const int width = (int)at.width, rank = threadIdx.x % width;
  const bool merges = at.chunk == 0;
  const u32 middle = (u32)at.middle, sets = (u32)at.outer * middle, parts = merges ? 1 : (u32)at.parts;
  const u32 of_block = blockDim.x / width, items = sets * parts;
  for (u32 first = blockIdx.x * of_block; first < items; first += gridDim.x * of_block) {
    const u32 item = first + threadIdx.x / width, set = item / parts;
    const bool there = item < items;
    S s = R::none();
    if (there && merges) {
      const S* of_set = (const S*)partial + set / middle * at.parts * middle + set % middle;
      for (i64 p = rank; p < at.parts; p += width) R::merge(s, of_set[p * middle]);
    } else if (there) {
      s = taken(x, R(how, set), at, set, item - set * parts, rank);
    }
    s = together<R>(s, width);
    if (!there || rank) continue;
    if (parts > 1) ((S*)partial)[item] = s;
    else R(how, set).write(x, s, to, places, set);
  }
}

// x: (outer, length, inner); a set is a column. Threads side by side have neighbouring columns, `across` of them (or packs of
// neighbours); `lanes` threads share a column's part of `chunk` elements. Both are powers of two.
// partial: (outer, parts, inner). Less than 2^31 threads.
struct Columns {
  i64 outer, length, inner, chunk, parts, across, lanes;
};

template <class R, class E>
TG_FN void over_columns(const E& x, Columns at, How how, void* partial, void* to, void* places) {
  typedef typename R::State S;
  typedef typename E::W W;
  constexpr int N = E::kFew, kRows = 4;
  __shared__ S of_lanes[N][256];
  const bool packed = at.inner % N == 0;
  const int unit = packed ? N : 1, across = (int)at.across, lanes = (int)at.lanes;
  const int lane = threadIdx.x / across % lanes;
  const u32 tiles = ((u32)at.inner / unit + across - 1) / across, parts = (u32)at.parts;
  const u32 of_block = blockDim.x / (across * lanes), items = (u32)at.outer * parts * tiles;
  for (u32 first = blockIdx.x * of_block; first < items; first += gridDim.x * of_block) {
    const u32 item = first + threadIdx.x / (across * lanes), row = item / tiles, o = row / parts, part = row - o * parts;
    const i64 column = ((item - row * tiles) * (i64)across + threadIdx.x % across) * unit;
    const bool there = item < items && column < at.inner;
    S s[N];
#pragma unroll
    for (int e = 0; e < N; ++e) s[e] = R::none();
    if (there) {
      const i64 set = o * at.inner + column, begin = part * at.chunk;
      const i64 end = begin + at.chunk < at.length ? begin + at.chunk : at.length;
      const i64 base = o * at.length * at.inner + column;
      i64 i = begin + lane;
      for (; i + (kRows - 1) * lanes < end; i += kRows * lanes) {
        W some[kRows][N];
#pragma unroll
        for (int k = 0; k < kRows; ++k) {
          if (packed) x.few(base + (i + k * lanes) * at.inner, some[k]);
          else some[k][0] = x.one(base + (i + k * lanes) * at.inner);
        }
#pragma unroll
        for (int e = 0; e < N; ++e) {
          if (e >= unit) break;
          W of_column[kRows];
#pragma unroll
          for (int k = 0; k < kRows; ++k) of_column[k] = some[k][e];
          R(how, set + e).take(s[e], of_column, i, lanes);
        }
      }
      for (; i < end; i += lanes) {
#pragma unroll
        for (int e = 0; e < N; ++e) {
          if (e >= unit) break;
          W one[1] = {x.one(base + i * at.inner + e)};
          R(how, set + e).take(s[e], one, i, lanes);
        }
      }
    }
    for (int half = lanes / 2; half; half /= 2) {  // the upper half gives its states to the lower one
      __syncthreads();
#pragma unroll
      for (int e = 0; e < N; ++e)
        if (lane >= half && lane < 2 * half) of_lanes[e][threadIdx.x] = s[e];
      __syncthreads();
#pragma unroll
      for (int e = 0; e < N; ++e)
        if (lane < half) R::merge(s[e], of_lanes[e][threadIdx.x + half * across]);
    }
    if (!there || lane) continue;
#pragma unroll
    for (int e = 0; e < N; ++e) {
      if (e >= unit) break;
      const i64 set = o * at.inner + column + e;
      if (at.parts > 1) ((S*)partial)[row * at.inner + column + e] = s[e];
      else R(how, set).write(x, s[e], to, places, set);
    }
  }
}

}  // namespace tg

#define REDUCE(kind, Reducer, name, ...)                                                                                  \
  extern "C" __global__ void kind##_rows_##name(                                                                       \
      tg::i64 outer, tg::i64 runs, tg::i64 middle, tg::i64 run, tg::i64 chunk, tg::i64 parts, tg::i64 width,           \
      tg::i64 mode, double number, const void* centers, const void* x, void* partial, void* to, void* places) {        \
    tg::over_rows<tg::Reducer<tg::__VA_ARGS__>>(tg::__VA_ARGS__(x, mode), {outer, runs, middle, run, chunk, parts, width}, \
                                                {mode, number, centers}, partial, to, places);                         \
  }                                                                                                                    \
  extern "C" __global__ void kind##_columns_##name(                                                                    \
      tg::i64 outer, tg::i64 length, tg::i64 inner, tg::i64 chunk, tg::i64 parts, tg::i64 across, tg::i64 lanes,       \
      tg::i64 mode, double number, const void* centers, const void* x, void* partial, void* to, void* places) {        \
    tg::over_columns<tg::Reducer<tg::__VA_ARGS__>>(tg::__VA_ARGS__(x, mode),                                           \
                                                   {outer, length, inner, chunk, parts, across, lanes},                \
                                                   {mode, number, centers}, partial, to, places);                      \
  }
