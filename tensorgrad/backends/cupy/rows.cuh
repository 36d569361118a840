// Kernels that go over rows: a row has a warp or a block to itself, whose threads share what they found by a tree of fixed
// shape. So the bits depend neither on the grid nor on who is first.
//
// A thread moves as many elements at once as 16 bytes hold, where the row's length allows it.

namespace tg {

// Stored numbers and what they are computed in.
template <class T> struct wide { typedef T type; };
template <> struct wide<__half> { typedef float type; };
template <> struct wide<__nv_bfloat16> { typedef float type; };

TG_FN float widened(float x) { return x; }
TG_FN double widened(double x) { return x; }
TG_FN float widened(__half x) { return __half2float(x); }
TG_FN float widened(__nv_bfloat16 x) { return __bfloat162float(x); }
TG_FN void put(float* at, float x) { *at = x; }
TG_FN void put(double* at, double x) { *at = x; }
TG_FN void put(__half* at, float x) { *at = __float2half_rn(x); }
TG_FN void put(__nv_bfloat16* at, float x) { *at = __float2bfloat16_rn(x); }

template <class T> struct of_16_bytes { typedef pack<T, 16 / sizeof(T)> type; };

// How a row is gone over. The length alone decides which elements a thread has, and so the order of sums; where the arrays
// begin, only how they are moved.
struct Way {
  bool packed;   // so many neighbours at a time as 16 bytes hold
  bool aligned;  // by one load
};
template <class T>
TG_FN Way way_over(i64 length, const void* a, const void* b, const void* c) {
  return {length * sizeof(T) % 16 == 0, ((size_t)a | (size_t)b | (size_t)c) % 16 == 0};
}

template <class T>
TG_FN typename of_16_bytes<T>::type load(const T* from, bool aligned) {
  typedef typename of_16_bytes<T>::type P;
  if (aligned) return *(const P*)from;
  P made;
#pragma unroll
  for (int e = 0; e < 16 / (int)sizeof(T); ++e) made.v[e] = from[e];
  return made;
}
template <class T>
TG_FN void store(T* to, const typename of_16_bytes<T>::type& x, bool aligned) {
  typedef typename of_16_bytes<T>::type P;
  if (aligned) {
    *(P*)to = x;
    return;
  }
#pragma unroll
  for (int e = 0; e < 16 / (int)sizeof(T); ++e) to[e] = x.v[e];
}

constexpr int kWarp = 32, kMostWarps = 32;  // of a block

// The threads of a row: one warp, or all warps of the block.
template <bool kBlock>
struct Group {
  TG_FN static int size() { return kBlock ? blockDim.x : kWarp; }
  TG_FN static int rank() { return kBlock ? threadIdx.x : threadIdx.x % kWarp; }
  // The rows that this group goes over, from the first by steps.
  TG_FN static i64 first() { return kBlock ? blockIdx.x : (blockIdx.x * (i64)blockDim.x + threadIdx.x) / kWarp; }
  TG_FN static i64 step() { return kBlock ? gridDim.x : (gridDim.x * (i64)blockDim.x) / kWarp; }

  // Every thread gets combine() of what all have.
  template <class T, class Combine>
  TG_FN static T all(T mine, Combine combine) {
    for (int mask = kWarp / 2; mask; mask /= 2) mine = combine(mine, exchanged(mine, mask));
    if (!kBlock) return mine;
    __shared__ T parts[kMostWarps];
    const int warps = blockDim.x / kWarp, warp = threadIdx.x / kWarp;
    __syncthreads();  // the last call's parts have been read
    if (threadIdx.x % kWarp == 0) parts[warp] = mine;
    __syncthreads();
    T found = parts[0];
    for (int w = 1; w < warps; ++w) found = combine(found, parts[w]);
    return found;
  }

 private:
  template <class T>
  TG_FN static T exchanged(T x, int mask) { return __shfl_xor_sync(0xffffffffu, x, mask); }
};

// each(x) of a row's elements that are this thread's.
template <class G, class T, class Each>
TG_FN void over(const T* row, i64 length, Way way, Each each) {
  const int n = way.packed ? 16 / sizeof(T) : 1;
  for (i64 i = G::rank() * (i64)n; i < length; i += G::size() * (i64)n) {
    if (!way.packed) {
      each(widened(row[i]));
      continue;
    }
    const auto some = load(row + i, way.aligned);
#pragma unroll
    for (int e = 0; e < 16 / (int)sizeof(T); ++e) each(widened(some.v[e]));
  }
}

// each(x, y) of two rows' elements.
template <class G, class T, class Each>
TG_FN void over(const T* x, const T* y, i64 length, Way way, Each each) {
  const int n = way.packed ? 16 / sizeof(T) : 1;
  for (i64 i = G::rank() * (i64)n; i < length; i += G::size() * (i64)n) {
    if (!way.packed) {
      each(widened(x[i]), widened(y[i]));
      continue;
    }
    const auto a = load(x + i, way.aligned), b = load(y + i, way.aligned);
#pragma unroll
    for (int e = 0; e < 16 / (int)sizeof(T); ++e) each(widened(a.v[e]), widened(b.v[e]));
  }
}

// to[i] = f(x, y) of two rows' elements (or of one's twice).
template <class G, class T, class F>
TG_FN void map(const T* x, const T* y, T* to, i64 length, Way way, F f) {
  const int n = way.packed ? 16 / sizeof(T) : 1;
  for (i64 i = G::rank() * (i64)n; i < length; i += G::size() * (i64)n) {
    if (!way.packed) {
      put(to + i, f(widened(x[i]), widened(y[i])));
      continue;
    }
    const auto a = load(x + i, way.aligned), b = load(y + i, way.aligned);
    typename of_16_bytes<T>::type made;
#pragma unroll
    for (int e = 0; e < 16 / (int)sizeof(T); ++e) put(&made.v[e], f(widened(a.v[e]), widened(b.v[e])));
    store(to + i, made, way.aligned);
  }
}

}  // namespace tg
