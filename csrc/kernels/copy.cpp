// Axes are sorted by the target's strides and joined where both sides allow it. Then
//   runs        both innermost strides are one item: copy_bytes
//   transposes  the source's smallest stride belongs to another axis: 16 x 16 blocks, so that each cache line of either
//               side is touched once per block
//   general     a loop over the innermost axis; where that is short, over the two innermost at once
// Pieces of about 64 KB are shared out; nothing here depends on their order.
#include "copy.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "../core/copy_bytes.h"
#include "../core/parallel.h"

namespace tg {
namespace {

constexpr int kAxes = 64;
constexpr Index kPieceBytes = 131072;
constexpr Index kSquare = 16, kLarge = 128;

struct Pair {
  uint64_t a, b;
};

struct Layout {
  int n = 0;
  Index shape[kAxes], from[kAxes], to[kAxes];  // innermost last
  bool empty = false;

  Layout(int ndim, const Index* s, const Index* f, const Index* t) {
    int order[kAxes], m = 0;
    for (int k = 0; k < ndim; ++k) {
      if (s[k] == 0) empty = true;
      if (s[k] != 1) order[m++] = k;
    }
    std::stable_sort(order, order + m, [&](int a, int b) {
      return std::llabs(t[a]) != std::llabs(t[b]) ? std::llabs(t[a]) > std::llabs(t[b]) : std::llabs(f[a]) > std::llabs(f[b]);
    });
    for (int i = 0; i < m; ++i) {
      const int k = order[i];
      if (n && from[n - 1] == s[k] * f[k] && to[n - 1] == s[k] * t[k]) {
        shape[n - 1] *= s[k];
        from[n - 1] = f[k];
        to[n - 1] = t[k];
        continue;
      }
      shape[n] = s[k];
      from[n] = f[k];
      to[n++] = t[k];
    }
    if (n == 0) {
      shape[0] = 1;
      from[0] = to[0] = 0;
      n = 1;
    }
  }
};

template <class I>
inline void move_item(char* to, const char* from) {  // memcpy: either side may be unaligned
  std::memcpy(to, from, sizeof(I));
}

template <class I>
void copy_line(const char* from, Index from_stride, char* to, Index to_stride, Index n) {
  constexpr Index item = Index(sizeof(I));
  if (from_stride == item && to_stride == item) {
    copy_bytes(to, from, n * item);
  } else if (to_stride == item && from_stride == 0) {  // what was expanded
    I value;
    std::memcpy(&value, from, sizeof(I));
    for (Index i = 0; i < n; ++i) std::memcpy(to + i * item, &value, sizeof(I));
  } else if (to_stride == item && from_stride == -item) {
#pragma GCC unroll 4
    for (Index i = 0; i < n; ++i) move_item<I>(to + i * item, from - i * item);
  } else if (to_stride == item) {
    for (Index i = 0; i < n; ++i) move_item<I>(to + i * item, from + i * from_stride);
  } else {
    for (Index i = 0; i < n; ++i) move_item<I>(to + i * to_stride, from + i * from_stride);
  }
}

// Offsets of position `linear` over axes [0, n), skipping one.
inline void locate(const Layout& l, int n, int skip, Index linear, Index& from, Index& to) {
  from = to = 0;
  for (int k = n - 1; k >= 0; --k) {
    if (k == skip) continue;
    const Index at = linear % l.shape[k];
    linear /= l.shape[k];
    from += at * l.from[k];
    to += at * l.to[k];
  }
}

// `rows` short lines of N (or of n) items each: an odometer for every one would cost more than the items.
template <class I, Index N>
void copy_short(const char* from, Index from_row, Index from_step, char* to, Index to_row, Index rows, Index n) {
  constexpr Index item = Index(sizeof(I));
  const Index count = N ? N : n;
  if (from_row == item && to_row == count * item) {  // in step: N arrays become one of groups
    for (Index r = 0; r < rows; ++r)
      for (Index i = 0; i < count; ++i) move_item<I>(to + (r * count + i) * item, from + r * item + i * from_step);
    return;
  }
  for (Index r = 0; r < rows; ++r)
    for (Index i = 0; i < count; ++i) move_item<I>(to + r * to_row + i * item, from + r * from_row + i * from_step);
}

constexpr Index kShort = 16;

template <class I>
void copy_short_lines(const Layout& l, const char* from, char* to) {
  const int inner = l.n - 1, row = l.n - 2;
  const Index n = l.shape[inner], rows = l.shape[row];
  Index planes = 1;
  for (int k = 0; k < row; ++k) planes *= l.shape[k];
  const Index cut = std::min(rows, std::max<Index>(1, kPieceBytes / (n * Index(sizeof(I)))));
  const Index cuts = (rows + cut - 1) / cut;
  parallel_for(planes * cuts, std::max<Index>(1, kPieceBytes / (cut * n * Index(sizeof(I)))), [&](Index first, Index last) {
    for (Index u = first; u < last; ++u) {
      Index f, t;
      locate(l, row, -1, u / cuts, f, t);
      const Index begin = u % cuts * cut, count = std::min(cut, rows - begin);
      const char* source = from + f + begin * l.from[row];
      char* target = to + t + begin * l.to[row];
      const auto go = [&](auto copy) { copy(source, l.from[row], l.from[inner], target, l.to[row], count, n); };
      switch (n) {
        case 2: go(copy_short<I, 2>); break;
        case 3: go(copy_short<I, 3>); break;
        case 4: go(copy_short<I, 4>); break;
        default: go(copy_short<I, 0>);
      }
    }
  });
}

template <class I>
void copy_lines(const Layout& l, const char* from, char* to) {
  const int inner = l.n - 1;
  const Index n = l.shape[inner];
  Index lines = 1;
  for (int k = 0; k < inner; ++k) lines *= l.shape[k];
  const Index cut = std::min(n, std::max<Index>(1, kPieceBytes / Index(sizeof(I))));
  const Index cuts = (n + cut - 1) / cut;
  parallel_for(lines * cuts, std::max<Index>(1, kPieceBytes / (cut * Index(sizeof(I)))), [&](Index first, Index last) {
    Index at[kAxes], f, t;
    locate(l, inner, -1, first / cuts, f, t);
    Index rest = first / cuts;
    for (int k = inner - 1; k >= 0; --k) {
      at[k] = rest % l.shape[k];
      rest /= l.shape[k];
    }
    Index piece = first % cuts;
    for (Index u = first; u < last; ++u) {
      const Index begin = piece * cut;
      copy_line<I>(from + f + begin * l.from[inner], l.from[inner], to + t + begin * l.to[inner], l.to[inner],
                   std::min(cut, n - begin));
      if (++piece < cuts) continue;
      piece = 0;
      for (int k = inner - 1; k >= 0; --k) {
        f += l.from[k];
        t += l.to[k];
        if (++at[k] < l.shape[k]) break;
        f -= l.shape[k] * l.from[k];
        t -= l.shape[k] * l.to[k];
        at[k] = 0;
      }
    }
  });
}

template <class I>
void copy_square(const char* from, Index from_row, Index from_column, char* to, Index to_row, Index rows, Index columns) {
  // Target rows are contiguous; source columns are: from_row is one item.
  if (rows == kSquare && columns == kSquare) {
    I block[kSquare][kSquare];
    for (Index c = 0; c < kSquare; ++c) {
      I line[kSquare];
      std::memcpy(line, from + c * from_column, sizeof(line));
      for (Index r = 0; r < kSquare; ++r) block[r][c] = line[r];
    }
    for (Index r = 0; r < kSquare; ++r) std::memcpy(to + r * to_row, block[r], sizeof(block[r]));
    return;
  }
  for (Index r = 0; r < rows; ++r)
    for (Index c = 0; c < columns; ++c)
      move_item<I>(to + r * to_row + c * Index(sizeof(I)), from + r * from_row + c * from_column);
}

// Axis `row` has the source's unit stride, the last axis the target's.
template <class I>
void copy_transposed(const Layout& l, int row, const char* from, char* to) {
  const int inner = l.n - 1;
  const Index rows = l.shape[row], columns = l.shape[inner];
  Index planes = 1;
  for (int k = 0; k < inner; ++k)
    if (k != row) planes *= l.shape[k];
  // Large squares first, so that few pages are in use at a time; small ones inside.
  const Index row_blocks = (rows + kLarge - 1) / kLarge, column_blocks = (columns + kLarge - 1) / kLarge;
  const Index bytes = std::min(rows, kLarge) * std::min(columns, kLarge) * Index(sizeof(I));
  parallel_for(planes * row_blocks * column_blocks, std::max<Index>(1, kPieceBytes / bytes), [&](Index first, Index last) {
    for (Index u = first; u < last; ++u) {
      Index f, t;
      locate(l, inner, row, u / (row_blocks * column_blocks), f, t);
      const Index row_first = u / column_blocks % row_blocks * kLarge, row_last = std::min(rows, row_first + kLarge);
      const Index column_first = u % column_blocks * kLarge, column_last = std::min(columns, column_first + kLarge);
      for (Index r = row_first; r < row_last; r += kSquare)
        for (Index c = column_first; c < column_last; c += kSquare)
          copy_square<I>(from + f + r * l.from[row] + c * l.from[inner], l.from[row], l.from[inner],
                         to + t + r * l.to[row] + c * l.to[inner], l.to[row], std::min(kSquare, row_last - r),
                         std::min(kSquare, column_last - c));
    }
  });
}

template <class I>
void copy_items(const Layout& l, const char* from, char* to) {
  constexpr Index item = Index(sizeof(I));
  const int inner = l.n - 1;
  if (l.to[inner] == item && l.from[inner] != item && l.from[inner] != 0)
    for (int k = 0; k < inner; ++k)
      if (l.from[k] == item && l.shape[k] >= 4 && l.shape[inner] >= 4) return copy_transposed<I>(l, k, from, to);
  if (l.n > 1 && l.shape[inner] <= kShort && l.to[inner] == item) return copy_short_lines<I>(l, from, to);
  copy_lines<I>(l, from, to);
}

}  // namespace

void copy_triangle(Index itemsize, Index planes, Index rows, Index columns, Index diagonal, bool upper, const char* x,
                   char* y) {
  const Index width = columns * itemsize;
  parallel_for(planes * rows, std::max<Index>(1, kPieceBytes / std::max<Index>(1, width)), [&](Index first, Index last) {
    for (Index t = first; t < last; ++t) {
      const Index r = t % rows;
      // columns before `cut` are zero (upper), or those from it on
      const Index cut = std::min(columns, std::max<Index>(0, upper ? r + diagonal : r + diagonal + 1)) * itemsize;
      const char* from = x + t * width;
      char* to = y + t * width;
      copy_bytes(upper ? to + cut : to, upper ? from + cut : from, upper ? width - cut : cut);
      std::memset(upper ? to : to + cut, 0, size_t(upper ? cut : width - cut));
    }
  });
}

void pad_rows(Index itemsize, Index planes, Index rows, Index columns, const Index* row_of, Index out_rows,
              const Index* left, Index before, const Index* right, Index after, const char* value, const char* x, char* y) {
  const Index width = before + columns + after;
  const auto go = [&](auto item) {
    using I = decltype(item);
    constexpr Index bytes = Index(sizeof(I));
    parallel_for(planes * out_rows, std::max<Index>(1, kPieceBytes / (width * bytes)), [=](Index first, Index last) {
      Index plane = first / out_rows, r = first % out_rows;
      for (Index t = first; t < last; ++t) {
        const char* from = x + (plane * rows + row_of[r]) * columns * bytes;
        char* to = y + t * width * bytes;
        const auto put = [&](const Index* places, Index count) {
          if (value)
            for (Index c = 0; c < count; ++c) move_item<I>(to + c * bytes, value);
          else
            for (Index c = 0; c < count; ++c) move_item<I>(to + c * bytes, from + places[c] * bytes);
          to += count * bytes;
        };
        if (row_of[r] < 0) {
          put(nullptr, width);
        } else {
          put(left, before);
          copy_bytes(to, from, columns * bytes);
          to += columns * bytes;
          put(right, after);
        }
        if (++r == out_rows) r = 0, ++plane;
      }
    });
  };
  switch (itemsize) {
    case 1: return go(uint8_t{});
    case 2: return go(uint16_t{});
    case 4: return go(uint32_t{});
    case 8: return go(uint64_t{});
    default: return go(Pair{});
  }
}

void fill_items(Index itemsize, Index n, const char* item, char* to) {
  const bool zero = std::all_of(item, item + itemsize, [](char byte) { return byte == 0; });
  parallel_for(n, kPieceBytes / itemsize, [&](Index first, Index last) {
    if (zero) {
      std::memset(to + first * itemsize, 0, size_t((last - first) * itemsize));
      return;
    }
    const auto all = [&](auto value) {
      std::memcpy(&value, item, sizeof(value));
      std::fill_n(reinterpret_cast<decltype(value)*>(to) + first, last - first, value);
    };
    switch (itemsize) {
      case 1: return all(uint8_t{});
      case 2: return all(uint16_t{});
      case 4: return all(uint32_t{});
      case 8: return all(uint64_t{});
      default: return all(Pair{});
    }
  });
}

void ramp_items(Index n, int64_t first, int64_t by, int64_t* to) {
  parallel_for(n, kPieceBytes / Index(sizeof(int64_t)), [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) to[i] = first + i * by;
  });
}

