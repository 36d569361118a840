// find_places(sizes, born, last, most) -> (offset of each, bytes of the whole block, bytes in use at once at most)
//
// Where arrays lie in one block, such that those which are needed at the same time don't overlap: array i takes sizes[i]
// bytes from step born[i] to step last[i]. Finding the smallest block is NP-hard (dynamic storage allocation). In a given
// order, each is put at the lowest place that is free throughout its life; several orders are tried, and the smallest
// block wins. Then the array that ends highest moves towards the front of the order, many times: it is what the others are
// in the way of. No block is smaller than what is in use at once, so the search ends where it is nearly reached. A block
// should not be larger than `most` bytes, or than what is in use at once if that is more.
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <numeric>
#include <tuple>
#include <vector>

#include "../core/bind.h"

namespace tg {
namespace places {
namespace {

constexpr std::int64_t kAlign = 64;
// Where a result lies a little beyond its operand within a page, loads wait for stores of the same low address bits, and
// arrays that lie alike in their pages compete for the same lines of a cache: a large array behind another of whole pages
// starts a step further. So it leaves a gap that an array of the other's size fits into again.
constexpr std::int64_t kLarge = 1 << 15, kPage = 4096, kStep = 128;
constexpr std::int64_t kWork = 4000000;  // comparisons of the whole search: some milliseconds

struct Plan {
  std::vector<std::int64_t> offsets;
  std::int64_t total = 0;
};

class Search {
 public:
  Search(std::vector<std::int64_t> sizes, std::vector<std::int64_t> born, std::vector<std::int64_t> last, std::int64_t most)
      : sizes_(std::move(sizes)), born_(std::move(born)), last_(std::move(last)), count_(sizes_.size()) {
    if (born_.size() != count_ || last_.size() != count_) throw std::invalid_argument("find_places: lists of one length");
    for (std::size_t i = 0; i < count_; ++i) {
      if (sizes_[i] < 0 || last_[i] < born_[i]) throw std::invalid_argument("find_places: no size or life is negative");
      sizes_[i] = std::max<std::int64_t>(1, (sizes_[i] + kAlign - 1) / kAlign) * kAlign;
    }
    find_peak();
    // Half a per cent is what the steps take.
    most_ = std::max(most, peak_bytes_);
    enough_ = std::min(peak_bytes_ + peak_bytes_ / 200, most_);
  }

  Plan run() {
    Plan best = search();
    if (best.total > most_) {
      step_ = 0;
      work_ = 0;
      Plan dense = search();
      step_ = kStep;
      if (dense.total < best.total) best = loosened(std::move(dense));
    }
    return best;
  }

  std::int64_t peak_bytes() const { return peak_bytes_; }

 private:
  static constexpr int kWays = 6;

  Plan search() {
    Plan best;
    std::vector<std::size_t> order;
    for (int way = 0; way < kWays; ++way) {
      std::vector<std::size_t> next = ordered(way);
      Plan found = placed(next);
      if (way == 0 || found.total < best.total) best = std::move(found), order = std::move(next);
      if (good(best)) return best;
    }
    Plan now = best;
    for (bool halfway = false; work_ < kWork && !good(best); halfway = !halfway) {
      const auto in_the_way = [&](std::size_t i) { return now.offsets[i] + sizes_[i] == now.total; };
      const auto at = std::find_if(order.begin(), order.end(), in_the_way);
      if (at == order.begin()) break;  // it was the first already
      std::rotate(order.begin() + (halfway ? (at - order.begin()) / 2 : 0), at, at + 1);
      now = placed(order);
      if (now.total < best.total) best = now;
    }
    return best;
  }

  // With as many steps as there is room for below `most`, from the lowest array on.
  Plan loosened(Plan plan) const {
    std::vector<std::size_t> order(count_);
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return plan.offsets[a] < plan.offsets[b]; });
    const auto together = [&](std::size_t a, std::size_t b) { return born_[a] <= last_[b] && born_[b] <= last_[a]; };
    std::vector<std::int64_t> highest(count_);  // where each may start
    for (std::size_t k = count_; k-- > 0;) {
      const std::size_t i = order[k];
      highest[i] = std::max(plan.total, most_) - sizes_[i];
      for (std::size_t l = k + 1; l < count_; ++l)
        if (together(i, order[l])) highest[i] = std::min(highest[i], highest[order[l]] - sizes_[i]);
    }
    plan.total = 0;
    for (std::size_t k = 0; k < count_; ++k) {
      const std::size_t i = order[k];
      std::int64_t at = 0;
      for (std::size_t l = 0; l < k; ++l)
        if (together(i, order[l])) at = std::max(at, plan.offsets[order[l]] + sizes_[order[l]] + gap(order[l], i));
      plan.offsets[i] = std::min(at, highest[i]);
      plan.total = std::max(plan.total, plan.offsets[i] + sizes_[i]);
    }
    return plan;
  }

