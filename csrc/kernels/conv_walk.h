#pragma once

#include "conv_shape.h"
#include "conv_tail.h"

namespace tg {

// target[n][o] = tail of the sum over source channels and taps of source * weight, group by group. Source and target
// are contiguous; weights are read at group * weight_group + o * weight_target + c * weight_source + tap.
template <class T>
struct ConvOperands {
  Index batch = 0, groups = 1, source_channels = 0, target_channels = 0, source_plane = 0;
  const T* source = nullptr;
  const T* weight = nullptr;
  Tail<T> tail;
  T* target = nullptr;
  Index weight_group = 0, weight_target = 0, weight_source = 0;
};

template <class T>
void conv_walk(const Walk& walk, const ConvOperands<T>& operands);

}  // namespace tg
