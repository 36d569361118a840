// Sums of rows that machine code has taken lane by lane (formula_machine.h): a vector for each stretch of a row, that are
// added here.
#pragma once

#include "../core/dtype.h"
#include "formula_machine.h"

#if defined(__AVX__)
#include <immintrin.h>
#endif

namespace tg {
namespace formula {

// Elements that a lane's float sums are taken of, times the lanes: what follows is added to the sum of these.
constexpr Index kSummedStretch = 1024;

struct LaneSums {
  static constexpr Index kLanes = Machine::kLanes;
  Index stretches = 1;  // of a row
  double count = 1;     // divides the sums
  Index row() const { return stretches * kLanes; }

  // Each row has the bits that it has alone: first all stretches of a lane, then the lanes, upper half onto lower.
  void operator()(const float* x, Index rows, float* y) const {
    Index r = 0;
#if defined(__AVX__)
    for (; r + kLanes <= rows; r += kLanes) {
      __m256 half[4], quarter[2];
      for (Index k = 0; k < 4; ++k) {
        const __m256 low = lanes(x + (r + k) * row()), high = lanes(x + (r + k + 4) * row());
        half[k] = _mm256_add_ps(_mm256_permute2f128_ps(low, high, 0x20), _mm256_permute2f128_ps(low, high, 0x31));
      }
      for (int k = 0; k < 2; ++k)
        quarter[k] = _mm256_add_ps(_mm256_shuffle_ps(half[2 * k], half[2 * k + 1], 0x44), _mm256_shuffle_ps(half[2 * k], half[2 * k + 1], 0xee));
      _mm256_storeu_ps(y + r, _mm256_add_ps(_mm256_shuffle_ps(quarter[0], quarter[1], 0x88), _mm256_shuffle_ps(quarter[0], quarter[1], 0xdd)));
      for (Index k = 0; k < kLanes && count != 1; ++k) y[r + k] = static_cast<float>(y[r + k] / count);
    }
#endif
    for (; r < rows; ++r) {
      float lane[kLanes];
      for (Index l = 0; l < kLanes; ++l) {
        lane[l] = x[r * row() + l];
        for (Index s = 1; s < stretches; ++s) lane[l] += x[r * row() + s * kLanes + l];
      }
      for (Index n = kLanes / 2; n; n /= 2)
        for (Index l = 0; l < n; ++l) lane[l] += lane[l + n];
      y[r] = static_cast<float>(lane[0] / count);
    }
  }

 private:
#if defined(__AVX__)
  __m256 lanes(const float* x) const {
    __m256 sum = _mm256_loadu_ps(x);
    for (Index s = 1; s < stretches; ++s) sum = _mm256_add_ps(sum, _mm256_loadu_ps(x + s * kLanes));
    return sum;
  }
#endif
};

}  // namespace formula
}  // namespace tg
