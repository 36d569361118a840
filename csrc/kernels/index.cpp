// gather and scatter split over the axes other than dim, along which no two threads write one element. Where these make
// too few tasks, gather splits dim as well, and scatter deals its writes to places (index_deal.h). Every element takes
// what is written to it in the order of the index: the same bits for any number of threads.
//
// Indices are checked where they are about to be used and lie in L1, not in a pass of their own: an index of 8 bytes for
// each item of 4 is most of what is read. 64 at a time, so that the next are checked while these are waited for; and the
// next line of the data is fetched ahead, of which the index touches the cache lines in any order (gather along rows of
// 1e6 on one core: 1.5 to 0.75 ms with both).
#include "index.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <type_traits>

#include "index_combine.h"
#include "index_deal.h"

namespace tg {
namespace {

constexpr Index kPiece = 16384;  // elements per task
constexpr Index kChecked = 64;   // indices checked at a time
constexpr Index kAhead = 32768;  // bytes of a line that is fetched ahead
constexpr Index kTile = 256;     // elements of the axes after dim per task

constexpr Index kLine = 4096;    // elements along dim per task where the others make few

// The positions that index's elements have: tasks over what comes before dim, tiles of what comes after, and cuts of dim.
struct Course {
  Course(const GatherShape& shape, bool split);
  // Of a task: its elements after dim, [column, column + n), lie at data_base + data_at[j] and source_base + source_at[j].
  struct Part {
    Index b, from, to, column, n, data_base, source_base;
    Index data_at[kTile], source_at[kTile];
  };
  void find(Index task, Part& part) const;

