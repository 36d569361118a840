#include "random.h"

#include <algorithm>

#include "../core/parallel.h"
#include "../core/simd.h"
#include "sort_keys.h"

namespace tg {
namespace {

// Elements of a stretch: multiples of four, so that stretches start with a block. Of numbers that take 5 ns each, few
// (randn of 1e4: 45 to 30 us).
constexpr Index kStretch = 32768, kCostlyStretch = 4096;
constexpr Index kBatch = 64;       // blocks computed side by side
constexpr Index kWords = 4 * kBatch;

// Words [4 first, 4 (first + blocks)) of the stream, of at most kBatch blocks.
void philox(Stream stream, std::uint64_t first, Index blocks, std::uint32_t* words) {
  std::uint32_t c0[kBatch], c1[kBatch], c2[kBatch], c3[kBatch];
  for (Index i = 0; i < blocks; ++i) {
    const std::uint64_t number = first + static_cast<std::uint64_t>(i);
    c0[i] = static_cast<std::uint32_t>(number);
    c1[i] = static_cast<std::uint32_t>(number >> 32);
    c2[i] = static_cast<std::uint32_t>(stream.offset);
    c3[i] = static_cast<std::uint32_t>(stream.offset >> 32);
  }
  std::uint32_t k0 = static_cast<std::uint32_t>(stream.seed), k1 = static_cast<std::uint32_t>(stream.seed >> 32);
  for (int round = 0; round < 10; ++round) {
    for (Index i = 0; i < blocks; ++i) {
      const std::uint64_t p0 = static_cast<std::uint64_t>(c0[i]) * 0xD2511F53u;
      const std::uint64_t p1 = static_cast<std::uint64_t>(c2[i]) * 0xCD9E8D57u;
      c0[i] = static_cast<std::uint32_t>(p1 >> 32) ^ c1[i] ^ k0;
      c1[i] = static_cast<std::uint32_t>(p1);
      c2[i] = static_cast<std::uint32_t>(p0 >> 32) ^ c3[i] ^ k1;
      c3[i] = static_cast<std::uint32_t>(p0);
    }
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  for (Index i = 0; i < blocks; ++i) {
    words[4 * i] = c0[i];
    words[4 * i + 1] = c1[i];
    words[4 * i + 2] = c2[i];
    words[4 * i + 3] = c3[i];
  }
}

// use(first element, count, words) for runs of elements that take `each` words.
template <class Use>
void draw(Stream stream, Index n, Index each, Use use, Index stretch = kStretch) {
  const Index run = kWords / each;
  parallel_for(n, stretch, [&](Index first, Index last) {
    std::uint32_t words[kWords];
    for (Index i = first; i < last; i += run) {
      const Index count = std::min(run, last - i);
      philox(stream, static_cast<std::uint64_t>(i * each / 4), std::min(kBatch, (count * each + 63) / 64 * 16), words);
      use(i, count, words);
    }
  });
}

template <class T>
void uniform_of(Stream stream, Index n, T* out, int bits) {
  const int drop = 32 - bits;
  const float scale = 1.0f / static_cast<float>(std::uint32_t(1) << bits);
  draw(stream, n, 1, [=](Index first, Index count, const std::uint32_t* words) {
    for (Index i = 0; i < count; ++i) out[first + i] = T(static_cast<float>(static_cast<std::int32_t>(words[i] >> drop)) * scale);
  });
}

inline std::uint64_t upper_half(std::uint64_t a, std::uint64_t b) {
#if defined(__SIZEOF_INT128__)
  return static_cast<std::uint64_t>(static_cast<unsigned __int128>(a) * b >> 64);
#else
  const std::uint64_t a0 = a & 0xFFFFFFFFu, a1 = a >> 32, b0 = b & 0xFFFFFFFFu, b1 = b >> 32;
  const std::uint64_t middle = a1 * b0 + (a0 * b0 >> 32), other = a0 * b1 + (middle & 0xFFFFFFFFu);
  return a1 * b1 + (middle >> 32) + (other >> 32);
#endif
}

// cos and sin of an angle in [0, 2 pi].
inline void circle(double angle, double& cosine, double& sine) {
  const double t = lane::fma_(angle, 0.6366197723675814, lane::kRoundD);
  const double k = t - lane::kRoundD;
  const double r = lane::fma_(k, -6.077100506506192e-11, lane::fma_(k, -1.5707963267341256, angle));
  const double z = r * r;
  const double s = lane::fma_(lane::horner(z, -0.16666666666666666, 0.0083333333333333228, -0.00019841269841255009,
                                           2.7557319214158214e-06, -2.505210490258133e-08, 1.6058365408237417e-10,
                                           -7.5786342164484822e-13) * z, r, r);
  const double c = lane::fma_(lane::fma_(lane::horner(z, 0.041666666666666664, -0.0013888888888888874,
                                                      2.4801587301571391e-05, -2.7557319215329524e-07,
                                                      2.0876754355361743e-09, -1.147029200475753e-11,
                                                      4.7380506819157045e-14), z, -0.5), z, 1.0);
  const std::int64_t q = lane::bits<std::int64_t>(t);
  const double a = (q & 1) ? s : c, b = (q & 1) ? c : s;
  cosine = ((q + 1) & 2) ? -a : a;
  sine = (q & 2) ? -b : b;
}

// To float, but never onto a value that is not exact: inexact results get an odd last bit, so that rounding them once
// more to float16 gives what rounding the double would.
inline float to_odd(double x) {
  const float y = static_cast<float>(x);
  if (static_cast<double>(y) == x) return y;
  const std::uint32_t bits = float_to_bits(y) - (std::fabs(static_cast<double>(y)) > std::fabs(x) ? 1u : 0u);
  return bits_to_float(bits | 1u);
}

template <class T>
void normal_of(Stream stream, Index n, T* out) {
  draw(stream, n, 1, [=](Index first, Index count, const std::uint32_t* words) {
    double pairs[kWords];
    const Index needed = std::min(kWords / 2, (count + 31) / 32 * 16);  // whole vectors
    for (Index j = 0; j < needed; ++j) {
      const double u0 = (static_cast<double>(words[2 * j]) + 0.5) * 0x1p-32;
      const double u1 = (static_cast<double>(words[2 * j + 1]) + 0.5) * 0x1p-32;
      const double radius = std::sqrt(-2.0 * lane::log(u0));
      double cosine, sine;
      circle(6.283185307179586 * u1, cosine, sine);
      pairs[2 * j] = radius * cosine;
      pairs[2 * j + 1] = radius * sine;
    }
    for (Index i = 0; i < count; ++i) {
      if constexpr (std::is_same_v<T, double>) out[first + i] = pairs[i];
      else if constexpr (std::is_same_v<T, half>) out[first + i] = half(to_odd(pairs[i]));
      else out[first + i] = T(static_cast<float>(pairs[i]));
    }
  }, kCostlyStretch);
}

template <class T>
void dropout_of(Stream stream, Index n, const T* x, float p, double scale, T* y, std::uint8_t* mask) {
  using Compute = std::conditional_t<std::is_same_v<T, double>, double, float>;
  const Compute factor = static_cast<Compute>(scale);
  draw(stream, n, 1, [=](Index first, Index count, const std::uint32_t* words) {
    const T* from = x + first;
    T* to = y + first;
    std::uint8_t* kept = mask + first;
    for (Index i = 0; i < count; ++i) {
      const bool keep = static_cast<float>(static_cast<std::int32_t>(words[i] >> 8)) * 0x1p-24f >= p;
      kept[i] = keep;
      to[i] = T(static_cast<Compute>(from[i]) * (keep ? factor : Compute(0)));  // NaN stays
    }
  });
}

}  // namespace

void random_bits(Stream stream, Index n, std::int64_t* out) {
  draw(stream, n, 1, [=](Index first, Index count, const std::uint32_t* words) {
    for (Index i = 0; i < count; ++i) out[first + i] = words[i];
  });
}

// The quotient by `range` from its reciprocal is one too small at most. 1e4 numbers, with a division each: 69 us; so: 32.
void random_integers(Stream stream, Index n, std::uint64_t range, std::uint64_t low, std::int64_t* out) {
  const std::uint64_t reciprocal = range ? ~std::uint64_t(0) / range : 0;
  draw(stream, n, 2, [=](Index first, Index count, const std::uint32_t* words) {
    for (Index i = 0; i < count; ++i) {
      std::uint64_t wide = static_cast<std::uint64_t>(words[2 * i]) << 32 | words[2 * i + 1];
      wide -= upper_half(wide, reciprocal) * range;
      if (range && wide >= range) wide -= range;
      out[first + i] = static_cast<std::int64_t>(wide + low);
    }
  }, kCostlyStretch);
}

void random_permutation(Stream stream, Index n, std::int64_t* out) {
  Scratch<Entry<std::int32_t>> entries(n), spare(n);
  Scratch<std::uint32_t> lower(n), counts(kCounters);
  draw(stream, n, 2, [&](Index first, Index count, const std::uint32_t* words) {
    for (Index i = 0; i < count; ++i) {
      entries[first + i] = {words[2 * i], static_cast<std::uint32_t>(first + i)};
      lower[first + i] = words[2 * i + 1];
    }
  }, kCostlyStretch);
  Entry<std::int32_t>* e = n ? radix_sort<std::int32_t>(entries.data(), spare.data(), n, counts.data()) : nullptr;
  for (Index i = 1; i < n; ++i)  // equal higher words are rare
    for (Index j = i; j > 0 && e[j - 1].key == e[j].key && lower[e[j - 1].at] > lower[e[j].at]; --j) std::swap(e[j - 1], e[j]);
  for (Index i = 0; i < n; ++i) out[i] = e[i].at;
}

void random_uniform(Stream stream, DType dtype, Index n, void* out) {
  switch (dtype) {
    case DType::Float16: return uniform_of(stream, n, static_cast<half*>(out), 11);
    case DType::BFloat16: return uniform_of(stream, n, static_cast<bfloat16*>(out), 8);
    case DType::Float32: return uniform_of(stream, n, static_cast<float*>(out), 24);
    case DType::Float64: {
      double* to = static_cast<double*>(out);
      return draw(stream, n, 2, [=](Index first, Index count, const std::uint32_t* words) {
        for (Index i = 0; i < count; ++i) {
          const double high = words[2 * i] >> 5, low = words[2 * i + 1] >> 6;
          to[first + i] = (high * 67108864.0 + low) * 0x1p-53;
        }
      });
    }
    default: unsupported("random_uniform", dtype);
  }
}

void random_normal(Stream stream, DType dtype, Index n, void* out) {
  visit_float("random_normal", dtype, [&](auto type) {
    using T = typename decltype(type)::value;
    normal_of(stream, n, static_cast<T*>(out));
  });
}

void dropout(Stream stream, DType dtype, Index n, const void* x, float p, double scale, void* y, std::uint8_t* mask) {
  visit_float("dropout", dtype, [&](auto type) {
    using T = typename decltype(type)::value;
    dropout_of(stream, n, static_cast<const T*>(x), p, scale, static_cast<T*>(y), mask);
  });
}

}  // namespace tg
