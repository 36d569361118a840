// Reading and writing at integer positions. Elements are only moved, so a kernel is made for a number of bytes, a unit, not
// for a type; where neighbours are moved, for as wide a unit as they and where they lie allow.
//
// A position out of range reads zero and writes nothing: within a CUDA graph the check of indices is looked at afterwards.
// Where positions to write to repeat the last one counts, as if they were written one after another: it is found by the
// largest of their numbers, which is the same in whatever order they are compared.

namespace tg {

template <int kBytes> struct unit { typedef pack<u64, kBytes / 8> type; };
template <> struct unit<1> { typedef unsigned char type; };
template <> struct unit<2> { typedef unsigned short type; };
template <> struct unit<4> { typedef u32 type; };

constexpr int kIndices = 4;

// Indices that broadcast against each other: each has a stride for every axis of their common shape, counts from the end
// of its dimension's size where it is negative, and goes `steps` rows up at a time.
struct Indices {
  i64 indices, axes, sizes[kAxes], size[kIndices], steps[kIndices], strides[kIndices][kAxes];
};

TG_FN i64 wrapped(i64 place, i64 size) { return place < 0 ? place + size : place; }

// out[o, p, c] = x[o, place[p], c], out: (outer, count, inner)
template <class U>
TG_FN void take(i64 outer, i64 rows, i64 count, i64 inner, const Strided& from, const i64* place, const U* x, U* out) {
  const i64 total = outer * count * inner;
  for (i64 i = blockIdx.x * (i64)blockDim.x + threadIdx.x; i < total; i += (i64)gridDim.x * blockDim.x) {
    const i64 row = quotient(i, inner), o = quotient(row, count), at = place[row - o * count];
    out[i] = at < 0 || at >= rows ? U{} : x[from.at(o, at, i - row * inner)];
  }
}

// out[o, p, c] = x[o, index[o, p, c], c]
template <class U>
TG_FN void gather(i64 outer, i64 rows, i64 count, i64 inner, const Strided& from, const i64* index, const U* x, U* out) {
  const i64 total = outer * count * inner;
  for (i64 i = blockIdx.x * (i64)blockDim.x + threadIdx.x; i < total; i += (i64)gridDim.x * blockDim.x) {
    const i64 row = quotient(i, inner), o = quotient(row, count), at = index[i];
    out[i] = at < 0 || at >= rows ? U{} : x[from.at(o, at, i - row * inner)];
  }
}

// out[o, place[p], c] = values[o, p, c] for the last p of equal places, or one value everywhere; last: null where it does
// not matter which
template <class U>
TG_FN void write(i64 outer, i64 rows, i64 count, i64 inner, i64 one, const Strided& to, const i64* place, const int* last,
                 const U* values, U* out) {
  const i64 total = outer * count * inner;
  for (i64 i = blockIdx.x * (i64)blockDim.x + threadIdx.x; i < total; i += (i64)gridDim.x * blockDim.x) {
    const i64 row = quotient(i, inner), o = quotient(row, count), p = row - o * count, at = place[p];
    if (at < 0 || at >= rows || (last && last[at] != p)) continue;
    out[to.at(o, at, i - row * inner)] = values[one ? 0 : i];
  }
}

}  // namespace tg

// The rows that indices name together, -1 where one of them is out of range, which `wrong` is told. Where `goes_on`, they
// go on from what is there.
extern "C" __global__ void rowsat(tg::i64 count, tg::i64 goes_on, tg::Indices how, const tg::i64* a, const tg::i64* b,
                                  const tg::i64* c, const tg::i64* d, tg::i64* place, bool* wrong) {
  using namespace tg;
  const i64* const index[kIndices] = {a, b, c, d};
  for (i64 p = blockIdx.x * (i64)blockDim.x + threadIdx.x; p < count; p += (i64)gridDim.x * blockDim.x) {
    i64 offsets[kIndices] = {0, 0, 0, 0}, left = p;
#pragma unroll
    for (int axis = kAxes - 1; axis >= 0; --axis) {
      if (axis >= how.axes) continue;
      const i64 next = axis ? quotient(left, how.sizes[axis]) : 0, at = left - next * how.sizes[axis];
#pragma unroll
      for (int k = 0; k < kIndices; ++k) offsets[k] += at * how.strides[k][axis];
      left = next;
    }
    i64 row = goes_on ? place[p] : 0;
    bool outside = row < 0;
#pragma unroll
    for (int k = 0; k < kIndices; ++k) {
      if (k >= how.indices) break;
      const i64 at = wrapped(index[k][offsets[k]], how.size[k]);
      outside |= at < 0 || at >= how.size[k];
      row += at * how.steps[k];
    }
    place[p] = outside ? -1 : row;
    if (outside) *wrong = true;
  }
}

// Whether a position is out of range.
extern "C" __global__ void outside(tg::i64 count, tg::i64 least, tg::i64 size, const tg::i64* index, bool* wrong) {
  for (tg::i64 i = blockIdx.x * (tg::i64)blockDim.x + threadIdx.x; i < count; i += (tg::i64)gridDim.x * blockDim.x)
    if (index[i] < least || index[i] >= size) *wrong = true;
}

// Where the elements (outer, count, inner) go in (outer, size, inner), counted in the order of its elements; -1: nowhere.
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
  extern "C" __global__ void take_##bytes(tg::i64 outer, tg::i64 rows, tg::i64 count, tg::i64 inner,                   \
                                          tg::Strided from, const tg::i64* place, const void* x, void* out) {          \
    typedef tg::unit<bytes>::type U;                                                                                   \
    tg::take(outer, rows, count, inner, from, place, (const U*)x, (U*)out);                                            \
  }                                                                                                                    \
  extern "C" __global__ void gather_##bytes(tg::i64 outer, tg::i64 rows, tg::i64 count, tg::i64 inner,                 \
                                            tg::Strided from, const tg::i64* index, const void* x, void* out) {        \
    typedef tg::unit<bytes>::type U;                                                                                   \
    tg::gather(outer, rows, count, inner, from, index, (const U*)x, (U*)out);                                          \
  }                                                                                                                    \
  extern "C" __global__ void write_##bytes(tg::i64 outer, tg::i64 rows, tg::i64 count, tg::i64 inner, tg::i64 one,     \
                                           tg::Strided to, const tg::i64* place, const int* last, const void* values,  \
                                           void* out) {                                                                \
    typedef tg::unit<bytes>::type U;                                                                                   \
    tg::write(outer, rows, count, inner, one, to, place, last, (const U*)values, (U*)out);                             \
  }

MOVE(1) MOVE(2) MOVE(4) MOVE(8) MOVE(16)
