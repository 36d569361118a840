// out[o, target[p], c] += sum over equal targets of values[o, order[p], c], in the order of `order`.
//
// The targets are sorted; the thread at the first of a run of equal ones adds up the run. No atomics: the same order of
// sums, and so the same bits, in every run. Half precision is summed in float and rounded once. A target out of range is
// left out: within a CUDA graph the check of indices is looked at afterwards.

template <class T> struct sum_type { typedef T type; };
template <> struct sum_type<__half> { typedef float type; };
template <> struct sum_type<__nv_bfloat16> { typedef float type; };
template <class T> TG_FN T widened(T x) { return x; }
TG_FN float widened(__half x) { return __half2float(x); }
TG_FN float widened(__nv_bfloat16 x) { return __bfloat162float(x); }
template <class T> TG_FN void put(T* at, T x) { *at = x; }
TG_FN void put(__half* at, float x) { *at = __float2half_rn(x); }
TG_FN void put(__nv_bfloat16* at, float x) { *at = __float2bfloat16_rn(x); }
template <class T> TG_FN T plus(T a, T b) { return (T)(a + b); }
TG_FN tg::i64 plus(tg::i64 a, tg::i64 b) { return tg::add(a, b); }
TG_FN tg::c64 plus(tg::c64 a, tg::c64 b) { return tg::add(a, b); }
TG_FN tg::c128 plus(tg::c128 a, tg::c128 b) { return tg::add(a, b); }

// values: (outer, length, inner), out: (outer, rows, inner), both dense; target and order: (length)
#define ACCUMULATE(name, T)                                                                                    \
  extern "C" __global__ void accumulate_##name(                                                                \
      const tg::i64 outer, const tg::i64 length, const tg::i64 inner, const tg::i64 rows, const tg::i64* target, \
      const tg::i64* order, const T* values, T* out) {                                                         \
    const tg::i64 count = outer * length * inner;                                                              \
    const tg::i64 step = (tg::i64)gridDim.x * blockDim.x;                                                      \
    for (tg::i64 i = blockIdx.x * (tg::i64)blockDim.x + threadIdx.x; i < count; i += step) {                   \
      const tg::i64 c = i % inner, p = i / inner % length, o = i / inner / length;                             \
      const tg::i64 row = target[p];                                                                           \
      if (row < 0 || row >= rows || (p > 0 && target[p - 1] == row)) continue;                                 \
      T* const at = out + (o * rows + row) * inner + c;                                                        \
      typename sum_type<T>::type total = widened(*at);                                                         \
      for (tg::i64 q = p; q < length && target[q] == row; ++q)                                                 \
        total = plus(total, widened(values[(o * length + order[q]) * inner + c]));                             \
      put(at, total);                                                                                          \
    }                                                                                                          \
  }

ACCUMULATE(uint8, unsigned char) ACCUMULATE(int8, signed char) ACCUMULATE(int16, short) ACCUMULATE(int32, int)
ACCUMULATE(int64, tg::i64) ACCUMULATE(float32, float) ACCUMULATE(float64, double) ACCUMULATE(float16, __half)
ACCUMULATE(bfloat16, __nv_bfloat16) ACCUMULATE(complex64, tg::c64) ACCUMULATE(complex128, tg::c128)
