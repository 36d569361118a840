// Steps of optimizers, norms and scaling, over all arrays of a bucket in one launch.
//
// A table in device memory says where the arrays are: for each list (parameters, gradients, states) a row of addresses,
// then the number of each array's first chunk and of all chunks, the arrays' lengths and their groups. A block takes a
// chunk of one array at a time; how arrays are cut depends on their lengths alone, and so does the order of every sum.
//
// The numbers of a group (rates, the address of a factor of the gradients or 0, that of a flag or 0) are in device memory
// as well: words, which hold the bits of doubles. Where the flag is set nothing is done. Arithmetic is that of PyTorch's optimizers, in its order (Kingma, Ba 2015; Loshchilov,
// Hutter 2019; Reddi, Kale, Kumar 2018); half precision is computed in float and rounded once.

namespace tg {

constexpr i64 kChunk = 4096;  // elements: a few passes of a block, many chunks of a large array; chosen, not measured

struct Table {
  const u64* words;
  i64 lists, arrays;

  TG_FN u64 address(i64 list, i64 array) const { return words[list * arrays + array]; }
  TG_FN i64 first(i64 array) const { return (i64)words[lists * arrays + array]; }  // of array = arrays: all chunks
  TG_FN i64 length(i64 array) const { return (i64)words[(lists + 1) * arrays + 1 + array]; }
  TG_FN i64 group(i64 array) const { return (i64)words[(lists + 2) * arrays + 1 + array]; }
};

// each(array, from, to) of the elements of every chunk that is this block's.
template <class Each>
TG_FN void over_chunks(const Table& table, Each each) {
  __shared__ i64 found;
  const i64 chunks = table.first(table.arrays);
  for (i64 chunk = blockIdx.x; chunk < chunks; chunk += gridDim.x) {
    __syncthreads();  // all have read what was found before
    for (i64 a = threadIdx.x; a < table.arrays; a += blockDim.x)
      if (table.first(a) <= chunk && chunk < table.first(a + 1)) found = a;
    __syncthreads();
    const i64 array = found, from = (chunk - table.first(array)) * kChunk, length = table.length(array);
    each(chunk, array, from, from + kChunk < length ? from + kChunk : length);
  }
}

// step(x) of the elements at one place of N arrays, which may change those of the arrays in `written` (bits).
template <class T, int N, unsigned written, class Step>
TG_FN void over_places(T* const (&at)[N], i64 from, i64 to, Step step) {
  typedef typename wide<T>::type W;
  constexpr int n = 16 / sizeof(T);
  size_t together = 0;
#pragma unroll
  for (int r = 0; r < N; ++r) together |= (size_t)at[r];
  const bool aligned = together % 16 == 0;
  for (i64 i = from + threadIdx.x * (i64)n; i < to; i += blockDim.x * (i64)n) {
    if (aligned && i + n <= to) {
      typename of_16_bytes<T>::type packs[N];
#pragma unroll
      for (int r = 0; r < N; ++r) packs[r] = load(at[r] + i, true);
#pragma unroll
      for (int e = 0; e < n; ++e) {
        W x[N];
#pragma unroll
        for (int r = 0; r < N; ++r) x[r] = widened(packs[r].v[e]);
        step(x);
#pragma unroll
        for (int r = 0; r < N; ++r)
          if (written >> r & 1) put(&packs[r].v[e], x[r]);
      }
#pragma unroll
      for (int r = 0; r < N; ++r)
        if (written >> r & 1) store(at[r] + i, packs[r], true);
      continue;
    }
    for (i64 j = i; j < to && j < i + n; ++j) {
      W x[N];
#pragma unroll
      for (int r = 0; r < N; ++r) x[r] = widened(at[r][j]);
      step(x);
#pragma unroll
      for (int r = 0; r < N; ++r)
        if (written >> r & 1) put(at[r] + j, x[r]);
    }
  }
}

TG_FN double number(const u64* words, int i) { return __longlong_as_double((long long)words[i]); }

// The gradient as it is used: times its factor where there is one, and turned around to climb.
template <class W> struct Direction {
  W factor;
  bool scaled, climbs;
  TG_FN Direction(u64 address, bool climbs) : scaled(address != 0), climbs(climbs) {
    factor = scaled ? (W)*(const double*)address : (W)1;
  }
  TG_FN W operator()(W g) const {
    const W d = scaled ? g * factor : g;
    return climbs ? -d : d;
  }
};

TG_FN bool stopped(u64 address) { return address && *(const unsigned char*)address; }

enum Flags { kFirstFlag = 1, kMaximize = 2 };  // the first: nesterov of SGD, decoupled of Adam

// numbers: lr, momentum, 1 - dampening, decay, whether the buffers are fresh, factor, flag
template <class T, bool kMomentum>
TG_FN void sgd(const Table& table, i64 flags, const u64* numbers) {
  typedef typename wide<T>::type W;
  constexpr int N = kMomentum ? 3 : 2;
  over_chunks(table, [&](i64, i64 array, i64 from, i64 to) {
    const u64* own = numbers + table.group(array) * 7;
    if (stopped(own[6])) return;
    const W lr = (W)number(own, 0), keep = (W)number(own, 1), take = (W)number(own, 2), decay = (W)number(own, 3);
    const bool first = number(own, 4) != 0, moves = kMomentum && number(own, 1) != 0, decays = number(own, 3) != 0;
    const bool nesterov = flags & kFirstFlag;
    const Direction<W> direction(own[5], flags & kMaximize);
    T* at[N];
#pragma unroll
    for (int r = 0; r < N; ++r) at[r] = (T*)table.address(r, array);
    over_places<T, N, kMomentum ? 5u : 1u>(at, from, to, [=](W(&x)[N]) {
      W d = direction(x[1]);
      if (decays) d = d + decay * x[0];
      if (moves) {
        W& b = x[N - 1];
        b = first ? d : keep * b + take * d;  // a fresh buffer holds nothing to be read
        d = nesterov ? d + keep * b : b;
      }
      x[0] = x[0] - lr * d;
    });
  });
}

// numbers: lr / (1 - beta1^t), decay (the factor 1 - lr decay if decoupled), beta1, 1 - beta1, beta2, 1 - beta2, eps,
// sqrt(1 - beta2^t), factor, flag
template <class T, bool kLargest>
TG_FN void adam(const Table& table, i64 flags, const u64* numbers) {
  typedef typename wide<T>::type W;
  constexpr int N = kLargest ? 5 : 4;
  over_chunks(table, [&](i64, i64 array, i64 from, i64 to) {
    const u64* own = numbers + table.group(array) * 10;
    if (stopped(own[9])) return;
    const W rate = (W)number(own, 0), decay = (W)number(own, 1), keep1 = (W)number(own, 2), take1 = (W)number(own, 3);
    const W keep2 = (W)number(own, 4), take2 = (W)number(own, 5), eps = (W)number(own, 6), root = (W)number(own, 7);
    const bool decoupled = flags & kFirstFlag, decays = !decoupled && number(own, 1) != 0;
    const bool light = number(own, 3) < 0.5;  // which end of the interpolation is exact
    const Direction<W> direction(own[8], flags & kMaximize);
    T* at[N];
#pragma unroll
    for (int r = 0; r < N; ++r) at[r] = (T*)table.address(r, array);
    over_places<T, N, kLargest ? 29u : 13u>(at, from, to, [=](W(&x)[N]) {
      W d = direction(x[1]);
      if (decoupled) x[0] = x[0] * decay;
      if (decays) d = d + decay * x[0];
      x[2] = light ? x[2] + take1 * (d - x[2]) : d - keep1 * (d - x[2]);
      x[3] = keep2 * x[3] + take2 * (d * d);
      const W square = kLargest ? x[N - 1] = max(x[N - 1], x[3]) : x[3];
      x[0] = x[0] - rate * (x[2] / (sqrt(square) / root + eps));
    });
  });
}

// Counts a step of Adam where no flag leaves it out, and completes its numbers, whose first is lr until then.
TG_FN void count_step(u64* numbers, float* done) {
  if (stopped(numbers[9])) return;
  const double step = (double)(*done += 1);
  numbers[0] = (u64)__double_as_longlong(number(numbers, 0) / (1 - pow(number(numbers, 2), step)));
  numbers[7] = (u64)__double_as_longlong(sqrt(1 - pow(number(numbers, 4), step)));
}

// x *= factor, or x /= factor and *found = 1 if an element is infinite or NaN then.
template <class T, bool kUnscale>
TG_FN void scale(const Table& table, const double* factor, unsigned char* found) {
  typedef typename wide<T>::type W;
  const W by = (W)(kUnscale ? 1 / *factor : *factor);
  over_chunks(table, [&](i64, i64 array, i64 from, i64 to) {
    T* at[1] = {(T*)table.address(0, array)};
    bool wrong = false;
    over_places<T, 1, 1u>(at, from, to, [&](W(&x)[1]) {
      x[0] = x[0] * by;
      T stored;
      put(&stored, x[0]);
      wrong = wrong || !isfinite(widened(stored));
    });
    if (kUnscale && wrong) *found = 1;  // all who write write the same
  });
}

// The sum of squares, or the largest magnitude.
template <bool kLargestOne> TG_FN double joined(double a, double b) { return kLargestOne ? max(a, b) : a + b; }

template <bool kLargestOne>
TG_FN double joined_by_all(double mine) {
  return Group<true>::all(mine, [](double a, double b) { return joined<kLargestOne>(a, b); });
}

// parts[chunk]: that of a chunk.
template <class T, bool kLargestOne>
TG_FN void norm_parts(const Table& table, double* parts) {
  typedef typename wide<T>::type W;
  over_chunks(table, [&](i64 chunk, i64 array, i64 from, i64 to) {
    T* at[1] = {(T*)table.address(0, array)};
    double mine = 0;
    over_places<T, 1, 0u>(at, from, to, [&](W(&x)[1]) {
      const double size = fabs((double)x[0]);
      mine = joined<kLargestOne>(mine, kLargestOne ? size : size * size);
    });
    const double all = joined_by_all<kLargestOne>(mine);
    if (threadIdx.x == 0) parts[chunk] = all;
  });
}

template <bool kLargestOne>
TG_FN void norm_total(i64 count, const double* parts, double* to) {
  double mine = 0;
  for (i64 i = threadIdx.x; i < count; i += blockDim.x) mine = joined<kLargestOne>(mine, parts[i]);
  const double all = joined_by_all<kLargestOne>(mine);
  if (blockIdx.x == 0 && threadIdx.x == 0) *to = kLargestOne ? all : sqrt(all);
}

}  // namespace tg

