// y = m + log(sum(exp(x - m))), m = max(x), for each column of a (length, inner) matrix, `outer` of them.
//
// A strip of columns is gone over twice, for m and for the sum, four exponentials side by side. The walk of reduce_walk.h,
// which rescales as the maximum grows, took 20 times as long for 32 matrices of 16 x 16: it remains for columns that are
// strided, of half precision, or long enough to be cut. Short rows too are columns, turned: 8000 rows of 12 take 35 us so
// and 172 row by row.
#include "logsumexp.h"

#include <algorithm>
#include <cmath>

#include "column_strips.h"

namespace tg {

constexpr Index kLongest = 1 << 14;

bool are_turned_rows(const ReducePlan& plan, Index item) {
  const Index length = plan.rshape[0];
  return plan.rn == 1 && plan.kn < 2 && plan.rstride[0] == item && (plan.kn == 0 || plan.kstride[0] == length * item) &&
         (item == sizeof(float) ? are_beside<float>(length, 1) : are_beside<double>(length, 1));
}

bool is_plain_axis(const ReducePlan& plan, Index item) {
  if (plan.rn != 1 || plan.kn > 2 || plan.rshape[0] == 0 || plan.rshape[0] > kLongest) return false;
  if (plan.kn == 0 || plan.rstride[0] == item) return are_turned_rows(plan, item);
  const Index inner = plan.kshape[plan.kn - 1];
  return plan.kstride[plan.kn - 1] == item && plan.rstride[0] == inner * item &&
         (plan.kn == 1 || plan.kstride[0] == plan.rshape[0] * inner * item);
}

template <class T>
void logsumexp_columns(const ReducePlan& plan, const T* x, T* y) {
  const Index length = plan.rshape[0], inner = are_turned_rows(plan, sizeof(T)) ? 1 : plan.kshape[plan.kn - 1];
  over_columns<T>(plan.outputs / inner, length, inner, {x}, y, 1, [](const auto& strip, const auto& in, T* to) {
    using S = std::decay_t<decltype(strip)>;
    using W = typename S::W;
    typename S::Vector most[S::vectors], shift[S::vectors];
    double total[S::width];
    strip.largest(in[0], most);
    // Nothing shifts an infinite maximum: it, or NaN, is the result.
    T top[S::width], by[S::width];
    for (int v = 0; v < S::vectors; ++v) W::store(top + v * W::lanes, most[v]);
    for (Index k = 0; k < S::width; ++k) by[k] = std::isfinite(top[k]) ? top[k] : T(0);
    for (int v = 0; v < S::vectors; ++v) shift[v] = W::load(by + v * W::lanes);
    strip.sum_exp(in[0], shift, total);
    take_logs<T>(total);
    for (Index k = 0; k < strip.columns; ++k) to[k] = std::isfinite(top[k]) ? T(double(top[k]) + total[k]) : top[k];
  });
}

template void logsumexp_columns(const ReducePlan&, const float*, float*);
template void logsumexp_columns(const ReducePlan&, const double*, double*);

}  // namespace tg
