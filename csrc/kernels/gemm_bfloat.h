// Products of bfloat16 matrices, summed in float, where the processor multiplies pairs of such numbers (AVX-512 BF16) or
// tiles of them (AMX).
#pragma once

#include "gemm.h"

namespace tg {

// Whether bfloat_gemm() takes products of this shape here; others are widened to float. Depends on nothing but the shape
// and the processor, and on whether a's rows and b's columns are contiguous, as in a linear layer.
bool bfloat_gemm_takes(Index m, Index n, Index k, bool dots);

// c = a b (+ bias), rounded once; row_sums are rounded too. Of a and b one stride is 1. `symmetric`, `finished` and `needed`
// are not looked at.
void bfloat_gemm(const Gemm<bfloat16>& product);

// c (m, n) = the sum of all entries' products, rounded once. There is neither bias nor row_sums.
void bfloat_gemm_sum(const Gemm<bfloat16>& product);

}  // namespace tg
