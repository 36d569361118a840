// Calls done block by block with a product or a convolution: which can be, and doing them.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "../core/launch.h"

namespace tg {

// A call that goes by blocks, and calls that go over their elements: those ahead of it make what it reads, those behind go
// on with what it has made, block by block too.
struct InBlocks final : Launch {
  struct Other {
    std::unique_ptr<PieceLaunch> call;
    std::size_t which;  // operand or result, whose blocks it goes by
  };
  std::unique_ptr<BlockLaunch> head;
  std::vector<Other> ahead, behind;

  void run() override {
    if (head->little()) {
      for (Other& other : ahead) other.call->run();
      static_cast<Launch&>(*head).run();
      for (Other& other : behind) other.call->run();
      return;
    }
    for (auto* others : {&ahead, &behind})
      for (Other& other : *others) other.call->begin();
    BlockLaunch::Needed needed;
    BlockLaunch::Finished finished;
    if (!ahead.empty()) needed = [this](std::size_t which, Index first, Index last) { go(ahead, which, first, last); };
    if (!behind.empty()) finished = [this](std::size_t which, Index first, Index last) { go(behind, which, first, last); };
    head->run(needed, finished);
    for (auto* others : {&ahead, &behind})
      for (Other& other : *others) other.call->end();
  }

 private:
  static void go(std::vector<Other>& others, std::size_t which, Index first, Index last) {
    for (Other& other : others)
      if (other.which == which) other.call->piece(first, last);
  }
};
using Numbered = std::vector<std::pair<const PieceLaunch*, int>>;  // calls, and whose blocks they go by

constexpr Index kLedFrom = 1 << 13;  // elements: of fewer the blocks are not worth being asked for

// Whose blocks a call would go by behind these; -1 for none. Where it touches what is touched before, pieces must meet
// by the blocks of the same result.
inline int followed_by(const BlockLaunch& head, const Numbered& before, const PieceLaunch& next) {
  int found = -1;
  const auto meets = [&](const PieceLaunch::Touch& a, int which) {
    for (const PieceLaunch::Touch& b : next.touches) {
      if (!a.meets(b)) continue;
      if (which < 0 || !a.aligned(b) || (found >= 0 && found != which)) return false;
      found = which;
    }
    return true;
  };
  if (!next.anywhere || !next.n) return -1;
  for (std::size_t i = 0; i < head.results.size(); ++i)
    if (!meets(head.results[i], static_cast<int>(i))) return -1;
  for (const PieceLaunch::Touch& a : head.others)
    if (!meets(a, -1)) return -1;
  for (const BlockLaunch::Operand& operand : head.operands)
    if (!meets(operand.touch, -1)) return -1;
  for (const auto& [call, which] : before)
    for (const PieceLaunch::Touch& a : call->touches)
      if (!meets(a, which)) return -1;
  if (found < 0) return -1;
  const PieceLaunch::Touch& result = head.results[static_cast<std::size_t>(found)];
  return next.n * result.item == result.bytes ? found : -1;
}

// The same ahead of it: of which operand a call would make the blocks, with `after` between them and `behind` it.
inline int led_by(const BlockLaunch& head, const Numbered& after, const Numbered& behind, const PieceLaunch& call) {
  int found = -1;
  const auto meets = [&](const PieceLaunch::Touch& b, int which) {
    for (const PieceLaunch::Touch& a : call.touches) {
      if (!a.meets(b)) continue;
      if (which < 0 || !a.aligned(b) || (found >= 0 && found != which)) return false;
      found = which;
    }
    return true;
  };
  if (call.n < kLedFrom || call.order) return -1;
  for (const PieceLaunch::Touch& b : head.results)
    if (!meets(b, -1)) return -1;
  for (const PieceLaunch::Touch& b : head.others)
    if (!meets(b, -1)) return -1;
  for (std::size_t i = 0; i < head.operands.size(); ++i)
    if (!meets(head.operands[i].touch, static_cast<int>(i))) return -1;
  for (const auto& [later, which] : after)
    for (const PieceLaunch::Touch& b : later->touches)
      if (!meets(b, which)) return -1;
  for (const auto& [later, which] : behind)
    for (const PieceLaunch::Touch& b : later->touches)
      if (!meets(b, -1)) return -1;
  if (found < 0) return -1;
  const BlockLaunch::Operand& operand = head.operands[static_cast<std::size_t>(found)];
  return call.n * operand.touch.item == operand.touch.bytes && operand.unit % call.unit == 0 ? found : -1;
}

}  // namespace tg
