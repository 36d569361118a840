// Random streams: Philox 4x32-10 (Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3").
//
// The key is the seed, the counter (block low, block high, offset low, offset high); word i of a stream is word i % 4 of
// block i / 4. An element depends on its number alone, so every split over threads gives the same bits.
#pragma once

#include "../core/dtype.h"

namespace tg {

struct Stream {
  std::uint64_t seed, offset;
};

// Words 0 to n of the stream, as numbers below 2^32.
void random_bits(Stream stream, Index n, std::int64_t* out);

// Uniform in [0, 1): float32 takes 24 bits of a word, float16 and bfloat16 their 11 and 8, so that none rounds up to 1;
// float64 takes 53 bits of two words.
void random_uniform(Stream stream, DType dtype, Index n, void* out);

// Mean 0 and variance 1, by Box and Muller in double from pairs of words.
void random_normal(Stream stream, DType dtype, Index n, void* out);

// Integers: 64 bits, from the higher word first, modulo `range` (0: 2^64) and moved up by `low`.
void random_integers(Stream stream, Index n, std::uint64_t range, std::uint64_t low, std::int64_t* out);

// The numbers below n, n < 2^32, in the order of 64 bits each; equal ones as they come.
void random_permutation(Stream stream, Index n, std::int64_t* out);

// mask = uniform float32 >= p; y = x * scale where the mask holds, else 0. x and y of the floating `dtype`.
void dropout(Stream stream, DType dtype, Index n, const void* x, float p, double scale, void* y, std::uint8_t* mask);

}  // namespace tg
