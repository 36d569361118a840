// One long line on all threads: a sample tells where to cut the range of keys, so that every bucket gets about as many;
// entries (key, position) are dealt into buckets, and each bucket is radix sorted in the second level cache.
//
// Memory: x is read twice, entries (8 bytes for float) are written and read once, the results written once. Counts of
// (piece, bucket) put each piece's entries behind those of the pieces before it, so the order of equal keys stays.
// Pieces and buckets follow from the length and the sample alone.
#include <algorithm>

#include "../core/parallel.h"
#include "sort_keys.h"

namespace tg {
namespace {

constexpr Index kPiece = 65536;
constexpr Index kBucket = 16384;     // entries; two times 128 KB (float), which the second level holds
constexpr Index kMostBuckets = 512;  // more would not find their cache lines again between two entries

// Which bucket a key falls into: the key's cell among equal stretches between low and high, and the cell's bucket.
template <class T>
struct Cuts {
  using K = Key<T>;
  // one binade of doubles gets no more cells of 2^14 than 4
  static constexpr int bits = sizeof(T) == 8 ? 16 : 14;

  Cuts(Index n, const T* x, K flip, Index buckets) : bucket(Index(1) << bits) {
    const Index m = std::min<Index>(n, 32 * buckets);
    Scratch<K> sample(m);
    for (Index i = 0; i < m; ++i) sample[i] = K(key_of(x[i * (n / m) + i * (n % m) / m]) ^ flip);
    std::sort(sample.data(), sample.data() + m);
    low = sample[m / 1024];
    const uint64_t range = uint64_t(K(sample[m - 1 - m / 1024] - low));
    shift = range ? std::max(0, 64 - __builtin_clzll(range) - bits) : 0;
    top = K(std::min<uint64_t>(range >> shift, (uint64_t(1) << bits) - 1));
    Index below = 0;
    for (uint64_t c = 0; c <= top; ++c) {
      const uint64_t start = uint64_t(low) + (c << shift);
      while (below < m && uint64_t(sample[below]) < start) ++below;
      bucket[Index(c)] = uint16_t(std::min(below * buckets / m, buckets - 1));
    }
    bucket[0] = 0;  // keys below the lowest cell fall into it too
  }

  Index of(K key) const {
    const K cell = K(key - low) >> shift;
    return bucket[Index(key < low ? K(0) : cell < top ? cell : top)];
  }

  Scratch<uint16_t> bucket;
  K low, top;
  int shift;
};

}  // namespace

template <class T>
void sort_long(Index n, bool descending, const T* x, T* values, int64_t* indices) {
  using K = Key<T>;
  const K flip = flip_of<T>(descending);
  const Index buckets = std::min(kMostBuckets, std::max<Index>(2, n / kBucket));
  const Index pieces = (n + kPiece - 1) / kPiece;
  const Cuts<T> cuts(n, x, flip, buckets);
  Scratch<uint32_t> next(pieces * buckets), start(buckets + 1);
  parallel_for(pieces, 1, [&](Index first, Index last) {
    for (Index p = first; p < last; ++p) {
      uint32_t* count = next.data() + p * buckets;
      std::fill(count, count + buckets, 0u);
      const Index end = std::min(n, (p + 1) * kPiece);
      for (Index i = p * kPiece; i < end; ++i) ++count[cuts.of(K(key_of(x[i]) ^ flip))];
    }
  });
  uint32_t total = 0;
  for (Index b = 0; b < buckets; ++b) {
    start[b] = total;
    for (Index p = 0; p < pieces; ++p) {
      const uint32_t count = next[p * buckets + b];
      next[p * buckets + b] = total;
      total += count;
    }
  }
  start[buckets] = total;
  Scratch<Entry<T>> entries(n), spare(n);
  parallel_for(pieces, 1, [&](Index first, Index last) {
    for (Index p = first; p < last; ++p) {
      uint32_t* to = next.data() + p * buckets;
      const Index end = std::min(n, (p + 1) * kPiece);
      for (Index i = p * kPiece; i < end; ++i) {
        const K key = K(key_of(x[i]) ^ flip);
        entries[to[cuts.of(key)]++] = {key, uint32_t(i)};
      }
    }
  });
  parallel_for(buckets, 1, [&](Index first, Index last) {
    Scratch<uint32_t> counts(kCounters);
    for (Index b = first; b < last; ++b) {
      const Index from = start[b], count = Index(start[b + 1]) - from;
      if (count == 0) continue;
      const Entry<T>* e = radix_sort(entries.data() + from, spare.data() + from, count, counts.data());
      for (Index k = 0; k < count; ++k) {
        const K key = K(e[k].key ^ flip);
        values[from + k] = reversible<T>(key) ? value_of<T>(key) : x[e[k].at];
      }
      if (indices)
        for (Index k = 0; k < count; ++k) indices[from + k] = int64_t(e[k].at);
    }
  });
}

template void sort_long(Index, bool, const float*, float*, int64_t*);
template void sort_long(Index, bool, const double*, double*, int64_t*);
template void sort_long(Index, bool, const int64_t*, int64_t*, int64_t*);
template void sort_long(Index, bool, const int32_t*, int32_t*, int64_t*);
template void sort_long(Index, bool, const int16_t*, int16_t*, int64_t*);
template void sort_long(Index, bool, const int8_t*, int8_t*, int64_t*);
template void sort_long(Index, bool, const uint8_t*, uint8_t*, int64_t*);

}  // namespace tg
