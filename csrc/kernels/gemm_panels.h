// Products of float or double matrices by our own tiles, for any strides.
#pragma once

#include <cstddef>

#include "gemm.h"

namespace tg {

// All in one parallel loop (two: operands are packed before). Every m, n, k and batch is at least 1.
template <class T>
void panel_gemm(const Gemm<T>* products, std::size_t count);

}  // namespace tg
