// group norm: statistics per sample and group of channels (Wu, He 2018); y = (x - mean) rstd w_c + b_c.
//   gx = rstd (d - mean(d) - xhat mean(d xhat)),  d = g w_c, means over the group; gw_c, gb_c sum over samples and plane.
// A group is one run of memory. Backward keeps sum(g) and sum(g xhat) per (sample, channel): weighted by w_c they give
// the group's means, added over samples they give gw and gb.
#include "norm.h"
#include "norm_rows.h"

namespace tg {
namespace {

constexpr Index kPiece = 65536;

}  // namespace

template <class T>
void group_norm(const ChannelShape& s, Index groups, double eps, const T* x, const T* w, const T* b, T* y, T* mean,
                T* rstd) {
  const Index per_group = s.channels / groups, run = per_group * s.plane;
  parallel_for(s.batch * groups, std::max<Index>(1, kPiece / std::max<Index>(1, run)), [&](Index first, Index last) {
    for (Index r = first; r < last; ++r) {
      const Moments m = moments_of(x + r * run, run);
      mean[r] = T(m.mean);
      rstd[r] = T(1 / std::sqrt(std::max(m.m2 / double(run), 0.0) + eps));
      const T center = mean[r], rest = T(m.mean - double(center));
      for (Index k = 0; k < per_group; ++k) {
        const Index c = r % groups * per_group + k;
        const T scale = rstd[r] * (w ? w[c] : T(1)), shift = b ? b[c] : T(0);
        const T* from = x + r * run + k * s.plane;
        T* to = y + r * run + k * s.plane;
        for (Index i = 0; i < s.plane; ++i) to[i] = ((from[i] - center) - rest) * scale + shift;
      }
    }
  });
}

template <class T>
void group_norm_backward(const ChannelShape& s, Index groups, const T* g, const T* x, const T* mean, const T* rstd,
                         const T* w, T* gx, T* gw, T* gb) {
  const Index per_group = s.channels / groups, run = per_group * s.plane;
  std::vector<double> sums(size_t(s.batch * s.channels)), dots(size_t(s.batch * s.channels));
  parallel_for(s.batch * groups, std::max<Index>(1, kPiece / std::max<Index>(1, run)), [&](Index first, Index last) {
    for (Index r = first; r < last; ++r) {
      double d = 0, dx = 0;
      for (Index k = 0; k < per_group; ++k) {
        const Index c = r % groups * per_group + k, slot = r * per_group + k, at = slot * s.plane;
        const T m = mean[r], scale = rstd[r];
        double sum = 0, dot = 0;
        for (Index i = 0; i < s.plane; i += kSumBlock) {
          const Index n = std::min(kSumBlock, s.plane - i);
          const T *gp = g + at + i, *xp = x + at + i;
          sum += sum_run(gp, n);
          dot += sum_map<T>(
              n, [&](Index j) { return Wide<T>::load(gp + j) * ((Wide<T>::load(xp + j) - m) * scale); },
              [&](Index j) { return gp[j] * ((xp[j] - m) * scale); });
        }
        sums[size_t(slot)] = sum;
        dots[size_t(slot)] = dot;
        d += (w ? double(w[c]) : 1.0) * sum;
        dx += (w ? double(w[c]) : 1.0) * dot;
      }
      if (!gx) continue;
      const T c1 = T(d / double(run)), c2 = T(dx / double(run));
      for (Index k = 0; k < per_group; ++k) {
        const Index at = r * run + k * s.plane;
        const T m = mean[r], scale = rstd[r], weight = w ? w[r % groups * per_group + k] : T(1);
        for (Index i = at; i < at + s.plane; ++i) gx[i] = scale * (g[i] * weight - c1 - (x[i] - m) * scale * c2);
      }
    }
  });
  for (Index c = 0; c < s.channels; ++c) {
    double sum = 0, dot = 0;
    for (Index n = 0; n < s.batch; ++n) {
      sum += sums[size_t(n * s.channels + c)];
      dot += dots[size_t(n * s.channels + c)];
    }
    if (gw) gw[c] = T(dot);
    if (gb) gb[c] = T(sum);
  }
}

template void group_norm(const ChannelShape&, Index, double, const float*, const float*, const float*, float*, float*, float*);
template void group_norm_backward(const ChannelShape&, Index, const float*, const float*, const float*, const float*, const float*, float*, float*, float*);
template void group_norm(const ChannelShape&, Index, double, const double*, const double*, const double*, double*, double*, double*);
template void group_norm_backward(const ChannelShape&, Index, const double*, const double*, const double*, const double*, const double*, double*, double*, double*);

}  // namespace tg
