// Matrix products over our thread pool: c = a b (+ bias) for a batch of matrices.
//
// Operands are read through element strides, float and double ones with whatever strides by our own tiles
// (gemm_panels.h), complex ones by BLAS, where one stride is 1. How a product is cut depends on shapes alone, so the bits
// of c do not depend on threads.
#pragma once

#include <complex>
#include <cstdint>
#include <functional>
#include <vector>

#include "../core/dtype.h"

namespace tg {

template <class T>
struct Matrix {
  const T* data = nullptr;
  Index row = 0, col = 0;  // strides in elements
};

// One thread, c (m, n) with rows ldc apart: c = a b, or c += a b. What a tile of any kernel calls.
template <class T>
void gemm_block(Index m, Index n, Index k, Matrix<T> a, Matrix<T> b, T* c, Index ldc, bool add, T alpha = T(1));

// True where a product can read a (rows, cols) matrix in place.
template <class T>
bool readable(const Matrix<T>& a, Index rows, Index cols);

template <class T>
struct Gemm {
  Index m = 0, n = 0, k = 0, batch = 1;
  Matrix<T> a, b;
  // Of each batch entry: element offsets, or where they are null one step from entry to entry.
  const Index* a_offset = nullptr;
  const Index* b_offset = nullptr;
  Index a_step = 0, b_step = 0;
  T* c = nullptr;               // (batch, m, n) contiguous
  const T* bias = nullptr;      // (n,) added to every row, or null
  const T* row_bias = nullptr;  // (m,) added to every column, or null; of bfloat_gemm() alone
  bool symmetric = false;       // of a product with its own transpose, say: what is above c's diagonal need not be made
  T* row_sums = nullptr;        // (m,) receives the sums of a's rows, or null; of real products with batch 1 alone
  Matrix<T> left(Index entry) const { return {a.data + (a_offset ? a_offset[entry] : entry * a_step), a.row, a.col}; }
  Matrix<T> right(Index entry) const { return {b.data + (b_offset ? b_offset[entry] : entry * b_step), b.row, b.col}; }

  // Told of elements [first, last) of c by the thread that has just finished them, of each once; of real products alone.
  const std::function<void(Index, Index)>* finished = nullptr;
  // Asked for elements [first, last) of a, some of its rows, by the thread that reads them next, for each once; of real
  // products with batch 1 and an a that is contiguous alone.
  const std::function<void(Index, Index)>* needed = nullptr;
};

// The products of one list run in one parallel loop, so two small ones share the threads.
template <class T>
void gemm(const std::vector<Gemm<T>>& products);
template <class T>
void gemm(const Gemm<T>& product);

// Integers: c (batch, m, n) = a b, wrapped to T.
template <class T>
void integer_gemm(const Gemm<T>& product);

}  // namespace tg
