// Convolution by one tap: y[n] = w x[n] for every image n, as one product whose columns are the positions of all images,
// one after the other.
//
// Memory: a task has a stripe of columns and a range of rows (output channels). It packs a stretch of its stripe in
// panels of register tiles, which stay in half an L2, multiplies, and goes on to the next stretch. A panel that lies in
// one image is summed where its result belongs; one that meets several images, or the end, in a buffer. Weights are read in
// place, or packed once for all tasks where they lie across. What a stride skips is left out of a copy of the source
// before (as each range of rows packed its stripe: 1024-2048 /2 @14, 16 images, 28 ms, now 25).
#include "conv_pointwise.h"

#include <algorithm>

#include "../core/allocator.h"
#include "conv_tile.h"
#include "gemm_tasks.h"
#include "gemm_tile.h"

namespace tg {
namespace {

using lanes::Lanes;
using lanes::load;
using lanes::store;
using tile::kColumns;
using tile::kRows;

constexpr Index kDepth = 128;                // terms summed at a time; panels of 256 make 1x1 layers up to 9 % slower
constexpr Index kPackedBytes = 128 * 1024;    // of a stripe
constexpr Index kMostRows = 256;              // of a task: with its part of the results a stretch fits L2
constexpr Index kRowBlock = 16 * kRows;       // rows whose weights stay in L2 while the panels pass by
constexpr Index kLeastRows = 8 * kRows;       // of a task: a panel packed is used as often as that at least
constexpr Index kTaskWork = Index(1) << 19;   // multiplications of a task, where there are enough
constexpr Index kWantedTasks = 16;            // stripes; half as many ranges of rows, as each packs the same
constexpr Index kManyColumns = 512;           // a copy of the weights pays

template <class T>
struct PointwiseOperands {
  Index batch, groups, rows, terms;     // of one group: target and source channels
  Index plane;                          // positions of a map
  Matrix<T> weight;                     // (rows, terms) of the first group
  const T* x;
  const SourceNeeded* needed;
  Tail<T> tail;
  T* y;
};

template <class T>
class Pointwise {
 public:
  explicit Pointwise(const PointwiseOperands<T>& op) : op_(op), plane_(op.plane) {
    in_place_ = op.weight.col == 1 && op.batch * plane_ < kManyColumns;
    depth_ = divide_up(op.terms, divide_up(op.terms, kDepth));
    const Index most = std::max<Index>(1, kPackedBytes / Index(sizeof(T)) / depth_ / N);
    panels_ = divide_up(op.batch * plane_, N);
    const Index work = op.batch * op.groups * plane_ * op.rows * op.terms;
    const Index wanted = std::clamp<Index>(work / kTaskWork, 1, kWantedTasks);
    stripes_ = std::max(divide_up(panels_, most), std::min(divide_up(wanted, op.groups), panels_ / 4));
    const Index ranges = std::min(divide_up(divide_up(wanted, 2), stripes_ * op.groups), op.rows / kLeastRows);
    range_ = round_up(divide_up(op.rows, std::max(divide_up(op.rows, kMostRows), ranges)), kRows);
    ranges_ = divide_up(op.rows, range_);
  }

  void run() {
    const bool ahead = !in_place_ && stripes_ > 1;
    Scratch<T> packed(ahead ? op_.groups * op_.rows * op_.terms : 0);
    if (ahead) pack_weights(packed.data());
    const SourceParts source(op_.needed, op_.batch, op_.groups * op_.terms, op_.terms, plane_);
    for_each_task(stripes_ * op_.groups * ranges_, [&](Index task) {
      const Index range = task % ranges_, group = task / ranges_ % op_.groups, stripe = task / ranges_ / op_.groups;
      const Index first = panels_ * stripe / stripes_, last = panels_ * (stripe + 1) / stripes_;
      const Index end = divide_up(std::min(last * N, op_.batch * plane_), plane_);
      for (Index image = first * N / plane_; image < end; ++image) source.need(image, group);
      compute(first, last, group, range * range_,
              std::min(op_.rows, (range + 1) * range_), ahead ? packed.data() : nullptr);
    });
  }

