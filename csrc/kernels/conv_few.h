// The walk of conv_walk.h where there are few channels of the target.
#pragma once

#include "conv_walk.h"

namespace tg {

template <class T>
bool few_targets(const Walk& walk, Index groups, Index source_channels, Index target_channels);

template <class T>
void conv_walk_few(const Walk& walk, const ConvOperands<T>& operands);

}  // namespace tg
