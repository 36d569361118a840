// Products of 16 rows, which a warp has to itself, with a tile in shared memory that all warps of the block read.
//
// Half precision goes over tensor cores and is summed in float. Single precision goes over plain fused multiply-adds, the
// sums lying in the same number of registers. So a kernel is written once: `score_column` and `width_column` say which
// element of a product a register has; its row is always `row_of`.

namespace tg {

constexpr int kWarpRows = 16;

// Rows of elements that lie side by side.
template <class T>
struct Matrix {
  const T* at;
  i64 step;  // elements from one row to the next
  int rows, width;
  bool aligned;  // whether every 16 bytes of a row are one load
};
template <class T>
TG_FN Matrix<T> matrix(const T* at, i64 step, i64 rows, i64 width) {
  constexpr int kPart = 16 / sizeof(T);
  return {at, step, (int)rows, (int)width, (size_t)at % 16 == 0 && step % kPart == 0 && width % kPart == 0};
}

// 16 bytes more than a row has, so that 8 rows lie in different banks.
template <class T, int kWidth> struct tile_row { typedef T type[kWidth + 16 / sizeof(T)]; };

// tile = rows of m from `first` on, zeros beyond its end and width; call it with the whole block.
template <int kRows, int kWidth, int kThreads, class T>
TG_FN void stage(typename tile_row<T, kWidth>::type* tile, const Matrix<T>& m, int first) {
  constexpr int kPart = 16 / sizeof(T), kParts = kWidth / kPart;
  const auto part = [&](int i) {
    const int row = first + i / kParts, column = i % kParts * kPart;
    T* to = &tile[i / kParts][column];
    const T* from = m.at + row * m.step + column;
    const bool there = row < m.rows;
    if (m.aligned) {
      const bool any = there && column < m.width;
      copy_16_bytes(to, any ? from : m.at, any);
    } else {
#pragma unroll
      for (int e = 0; e < kPart; ++e) {
        if (there && column + e < m.width) to[e] = from[e];
        else put(to + e, 0.0f);
      }
    }
  };
  if (kWidth * sizeof(T) <= 256) {
    for (int i = threadIdx.x; i < kRows * kParts; i += kThreads) part(i);
  } else {  // where nothing is to spare, no addresses of later turns are kept
#pragma unroll 1
    for (int i = threadIdx.x; i < kRows * kParts; i += kThreads) part(i);
  }
}

TG_FN int lane_group() { return threadIdx.x % 32 / 4; }
TG_FN int lane_in_group() { return threadIdx.x % 4; }
// The row of a register's element, of the 16.
TG_FN int row_of(int e) { return lane_group() + e / 2 * 8; }

// ---- half precision

// The 16 rows of a warp, of up to kWidth elements.
template <class T, int kWidth>
struct Rows {
  unsigned int a[kWidth / 16][4];

  TG_FN Rows(const Matrix<T>& m, int first) {
#pragma unroll
    for (int k = 0; k < kWidth / 16; ++k) {
#pragma unroll
      for (int part = 0; part < 4; ++part) {
        const int row = first + lane_group() + part % 2 * 8, column = k * 16 + lane_in_group() * 2 + part / 2 * 8;
        const T* from = m.at + row * m.step + column;
        const bool there = row < m.rows;
        a[k][part] = packed(there && column < m.width ? widened(from[0]) : 0,
                            there && column + 1 < m.width ? widened(from[1]) : 0, T());
      }
    }
  }
  TG_FN void part(unsigned int (&to)[4], int k) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) to[i] = a[k][i];
  }
};

// The same, of a tile in shared memory: for kernels that have no registers left for them.
template <class T, int kWidth>
struct TileRows {
  const typename tile_row<T, kWidth>::type* tile;  // where the warp's rows begin

  TG_FN void part(unsigned int (&to)[4], int k) const {
    const int lane = threadIdx.x % 32;
    load_8x8_x4(to, &tile[lane % 16][k * 16 + lane / 16 * 8]);
  }
};

// The first kHeld columns in registers, the others in a tile.
template <int kHeld> struct Split {
  template <class T, int kWidth>
  struct Both {
    Rows<T, kHeld> held;
    TileRows<T, kWidth - kHeld> rest;

    TG_FN Both(const Matrix<T>& m, int first, const typename tile_row<T, kWidth - kHeld>::type* tile)
        : held(m, first), rest{tile} {}
    TG_FN void part(unsigned int (&to)[4], int k) const {
      if (k < kHeld / 16) held.part(to, k);
      else rest.part(to, k - kHeld / 16);
    }
  };
};