 private:
  static constexpr Index L = Lanes<T>::count, N = kColumns<T>;

  // Columns of one panel that lie side by side, in the source and in the target.
  struct Piece {
    Index panel, lane, count, source, target;
  };

  // A stretch of rows [i0, i1) of the weights: [panel of rows][term][row]
  void pack_rows(Index group, Index i0, Index i1, Index k, Index depth, T* to) const {
    const T* from = op_.weight.data + group * op_.rows * op_.terms + i0 * op_.weight.row + k * op_.weight.col;
    tile::pack_rows(Matrix<T>{from, op_.weight.row, op_.weight.col}, i1 - i0, depth, to);
  }

  // Where many stripes use them: [group][stretch][panel of rows][term][row]
  void pack_weights(T* packed) const {
    const Index stretches = divide_up(op_.terms, depth_);
    for_each_task(op_.groups * stretches * ranges_, [&](Index task) {
      const Index i0 = task % ranges_ * range_, stretch = task / ranges_ % stretches, group = task / ranges_ / stretches;
      const Index k = stretch * depth_, depth = std::min(depth_, op_.terms - k);
      pack_rows(group, i0, std::min(op_.rows, i0 + range_), k, depth,
                packed + (group * op_.terms + k) * op_.rows + i0 * depth);
    });
  }

  std::vector<Piece> pieces(Index first, Index last) const {
    const Index end = std::min(last * N, op_.batch * plane_);
    std::vector<Piece> all;
    for (Index j = first * N; j < end;) {
      const Index image = j / plane_, at = j % plane_, lane = j % N, count = std::min({plane_ - at, N - lane, end - j});
      all.push_back({j / N - first, lane, count, image * op_.groups * op_.terms * plane_ + at,
                     image * op_.groups * op_.rows * plane_ + at});
      j += count;
    }
    return all;
  }

  // Terms of the stripe: to[panel][term][column]. Term by term, for the lines of memory that a row of the stripe fills.
  void pack(const std::vector<Piece>& pieces, Index panels, const T* x, Index depth, T* to) const {
    const Piece& end = pieces.back();
    const Index valid = end.lane + end.count;
    if (plane_ < L) {  // an image's terms lie side by side
      for (const Piece& p : pieces)
        copy_rows(x + p.source, plane_, depth, p.count, to + p.panel * depth * N + p.lane, N);
      if (valid < N)
        for (Index k = 0; k < depth; ++k) std::fill_n(to + ((panels - 1) * depth + k) * N + valid, N - valid, T(0));
      return;
    }
    for (Index k = 0; k < depth; ++k, x += plane_, to += N) {
      for (const Piece& p : pieces) {
        const T* from = x + p.source;
        T* place = to + p.panel * depth * N + p.lane;
        if (p.count == N) {
#pragma GCC unroll 4
          for (Index i = 0; i < N; i += L) store(place + i, load(from + i));
        } else {
          tile::copy_few<tile::piece_of(N)>(from, p.count, place);
        }
      }
      if (valid < N) std::fill_n(to + (panels - 1) * depth * N + valid, N - valid, T(0));
    }
  }

