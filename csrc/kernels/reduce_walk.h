// Walks an array of any strides, folding the reduced axes into one accumulator per output.
//
// Two orders, chosen by which axis is closest together in memory:
//   runs      the innermost axis is reduced: fold a run of memory at a time into one accumulator
//   columns   the innermost axis is kept: fold rows of memory into a tile of accumulators, 8 rows at a time; narrow ones
//             of several outputs stand side by side in a tile
// Values of another storage type, stride or alignment go through a block buffer in L1.
//
// The work is cut into pieces of about 64k elements by the shape alone; pieces of one output are merged in order, so the
// bits do not depend on how many threads ran.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "../core/copy_bytes.h"
#include "../core/parallel.h"
#include "reduce_ops.h"
#include "reduce_plan.h"

namespace tg {

constexpr Index kReducePiece = 65536;     // elements per task
constexpr Index kReduceBlock = 1024;      // elements per conversion buffer
constexpr Index kReduceTile = 512;        // columns per tile
constexpr Index kReduceTold = 64;         // outputs of runs that are emitted at once

// Rows of a piece where columns are folded.
inline Index rows_of_piece(Index width) {
  const Index tile = std::min(width, kReduceTile);
  return (std::max<Index>(1, kReducePiece / tile) + kRowGroup - 1) / kRowGroup * kRowGroup;
}
// Whether rows that follow each other in memory are stacked: too narrow to be folded one by one.
inline bool are_stacked(Index width) { return width <= kReduceTile / 8; }

// Reads a block of storage as C; returns `source` itself where nothing needs converting.
template <class C>
struct Reader {
  using Convert = void (*)(C* to, const char* from, Index stride, Index n);
  Convert convert = nullptr;
  bool same_type = false;  // storage is C: a contiguous, aligned run is read in place
  const C* read(C* buffer, const char* from, Index stride, Index n) const {
    if (same_type && (stride == Index(sizeof(C)) || n == 1) && reinterpret_cast<uintptr_t>(from) % alignof(C) == 0)
      return reinterpret_cast<const C*>(from);
    convert(buffer, from, stride, n);
    return buffer;
  }
  // Short rows of n items, `count` of them, each `offset` bytes behind from[i], one behind the other.
  void read_beside(C* to, const char* const* from, Index count, Index offset, Index stride, Index n) const {
    if (same_type && stride == Index(sizeof(C))) return gather_bytes(reinterpret_cast<char*>(to), from, count, offset, n * stride);
    for (Index i = 0; i < count; ++i) convert(to + i * n, from[i] + offset, stride, n);
  }
};

// Counts through the axes [0, n) of a shape, the last fastest, keeping the byte offset.
struct Odometer {
  Odometer(int n, const Index* shape, const Index* strides) : n(n), shape(shape), strides(strides) {}
  void seek(Index linear) {
    offset = 0;
    for (int k = n - 1; k >= 0; --k) {
      at[k] = linear % shape[k];
      linear /= shape[k];
      offset += at[k] * strides[k];
    }
  }
  void next() {
    for (int k = n - 1; k >= 0; --k) {
      offset += strides[k];
      if (++at[k] < shape[k]) return;
      offset -= shape[k] * strides[k];
      at[k] = 0;
    }
  }
  int n;
  const Index *shape, *strides;
  Index offset = 0;
  Index at[kMaxDims];
};

template <class Op>
class ReduceWalk {
 public:
  using C = typename Op::C;
  using Acc = typename Op::Acc;

  ReduceWalk(const ReducePlan& plan, const char* data, Reader<C> reader) : p_(plan), data_(data), reader_(reader) {}

  // Calls emit(index of the first, accumulators, how many) for outputs that follow each other, once for each output.
  template <class Emit>
  void operator()(Emit emit) const {
    if (p_.outputs == 0) return;
    if (p_.reduced == 0) {
      const Acc none = Op::init();
      for (Index o = 0; o < p_.outputs; ++o) emit(o, &none, 1);
      return;
    }
    if (p_.columns) columns(emit);
    else runs(emit);
  }

