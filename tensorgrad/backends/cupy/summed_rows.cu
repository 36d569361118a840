// Rows of a table added up where they lie: out[g] += x[rows[q]] * weights[positions[q]] for q in ends[g] .. ends[g + 1].
//
// It goes as accumulate.cu does with rows that were picked and stored: the list is cut into tiles, a thread goes over one
// column of a tile, a group within a tile is written at once, and of one across tiles each tile writes down its share,
// which a second launch joins. A product is rounded as if it were stored. So the bits are those of picking, multiplying
// and adding up one after the other, without the rows' way through memory; no atomics.
//
// Numbers of rows that are none are left out: within a CUDA graph the check of indices is looked at afterwards. Whatever
// `ends` says, nothing outside of the arrays is touched.

namespace tg {

typedef unsigned int u32;

// Not joined with the addition behind them.
TG_FN float times(float a, float b) { return __fmul_rn(a, b); }
TG_FN double times(double a, double b) { return __dmul_rn(a, b); }

template <class T, class S>
TG_FN void add_to(T* at, const S& total) {
  S all = total;
  all.add(*at);
  *at = all.value();
}

// rows, positions: (length), ends: (groups + 1), out: (groups, inner).
// shares: (2, tiles, inner), of the group that began before a tile, and of the one that goes on behind it.
struct Grouped {
  i64 length, inner, groups, tile;
  const i64* ends;
  TG_FN i64 tiles() const { return (length + tile - 1) / tile; }
  TG_FN i64 begin(i64 group) const { return ends[group]; }
  TG_FN i64 end(i64 group) const { return ends[group + 1] < length ? ends[group + 1] : length; }
  // The first group that ends behind a position; `groups` if none does.
  TG_FN i64 group_at(i64 position) const {
    i64 low = 0, high = groups;
    while (low < high) {
      const i64 middle = (low + high) / 2;
      if (ends[middle + 1] <= position) low = middle + 1;
      else high = middle;
    }
    return low;
  }
};

// x: (table, inner), weights: (length, heads), each for as many neighbours of a row; null: there are none.
template <class T>
struct Picked {
  i64 length, inner, table, heads;
  const i64 *rows, *positions;
  const T *x, *weights;
  TG_FN T operator()(i64 at, i64 c, i64 head) const {
    const i64 row = rows[at], weight = weights ? positions[at] : 0;
    if (row < 0 || row >= table || weight < 0 || weight >= length) return 0;
    const T value = x[row * inner + c];
    return weights ? times(value, weights[weight * heads + head]) : value;
  }
};

template <class S, class T>
TG_FN void over_tiles(Grouped p, Picked<T> picked, T* out, S* shares) {
  const i64 count = p.tiles() * p.inner, of_head = p.inner / picked.heads;
  for (i64 i = blockIdx.x * (i64)blockDim.x + threadIdx.x; i < count; i += (i64)gridDim.x * blockDim.x) {
    const i64 tile = i / p.inner, c = i - tile * p.inner, head = c / of_head, begin = tile * p.tile;
    const i64 end = begin + p.tile < p.length ? begin + p.tile : p.length;
    i64 at = begin;
    for (i64 group = p.group_at(begin); group < p.groups && at < end; ++group) {
      const i64 stop = p.end(group);
      if (stop <= at) continue;
      S total = S::none();
      const bool before = at == begin && p.begin(group) < begin;
#pragma unroll 4
      for (; at < (stop < end ? stop : end); ++at) total.add(picked(at, c, head));
      if (before) shares[i] = total;
      else if (stop > end) shares[count + i] = total;
      else add_to(out + group * p.inner + c, total);
    }
  }
}

// `lanes` neighbouring threads, part of a warp, join the shares of a group.
template <class S, class T>
TG_FN void over_groups(Grouped p, i64 lanes, T* out, const S* shares) {
  const i64 count = p.tiles() * p.inner, of_block = blockDim.x / lanes;
  for (i64 first = blockIdx.x * of_block; first < count; first += gridDim.x * of_block) {
    const i64 i = first + threadIdx.x / lanes;
    const int lane = threadIdx.x % lanes;
    const i64 tile = i / p.inner, c = i - tile * p.inner, end = (tile + 1) * p.tile;
    const i64 group = i < count && end < p.length ? p.group_at(end - 1) : p.groups;
    const bool begins = group < p.groups && p.end(group) > end && p.begin(group) >= tile * p.tile;
    S total = S::none();
    if (begins) {
      const i64 last = (p.end(group) - 1) / p.tile;
      for (i64 t = tile + 1 + lane; t <= last; t += lanes) total.add(shares[t * p.inner + c]);
      if (lane == 0) total.add(shares[count + i]);
    }
    for (int mask = 1; mask < lanes; mask *= 2) total.add(from_lane(total, mask));
    if (begins && lane == 0) add_to(out + group * p.inner + c, total);
  }
}

}  // namespace tg

// What a sort of `count` places among `groups` has found, as grouped_rows gives it; source and positions may be null.
extern "C" __global__ void rowgroups(const tg::i64 count, const tg::i64 groups, const unsigned int* keys,
                                     const unsigned int* order, const tg::i64* source, tg::i64* rows, tg::i64* ends,
                                     tg::i64* positions) {
  const tg::i64 most = count > groups + 1 ? count : groups + 1;
  for (tg::i64 i = blockIdx.x * (tg::i64)blockDim.x + threadIdx.x; i < most; i += (tg::i64)gridDim.x * blockDim.x) {
    if (i < count) {
      rows[i] = source ? source[order[i]] : order[i];
      if (positions) positions[i] = order[i];
    }
    if (i <= groups) {
      tg::i64 low = 0, high = count;  // the first key that is no smaller
      while (low < high) {
        const tg::i64 middle = (low + high) / 2;
        if (keys[middle] < i) low = middle + 1;
        else high = middle;
      }
      ends[i] = low;
    }
  }
}

#define ROWS(name, T)                                                                                                  \
  extern "C" __global__ void rowtiles_##name(tg::i64 length, tg::i64 inner, tg::i64 groups, tg::i64 tile,              \
                                             const tg::i64* ends, tg::i64 table, tg::i64 heads, const tg::i64* rows,   \
                                             const tg::i64* positions, const T* x, const T* weights, T* out,           \
                                             void* shares) {                                                           \
    tg::over_tiles({length, inner, groups, tile, ends},                                                                \
                   tg::Picked<T>{length, inner, table, heads, rows, positions, x, weights}, out,                       \
                   (tg::Total<T>*)shares);                                                                             \
  }                                                                                                                    \
  extern "C" __global__ void rowruns_##name(tg::i64 length, tg::i64 inner, tg::i64 groups, tg::i64 tile,               \
                                            const tg::i64* ends, tg::i64 lanes, T* out, void* shares) {                \
    tg::over_groups({length, inner, groups, tile, ends}, lanes, out, (const tg::Total<T>*)shares);                     \
  }
ROWS(float32, float)
ROWS(float64, double)
