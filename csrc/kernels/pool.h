// Pools over one to three spatial axes (fewer are three with length 1 in front). Arrays are contiguous:
// (planes, in) to (planes, out), where planes counts batch times channels.
#pragma once

#include <cstdint>
#include <vector>

#include "conv_shape.h"

namespace tg {

struct PoolShape {
  Index planes = 0;
  Triple in{1, 1, 1}, out{1, 1, 1}, kernel{1, 1, 1}, stride{1, 1, 1}, padding{0, 0, 0}, dilation{1, 1, 1};
};

// The stretch of input under each output position along one axis, and what the axis gives to the divisor of a mean.
struct AxisWindows {
  std::vector<Index> first, last;
  std::vector<double> weight;
};
using Windows = std::array<AxisWindows, 3>;

Windows pool_windows(const PoolShape& s, bool count_include_pad);
Windows adaptive_windows(const Triple& in, const Triple& out);

// y[o] = max over the window, NaN wins; index = place of that value in its plane (of the last NaN, else of the first
// maximum). Without `index` places are not kept.
template <class T>
void max_pool(const PoolShape& s, const T* x, T* y, std::int64_t* index);
template <class T>
void adaptive_max_pool(const PoolShape& s, const T* x, T* y, std::int64_t* index);
bool indices_inside(const std::int64_t* index, Index count, Index plane);
// gx = 0; gx[index[o]] += g[o]. The caller has checked that every index lies inside the plane.
template <class T>
void max_pool_backward(const PoolShape& s, const T* g, const std::int64_t* index, T* gx);

// y[o] = sum over the window / divisor: `divisor` where it is not 0, else the windows' own.
template <class T>
void mean_pool(const PoolShape& s, const Windows& windows, double divisor, const T* x, T* y);
template <class T>
void mean_pool_backward(const PoolShape& s, const Windows& windows, double divisor, const T* g, T* gx);

}  // namespace tg
