// Reading and writing at integer positions. Elements are only moved, so a kernel is made for a number of bytes, not for a
// type; where whole rows are moved, for as many as the rows and where they begin allow.
//
// A position out of range reads zero and writes nothing: within a CUDA graph the check of indices is looked at afterwards.
// Where positions to write to repeat the last one counts, as if they were written one after another: it is found by the
// largest of their numbers, which is the same in whatever order they are compared.

namespace tg {

typedef unsigned int u32;
template <int kBytes> struct unit { typedef pack<u64, kBytes / 8> type; };
template <> struct unit<1> { typedef unsigned char type; };
template <> struct unit<2> { typedef unsigned short type; };
template <> struct unit<4> { typedef u32 type; };

// i / n, which is a third of the work where both fit in 32 bits.
TG_FN i64 quotient(i64 i, i64 n) { return (u64)(i | n) >> 32 ? i / n : (i64)((u32)i / (u32)n); }

TG_FN i64 wrapped(i64 place, i64 size, i64 wraps) { return wraps && place < 0 ? place + size : place; }

// out[o, p, c] = x[o, index[p], c]; x: (outer, size, inner), out: (outer, count, inner)
template <class U>
TG_FN void take(i64 outer, i64 size, i64 count, i64 inner, i64 wraps, const i64* index, const U* x, U* out) {
  const i64 total = outer * count * inner;
  for (i64 i = blockIdx.x * (i64)blockDim.x + threadIdx.x; i < total; i += (i64)gridDim.x * blockDim.x) {
    const i64 row = quotient(i, inner), o = quotient(row, count);
    const i64 place = wrapped(index[row - o * count], size, wraps);
    out[i] = place < 0 || place >= size ? U{} : x[(o * size + place) * inner + i - row * inner];
  }
}

// out[o, p, c] = x[o, index[o, p, c], c]
template <class U>
TG_FN void gather(i64 outer, i64 size, i64 count, i64 inner, const i64* index, const U* x, U* out) {
  const i64 total = outer * count * inner;
  for (i64 i = blockIdx.x * (i64)blockDim.x + threadIdx.x; i < total; i += (i64)gridDim.x * blockDim.x) {
    const i64 row = quotient(i, inner), o = quotient(row, count), place = index[i];
    out[i] = place < 0 || place >= size ? U{} : x[(o * size + place) * inner + i - row * inner];
  }
}

// out[o, place[p], c] = values[o, p, c] for the last p of equal places, or one value everywhere; last: null where it does
// not matter which
template <class U>
TG_FN void write(i64 outer, i64 rows, i64 count, i64 inner, i64 one, const i64* place, const int* last, const U* values,
                 U* out) {
  const i64 total = outer * count * inner;
  for (i64 i = blockIdx.x * (i64)blockDim.x + threadIdx.x; i < total; i += (i64)gridDim.x * blockDim.x) {
    const i64 row = quotient(i, inner), o = quotient(row, count), p = row - o * count, to = place[p];
    if (to < 0 || to >= rows || (last && last[to] != p)) continue;
    out[(o * rows + to) * inner + i - row * inner] = values[one ? 0 : i];
  }
}

}  // namespace tg

// Where the elements (outer, count, inner) go in (outer, size, inner), as positions in its memory; -1: nowhere.
extern "C" __global__ void places(tg::i64 outer, tg::i64 size, tg::i64 count, tg::i64 inner, const tg::i64* index,
                                  tg::i64* place) {
  const tg::i64 total = outer * count * inner;
  for (tg::i64 i = blockIdx.x * (tg::i64)blockDim.x + threadIdx.x; i < total; i += (tg::i64)gridDim.x * blockDim.x) {
    const tg::i64 row = tg::quotient(i, inner), o = tg::quotient(row, count), at = index[i];
    place[i] = at < 0 || at >= size ? -1 : (o * size + at) * inner + i - row * inner;
  }
}

// Only what is named is set, so the memory of all rows needs no pass.
extern "C" __global__ void forget(tg::i64 rows, tg::i64 count, const tg::i64* place, int* last) {
  for (tg::i64 p = blockIdx.x * (tg::i64)blockDim.x + threadIdx.x; p < count; p += (tg::i64)gridDim.x * blockDim.x)
    if (place[p] >= 0 && place[p] < rows) last[place[p]] = -1;
}
extern "C" __global__ void remember(tg::i64 rows, tg::i64 count, const tg::i64* place, int* last) {
  for (tg::i64 p = blockIdx.x * (tg::i64)blockDim.x + threadIdx.x; p < count; p += (tg::i64)gridDim.x * blockDim.x)
    if (place[p] >= 0 && place[p] < rows) atomicMax(&last[place[p]], (int)p);
}

#define MOVE(bytes)                                                                                                    \
  extern "C" __global__ void take_##bytes(tg::i64 outer, tg::i64 size, tg::i64 count, tg::i64 inner, tg::i64 wraps,    \
                                          const tg::i64* index, const void* x, void* out) {                            \
    typedef tg::unit<bytes>::type U;                                                                                               \
    tg::take(outer, size, count, inner, wraps, index, (const U*)x, (U*)out);                                           \
  }                                                                                                                    \
  extern "C" __global__ void gather_##bytes(tg::i64 outer, tg::i64 size, tg::i64 count, tg::i64 inner,                 \
                                            const tg::i64* index, const void* x, void* out) {                          \
    typedef tg::unit<bytes>::type U;                                                                                               \
    tg::gather(outer, size, count, inner, index, (const U*)x, (U*)out);                                                \
  }                                                                                                                    \
  extern "C" __global__ void write_##bytes(tg::i64 outer, tg::i64 rows, tg::i64 count, tg::i64 inner, tg::i64 one,     \
                                           const tg::i64* place, const int* last, const void* values, void* out) {     \
    typedef tg::unit<bytes>::type U;                                                                                               \
    tg::write(outer, rows, count, inner, one, place, last, (const U*)values, (U*)out);                                 \
  }

MOVE(1) MOVE(2) MOVE(4) MOVE(8) MOVE(16)