 private:
  // ---- the innermost axis is reduced -------------------------------------------------------------------------------
  template <class Emit>
  void runs(Emit emit) const {
    const Index run = p_.rn ? p_.rshape[p_.rn - 1] : 1;
    const Index block = std::min(run, kReducePiece / 4);
    const Index blocks = (run + block - 1) / block;
    const Index units = p_.reduced / run * blocks;  // blocks per output
    const Index per_piece = std::max<Index>(1, kReducePiece / block);
    const Index pieces = (units + per_piece - 1) / per_piece;
    if (pieces == 1) {
      const Index group = std::max<Index>(1, kReducePiece / work_of<Op> / p_.reduced);
      parallel_for(p_.outputs, group, [&](Index first, Index last) {
        Odometer out(p_.kn, p_.kshape, p_.kstride);
        out.seek(first);
        const bool single = p_.rn <= 1;
        const Index stride = p_.rn ? p_.rstride[p_.rn - 1] : 0;
        Acc acc[kReduceTold];
        for (Index o = first; o < last;) {
          const Index n = std::min(kReduceTold, last - o);
          for (Index k = 0; k < n; ++k, out.next()) {
            Acc& a = acc[k] = Op::init();
            if (single && blocks == 1) fold_run(a, data_ + out.offset, stride, run);
            else fold(a, data_ + out.offset, run, block, blocks, 0, units);
          }
          emit(o, acc, n);
          o += n;
        }
      });
      return;
    }
    std::vector<Acc> parts(size_t(p_.outputs * pieces), Op::init());
    parallel_for(p_.outputs * pieces, 1, [&](Index first, Index last) {
      for (Index t = first; t < last; ++t) {
        Odometer out(p_.kn, p_.kshape, p_.kstride);
        out.seek(t / pieces);
        const Index begin = t % pieces * per_piece;
        fold(parts[size_t(t)], data_ + out.offset, run, block, blocks, begin, std::min(units, begin + per_piece));
      }
    });
    for (Index o = 0; o < p_.outputs; ++o) {
      Acc a = parts[size_t(o * pieces)];
      for (Index s = 1; s < pieces; ++s) Op::merge(a, parts[size_t(o * pieces + s)]);
      emit(o, &a, 1);
    }
  }

  __attribute__((noinline)) void fold(Acc& a, const char* base, Index run, Index block, Index blocks, Index begin, Index end) const {
    const int outer = std::max(0, p_.rn - 1);
    const Index stride = p_.rn ? p_.rstride[p_.rn - 1] : 0;
    Odometer in(outer, p_.rshape, p_.rstride);
    in.seek(begin / blocks);
    Index b = begin % blocks;
    for (Index u = begin; u < end; ++u) {
      fold_run(a, base + in.offset + b * block * stride, stride, std::min(block, run - b * block));
      if (++b == blocks) {
        b = 0;
        in.next();
      }
    }
  }

  __attribute__((noinline)) void fold_run(Acc& a, const char* from, Index stride, Index n) const {
    if (reader_.same_type && stride == Index(sizeof(C)) && reinterpret_cast<uintptr_t>(from) % alignof(C) == 0) {
      Op::run(a, reinterpret_cast<const C*>(from), n);
      return;
    }
    alignas(64) C buffer[kReduceBlock];
    for (Index i = 0; i < n; i += kReduceBlock) {
      const Index k = std::min(kReduceBlock, n - i);
      Op::run(a, reader_.read(buffer, from + i * stride, stride, k), k);
    }
  }

  // ---- the innermost axis is kept ----------------------------------------------------------------------------------
  template <class Emit>
  void columns(Emit emit) const {
    const Index width = p_.kshape[p_.kn - 1];
    const Index tile = std::min(width, kReduceTile);
    const Index tiles = (width + tile - 1) / tile;
    const Index outer = p_.outputs / width;
    const Index per_piece = rows_of_piece(width);
    const Index pieces = (p_.reduced + per_piece - 1) / per_piece;
    if (pieces == 1) {
      const Index beside = outputs_of_tile(width, outer);
      const Index piece = beside > 1 ? kReducePiece / 4 : kReducePiece;  // of short rows, which take longer
      const Index group = std::max<Index>(1, piece / (tile * beside * p_.reduced));
      parallel_for((outer + beside - 1) / beside * tiles, group, [&](Index first, Index last) {
        Acc acc[kReduceTile];
        for (Index t = first; t < last; ++t) {
          const Index o = t / tiles * beside, column = t % tiles * tile;
          const Index n = std::min(tile, width - column) * std::min(beside, outer - o);
          std::fill(acc, acc + n, Op::init());
          if (beside > 1) fold_beside(acc, o, n / width, width);
          else fold_rows(acc, o, column, n, 0, p_.reduced);
          emit(o * width + column, acc, n);
        }
      });
      return;
    }
    std::vector<Acc> parts(size_t(pieces * p_.outputs), Op::init());
    parallel_for(outer * tiles * pieces, 1, [&](Index first, Index last) {
      for (Index t = first; t < last; ++t) {
        const Index piece = t / (outer * tiles), rest = t % (outer * tiles);
        const Index o = rest / tiles, column = rest % tiles * tile, n = std::min(tile, width - column);
        const Index begin = piece * per_piece;
        fold_rows(&parts[size_t(piece * p_.outputs + o * width + column)], o, column, n, begin,
                  std::min(p_.reduced, begin + per_piece));
      }
    });
    parallel_for(p_.outputs, std::max<Index>(1, kReducePiece / pieces), [&](Index first, Index last) {
      for (Index o = first; o < last; ++o) {
        for (Index s = 1; s < pieces; ++s) Op::merge(parts[size_t(o)], parts[size_t(s * p_.outputs + o)]);
      }
      emit(first, &parts[size_t(first)], last - first);
    });
  }

