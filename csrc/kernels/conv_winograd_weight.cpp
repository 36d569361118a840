// The gradient of a 3x3 convolution with unit stride to its weight, by the transpose of F(2x2, 3x3):
// gw = G'[sum over tiles of (A g A') * (B' d B)]G, with 16 products where the sum has 36.
//
// A task owns some input and output channels, whose 16 matrices stay in its L2, and walks its part of the tiles a block
// at a time. Where there are few such ranges the tiles are cut into parts by shape alone, and the parts are added in
// their order: the same bits for any number of threads.
#include "../core/allocator.h"
#include "conv_winograd.h"
#include "conv_winograd_tiles.h"

namespace tg {
namespace {

constexpr Index kRange = 64;  // channels of a task on either side: 16 matrices of float take 256 KB
constexpr Index kMostParts = 8;
constexpr Index kFinished = 8;  // input channels of a task that adds parts

template <class T>
class WinogradWeight {
 public:
  WinogradWeight(const ConvShape& s, const WinogradSource<T>& g, const WinogradSource<T>& x, T* gw)
      : s_(s), g_(g), x_(x), gw_(gw), grid_(s.batch, s.out[1], s.out[2]) {
    out_ranges_ = divide_up(s.out_per_group(), kRange);
    in_ranges_ = divide_up(s.in_per_group(), kRange);
    out_ = round_up(divide_up(s.out_per_group(), out_ranges_), 2 * L);
    out_ranges_ = divide_up(s.out_per_group(), out_);
    in_ = divide_up(s.in_per_group(), in_ranges_);
    sum_product_ = round_up(in_, kTileRows) * out_ + 16;
    const Index ranges = s.groups * out_ranges_ * in_ranges_;
    parts_ = std::clamp<Index>(divide_up(kMostParts, ranges), 1, grid_.blocks());
  }

  void run() {
    const Index ranges = s_.groups * out_ranges_ * in_ranges_, size = kProducts * sum_product_;
    Scratch<T> partial(parts_ * ranges * size);
    for_each_task(parts_ * ranges, [&](Index task) {
      accumulate(task % ranges, task / ranges, partial.data() + task * size);
    });
    // few ranges have parts: their channels are shared out, so that all threads add
    const Index chunk = parts_ > 1 ? kFinished : in_, chunks = divide_up(in_, chunk);
    for_each_task(ranges * chunks, [&](Index task) {
      const Index range = task / chunks;
      finish(range, task % chunks * chunk, chunk, partial.data() + range * size, ranges * size);
    });
  }

 private:
  static constexpr Index L = Lanes<T>::count;

  // f(the first of the numbers, as they are stored)
  template <class F>
  static void each(const WinogradSource<T>& source, F f) {
    if (source.values) f(source.values);
    else if constexpr (std::is_same_v<T, float>) f(source.narrow);
  }

  struct Range {
    Index group, out, outs, in, ins;  // first channel of each side within the group, and how many
  };

  Range range_of(Index i) const {
    const Index in = i % in_ranges_ * in_, out = i / in_ranges_ % out_ranges_ * out_;
    return {i / in_ranges_ / out_ranges_, out, std::min(out_, s_.out_per_group() - out), in,
            std::min(in_, s_.in_per_group() - in)};
  }

  void accumulate(Index range, Index part, T* sums) const {
    const Range r = range_of(range);
    const Index first = grid_.blocks() * part / parts_, last = grid_.blocks() * (part + 1) / parts_;
    const Index row = round_up(r.ins, std::max<Index>(L, kTileRows)) + 16;
    const Index product = grid_.most_tiles * row + 16, gradient = grid_.most_tiles * out_ + 16;
    Scratch<T> inputs(kProducts * product), gradients(kProducts * gradient);
    Scratch<T> box(grid_.most_box * L);
    const Index x_plane = s_.in_plane();
    const Index x_first = (r.group * s_.in_per_group() + r.in) * x_plane;
    const std::vector<ChannelBlock> blocks = channel_blocks(r.outs, L);
    // the rows that round up a register tile are read, and what comes of them is dropped
    std::fill_n(inputs.data(), kProducts * product, T(0));
    for (Index i = first; i < last; ++i) {
      const TileBlock block = grid_.block(i);
      each(x_, [&](const auto* x) {
        transform_block(grid_, block, x + x_first, x + s_.batch * s_.in_channels * x_plane, s_.in_channels * x_plane,
                        s_.in[1], s_.in[2], s_.padding[1], s_.padding[2], r.ins, box.data(), inputs.data(), product, row);
      });
      transform_gradient(block, r, box.data(), gradients.data(), gradient);
      for (int p = 0; p < kProducts; ++p)
        for (const ChannelBlock& b : blocks) {
          const T* from = gradients.data() + p * gradient + b.first * block.tiles();
          T* to = sums + p * sum_product_ + b.first * round_up(r.ins, kTileRows);
          const T* xp = inputs.data() + p * product;
          const Index rows = round_up(r.ins, kTileRows);
          if (b.width == L) product_rows<T, 1, true>(xp, row, rows, from, block.tiles(), block.tiles(), to, i > first);
          else product_rows<T, 2, true>(xp, row, rows, from, block.tiles(), block.tiles(), to, i > first);
        }
    }
  }

