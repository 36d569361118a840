// Calls done a piece at a time, one behind the other: which can be, and doing them.
#pragma once

#include <algorithm>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "../core/launch.h"
#include "../core/parallel.h"

namespace tg {

constexpr Index kPieceLength = 16384;      // elements: what a few arrays have of them is in the second-level cache
// Of fewer elements pieces are so many, that threads share them, and no shorter than this.
constexpr Index kPieces = 8, kShortest = 2048;
constexpr Index kJoinedFrom = 1 << 17;   // elements: less is in the second-level caches anyway
// But of so few to begin a call takes as long as a good part of it.
constexpr Index kBriefFrom = 1 << 12, kBriefTo = 1 << 15;
constexpr Index kMostInOrder = 1 << 18;  // elements that one thread takes: more of them leave others without work

// Calls that go over equally many elements, done a piece at a time: what one writes is read from the cache by the next.
// Or over so many times fewer: what was reduced of rows goes on row by row, and what has a value for each row goes with it.
// That alone would be near anyhow: it is done so for what the group's longest share.
struct Group {
  struct Part {
    PieceLaunch* call;
    Index ratio;  // elements of the group for each of its own
    bool near;    // it shares elements with the first, or with one that does, or may lead to one
  };
  std::vector<Part> parts;
  Index n;
  Index unit = 1, order = 0;  // of all parts

  explicit Group(PieceLaunch* first) : parts{{first, 1, true}}, n(first->n), unit(first->unit), order(first->order) {}

  enum class Taken { no, along, meets };
  // Takes the call along if it may: what it shares with those before, and one of them writes, lies so that pieces meet. It
  // saves something if it reads that; if it only writes where something of theirs has lain, it does not. One that moves what
  // they read or make, or shares a value for each row, comes along, in case that somebody behind meets it.
  Taken take(Launch* call) {
    auto* next = dynamic_cast<PieceLaunch*>(call);
    if (!next || !next->n || n % next->n) return Taken::no;
    const Index ratio = n / next->n;
    Index together = std::lcm(unit, next->unit * ratio);
    bool meets = false, near = false, along = false, rows = ratio > 1;
    for (const Part& part : parts) {
      rows |= part.ratio > 1;
      for (const PieceLaunch::Touch& a : part.call->touches)
        for (const PieceLaunch::Touch& b : next->touches) {
          const bool aligned = a.same_items(b) && a.per * part.ratio == b.per * ratio;
          if (a.meets(b)) {
            if (!aligned) return Taken::no;
            together = std::lcm(together, b.per * ratio);  // an item is within one piece
          }
          meets |= !b.written && aligned && b.per * ratio == 1 && part.near;
          near |= !b.item && a.start == b.start;
          along |= aligned;
        }
    }
    if (!meets && !near && !along) return Taken::no;
    const Index ordered = next->order * ratio;
    const Index thread = order || ordered ? std::lcm(together, std::lcm(std::max<Index>(order, 1), std::max<Index>(ordered, 1))) : 0;
    if (together > kMostInOrder || thread > kMostInOrder) return Taken::no;
    if ((n < kJoinedFrom || ratio > 1) && std::max(together, thread) > n / (kPieces / 2)) return Taken::no;
    unit = together;
    order = thread;
    parts.push_back({next, ratio, meets || (near && !rows)});
    return meets ? Taken::meets : Taken::along;
  }

  void run() {
    for (const Part& part : parts) part.call->begin();
    const Index most = std::clamp(n / kPieces, kShortest, kPieceLength);
    const Index length = (std::max(most, unit) + unit - 1) / unit * unit;
    parallel_for(n, order ? order : length, [&](Index first, Index last) {
      for (Index at = first; at < last; at += length) {
        const Index end = std::min(last, at + length);
        for (const Part& part : parts) part.call->piece(at / part.ratio, end / part.ratio);
      }
    });
    for (const Part& part : parts) part.call->end();
  }
};
struct Joined final : Launch {
  Group group;
  std::vector<std::unique_ptr<Launch>> owned;

  explicit Joined(Group g) : group(std::move(g)) {}
  void run() override { group.run(); }
};

}  // namespace tg