  // Once for all orders of rows.
  __attribute__((noinline)) static void fold_columns(Acc* acc, const C* const* rows, Index count, Index n) {
    Op::columns(acc, rows, count, n);
  }

  // How many matrices of columns fill a tile together. Where each has many rows, those are stacked, or take longer than
  // what a tile costs beside them.
  Index outputs_of_tile(Index width, Index outer) const {
    return p_.reduced * width > kReduceTile * kRowGroup ? 1 : std::clamp<Index>(kReduceTile / width, 1, outer);
  }

  __attribute__((noinline)) void fold_beside(Acc* acc, Index o, Index count, Index width) const {
    const char* from[kReduceTile];
    Odometer out(p_.kn - 1, p_.kshape, p_.kstride);
    out.seek(o);
    for (Index i = 0; i < count; ++i, out.next()) from[i] = data_ + out.offset;
    Odometer in(p_.rn, p_.rshape, p_.rstride);
    in.seek(0);
    alignas(64) C buffer[kRowGroup * kReduceTile];
    const C* rows[kRowGroup];
    for (Index r = 0; r < p_.reduced;) {
      const Index n = std::min(kRowGroup, p_.reduced - r);
      for (Index k = 0; k < n; ++k, in.next()) {
        rows[k] = buffer + k * kReduceTile;
        reader_.read_beside(buffer + k * kReduceTile, from, count, in.offset, p_.kstride[p_.kn - 1], width);
      }
      fold_columns(acc, rows, n, count * width);
      r += n;
    }
  }

  __attribute__((noinline)) void fold_rows(Acc* acc, Index o, Index column, Index n, Index begin, Index end) const {
    const Index stride = p_.kstride[p_.kn - 1];
    Odometer out(p_.kn - 1, p_.kshape, p_.kstride);
    out.seek(o);
    const char* base = data_ + out.offset + column * stride;
    Odometer in(p_.rn, p_.rshape, p_.rstride);
    in.seek(begin);
    alignas(64) C buffer[kRowGroup * kReduceTile];
    const C* rows[kRowGroup];
    const Index stacked = rows_per_stack(n);
    if (stacked > 1) return fold_stacks(acc, base, n, stacked, begin, end);
    for (Index r = begin; r < end;) {
      const Index count = std::min(kRowGroup, end - r);
      for (Index k = 0; k < count; ++k, in.next())
        rows[k] = reader_.read(buffer + k * kReduceTile, base + in.offset, stride, n);
      fold_columns(acc, rows, count, n);
      r += count;
    }
  }

  // Narrow rows that follow each other in memory are taken side by side, as one row of a stack.
  Index rows_per_stack(Index n) const {
    const Index item = Index(sizeof(C));
    const bool follow = p_.rn == 1 && reader_.same_type && p_.kstride[p_.kn - 1] == item && n == p_.kshape[p_.kn - 1] &&
                        p_.rstride[0] == n * item && reinterpret_cast<uintptr_t>(data_) % alignof(C) == 0;
    return follow && are_stacked(n) ? kReduceTile / n : 1;
  }

  void fold_stacks(Acc* acc, const char* base, Index n, Index stacked, Index begin, Index end) const {
    const C* from = reinterpret_cast<const C*>(base) + begin * n;
    const Index total = end - begin;
    Acc wide[kReduceTile];
    std::fill(wide, wide + stacked * n, Op::init());
    const C* rows[kRowGroup];
    Index r = 0;
    while (total - r >= stacked) {
      const Index count = std::min(kRowGroup, (total - r) / stacked);
      for (Index k = 0; k < count; ++k) rows[k] = from + (r + k * stacked) * n;
      fold_columns(wide, rows, count, stacked * n);
      r += count * stacked;
    }
    if (r < total) {  // what is left of a stack
      rows[0] = from + r * n;
      fold_columns(wide, rows, 1, (total - r) * n);
    }
    for (Index k = 0; k < std::min(stacked, total); ++k)
      for (Index j = 0; j < n; ++j) Op::merge(acc[j], wide[k * n + j]);
  }

  const ReducePlan& p_;
  const char* data_;
  Reader<C> reader_;
};

}  // namespace tg