// Rows that a warp goes through again and again, kHeld columns of them in registers: which type they have, which tile of
// the block's they need beside that, and how that is filled.
template <class T, int kWidth, int kHeld> struct Kept {
  typedef typename Split<kHeld>::template Both<T, kWidth> type;
  typedef typename tile_row<T, kWidth - kHeld>::type tile;

  template <int kRows, int kThreads> TG_FN static void prepare(tile* all, const Matrix<T>& m, int first) {
    const int more = m.width > kHeld ? m.width - kHeld : 0;
    const Matrix<T> rest = {more ? m.at + kHeld : m.at, m.step, m.rows, more, m.aligned};
    stage<kRows, kWidth - kHeld, kThreads>(all, rest, first);
  }
  TG_FN static type of(const Matrix<T>& m, int first, const tile* rows) { return {m, first, rows}; }
};
template <class T, int kWidth> struct Kept<T, kWidth, kWidth> {
  typedef Rows<T, kWidth> type;
  typedef char tile;

  template <int kRows, int kThreads> TG_FN static void prepare(tile*, const Matrix<T>&, int) {}
  TG_FN static type of(const Matrix<T>& m, int first, const tile*) { return {m, first}; }
};
template <class T, int kWidth> struct Kept<T, kWidth, 0> {
  typedef TileRows<T, kWidth> type;
  typedef typename tile_row<T, kWidth>::type tile;

  template <int kRows, int kThreads> TG_FN static void prepare(tile* all, const Matrix<T>& m, int first) {
    stage<kRows, kWidth, kThreads>(all, m, first);
  }
  TG_FN static type of(const Matrix<T>&, int, const tile* rows) { return {rows}; }
};

template <class T> TG_FN int score_column(int n, int e, T) { return n * 8 + lane_in_group() * 2 + e % 2; }
template <class T> TG_FN int width_column(int n, int e, T) { return n * 8 + lane_in_group() * 2 + e % 2; }

// c += rows * transposed tile, of which 8 N rows are used
template <class T, int kWidth, template <class, int> class R, int N>
TG_FN void times_transposed(float (&c)[N][4], const R<T, kWidth>& rows,
                            const typename tile_row<T, kWidth>::type* tile) {
  const int lane = threadIdx.x % 32, row = lane % 8 + lane / 16 * 8, column = lane / 8 % 2 * 8;
#pragma unroll
  for (int k = 0; k < kWidth / 16; ++k) {
    unsigned int a[4];
    rows.part(a, k);
#pragma unroll
    for (int n = 0; n < N / 2; ++n) {
      unsigned int b[4];
      load_8x8_x4(b, &tile[n * 16 + row][k * 16 + column]);
      mma_16x8x16(c[2 * n], a, b[0], b[1], T());
      mma_16x8x16(c[2 * n + 1], a, b[2], b[3], T());
    }
  }
}

// c += p * tile, p being a product that times_transposed gave
template <class T, int kEighths, int N>
TG_FN void times(float (&c)[kEighths][4], const float (&p)[N][4], const typename tile_row<T, kEighths * 8>::type* tile, T) {
  const int lane = threadIdx.x % 32, row = lane % 16, column = lane / 16 * 8;
#pragma unroll
  for (int k = 0; k < N / 2; ++k) {
    const float(&left)[4] = p[2 * k], (&right)[4] = p[2 * k + 1];
    const unsigned int a[4] = {packed(left[0], left[1], T()), packed(left[2], left[3], T()),
                               packed(right[0], right[1], T()), packed(right[2], right[3], T())};
#pragma unroll
    for (int n = 0; n < kEighths / 2; ++n) {
      unsigned int b[4];
      load_8x8_x4_transposed(b, &tile[k * 16 + row][n * 16 + column]);
      mma_16x8x16(c[2 * n], a, b[0], b[1], T());
      mma_16x8x16(c[2 * n + 1], a, b[2], b[3], T());
    }
  }
}

// ---- single precision

typedef pack<float, 4> float_4;

// Read again for each tile: a thread needs two rows whole, which no registers hold, and which a cache does.
template <int kWidth>
struct Rows<float, kWidth> {
  const float* row[2];
  int width;
  bool aligned;

