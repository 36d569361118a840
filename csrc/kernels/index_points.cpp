// Points of an array named by index arrays, and the positions of what is not zero. Reads go side by side; writes to single
// items are dealt to their places (index_deal.h), so that repeated points are written in order; runs are written one
// after another by a task for each stretch of the axes before them.
#include <algorithm>
#include <cstring>
#include <type_traits>

#include "../core/copy_bytes.h"
#include "index.h"
#include "index_deal.h"

namespace tg {
namespace {

constexpr Index kPiece = 16384;  // items per task
constexpr Index kSeparate = 16;  // tables of their own: enough for all threads

struct Wide {
  uint64_t a, b;
};

template <class Use>
void with_item(Index itemsize, Use use) {
  switch (itemsize) {
    case 1: return use(uint8_t{});
    case 2: return use(uint16_t{});
    case 4: return use(uint32_t{});
    case 8: return use(uint64_t{});
    default: return use(Wide{});
  }
}

template <class I>
inline I load_item(const char* from) {  // memcpy: the array may be unaligned
  I v;
  std::memcpy(&v, from, sizeof(I));
  return v;
}

// Single items that may repeat: write(place, value) for all of them.
template <class I, class Write>
void write_items(const Points& p, const PointValues& v, char* x, Index span, Write write) {
  const Index n = p.befores * p.points * p.afters;
  if (p.befores * p.afters > 1 && (p.befores >= kSeparate || n < kDealFrom || span <= kNear)) {
    // what lies before and after the points names places that never meet; 41 thousand writes with the divisions below: 0.7 ms
    const auto one = [&](Index b) {
      char* to = x + p.before[b];
      const char* from = v.data + v.before[b];
      for (Index j = 0; j < p.points; ++j)
        for (Index a = 0; a < p.afters; ++a)
          write(to + p.point[j] + p.after[a], load_item<I>(from + v.point[j] + v.after[a]));
    };
    return parallel_for(p.befores, std::max<Index>(1, kPiece / (p.points * p.afters)), [&](Index first, Index last) {
      for (Index b = first; b < last; ++b) one(b);
    });
  }
  const auto split = [&](Index m) {
    const Index a = m % p.afters, rest = m / p.afters;
    return std::pair<Index, Index>(rest, a);
  };
  const auto place = [&](Index m) {
    if (p.afters == 1 && p.befores == 1) return p.before[0] + p.point[m] + p.after[0];
    const auto [rest, a] = split(m);
    return p.before[rest / p.points] + p.point[rest % p.points] + p.after[a];
  };
  const auto value = [&](Index m) {
    const auto [rest, a] = split(m);
    return load_item<I>(v.data + v.before[rest / p.points] + v.point[rest % p.points] + v.after[a]);
  };
  // a byte is a place: items never overlap in part, and the buckets' bounds need not be theirs
  write_dealt<char, I>(n, span, x, place, value, [&](char& to, const I& one) { write(&to, one); });
}

// One run. Runs of neighbours and of one repeated value are loops of their own, so that they become vectors; inlined, these
// would find no registers left.
template <class I, class Write>
[[gnu::noinline]] void write_run(char* to, const char* from, Index step, Index n, Write write) {
  constexpr Index item = Index(sizeof(I));
  if (step == item) {
    for (Index r = 0; r < n; ++r) write(to + r * item, load_item<I>(from + r * item));
  } else if (step == 0) {
    const I value = load_item<I>(from);
    for (Index r = 0; r < n; ++r) write(to + r * item, value);
  } else {
    for (Index r = 0; r < n; ++r) write(to + r * item, load_item<I>(from + r * step));
  }
}

template <class I, class Write>
void write_runs(const Points& p, const PointValues& v, char* x, Write write) {
  const auto one = [&](Index b, Index a, Index first, Index last) {
    for (Index j = 0; j < p.points; ++j) {
      char* to = x + p.before[b] + p.point[j] + p.after[a];
      const char* from = v.data + v.before[b] + v.point[j] + v.after[a];
      write_run<I>(to + first * Index(sizeof(I)), from + first * v.step, v.step, last - first, write);
    }
  };
  // what lies before and after the points names places that never meet
  const Index columns = 1024, tiles = (p.run + columns - 1) / columns;
  const Index tasks = p.befores * p.afters * tiles;
  parallel_for(tasks, std::max<Index>(1, kPiece / (p.points * std::min(columns, p.run))), [&](Index first, Index last) {
    for (Index t = first; t < last; ++t) {
      const Index u = t / tiles, c = t % tiles * columns;
      one(u / p.afters, u % p.afters, c, std::min(p.run, c + columns));
    }
  });
}

// Rows for few points before and after: dealt to rows by place.
template <class I, class Write>
void write_rows(const Points& p, const PointValues& v, char* x, Index span, Write write) {
  const Index width = p.run * Index(sizeof(I));
  const auto place = [&](Index m) { return p.before[0] + p.point[m] + p.after[0]; };
  const Buckets buckets(span, std::max<Index>(131072, width));
  deal<Index>(p.points, buckets, place, [](Index m) { return m; }, [&](Index m, Index) {
    char* to = x + place(m);
    const char* from = v.data + v.before[0] + v.point[m] + v.after[0];
    write_run<I>(to, from, v.step, p.run, write);
  });
}

template <class I, class Write>
void write_all(const Points& p, const PointValues& v, char* x, Index span, Write write) {
  if (p.befores * p.points * p.afters * p.run == 0) return;
  if (p.run == 1) return write_items<I>(p, v, x, span, write);
  const bool one_table = p.befores * p.afters == 1 && p.run < 4096 && p.points * p.run >= 2 * kPiece;
  // rows that repeat as wholes do not overlap in part, so each lies in the bucket of its first byte
  if (one_table) write_rows<I>(p, v, x, span, write);
  else write_runs<I>(p, v, x, write);
}

}  // namespace

void read_points(const Points& p, const char* x, char* y) {
  if (p.befores * p.points * p.afters * p.run == 0) return;
  const Index width = p.run * p.itemsize;
  with_item(p.itemsize, [&](auto item) {
    using I = decltype(item);
    const Index group = std::max<Index>(1, kPiece / (p.afters * p.run));
    parallel_for(p.befores * p.points, group, [&](Index first, Index last) {
      for (Index t = first; t < last;) {
        const Index b = t / p.points, j = t % p.points, n = std::min(p.points - j, last - t);
        const char* from = x + p.before[b];
        char* to = y + t * p.afters * width;
        if (p.afters == 1 && p.run == 1) {
          const char* base = from + p.after[0];
          for (Index k = 0; k < n; ++k) {
            const I v = load_item<I>(base + p.point[j + k]);
            std::memcpy(to + k * Index(sizeof(I)), &v, sizeof(I));
          }
        } else {
          for (Index k = 0; k < n; ++k)
            for (Index a = 0; a < p.afters; ++a, to += width) {
              const char* at = from + p.point[j + k] + p.after[a];
              if (p.run == 1) std::memcpy(to, at, sizeof(I));
              else copy_bytes(to, at, width);
            }
        }
        t += n;
      }
    });
  });
}

void write_points(const Points& p, const PointValues& v, char* x, Index span) {
  with_item(p.itemsize, [&](auto item) {
    using I = decltype(item);
    write_all<I>(p, v, x, span, [](char* to, const I& value) { std::memcpy(to, &value, sizeof(I)); });
  });
}

template <class T>
void add_points(const Points& p, const PointValues& v, char* x, Index span) {
  write_all<T>(p, v, x, span, [](char* to, const T& value) {
    const T sum = T(load_item<T>(to) + value);
    std::memcpy(to, &sum, sizeof(T));
  });
}

template void add_points<float>(const Points&, const PointValues&, char*, Index);
template void add_points<double>(const Points&, const PointValues&, char*, Index);
template void add_points<uint64_t>(const Points&, const PointValues&, char*, Index);
template void add_points<c64>(const Points&, const PointValues&, char*, Index);
template void add_points<c128>(const Points&, const PointValues&, char*, Index);

// ---- positions ------------------------------------------------------------------------------------------------------

namespace {

// f(is_set): is_set(i) says whether item i is not zero. Bool is read as a byte: any but 0 holds.
template <class F>
void with_test(DType type, const char* x, F f) {
  if (type == DType::Bool) {
    const uint8_t* p = reinterpret_cast<const uint8_t*>(x);
    return f([p](Index i) { return p[i] != 0; });
  }
  visit_any("nonzero", type, [&](auto t) {
    using T = typename decltype(t)::value;
    const T* p = reinterpret_cast<const T*>(x);
    if constexpr (std::is_same_v<T, half> || std::is_same_v<T, bfloat16>)
      f([p](Index i) { return (p[i].bits & 0x7fff) != 0; });
    else
      f([p](Index i) { return p[i] != T(0); });
  });
}

}  // namespace

NonZero::NonZero(DType type, const char* x, Index n) : type_(type), x_(x), n_(n) {
  const Index pieces = (n + kDealPiece - 1) / kDealPiece;
  starts_ = new Index[size_t(pieces) + 1]();
  with_test(type, x, [&](auto is_set) {
    parallel_for(pieces, 1, [&](Index first, Index last) {
      for (Index p = first; p < last; ++p) {
        Index count = 0;
        for (Index i = p * kDealPiece; i < std::min(n, (p + 1) * kDealPiece); ++i) count += is_set(i);
        starts_[p] = count;
      }
    });
  });
  for (Index p = 0; p < pieces; ++p) count_ += std::exchange(starts_[p], count_);
}

NonZero::~NonZero() { delete[] starts_; }

void NonZero::write(int ndim, const Index* shape, int64_t* to) const {
  if (ndim == 0 || count_ == 0) return;
  const Index pieces = (n_ + kDealPiece - 1) / kDealPiece;
  with_test(type_, x_, [&](auto is_set) {
    parallel_for(pieces, 1, [&](Index first, Index last) {
      for (Index p = first; p < last; ++p) {
        int64_t* out = to + starts_[p] * ndim;
        const Index begin = p * kDealPiece, end = std::min(n_, begin + kDealPiece);
        if (ndim == 1) {
          // without branches, which are mispredicted half of the time; the last writes stay within this piece's part
          const Index mine = (p + 1 < pieces ? starts_[p + 1] : count_) - starts_[p];
          Index k = 0;
          for (Index i = begin; i < end && k < mine; ++i) {
            out[k] = i;
            k += is_set(i);
          }
          continue;
        }
        Index at[64], rest = begin;
        for (int d = ndim - 1; d >= 0; --d) {
          at[d] = rest % shape[d];
          rest /= shape[d];
        }
        const Index row = shape[ndim - 1];
        for (Index i = begin; i < end;) {
          const Index n = std::min(end - i, row - at[ndim - 1]);
          for (Index k = 0; k < n; ++k) {
            if (!is_set(i + k)) continue;
            for (int d = 0; d < ndim - 1; ++d) out[d] = at[d];
            out[ndim - 1] = at[ndim - 1] + k;
            out += ndim;
          }
          i += n;
          at[ndim - 1] += n;
          for (int d = ndim - 1; d > 0 && at[d] == shape[d]; --d) {
            at[d] = 0;
            ++at[d - 1];
          }
        }
      }
    });
  });
}

}  // namespace tg