void copy_strided(Index itemsize, int ndim, const Index* shape, const char* from, const Index* from_strides, char* to,
                  const Index* to_strides) {
  const Layout l(ndim, shape, from_strides, to_strides);
  if (l.empty) return;
  switch (itemsize) {
    case 1: return copy_items<uint8_t>(l, from, to);
    case 2: return copy_items<uint16_t>(l, from, to);
    case 4: return copy_items<uint32_t>(l, from, to);
    case 8: return copy_items<uint64_t>(l, from, to);
    default: return copy_items<Pair>(l, from, to);
  }
}

void Roll::part(Index first, Index last) const {
  const Index row = length[count - 1], by = shift[count - 1], back = row - by;
  constexpr Index kFew = 8;  // elements of a row's end: one by one they take less than a call
  const bool few = count == 1 && std::min(by, back) <= kFew && item == 4;
  const auto stretch = [&](Index first, Index last) {
    if (few) {  // all as if nothing came from the row's other end, and then what does
      const Index ahead = by <= back ? -by : back, low = std::max(first, -ahead), high = std::min(last, n - ahead);
      if (low < high) copy_bytes(to + low * item, from + (low + ahead) * item, (high - low) * item);
    }
    for (Index r = first / row * row; r < last; r += row) {
      Index source = r;
      for (int k = 0; k + 1 < count; ++k) source += r % length[k] < shift[k] ? length[k] - shift[k] : -shift[k];
      const auto move = [&](Index low, Index high, Index place) {
        const Index begin = std::max(first - r, low), end = std::min(last - r, high);
        const char* x = from + (source + place + begin - low) * item;
        char* y = to + (r + begin) * item;
        if (!few && begin < end) return copy_bytes(y, x, (end - begin) * item);
        for (Index i = begin; i < end; ++i, x += 4, y += 4) std::memcpy(y, x, 4);
      };
      if (!few || by <= back) move(0, by, back);
      if (!few || by > back) move(by, row, 0);
    }
  };
  parallel_for(last - first, kPieceBytes / item, [&](Index a, Index b) { stretch(first + a, first + b); });
}

}  // namespace tg