  TG_FN Rows(const Matrix<float>& m, int first) : width(m.width), aligned(m.aligned) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {  // beyond the end, what nobody looks at: that of the last row
      const int at = first + lane_group() + i * 8;
      row[i] = m.at + (at < m.rows ? at : m.rows - 1) * m.step;
    }
  }

  TG_FN float_4 load(int i, int column) const {
    if (aligned) return *(const float_4*)(row[i] + column);
    float_4 made;
#pragma unroll
    for (int e = 0; e < 4; ++e) made.v[e] = column + e < width ? row[i][column + e] : 0;
    return made;
  }
};

// The lanes of a group have neighbouring rows of the tile, and 4 neighbouring columns each: no two meet in a bank.
TG_FN int score_column(int n, int e, float) { return n / 2 * 16 + n % 2 * 8 + e % 2 * 4 + lane_in_group(); }
TG_FN int width_column(int n, int e, float) { return n / 2 * 16 + lane_in_group() * 4 + n % 2 * 2 + e % 2; }

// How many steps of a product over tiles of 8 N rows are unrolled. From sm_100 on the compiler pairs multiply-adds, whose
// operands then lie in neighbouring registers: of the widest tile one step leaves enough of them.
TG_FN constexpr int steps_unrolled(int n) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
  if (n >= 8) return 1;
#endif
  return n < 4 ? n : 4;
}

template <int kWidth, int N>
TG_FN void times_transposed(float (&c)[N][4], const Rows<float, kWidth>& rows,
                            const typename tile_row<float, kWidth>::type* tile) {
#pragma unroll(steps_unrolled(N))
  for (int k = 0; k < rows.width; k += 4) {
    const float_4 upper = rows.load(0, k), lower = rows.load(1, k);
#pragma unroll
    for (int n = 0; n < N; ++n) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const float_4 b = *(const float_4*)&tile[score_column(n, e, 0.0f)][k];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          c[n][e] = fmaf(upper.v[i], b.v[i], c[n][e]);
          c[n][e + 2] = fmaf(lower.v[i], b.v[i], c[n][e + 2]);
        }
      }
    }
  }
}

template <int kEighths, int N>
TG_FN void times(float (&c)[kEighths][4], const float (&p)[N][4],
                 const typename tile_row<float, kEighths * 8>::type* tile, float) {
  const int lane = threadIdx.x % 32, t = lane % 4;
#pragma unroll
  for (int n = 0; n < N; ++n) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
#pragma unroll(kEighths > 16 ? 1 : 2)
      for (int owner = 0; owner < 4; ++owner) {
        const float upper = __shfl_sync(0xffffffffu, p[n][e], lane - t + owner);
        const float lower = __shfl_sync(0xffffffffu, p[n][e + 2], lane - t + owner);
        const float* row = tile[score_column(n, e, 0.0f) - t + owner];
#pragma unroll
        for (int m = 0; m < kEighths / 2; ++m) {
          const float_4 b = *(const float_4*)(row + m * 16 + t * 4);
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            float(&sums)[4] = c[2 * m + i / 2];
            sums[i % 2] = fmaf(upper, b.v[i], sums[i % 2]);
            sums[i % 2 + 2] = fmaf(lower, b.v[i], sums[i % 2 + 2]);
          }
        }
      }
    }
  }
}

// ---- results

// Writes c, scaled, as the rows of a warp: `rows` of `width` elements, dense.
template <int kWidth, class T>
TG_FN void write_rows(const float (&c)[kWidth / 8][4], float upper, float lower, T* to, int first, int rows, int width) {
#pragma unroll
  for (int n = 0; n < kWidth / 8; ++n) {
#pragma unroll
    for (int e = 0; e < 4; e += 2) {
      const int row = first + row_of(e), column = width_column(n, e, T());
      if (row >= rows || column >= width) continue;
      pack<T, 2> both;
      put(&both.v[0], c[n][e] * (e ? lower : upper));
      put(&both.v[1], c[n][e + 1] * (e ? lower : upper));
      T* at = to + (i64)row * width + column;
      if (width % 2 == 0) {
        *(pack<T, 2>*)at = both;
      } else {
        at[0] = both.v[0];
        if (column + 1 < width) at[1] = both.v[1];
      }
    }
  }
}

}  // namespace tg