  void compute(Index first, Index last, Index group, Index i0, Index i1, const T* weights) const {
    const Index panels = last - first, rows = i1 - i0;
    const std::vector<Piece> all = pieces(first, last);
    // where each panel is summed: in the target, or in a buffer
    std::vector<T*> place(panels, nullptr);
    Index buffered = 0;
    T* y = op_.y + (group * op_.rows + i0) * plane_;
    for (const Piece& p : all)
      if (p.count == N) place[p.panel] = y + p.target;
    for (T* p : place) buffered += p == nullptr;
    Scratch<T> packed(panels * N * depth_), buffer(buffered * rows * N);
    Scratch<T> own_weights(in_place_ || weights ? 0 : rows * depth_);
    std::vector<bool> own(panels);
    T* next = buffer.data();
    for (Index p = 0; p < panels; ++p)
      if ((own[p] = place[p] == nullptr)) place[p] = next, next += rows * N;
    const Index valid = all.back().lane + all.back().count;  // columns of the last panel
    const Index channel = group * op_.rows + i0;
    const bool plain = op_.tail.plain();
    const T* bias = plain && op_.tail.shift ? op_.tail.shift + channel : nullptr;
    if (bias)
      for (Index p = 0; p < panels; ++p)
        for (Index i = 0; i < rows; ++i) std::fill_n(place[p] + i * (own[p] ? N : plane_), N, bias[i]);

    const T* x = op_.x + group * op_.terms * plane_;
    for (Index k = 0; k < op_.terms; k += depth_) {
      const Index depth = std::min(depth_, op_.terms - k);
      pack(all, panels, x + k * plane_, depth, packed.data());
      const T* a = own_weights.data();
      if (in_place_) a = op_.weight.data + (group * op_.rows + i0) * op_.terms + k;
      else if (weights) a = weights + (group * op_.terms + k) * op_.rows + i0 * depth;
      else pack_rows(group, i0, i1, k, depth, own_weights.data());
      const Index a_step = in_place_ ? op_.terms : depth;
      for (Index block = 0; block < rows; block += kRowBlock)
        for (Index p = 0; p < panels; ++p) {
          const Index step = own[p] ? N : plane_;
          tile::Target<T> target{nullptr, step, p == panels - 1 && valid <= L ? L : N, nullptr, step};
          for (Index i = block; i < std::min(rows, block + kRowBlock);) {
            const int tall = tile::height(rows - i);
            target.c = place[p] + i * step;
            if (k > 0 || bias) target.add = target.c;
            tile::run(tall, depth, a + i * a_step, in_place_ ? a_step : tall, in_place_, packed.data() + p * depth * N, N, target);
            i += tall;
          }
          if (!plain && !own[p] && k + depth == op_.terms)  // while these rows are in L1
            for (Index i = block; i < std::min(rows, block + kRowBlock); ++i)
              op_.tail.finish(place[p] + i * plane_, N, channel + i, place[p] + i * plane_ - op_.y);
        }
    }
    for (const Piece& p : all)
      if (own[p.panel])
        for (Index i = 0; i < rows; ++i) {
          T* to = y + p.target + i * plane_;
          tile::copy_few<tile::piece_of(N)>(place[p.panel] + i * N + p.lane, p.count, to);
          if (!plain) op_.tail.finish(to, p.count, channel + i, to - op_.y);
        }
    if (op_.tail.finished)
      for (std::size_t p = 0; p < all.size();) {  // pieces that follow each other are one run
        Index count = all[p].count;
        const Index target = all[p].target;
        for (++p; p < all.size() && all[p].target == target + count; ++p) count += all[p].count;
        for (Index i = 0; i < rows; ++i) op_.tail.tell(y + target + i * plane_, count);
      }
  }

