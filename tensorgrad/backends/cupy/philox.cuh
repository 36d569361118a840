// Philox 4x32-10: four random words from a counter and a key (Salmon et al. 2011, "Parallel random numbers: as easy as
// 1, 2, 3"). Counter based, so that every backend draws the same numbers whatever its number of threads.
#pragma once

namespace tg {

struct words {
  unsigned int w[4];
};

// counter: 128 bits as (block, offset); key: the 64-bit seed
TG_FN words philox(u64 seed, u64 block, u64 offset) {
  unsigned int c0 = (unsigned int)block, c1 = (unsigned int)(block >> 32);
  unsigned int c2 = (unsigned int)offset, c3 = (unsigned int)(offset >> 32);
  unsigned int k0 = (unsigned int)seed, k1 = (unsigned int)(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const u64 p0 = 0xD2511F53ULL * c0, p1 = 0xCD9E8D57ULL * c2;
    c0 = (unsigned int)(p1 >> 32) ^ c1 ^ k0;
    c2 = (unsigned int)(p0 >> 32) ^ c3 ^ k1;
    c1 = (unsigned int)p1;
    c3 = (unsigned int)p0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// [0, 1) in steps of 2^-24, and of 2^-53
TG_FN float uniform32(unsigned int w) { return (float)(w >> 8) * 5.9604644775390625e-08f; }
TG_FN double uniform64(unsigned int w0, unsigned int w1) {
  return ((double)(w0 >> 5) * 67108864.0 + (double)(w1 >> 6)) * 1.1102230246251565e-16;
}

// Box and Muller 1958, in double on every backend: two words give two normal numbers, `second` chooses
TG_FN double normal(unsigned int w0, unsigned int w1, bool second) {
  const double u0 = ((double)w0 + 0.5) * 2.3283064365386963e-10, u1 = ((double)w1 + 0.5) * 2.3283064365386963e-10;
  const double radius = ::sqrt(-2.0 * ::log(u0)), angle = 6.283185307179586 * u1;
  return radius * (second ? ::sin(angle) : ::cos(angle));
}

}  // namespace tg