  // A g A' of a block of tiles: to[p * product + block of channels][tile][width]
  void transform_gradient(const TileBlock& block, const Range& r, T* box, T* to, Index product) const {
    const Index plane = s_.out_plane(), cols = 2 * block.cols;
    const Index g_first = (r.group * s_.out_per_group() + r.out) * plane;
    for (const ChannelBlock& b : channel_blocks(r.outs, L))
      for (Index v = 0; v < b.width; v += L)
        grid_.for_each_image(block, [&](Index image, Index y, Index rows, Index tile) {
          T* place = to + b.first * block.tiles() + tile * b.width + v;
          if (b.first + v >= r.outs) {
            for (int p = 0; p < kProducts; ++p)
              for (Index t = 0; t < rows * block.cols; ++t) store(place + p * product + t * b.width, Vec<T>{});
            return;
          }
          each(g_, [&](const auto* g) {
            const Plane<std::decay_t<decltype(*g)>> planes{
                g + g_first + (image * s_.out_channels + b.first + v) * plane, g + s_.batch * s_.out_channels * plane,
                s_.out[1], s_.out[2], plane};
            gather_box(planes, std::min(L, r.outs - b.first - v), 2 * y, 2 * rows, 2 * block.col, cols, box);
          });
          for (Index row = 0; row < rows; ++row)
            for (Index c = 0; c < block.cols; ++c, place += b.width) {
              const T* d = box + (2 * row * cols + 2 * c) * L;
              const Vec<T> a0 = load(d), a1 = load(d + L), b0 = load(d + cols * L), b1 = load(d + (cols + 1) * L);
              const Vec<T> left[4] = {a0, a0 + b0, a0 - b0, -b0}, right[4] = {a1, a1 + b1, a1 - b1, -b1};
#pragma GCC unroll 4
              for (int i = 0; i < 4; ++i) {
                store(place + (4 * i) * product, left[i]);
                store(place + (4 * i + 1) * product, left[i] + right[i]);
                store(place + (4 * i + 2) * product, left[i] - right[i]);
                store(place + (4 * i + 3) * product, -right[i]);
              }
            }
        });
  }

  // G' u G of some input channels, from [p][block of channels][input channel][width] to
  // gw[output channel][input channel][tap]
  void finish(Index range, Index first, Index most, T* sums, Index part_stride) const {
    const Range r = range_of(range);
    const Index padded = round_up(r.ins, kTileRows), count = std::min(most, r.ins - first);
    if (count <= 0) return;
    const T half = T(0.5);
    auto collapse = [&](Vec<T> u0, Vec<T> u1, Vec<T> u2, Vec<T> u3, Vec<T>* g) {
      const Vec<T> even = (u1 + u2) * half;
      g[0] = u0 + even;
      g[1] = (u1 - u2) * half;
      g[2] = even + u3;
    };
    Scratch<T> taps(count * 9 * 2 * L);
    for (const ChannelBlock& b : channel_blocks(r.outs, L)) {
      T* from = sums + b.first * padded + first * b.width;
      for (int p = 0; p < kProducts; ++p)
        for (Index part = 1; part < parts_; ++part) {
          T* to = from + p * sum_product_;
          const T* more = to + part * part_stride;
          for (Index i = 0; i < count * b.width; ++i) to[i] += more[i];
        }
      for (Index c = 0; c < count; ++c)
        for (Index v = 0; v < b.width; v += L) {
          Vec<T> columns[4][3];
          for (int j = 0; j < 4; ++j) {
            const T* u = from + c * b.width + v + j * sum_product_;
            collapse(load(u), load(u + 4 * sum_product_), load(u + 8 * sum_product_), load(u + 12 * sum_product_),
                     columns[j]);
          }
          for (int i = 0; i < 3; ++i) {
            Vec<T> g[3];
            collapse(columns[0][i], columns[1][i], columns[2][i], columns[3][i], g);
            for (int j = 0; j < 3; ++j) store(taps.data() + (c * 9 + 3 * i + j) * b.width + v, g[j]);
          }
        }
      const Index line = s_.in_per_group() * 9;
      T* to = gw_ + (r.group * s_.out_per_group() + r.out + b.first) * line + (r.in + first) * 9;
      tile_unpack<T>(taps.data(), b.width, count * 9, b.valid, {}, to, line);
    }
  }

  const ConvShape& s_;
  WinogradSource<T> g_, x_;
  T* gw_;
  TileGrid grid_;
  Index out_ranges_ = 1, in_ranges_ = 1, out_ = 0, in_ = 0, sum_product_ = 0, parts_ = 1;
};

}  // namespace

template <class T>
void winograd_weight_grad(const ConvShape& s, const WinogradSource<T>& g, const WinogradSource<T>& x, T* gw) {
  WinogradWeight<T>(s, g, x, gw).run();
}

template void winograd_weight_grad(const ConvShape&, const WinogradSource<float>&, const WinogradSource<float>&, float*);
template void winograd_weight_grad(const ConvShape&, const WinogradSource<double>&, const WinogradSource<double>&, double*);

}  // namespace tg