  std::int64_t gap(std::size_t below, std::size_t above) const {
    return sizes_[above] >= kLarge && sizes_[below] >= kLarge && sizes_[below] % kPage == 0 ? step_ : 0;
  }

  // The step with the most in use.
  void find_peak() {
    std::vector<std::pair<std::int64_t, std::int64_t>> changes;
    for (std::size_t i = 0; i < count_; ++i) {
      changes.emplace_back(born_[i], sizes_[i]);
      changes.emplace_back(last_[i] + 1, -sizes_[i]);
    }
    std::sort(changes.begin(), changes.end());  // what goes comes before what is new
    std::int64_t now = 0;
    for (const auto& [step, bytes] : changes)
      if ((now += bytes) > peak_bytes_) peak_bytes_ = now, peak_ = step;
  }

  bool good(const Plan& plan) const { return plan.total <= enough_; }

  std::vector<std::size_t> ordered(int way) const {
    std::vector<std::size_t> order(count_);
    std::iota(order.begin(), order.end(), std::size_t{0});
    using Key = std::tuple<std::int64_t, std::int64_t, std::int64_t>;
    const auto key = [&](std::size_t i) -> Key {
      const std::int64_t size = sizes_[i], life = last_[i] - born_[i] + 1;
      const bool at_peak = born_[i] <= peak_ && peak_ <= last_[i];
      switch (way) {
        case 0: return {-size, -life, 0};
        case 1: return {!at_peak, at_peak ? -life : 0, -size};
        case 2: return {-size, 0, 0};
        case 3: return {-size * life, 0, 0};
        case 4: return {-last_[i], born_[i], -size};
        default: return {-life, -size, 0};
      }
    };
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return key(a) < key(b); });
    return order;
  }

  // Each at the lowest place that is free.
  Plan placed(const std::vector<std::size_t>& order) {
    Plan plan;
    plan.offsets.assign(count_, 0);
    std::vector<std::size_t> by_offset;  // those that have a place
    by_offset.reserve(count_);
    for (const std::size_t i : order) {
      std::int64_t at = 0;
      work_ += std::int64_t(by_offset.size());
      for (const std::size_t k : by_offset) {
        if (born_[k] > last_[i] || born_[i] > last_[k]) continue;
        const std::int64_t low = plan.offsets[k], high = low + sizes_[k];
        if (at + sizes_[i] <= low) break;
        if (high > at) at = high + gap(k, i);
      }
      plan.offsets[i] = at;
      plan.total = std::max(plan.total, at + sizes_[i]);
      const auto lower = [&](std::size_t a, std::size_t b) { return plan.offsets[a] < plan.offsets[b]; };
      by_offset.insert(std::upper_bound(by_offset.begin(), by_offset.end(), i, lower), i);
    }
    return plan;
  }

  std::vector<std::int64_t> sizes_, born_, last_;
  std::size_t count_;
  std::int64_t peak_bytes_ = 0, peak_ = 0, work_ = 0, step_ = kStep;
  std::int64_t enough_ = 0, most_ = std::numeric_limits<std::int64_t>::max();
};

}  // namespace
}  // namespace places

TG_BINDINGS(places) {
  m.def(
      "find_places",
      [](std::vector<std::int64_t> sizes, std::vector<std::int64_t> born, std::vector<std::int64_t> last, std::int64_t most) {
        places::Search search(std::move(sizes), std::move(born), std::move(last), most);
        places::Plan found = search.run();
        return py::make_tuple(std::move(found.offsets), found.total, search.peak_bytes());
      },
      py::arg("sizes"), py::arg("born"), py::arg("last"), py::arg("most"));
}

}  // namespace tg