#define STEP(kind, variant, flag, lists, name, T)                                                                      \
  extern "C" __global__ void kind##_##variant##_##name(const tg::i64 arrays, const tg::i64 flags, const tg::u64* table, \
                                                       const tg::u64* numbers) {                                       \
    tg::kind<T, flag>({table, lists, arrays}, flags, numbers);                                                         \
  }
#define NORM(variant, largest, name, T)                                                                                \
  extern "C" __global__ void normparts_##variant##_##name(const tg::i64 arrays, const tg::u64* table, double* parts) {  \
    tg::norm_parts<T, largest>({table, 1, arrays}, parts);                                                             \
  }
#define SCALE(name, T)                                                                                                 \
  extern "C" __global__ void scale_##name(const tg::i64 arrays, const tg::u64* table, const double* factor) {          \
    tg::scale<T, false>({table, 1, arrays}, factor, nullptr);                                                          \
  }                                                                                                                    \
  extern "C" __global__ void unscale_##name(const tg::i64 arrays, const tg::u64* table, const double* factor,          \
                                            unsigned char* found) {                                                    \
    tg::scale<T, true>({table, 1, arrays}, factor, found);                                                             \
  }
#define COUNT()                                                             \
  extern "C" __global__ void countstep(tg::u64* numbers, float* done) {     \
    if (blockIdx.x == 0 && threadIdx.x == 0) tg::count_step(numbers, done); \
  }
#define TOTAL(variant, largest)                                                                             \
  extern "C" __global__ void normtotal_##variant(const tg::i64 count, const double* parts, double* to) {    \
    tg::norm_total<largest>(count, parts, to);                                                              \
  }

// The kernels follow, each by a line of the table in kernels.py.
