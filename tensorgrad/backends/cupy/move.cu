// Copies of arrays that are not dense: out[i] = x[i], each wherever it lies. Elements are only moved, so a kernel is made for
// a number of bytes, a unit.
//
// Where both have the same neighbours a unit is as wide as they and where they lie allow. Where they have not, as in a
// transposed matrix, a block moves a square tile through shared memory: it reads neighbours of one and writes neighbours
// of the other, so that neither moves more than it has to.

namespace tg {

typedef unsigned int u32;

template <int kBytes> struct unit { typedef pack<u64, kBytes / 8> type; };
template <> struct unit<1> { typedef unsigned char type; };
template <> struct unit<2> { typedef unsigned short type; };
template <> struct unit<4> { typedef u32 type; };

constexpr int kMoved = 8;  // axes

// Axes that both are gone over by, the last one the fastest, and the units from one to the next.
struct Way {
  i64 axes, sizes[kMoved], from[kMoved], to[kMoved];
};

// i / n, which is a third of the work where both fit in 32 bits.
TG_FN i64 quotient(i64 i, i64 n) { return (u64)(i | n) >> 32 ? i / n : (i64)((u32)i / (u32)n); }

struct Places {
  i64 from, to;
};
TG_FN Places places(const Way& way, i64 i) {
  Places found = {0, 0};
#pragma unroll
  for (int a = kMoved - 1; a >= 0; --a) {
    if (a >= way.axes) continue;
    const i64 next = a ? quotient(i, way.sizes[a]) : 0, at = i - next * way.sizes[a];
    found.from += at * way.from[a];
    found.to += at * way.to[a];
    i = next;
  }
  return found;
}

template <class U>
TG_FN void move(i64 count, const Way& way, const U* x, U* out) {
  for (i64 i = blockIdx.x * (i64)blockDim.x + threadIdx.x; i < count; i += (i64)gridDim.x * blockDim.x) {
    const Places at = places(way, i);
    out[at.to] = x[at.from];
  }
}

// Of each of `way`: rows whose columns are x's neighbours, and columns whose rows are out's. Steps count units.
template <class U>
TG_FN void turn(i64 count, const Way& way, i64 rows, i64 columns, i64 from_row, i64 to_column, const U* x, U* out) {
  constexpr int kSide = sizeof(U) < 4 ? 64 : 32, kThreads = 256, kAtOnce = kThreads / kSide;
  constexpr int kApart = sizeof(U) < 4 ? 4 / sizeof(U) : 1;  // more than a row has, so that a column lies in all banks
  __shared__ U tile[kSide][kSide + kApart];
  const i64 down = (rows + kSide - 1) / kSide, across = (columns + kSide - 1) / kSide, all = count * down * across;
  const int lane = threadIdx.x % kSide, line = threadIdx.x / kSide;
  for (i64 block = blockIdx.x; block < all; block += gridDim.x) {
    const i64 strip = quotient(block, across), one = quotient(strip, down);
    const i64 row = (strip - one * down) * kSide, column = (block - strip * across) * kSide;
    const Places at = places(way, one);
    for (int r = line; r < kSide; r += kAtOnce) {
      if (row + r < rows && column + lane < columns) tile[r][lane] = x[at.from + (row + r) * from_row + column + lane];
    }
    __syncthreads();
    for (int c = line; c < kSide; c += kAtOnce) {
      if (row + lane < rows && column + c < columns) out[at.to + (column + c) * to_column + row + lane] = tile[lane][c];
    }
    __syncthreads();  // before this tile's place is filled again
  }
}

}  // namespace tg

#define MOVE(bytes)                                                                                                    \
  extern "C" __global__ void move_##bytes(const tg::i64 count, const tg::Way way, const void* x, void* out) {          \
    typedef tg::unit<bytes>::type U;                                                                                   \
    tg::move(count, way, (const U*)x, (U*)out);                                                                        \
  }                                                                                                                    \
  extern "C" __global__ void turn_##bytes(const tg::i64 count, const tg::Way way, const tg::i64 rows,                  \
                                          const tg::i64 columns, const tg::i64 from_row, const tg::i64 to_column,      \
                                          const void* x, void* out) {                                                  \
    typedef tg::unit<bytes>::type U;                                                                                   \
    tg::turn(count, way, rows, columns, from_row, to_column, (const U*)x, (U*)out);                                    \
  }

MOVE(1) MOVE(2) MOVE(4) MOVE(8) MOVE(16)
