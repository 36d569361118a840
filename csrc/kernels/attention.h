// Scaled dot-product attention, out = softmax(scale q k^T + mask) v, in tiles: memory grows with the length of a
// sequence, not with its square.
#pragma once

#include <cstdint>

#include "../core/dtype.h"

namespace tg {

// (batch, heads, length, dim) read through strides in elements; the last axis is contiguous.
template <class T>
struct HeadView {
  T* data = nullptr;
  Index batch = 0, head = 0, row = 0;
};

// Mask over (batch, heads, query, key) through strides in elements, 0 where it is broadcast. At most one is not null:
// `keep` holds true where a key takes part, `add` is added to the scores.
template <class T>
struct MaskView {
  const std::uint8_t* keep = nullptr;
  const T* add = nullptr;
  Index batch = 0, head = 0, query = 0, key = 0;
};

template <class T>
struct Attention {
  Index batch = 0, heads = 0, queries = 0, keys = 0, dim = 0, value_dim = 0;
  Index group = 1;  // heads of q, neighbours, that share one of k and v
  HeadView<const T> q, k, v;
  MaskView<T> mask;
  bool causal = false;  // query i sees keys j <= i
  T scale = 1;
};

// lse (batch, heads, queries) contiguous: log of the sum of exp(score) per row, -inf where nothing is seen. Such a row
// of out is 0, as in PyTorch.
template <class T>
void attention(const Attention<T>& a, HeadView<T> out, T* lse);

template <class T>
void attention_backward(const Attention<T>& a, HeadView<const T> g, HeadView<const T> out, const T* lse, HeadView<T> gq,
                        HeadView<T> gk, HeadView<T> gv);

}  // namespace tg