  const PointwiseOperands<T>& op_;
  Index plane_, depth_ = 0, panels_ = 0, stripes_ = 1, range_ = 0, ranges_ = 1;
  bool in_place_ = false;
};

// f(first element of a row of x, first of the row of what the stride keeps) for every row kept of every plane.
template <class F>
void for_each_kept_row(const ConvShape& s, Index plane, F f) {
  Index small = plane * s.out_plane();
  for (Index d = 0; d < s.out[0]; ++d)
    for (Index h = 0; h < s.out[1]; ++h, small += s.out[2])
      f(plane * s.in_plane() + (d * s.stride[0] * s.in[1] + h * s.stride[1]) * s.in[2], small);
}

// x (planes, in) = kept (planes, out) where the stride keeps it, zero between
template <class T>
void spread_strided(const ConvShape& s, const T* kept, T* x) {
  for_each_task(s.batch * s.in_channels, [&](Index plane) {
    std::fill_n(x + plane * s.in_plane(), s.in_plane(), T(0));
    for_each_kept_row(s, plane, [&](Index to, Index from) {
      for (Index w = 0; w < s.out[2]; ++w) x[to + w * s.stride[2]] = kept[from + w];
    });
  });
}

}  // namespace

template <class T>
void gather_strided(const ConvShape& s, const T* x, T* kept) {
  for_each_task(s.batch * s.in_channels, [&](Index plane) {
    for_each_kept_row(s, plane, [&](Index from, Index to) {
      if (s.stride[2] == 2)  // vectorized
        for (Index w = 0; w < s.out[2]; ++w) kept[to + w] = x[from + 2 * w];
      else
        for (Index w = 0; w < s.out[2]; ++w) kept[to + w] = x[from + w * s.stride[2]];
    });
  });
}

bool pointwise_fits(const ConvShape& s) { return s.taps() == 1 && s.padding == Triple{0, 0, 0} && s.in_per_group() > 0; }

// What makes the source is read from farther away than a second cache, and an image's part of it is not; tasks of planes that
// are smaller meet several images; with more rows the product is too long for it to count.
static bool asks(Index images, Index channels, Index rows, Index plane) {
  constexpr Index kLeast = Index(1) << 20, kMostImage = Index(1) << 20, kLeastPlane = 512, kMostRowsAsking = 256;
  return images > 1 && images * channels * plane >= kLeast && channels * plane <= kMostImage && plane >= kLeastPlane &&
         rows <= kMostRowsAsking;
}
bool pointwise_asks(const ConvShape& s) {  // a copy of what a stride keeps is made before
  return pointwise_fits(s) && s.stride == Triple{1, 1, 1} && asks(s.batch, s.in_channels, s.out_per_group(), s.in_plane());
}
bool pointwise_input_grad_asks(const ConvShape& s) {
  return pointwise_fits(s) && asks(s.batch, s.out_channels, s.in_per_group(), s.out_plane());
}

template <class T>
void pointwise_forward(const ConvShape& s, const T* x, const SourceNeeded* needed, const T* w, const Tail<T>& tail, T* y) {
  const bool strided = s.stride != Triple{1, 1, 1};
  Scratch<T> kept(strided ? s.batch * s.in_channels * s.out_plane() : 0);
  if (strided) gather_strided(s, x, kept.data()), x = kept.data();
  const PointwiseOperands<T> op{s.batch, s.groups, s.out_per_group(), s.in_per_group(), s.out_plane(),
                                {w, s.in_per_group(), 1}, x, needed, tail, y};
  Pointwise<T>(op).run();
}

template <class T>
void pointwise_input_grad(const ConvShape& s, const T* g, const SourceNeeded* needed, const T* w, T* gx) {
  const bool strided = s.stride != Triple{1, 1, 1};
  Scratch<T> kept(strided ? s.batch * s.in_channels * s.out_plane() : 0);
  const PointwiseOperands<T> op{s.batch, s.groups, s.in_per_group(), s.out_per_group(), s.out_plane(),
                                {w, 1, s.in_per_group()}, g, needed, {}, strided ? kept.data() : gx};
  Pointwise<T>(op).run();
  if (strided) spread_strided(s, kept.data(), gx);
}

#define TG_POINTWISE(T)                                                                \
  template void pointwise_forward(const ConvShape&, const T*, const SourceNeeded*, const T*, const Tail<T>&, T*); \
  template void pointwise_input_grad(const ConvShape&, const T*, const SourceNeeded*, const T*, T*);        \
  template void gather_strided(const ConvShape&, const T*, T*);
TG_POINTWISE(float)
TG_POINTWISE(double)
#undef TG_POINTWISE

}  // namespace tg
