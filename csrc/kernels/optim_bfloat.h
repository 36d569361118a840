// The iterations of Muon in bfloat16 itself, where the processor multiplies pairs of such numbers (AVX-512 BF16).
#pragma once

#include "../core/dtype.h"
#include "../core/lanes.h"

namespace tg {

using Floats = lanes::Vec<float>;
typedef std::uint32_t Bits __attribute__((vector_size(lanes::kVectorBytes)));

// The bfloat16 that is nearest, as a float.
inline float nearest(float x) { return float(bfloat16(x)); }
inline Floats nearest(Floats x) {
  const Bits bits = Bits(x), even = (bits >> 16) & 1u;
  const Floats rounded = Floats((bits + 0x7fffu + even) & 0xffff0000u);
  return x == x ? rounded : x;
}

// steps times: G = x x';  F = b G + c G G;  x = a x + F x, or with x' for x where that is shorter. Elements of x are bfloat16
// before and after, and so is what is stored between products, whose sums are float. False where the processor can't, or where
// it would not pay: nothing was done then.
bool bfloat_iterations(float* x, Index height, Index width, const double coefficients[3], Index steps);

}  // namespace tg
