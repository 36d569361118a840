// Many writes to places in any order, by several threads and yet each place in the order of the writes: they are dealt
// into buckets of neighbouring places first, the pieces of the list one behind the other, so that each bucket belongs
// to one task and lies in its cache. Buckets and pieces follow from the sizes alone.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "../core/allocator.h"
#include "../core/parallel.h"

namespace tg {

constexpr Index kDealFrom = 32768;  // fewer writes are done as they come: dealing reads and writes everything once more
constexpr Index kDealPiece = 65536;
// Bytes that caches hold: writes there, one after another, take 3 ns each; dealing them takes 20 ns of all threads together.
constexpr Index kNear = Index(8) << 20;

// Places [0, places) as buckets of `width`: of what a second level cache holds, but some for every thread, and no more
// than find their cache lines again between two entries. A place within its bucket fits into 32 bits.
struct Buckets {
  Buckets(Index places, Index cached) {
    width = std::min(cached, std::max<Index>(1, (places + 15) / 16));
    width = std::max(width, (places + 511) / 512);
    while ((Index(1) << shift) < width) ++shift;  // a division would cost more than the rest
    count = ((places - 1) >> shift) + 1;
  }
  Index width, count;
  int shift = 0;
};

// each(entry, first place of its bucket) for the entries (made by make(m), of place place(m); skipped where the place is
// negative) of each bucket, in order. `Entry` is trivially copyable.
template <class Entry, class Place, class Make, class Each>
void deal(Index n, const Buckets& buckets, Place place, Make make, Each each) {
  const Index pieces = (n + kDealPiece - 1) / kDealPiece, count = buckets.count;
  const auto bucket_of = [shift = buckets.shift](Index at) { return at >> shift; };
  std::vector<Index> next(size_t(pieces * count), 0), start(size_t(count) + 1, 0);
  parallel_for(pieces, 1, [&](Index first, Index last) {
    for (Index p = first; p < last; ++p) {
      Index* counts = next.data() + p * count;
      const Index end = std::min(n, (p + 1) * kDealPiece);
      for (Index m = p * kDealPiece; m < end; ++m)
        if (const Index at = place(m); at >= 0) ++counts[bucket_of(at)];
    }
  });
  Index total = 0;
  for (Index b = 0; b < count; ++b) {
    start[size_t(b)] = total;
    for (Index p = 0; p < pieces; ++p) total += std::exchange(next[size_t(p * count + b)], total);
  }
  start[size_t(count)] = total;
  Scratch<Entry> entries(total);
  parallel_for(pieces, 1, [&](Index first, Index last) {
    for (Index p = first; p < last; ++p) {
      Index* to = next.data() + p * count;
      const Index end = std::min(n, (p + 1) * kDealPiece);
      for (Index m = p * kDealPiece; m < end; ++m)
        if (const Index at = place(m); at >= 0) entries[to[bucket_of(at)]++] = make(m);
    }
  });
  parallel_for(count, 1, [&](Index first, Index last) {
    for (Index b = first; b < last; ++b)
      for (Index k = start[size_t(b)]; k < start[size_t(b + 1)]; ++k) each(entries[k], b << buckets.shift);
  });
}

// write(y[place(m)], value(m)) for m < n, in their order for every place.
template <class T, class Value, class Place, class From, class Write>
void write_dealt(Index n, Index places, T* y, Place place, From value, Write write) {
  if (n < kDealFrom || places * Index(sizeof(T)) <= kNear) {
    for (Index m = 0; m < n; ++m)
      if (const Index at = place(m); at >= 0) write(y[at], value(m));
    return;
  }
  struct Entry {
    uint32_t at;  // within its bucket
    Value value;
  };
  const Buckets buckets(places, Index(131072 / sizeof(T)));
  const Index within = (Index(1) << buckets.shift) - 1;
  deal<Entry>(
      n, buckets, place, [&](Index m) { return Entry{uint32_t(place(m) & within), value(m)}; },
      [&](const Entry& e, Index start) { write(y[start + e.at], e.value); });
}

}  // namespace tg
