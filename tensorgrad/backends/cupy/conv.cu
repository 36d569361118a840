// Convolutions where cuDNN has none: columns of what each window reads, for a matrix product to follow, and, for groups so
// thin that no product is worth its columns, the sums themselves.
//
// x, g: (samples, channels, 3 sizes), dense. One or two sizes are 1 for convolutions in fewer dimensions. kBack asks the
// other way round: which windows have read a position. That makes the gradient in the input a convolution too, so that it
// has the same kernels; each sum is made in float (half precision) and rounded once. Sums have an order that the shapes
// alone decide.

namespace tg {

struct Windows {
  int size[3], kernel[3], positions[3], stride[3], padding[3], dilation[3];
  // `size` is that of what is read, `positions` how many there are of what is made

  TG_FN i64 area() const { return (i64)size[0] * size[1] * size[2]; }
  TG_FN i64 made() const { return (i64)positions[0] * positions[1] * positions[2]; }
  TG_FN int taps() const { return kernel[0] * kernel[1] * kernel[2]; }

  // Where, along one axis, tap k of position p reads; below 0 if that is nowhere.
  template <bool kBack>
  TG_FN int place(int axis, int p, int k) const {
    if (!kBack) {
      const int at = p * stride[axis] - padding[axis] + k * dilation[axis];
      return at < size[axis] ? at : -1;
    }
    const int at = p + padding[axis] - k * dilation[axis];
    if (stride[axis] == 1) return at < size[axis] ? at : -1;
    if (at < 0 || at % stride[axis]) return -1;
    return at / stride[axis] < size[axis] ? at / stride[axis] : -1;
  }
};

#define WINDOWS                                                                                                        \
  const int d0, const int d1, const int d2, const int k0, const int k1, const int k2, const int p0, const int p1,      \
      const int p2, const int s0, const int s1, const int s2, const int a0, const int a1, const int a2, const int l0,  \
      const int l1, const int l2
#define GIVEN                                                                                                          \
  tg::Windows { {d0, d1, d2}, {k0, k1, k2}, {p0, p1, p2}, {s0, s1, s2}, {a0, a1, a2}, {l0, l1, l2} }

// A division by what fits in 32 bits is many times shorter than one of 64.
TG_FN i64 quotient(i64 a, i64 b) {
  return (u64)a <= 0xffffffffull && (u64)b <= 0xffffffffull ? (i64)((unsigned int)a / (unsigned int)b) : a / b;
}

TG_FN i64 thread() { return blockIdx.x * (i64)blockDim.x + threadIdx.x; }
TG_FN i64 threads() { return gridDim.x * (i64)blockDim.x; }

// Columns: element (sample, channel, tap, i) is what tap `tap` of position `first + i` reads of the channel, and lies at
// sample * by_sample + (channel * taps + tap) * by_row + i. A thread makes as many neighbours as 16 bytes hold.
template <bool kBack, class T>
TG_FN void unfold(const Windows w, i64 samples, i64 channels, i64 by_sample, i64 by_row, i64 first, i64 count, const T* x,
                  T* columns) {
  constexpr int N = 16 / sizeof(T);
  typedef typename of_16_bytes<T>::type P;
  const bool packed = (count | by_sample | by_row) % N == 0 && (size_t)columns % 16 == 0;
  const int taps = w.taps();
  const i64 packs = (count + N - 1) / N, items = samples * channels * taps * packs;
  T none;
  put(&none, 0);
  for (i64 item = thread(); item < items; item += threads()) {
    const i64 row = quotient(item, packs), i = (item - row * packs) * N;
    const i64 plane = quotient(row, taps);  // sample * channels + channel
    int tap = (int)(row - plane * taps);
    const i64 sample = quotient(plane, channels), in_sample = row - sample * channels * taps;
    const int c = tap % w.kernel[2];
    tap /= w.kernel[2];
    const int b = tap % w.kernel[1], a = tap / w.kernel[1];
    const T* from = x + plane * w.area();
    const i64 line = quotient(first + i, w.positions[2]);
    int q = (int)(first + i - line * w.positions[2]), o = (int)quotient(line, w.positions[1]);
    int p = (int)(line - (i64)o * w.positions[1]);
    P made;
#pragma unroll
    for (int e = 0; e < N; ++e) {
      T v = none;
      if (i + e < count) {
        const int at0 = w.place<kBack>(0, o, a), at1 = w.place<kBack>(1, p, b), at2 = w.place<kBack>(2, q, c);
        if (at0 >= 0 && at1 >= 0 && at2 >= 0) v = from[((i64)at0 * w.size[1] + at1) * w.size[2] + at2];
      }
      made.v[e] = v;
      if (++q == w.positions[2]) {
        q = 0;
        if (++p == w.positions[1]) p = 0, ++o;
      }
    }
    T* to = columns + sample * by_sample + in_sample * by_row + i;
    if (packed) {
      *(P*)to = made;
      continue;
    }
#pragma unroll
    for (int e = 0; e < N; ++e)
      if (i + e < count) to[e] = made.v[e];
  }
}

// y[sample, group * to + o, position] = sum of w times what its window reads, over `from` channels of the group and taps.
// w: (groups * to, from, taps), kBack: (groups * from, to, taps).
template <bool kBack, class T>
TG_FN void direct(const Windows w, i64 samples, i64 groups, i64 from, i64 to, const T* x, const T* weight, T* y) {
  typedef typename wide<T>::type W;
  const int taps = w.taps();
  const i64 made = w.made(), area = w.area(), items = samples * groups * to * made;
  for (i64 item = thread(); item < items; item += threads()) {
    const i64 plane = quotient(item, made), position = item - plane * made;  // of y: (sample * groups + group) * to + o
    const i64 block = quotient(plane, to), o = plane - block * to, group = block % groups;
    const i64 line = quotient(position, w.positions[2]);
    const int q = (int)(position - line * w.positions[2]), d = (int)quotient(line, w.positions[1]);
    const int p = (int)(line - (i64)d * w.positions[1]);
    W sum = 0;
    for (i64 c = 0; c < from; ++c) {
      const T* seen = x + (block * from + c) * area;
      const T* factor = weight + (kBack ? (group * from + c) * to + o : (group * to + o) * from + c) * taps;
      for (int i = 0; i < w.kernel[0]; ++i) {
        const int at0 = w.place<kBack>(0, d, i);
        if (at0 < 0) continue;
        for (int j = 0; j < w.kernel[1]; ++j) {
          const int at1 = w.place<kBack>(1, p, j);
          if (at1 < 0) continue;
          for (int k = 0; k < w.kernel[2]; ++k) {
            const int at2 = w.place<kBack>(2, q, k);
            if (at2 < 0) continue;
            sum += widened(factor[(i * w.kernel[1] + j) * w.kernel[2] + k]) *
                   widened(seen[((i64)at0 * w.size[1] + at1) * w.size[2] + at2]);
          }
        }
      }
    }
    put(y + item, sum);
  }
}

// gw[group * to + o, c, tap] = sum of g times what the tap has read, over samples and positions: a block for each.
template <class T>
TG_FN void direct_weight(const Windows w, i64 samples, i64 groups, i64 from, i64 to, const T* g, const T* x, T* gw) {
  typedef typename wide<T>::type W;
  typedef Group<true> G;
  const int taps = w.taps();
  const i64 made = w.made(), area = w.area(), items = groups * to * from * taps;
  for (i64 item = G::first(); item < items; item += G::step()) {
    const i64 pair = item / taps, output = pair / from, channel = output / to * from + pair % from;
    int tap = (int)(item - pair * taps);
    const int k = tap % w.kernel[2];
    tap /= w.kernel[2];
    const int j = tap % w.kernel[1], i = tap / w.kernel[1];
    W sum = 0;
    for (i64 n = G::rank(); n < samples * made; n += G::size()) {
      const i64 sample = quotient(n, made), position = n - sample * made, line = quotient(position, w.positions[2]);
      const int q = (int)(position - line * w.positions[2]), d = (int)quotient(line, w.positions[1]);
      const int p = (int)(line - (i64)d * w.positions[1]);
      const int at0 = w.place<false>(0, d, i), at1 = w.place<false>(1, p, j), at2 = w.place<false>(2, q, k);
      if (at0 < 0 || at1 < 0 || at2 < 0) continue;
      sum += widened(g[(sample * groups * to + output) * made + position]) *
             widened(x[(sample * groups * from + channel) * area + ((i64)at0 * w.size[1] + at1) * w.size[2] + at2]);
    }
    const W total = G::all(sum, [](W a, W b) { return a + b; });
    if (G::rank() == 0) put(gw + item, total);
  }
}

}  // namespace tg

#define UNFOLD(kind, back, name, T)                                                                                    \
  extern "C" __global__ void kind##_##name(WINDOWS, const tg::i64 samples, const tg::i64 channels,                     \
                                           const tg::i64 by_sample, const tg::i64 by_row, const tg::i64 first,         \
                                           const tg::i64 count, const T* x, T* columns) {                              \
    tg::unfold<back>(GIVEN, samples, channels, by_sample, by_row, first, count, x, columns);                           \
  }
#define DIRECT(kind, function, name, T)                                                                                \
  extern "C" __global__ void kind##_##name(WINDOWS, const tg::i64 samples, const tg::i64 groups, const tg::i64 from,   \
                                           const tg::i64 to, const T* a, const T* b, T* out) {                         \
    tg::function(GIVEN, samples, groups, from, to, a, b, out);                                                         \
  }
#define EACH(name, T)                                                                                                  \
  UNFOLD(unfold, false, name, T) UNFOLD(unfoldback, true, name, T) DIRECT(direct, direct<false>, name, T)              \
  DIRECT(directback, direct<true>, name, T) DIRECT(directweight, direct_weight, name, T)

EACH(float32, float) EACH(float64, double) EACH(float16, __half) EACH(bfloat16, __nv_bfloat16)
