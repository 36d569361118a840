#include "linear.h"

#include <algorithm>
#include <complex>

#include "../core/allocator.h"
#include "gemm_tasks.h"

namespace tg {

template <class T>
void column_sum(const Matrix<T>& a, Index rows, Index cols, T* out) {
  constexpr Index kRows = 256, kCols = 256;
  const Index row_blocks = std::max<Index>(1, divide_up(rows, kRows)), col_blocks = divide_up(cols, kCols);
  Scratch<T, kOnStack> partial(row_blocks * cols);
  auto block = [&](Index task) {
    const Index r0 = task / col_blocks * kRows, c0 = task % col_blocks * kCols;
    const Index r1 = std::min(rows, r0 + kRows), n = std::min(cols, c0 + kCols) - c0;
    T* sum = partial.data() + task / col_blocks * cols + c0;
    std::fill_n(sum, n, T(0));
    const T* row = a.data + r0 * a.row + c0 * a.col;
    Index r = r0;
    // Eight rows as a tree: an eighth of the sums that grow long, and of the loads and stores of `sum`.
    for (; a.col == 1 && r + 8 <= r1; r += 8, row += 8 * a.row)
      for (Index j = 0; j < n; ++j) {
        const T* x = row + j;
        const Index d = a.row;
        sum[j] += ((x[0] + x[d]) + (x[2 * d] + x[3 * d])) + ((x[4 * d] + x[5 * d]) + (x[6 * d] + x[7 * d]));
      }
    for (; r < r1; ++r, row += a.row)
      for (Index j = 0; j < n; ++j) sum[j] += row[j * a.col];
  };
  const Index tasks = row_blocks * col_blocks;
  if (rows * cols < (Index(1) << 16))
    for (Index t = 0; t < tasks; ++t) block(t);
  else
    for_each_task(tasks, block);
  std::copy_n(partial.data(), cols, out);
  for (Index b = 1; b < row_blocks; ++b)
    for (Index j = 0; j < cols; ++j) out[j] += partial[b * cols + j];
}

template <class Half>
void widen(const Half* from, Index n, float* to) {
  parallel_for(n, Index(1) << 15, [&](Index first, Index last) {
    for (Index i = first; i < last; ++i) to[i] = static_cast<float>(from[i]);
  });
}

template <class Half>
void narrow(const float* from, Index n, Half* to) {
  parallel_for(n, Index(1) << 15, [&](Index first, Index last) {
    for (Index i = first; i < last; ++i) to[i] = Half(from[i]);
  });
}

template void column_sum(const Matrix<float>&, Index, Index, float*);
template void column_sum(const Matrix<double>&, Index, Index, double*);
template void column_sum(const Matrix<c64>&, Index, Index, c64*);
template void column_sum(const Matrix<c128>&, Index, Index, c128*);
template void widen(const half*, Index, float*);
template void widen(const bfloat16*, Index, float*);
template void narrow(const float*, Index, half*);
template void narrow(const float*, Index, bfloat16*);

}  // namespace tg
