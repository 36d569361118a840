// The iterations of Muon in bfloat16 itself, where the processor multiplies pairs of such numbers (AVX-512 BF16).
#pragma once

#include "bfloat_pairs.h"

namespace tg {

// steps times: G = x x';  F = b G + c G G;  x = a x + F x, or with x' for x where that is shorter. Elements of x are bfloat16
// before and after, and so is what is stored between products, whose sums are float. False where the processor can't, or where
// it would not pay: nothing was done then.
bool bfloat_iterations(float* x, Index height, Index width, const double coefficients[3], Index steps);

}  // namespace tg