  const GatherShape& s;
  Index length = 1, before = 1, after = 1, data_inner = 1, source_inner = 1, data_length = 1, source_length = 1;
  Index tiles, most, cuts, group;
  bool same_inner = true;  // one run serves where the trailing axes agree
  bool same_outer = true;  // the task's number says where its data lies (the first axis may be of any length)
};

Course::Course(const GatherShape& shape, bool split) : s(shape) {
  if (s.ndim) {
    length = s.index[s.dim];
    data_length = s.data[s.dim];
    source_length = s.source[s.dim];
  }
  for (int k = 0; k < s.dim; ++k) {
    before *= s.index[k];
    same_outer = same_outer && (k == 0 || (s.index[k] == s.data[k] && s.index[k] == s.source[k]));
  }
  for (int k = s.dim + 1; k < s.ndim; ++k) {
    after *= s.index[k];
    data_inner *= s.data[k];
    source_inner *= s.source[k];
    same_inner = same_inner && s.index[k] == s.data[k] && s.index[k] == s.source[k];
  }
  tiles = (after + kTile - 1) / kTile;
  const Index tile = std::max<Index>(1, std::min(kTile, after));
  most = std::max<Index>(1, split && before * tiles < 16 ? std::max<Index>(kPiece / tile, kLine) : length);
  cuts = (length + most - 1) / most;
  group = std::max<Index>(1, kPiece / (tile * std::max<Index>(1, std::min(most, length))));
}

void Course::find(Index task, Part& part) const {
  const Index t = task / cuts;
  part.from = task % cuts * most;
  part.to = std::min(length, part.from + most);
  part.b = t / tiles;
  part.column = t % tiles * kTile;
  part.n = std::min(kTile, after - part.column);
  Index rest = part.b, data_outer = 0, source_outer = 0, data_step = 1, source_step = 1;
  for (int k = s.dim - 1; k >= 0; --k) {
    const Index at = rest % s.index[k];
    rest /= s.index[k];
    data_outer += at * data_step;
    source_outer += at * source_step;
    data_step *= s.data[k];
    source_step *= s.source[k];
  }
  part.data_base = data_outer * data_length * data_inner;
  part.source_base = source_outer * source_length * source_inner;
  for (Index j = 0; j < part.n; ++j) {
    if (same_inner) {
      part.data_at[j] = part.source_at[j] = part.column + j;
      continue;
    }
    Index left = part.column + j, d = 0, q = 0, ds = 1, qs = 1;
    for (int k = s.ndim - 1; k > s.dim; --k) {
      const Index at = left % s.index[k];
      left /= s.index[k];
      d += at * ds;
      q += at * qs;
      ds *= s.data[k];
      qs *= s.source[k];
    }
    part.data_at[j] = d;
    part.source_at[j] = q;
  }
}

// Not in line, of which each of the walks would have three: a tenth of their time where lines are long, nothing elsewhere.
[[gnu::noinline]] bool few_within(const int64_t* index, Index n, Index limit) { return indices_within(index, n, limit); }

// Walks index in parallel: visit(position in index, position in data without dim, stride of dim, position in source).
// Axes after dim are flattened; their data positions follow an odometer. `split`: dim may be cut among tasks. Stops, and
// returns false, at an index out of range; with null for `index` all are known to be in.
template <class Item, class Visit>
bool walk(const GatherShape& s, bool split, const Item* data, const int64_t* index, Visit visit) {
  const Course course(s, split);
  const Index length = course.length, after = course.after, data_length = course.data_length;
  const bool ahead = data && s.dim + 1 == s.ndim && data_length * Index(sizeof(Item)) <= kAhead && length >= data_length / 8;
  std::atomic<bool> within{true};
  const auto check = [&](Index at, Index n) {
    if (!index || few_within(index + at, n, data_length)) return true;
    return within = false;
  };
  // Rows of few indices, several rows at a time: 500,000 of one index each are gathered in 0.2 ms
  // instead of 3.3, scattered in 0.4 instead of 4.3
  const bool brief = course.same_outer && s.dim + 1 == s.ndim && course.cuts == 1 && length > 0 && length <= kChecked / 2;
  parallel_for(course.before * course.tiles * course.cuts, course.group, [&](Index first, Index last) {
    if (brief) {
      Index at = first * length, data_at = first * data_length, source = first * course.source_length, r = 0;
      while (at < last * length) {
        const Index end = std::min(last * length, at + kChecked);
        if (!check(at, end - at)) return;
        for (; at < end; ++at) {
          visit(at, data_at, Index(1), source + r);
          if (++r < length) continue;
          r = 0, data_at += data_length, source += course.source_length;
        }
      }
      return;
    }
    Course::Part p;
    for (Index u = first; u < last; ++u) {
      course.find(u, p);
      if (s.dim + 1 == s.ndim) {  // nothing comes after dim
        if (ahead && p.from == 0)
          for (Index k = 0; k < data_length; k += 64 / Index(sizeof(Item)))
            __builtin_prefetch(data + p.data_base + data_length + k);
        for (Index begin = p.from; begin < p.to; begin += kChecked) {
          const Index end = std::min(p.to, begin + kChecked);
          if (index && !indices_within(index + p.b * length + begin, end - begin, data_length)) return void(within = false);
          const Index at = p.b * length, data_at = p.data_base, source = p.source_base;
          for (Index r = begin; r < end; ++r) visit(at + r, data_at, Index(1), source + r);
        }
        continue;
      }
      for (Index r = p.from; r < p.to; ++r) {
        const Index at = (p.b * length + r) * after + p.column, source = p.source_base + r * course.source_inner;
        const Index n = p.n, data_at = p.data_base, step = course.data_inner;
        if (!check(at, n)) return;
        for (Index j = 0; j < n; ++j) visit(at + j, data_at + p.data_at[j], step, source + p.source_at[j]);
      }
    }
  });
  return within;
}

// Where each index says that its element lies in data, and where its source does.
void find_places(const GatherShape& s, const int64_t* index, Index* place, Index* source) {
  walk(s, true, static_cast<const char*>(nullptr), nullptr, [=](Index at, Index data, Index step, Index from) {
    place[at] = data + index[at] * step;
    source[at] = from;
  });
}

template <class Use>
auto with_item(Index itemsize, Use use) {
  struct Pair {
    uint64_t a, b;
  };
  switch (itemsize) {
    case 1: return use(uint8_t{});
    case 2: return use(uint16_t{});
    case 4: return use(uint32_t{});
    case 8: return use(uint64_t{});
    default: return use(Pair{});
  }
}

Index product(const Index* shape, int from, int to) {
  Index n = 1;
  for (int k = from; k < to; ++k) n *= shape[k];
  return n;
}

// write(y[place], src[position]) for every index; false where one is out of range.
template <class T, class Write>
bool scatter_all(const GatherShape& s, bool checked, T* y, const int64_t* index, const T* src, Write write) {
  const Index length = s.ndim ? s.index[s.dim] : 1, n = product(s.index, 0, s.ndim);
  const Index after = product(s.index, s.dim + 1, s.ndim);
  const bool few_tasks = n / std::max<Index>(1, length) / std::min(kTile, std::max<Index>(1, after)) < 4;
  const Index places = product(s.data, 0, s.ndim);
  if (!few_tasks || n < kDealFrom || places * Index(sizeof(T)) <= kNear) {
    return walk(s, false, y, checked ? nullptr : index,
                [&](Index at, Index data, Index step, Index source) { write(y[data + index[at] * step], src[source]); });
  }
  if (!checked && !all_within(index, n, s.ndim ? s.data[s.dim] : 1)) return false;
  const bool plain = s.ndim <= 1;  // the index itself says the places
  Scratch<Index> place(plain ? 0 : n), source(plain ? 0 : n);
  if (!plain) find_places(s, index, place.data(), source.data());
  const Index* places_of = plain ? index : place.data();
  write_dealt<T, T>(
      n, places, y, [=](Index m) { return places_of[m]; },
      [src, from = source.data()](Index m) { return src[from ? from[m] : m]; }, write);
  return true;
}

}  // namespace

bool gather_items(const GatherShape& s, Index itemsize, const char* x, const int64_t* index, char* y) {
  return with_item(itemsize, [&](auto item) {
    using I = decltype(item);
    const I* from = reinterpret_cast<const I*>(x);
    I* to = reinterpret_cast<I*>(y);
    return walk(s, true, from, index, [=](Index at, Index data, Index step, Index) { to[at] = from[data + index[at] * step]; });
  });
}

bool scatter_items(const GatherShape& s, bool checked, Index itemsize, char* y, const int64_t* index, const char* src) {
  return with_item(itemsize, [&](auto item) {
    using I = decltype(item);
    return scatter_all(s, checked, reinterpret_cast<I*>(y), index, reinterpret_cast<const I*>(src),
                       [](I& to, const I& v) { to = v; });
  });
}

template <class T>
bool scatter_combine(Combine how, const GatherShape& s, bool checked, T* y, const int64_t* index, const T* src) {
  return with_combine<T>(how, [&](auto combine) {
    return scatter_all(s, checked, y, index, src, [=](T& to, const T& v) { to = combine(to, v); });
  });
}

template bool scatter_combine(Combine, const GatherShape&, bool, float*, const int64_t*, const float*);
template bool scatter_combine(Combine, const GatherShape&, bool, double*, const int64_t*, const double*);
template bool scatter_combine(Combine, const GatherShape&, bool, uint64_t*, const int64_t*, const uint64_t*);
template bool scatter_combine(Combine, const GatherShape&, bool, c64*, const int64_t*, const c64*);
template bool scatter_combine(Combine, const GatherShape&, bool, c128*, const int64_t*, const c128*);

}  // namespace tg
