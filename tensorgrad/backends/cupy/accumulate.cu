// out[o, key[p], c] joined with the values[o, order[p], c] of equal keys, in an order that the keys alone decide: their
// sum, product, largest or smallest.
//
// The keys are sorted. Their list is cut into tiles; a thread goes over one column of a tile and joins runs of equal
// keys. A run within a tile is written at once. Of a run across tiles each tile writes down its share, and a second
// launch joins the shares: a run of any length is shared by many threads. No atomics, and the same bits in every run.
// Half precision is joined in float and rounded once. A key that is no row is left out: within a CUDA graph the check of
// indices is looked at afterwards.

namespace tg {

template <class T> struct stored_as { typedef typename wide<T>::type type; };
template <> struct stored_as<unsigned char> { typedef i64 type; };
template <> struct stored_as<signed char> { typedef i64 type; };
template <> struct stored_as<short> { typedef i64 type; };
template <> struct stored_as<int> { typedef i64 type; };
TG_FN i64 widened(unsigned char x) { return x; }
TG_FN i64 widened(signed char x) { return x; }
TG_FN i64 widened(short x) { return x; }
TG_FN i64 widened(int x) { return x; }
TG_FN i64 widened(i64 x) { return x; }
TG_FN void put(unsigned char* at, i64 x) { *at = (unsigned char)x; }
TG_FN void put(signed char* at, i64 x) { *at = (signed char)x; }
TG_FN void put(short* at, i64 x) { *at = (short)x; }
TG_FN void put(int* at, i64 x) { *at = (int)x; }

// ---- what joins: a state has none() to begin with, and takes values and other states. Sums are `Total`s.

template <class W> struct Factors {
  W product;
  TG_FN static Factors none() { return {one_of(W())}; }
  TG_FN void add(W x) { product = mul(product, x); }
  TG_FN void add(Factors other) { add(other.product); }
  TG_FN W value() const { return product; }
};
template <class W> struct Highest {  // a NaN is the result
  W most;
  TG_FN static Highest none() { return {least(W())}; }
  TG_FN void add(W x) { most = max(most, x); }
  TG_FN void add(Highest other) { add(other.most); }
  TG_FN W value() const { return most; }
};
template <class W> struct Lowest {
  W fewest;
  TG_FN static Lowest none() { return {turned(least(W()))}; }
  TG_FN void add(W x) { fewest = min(fewest, x); }
  TG_FN void add(Lowest other) { add(other.fewest); }
  TG_FN W value() const { return fewest; }
};

// values: (outer, length, inner), out: (outer, rows, inner), wherever it lies; keys and order: (length).
// shares: (2, outer, tiles, inner), of the run that began before a tile, and of the one that goes on behind it.
struct Places {
  i64 outer, length, inner, rows, tile;
  const u32* keys;
  const Strided& to;
  TG_FN i64 tiles() const { return (length + tile - 1) / tile; }
};

template <class T, class S>
TG_FN void add_to(T* at, const S& total) {
  S all = total;
  all.add(widened(*at));
  put(at, all.value());
}

template <class S, class T>
TG_FN void over_tiles(Places p, const u32* order, const T* values, T* out, S* shares) {
  const i64 tiles = p.tiles(), count = p.outer * tiles * p.inner;
  for (i64 i = blockIdx.x * (i64)blockDim.x + threadIdx.x; i < count; i += (i64)gridDim.x * blockDim.x) {
    const i64 row = i / p.inner, c = i - row * p.inner, o = row / tiles, begin = (row - o * tiles) * p.tile;
    const i64 end = begin + p.tile < p.length ? begin + p.tile : p.length;
    const T* const column = values + o * p.length * p.inner + c;
    bool before = begin > 0 && p.keys[begin - 1] == p.keys[begin];
    for (i64 q = begin; q < end;) {
      const u32 key = p.keys[q];
      if (key >= p.rows) break;
      S total = S::none();
      do total.add(widened(column[order[q] * p.inner]));
      while (++q < end && p.keys[q] == key);
      const bool behind = q == end && end < p.length && p.keys[end] == key;
      if (before) shares[i] = total;
      else if (behind) shares[count + i] = total;
      else add_to(out + p.to.at(o, key, c), total);
      before = false;
    }
  }
}

// `lanes` neighbouring threads, part of a warp, join the shares of a run.
template <class S, class T>
TG_FN void over_runs(Places p, i64 lanes, T* out, const S* shares) {
  const i64 tiles = p.tiles(), count = p.outer * tiles * p.inner;
  const i64 of_block = blockDim.x / lanes;
  for (i64 first = blockIdx.x * of_block; first < count; first += gridDim.x * of_block) {
    const i64 i = first + threadIdx.x / lanes;
    const int lane = threadIdx.x % lanes;
    const i64 row = i / p.inner, c = i - row * p.inner, o = row / tiles, tile = row - o * tiles;
    const i64 begin = tile * p.tile, end = begin + p.tile;
    const u32 key = i < count ? p.keys[(end < p.length ? end : p.length) - 1] : 0;
    const bool begins = i < count && end < p.length && p.keys[end] == key && key < p.rows &&
                        !(begin > 0 && p.keys[begin - 1] == key);
    S total = S::none();
    if (begins) {
      i64 low = tile + 1, high = tiles;  // the first tile that begins with another key
      while (low < high) {
        const i64 middle = (low + high) / 2;
        if (p.keys[middle * p.tile] == key) low = middle + 1;
        else high = middle;
      }
      for (i64 t = tile + 1 + lane; t < low; t += lanes) total.add(shares[(o * tiles + t) * p.inner + c]);
      if (lane == 0) total.add(shares[count + i]);
    }
    for (int mask = 1; mask < lanes; mask *= 2) total.add(from_lane(total, mask));
    if (begins && lane == 0) add_to(out + p.to.at(o, key, c), total);
  }
}

}  // namespace tg

#define ACCUMULATE(how, Join, name, T)                                                                                  \
  extern "C" __global__ void how##tiles_##name(                                                                        \
      tg::i64 outer, tg::i64 length, tg::i64 inner, tg::i64 rows, tg::i64 tile, const unsigned int* keys,              \
      tg::Strided to, const unsigned int* order, const T* values, T* out, void* shares) {                              \
    tg::over_tiles({outer, length, inner, rows, tile, keys, to}, order, values, out,                                       \
                   (tg::Join<typename tg::stored_as<T>::type>*)shares);                                                \
  }                                                                                                                    \
  extern "C" __global__ void how##runs_##name(                                                                         \
      tg::i64 outer, tg::i64 length, tg::i64 inner, tg::i64 rows, tg::i64 tile, const unsigned int* keys,              \
      tg::Strided to, tg::i64 lanes, T* out, void* shares) {                                                           \
    tg::over_runs({outer, length, inner, rows, tile, keys, to}, lanes, out,                                                \
                  (const tg::Join<typename tg::stored_as<T>::type>*)shares);                                           \
  }
