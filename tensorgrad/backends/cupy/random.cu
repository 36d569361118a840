// Random arrays and dropout; one thread makes one Philox block of four words. `T` is what is stored; every kernel exists
// once per dtype, named e.g. `uniform_float32`. Seed and offset are arguments, or where `place` is given, in device memory:
// a CUDA graph repeats its arguments in every launch.

template <class T> TG_FN T stored(double x);
template <> TG_FN float stored<float>(double x) { return (float)x; }
template <> TG_FN double stored<double>(double x) { return x; }
template <> TG_FN __half stored<__half>(double x) { return __float2half_rn((float)x); }
template <> TG_FN __nv_bfloat16 stored<__nv_bfloat16>(double x) { return __float2bfloat16_rn((float)x); }
TG_FN float value_of(float x) { return x; }
TG_FN double value_of(double x) { return x; }
TG_FN float value_of(__half x) { return __half2float(x); }
TG_FN float value_of(__nv_bfloat16 x) { return __bfloat162float(x); }

#define FOR_EACH_BLOCK(per_block)                                                        \
  const tg::i64 first_block = blockIdx.x * (tg::i64)blockDim.x + threadIdx.x;            \
  for (tg::i64 block = first_block; block * per_block < count; block += (tg::i64)gridDim.x * blockDim.x)

extern "C" __global__ void words(const tg::i64 count, const tg::u64 seed, const tg::u64 offset, const tg::u64* place, unsigned int* out) {
  FOR_EACH_BLOCK(4) {
    const tg::words random = tg::philox(place ? place[0] : seed, block, place ? place[1] : offset);
    for (int e = 0; e < 4; ++e)
      if (block * 4 + e < count) out[block * 4 + e] = random.w[e];
  }
}

// The place of a draw, for kernels that are to make it again.
extern "C" __global__ void place(const tg::u64 seed, const tg::u64 offset, const tg::u64* place, tg::u64* out) {
  if (blockIdx.x == 0 && threadIdx.x == 0) {
    out[0] = place ? place[0] : seed;
    out[1] = place ? place[1] : offset;
  }
}

// The mask of the dropout below that was drawn at a place.
extern "C" __global__ void stays(const tg::i64 count, const tg::u64* place, const float p, unsigned char* mask) {
  FOR_EACH_BLOCK(4) {
    const tg::words random = tg::philox(place[0], block, place[1]);
    for (int e = 0; e < 4; ++e)
      if (block * 4 + e < count) mask[block * 4 + e] = tg::uniform32(random.w[e]) >= p;
  }
}

extern "C" __global__ void uniform_float64(
    const tg::i64 count, const tg::u64 seed, const tg::u64 offset, const tg::u64* place, double* out) {
  FOR_EACH_BLOCK(2) {
    const tg::words random = tg::philox(place ? place[0] : seed, block, place ? place[1] : offset);
    for (int e = 0; e < 2; ++e)
      if (block * 2 + e < count) out[block * 2 + e] = tg::uniform64(random.w[2 * e], random.w[2 * e + 1]);
  }
}

// half precision takes only as many bits as it holds, so that nothing rounds up to 1
template <class T> TG_FN double uniform_in(unsigned int w) { return tg::uniform32(w); }
template <> TG_FN double uniform_in<__half>(unsigned int w) { return (w >> 21) * 4.8828125e-04; }
template <> TG_FN double uniform_in<__nv_bfloat16>(unsigned int w) { return (w >> 24) * 3.90625e-03; }

#define UNIFORM(name, T)                                                                                      \
  extern "C" __global__ void uniform_##name(                                                                  \
      const tg::i64 count, const tg::u64 seed, const tg::u64 offset, const tg::u64* place, T* out) {                                \
    FOR_EACH_BLOCK(4) {                                                                                       \
      const tg::words random = tg::philox(place ? place[0] : seed, block, place ? place[1] : offset);                                               \
      for (int e = 0; e < 4; ++e)                                                                             \
        if (block * 4 + e < count) out[block * 4 + e] = stored<T>(uniform_in<T>(random.w[e]));                 \
    }                                                                                                         \
  }

#define NORMAL(name, T)                                                                                       \
  extern "C" __global__ void normal_##name(                                                                   \
      const tg::i64 count, const tg::u64 seed, const tg::u64 offset, const tg::u64* place, T* out) {                                \
    FOR_EACH_BLOCK(4) {                                                                                       \
      const tg::words random = tg::philox(place ? place[0] : seed, block, place ? place[1] : offset);                                               \
      for (int e = 0; e < 4; ++e)                                                                             \
        if (block * 4 + e < count)                                                                            \
          out[block * 4 + e] = stored<T>(tg::normal(random.w[e & 2], random.w[(e & 2) + 1], e & 1));          \
    }                                                                                                         \
  }

// keep where the word's uniform number is at least p; what is kept is scaled by 1 / (1 - p)
#define DROPOUT(name, T)                                                                                      \
  extern "C" __global__ void dropout_##name(                                                                  \
      const tg::i64 count, const tg::u64 seed, const tg::u64 offset, const tg::u64* place, const float p, const double scale,       \
      const T* x, T* y, unsigned char* mask) {                                                                \
    FOR_EACH_BLOCK(4) {                                                                                       \
      const tg::words random = tg::philox(place ? place[0] : seed, block, place ? place[1] : offset);                                               \
      for (int e = 0; e < 4; ++e) {                                                                           \
        const tg::i64 i = block * 4 + e;                                                                      \
        if (i >= count) break;                                                                                \
        const bool kept = tg::uniform32(random.w[e]) >= p;                                                    \
        mask[i] = kept;                                                                                       \
        y[i] = stored<T>(value_of(x[i]) * (decltype(value_of(x[i])))(kept ? scale : 0));  /* NaN stays */      \
      }                                                                                                       \
    }                                                                                                         \
  }

UNIFORM(float32, float) UNIFORM(float16, __half) UNIFORM(bfloat16, __nv_bfloat16)
NORMAL(float32, float) NORMAL(float64, double) NORMAL(float16, __half) NORMAL(bfloat16, __nv_bfloat16)
DROPOUT(float32, float) DROPOUT(float64, double) DROPOUT(float16, __half) DROPOUT(bfloat16, __nv_bfloat16)
