// Convolution by 3x3 with unit stride, and its gradient to the input, by Winograd's F(2x2, 3x3): 16 products of matrices
// with 2.25 times fewer multiplications than the sum.
//
// Weights are transformed once. A task is a block of tiles: it transforms its inputs, and for 64 output channels at a
// time multiplies and transforms back. Its inputs and products fit L2, the weights are read from L3 once per block.
// The gradient to the input is the same with the filters turned by half a circle and the channels exchanged.
//
// Root mean square error in float32 against float64, over PyTorch's (2.13, direct sums on AVX2) on the same numbers:
// forward 0.8 (16 channels), 0.5 (64), 0.2 (512); gradient to the input 0.6 to 0.8 on maps of 7 to 28, 1.02 on 56x56,
// where oneDNN sums in shorter pieces; gradient to the weight 0.2 to 0.9. Largest errors: 0.1 to 0.5, 0.3 to 0.9, 0.1 to
// 0.5.
// F(4x4, 3x3) was tried for its 4 times fewer multiplications: its error is 4 to 6 times PyTorch's.
//
// A NaN or infinity in the input reaches all outputs of the tiles it lies in, one pixel farther than the sum's.
#include "conv_winograd.h"

#include "../core/allocator.h"
#include "conv_winograd_tiles.h"

namespace tg {
namespace {

constexpr Index kReduceChannels = 256;  // a block of packed weights then takes 16 KB, half of L1
// Sums are made in pieces of so many terms: of the square root of their number the error is least. PyTorch's forward sums
// in pieces on AVX-512 and its gradient everywhere; with one piece ours erred 1.6 times as much as they. Up to 64 channels
// its gradient errs least: there 32 terms err 1.27 times as much, 16 1.08 times, 8 1.02 times, each for 5 % of the time.
constexpr Index kRun = 32, kRunFew = 8, kFewChannels = 64;
constexpr Index kSumBlocks = 4;         // blocks of output channels whose products are held at once
constexpr Index kWantedTasks = 8;       // where there are few blocks of tiles, ranges of output channels make more

struct Map {
  Index height, width;
};

template <class T>
struct WinogradOperands {
  Index images, groups, source_channels, target_channels;
  Map source, target;
  Index before_y, before_x;  // zeros in front of the source
  const T* x;
  const bfloat16* narrow;  // the source where x is null
  const T* w;
  Tail<T> tail;
  T* y;
  Index weight_group, weight_target, weight_source;  // element strides
  bool turned;                                       // taps in opposite order
  Index run;                                         // terms of a sum's pieces
};

template <class T>
class Winograd {
 public:
  explicit Winograd(const WinogradOperands<T>& op)
      : op_(op),
        grid_(op.images, op.target.height, op.target.width),
        k_(op.source_channels / op.groups),
        blocks_(channel_blocks(op.target_channels / op.groups, L)) {
    for (const ChannelBlock& block : blocks_) {
      offset_.push_back(group_size_);
      group_size_ += kProducts * weight_stride(block);
    }
    row_ = round_up(k_, L) + 16;  // off powers of two, which would all fall into the same few sets of L1
    product_ = round_up(grid_.most_tiles, kTileRows) * row_ + 16;
  }

  void run() {
    Scratch<T> weights(group_size_ * op_.groups);
    const Index count = static_cast<Index>(blocks_.size());
    const Index parts = divide_up(k_, kPackChannels);
    for_each_task(op_.groups * count * parts, [&](Index task) {
      const Index part = task % parts, block = task / parts % count, group = task / parts / count;
      transform_weights(group, blocks_[block], part * kPackChannels,
                        std::min(k_, (part + 1) * kPackChannels), weights.data() + group * group_size_ + offset_[block]);
    });
    const Index tiles = grid_.blocks() * op_.groups;
    const Index ranges = std::clamp<Index>(divide_up(kWantedTasks, tiles), 1, divide_up(count, kSumBlocks));
    for_each_task(tiles * ranges, [&](Index task) {
      const Index range = task % ranges, group = task / ranges % op_.groups;
      compute(grid_.block(task / ranges / op_.groups), group, count * range / ranges, count * (range + 1) / ranges,
              weights.data() + group * group_size_);
    });
  }

 private:
  static constexpr Index L = Lanes<T>::count;
  static constexpr Index kPackChannels = 32;

  Index weight_stride(const ChannelBlock& block) const { return k_ * block.width + 16; }

  // G g G' of source channels [first, last): to[p][channel][width]
  void transform_weights(Index group, const ChannelBlock& block, Index first, Index last, T* to) const {
    const Index width = block.width, stride = weight_stride(block), count = last - first;
    const T* from = op_.w + group * op_.weight_group + block.first * op_.weight_target + first * op_.weight_source;
    Scratch<T> taps(count * 9 * width);
    if (op_.weight_source == 9)
      tile_pack(from, op_.weight_target, count * 9, block.valid, taps.data(), width);
    else
      for (Index c = 0; c < count; ++c)
        tile_pack(from + c * op_.weight_source, op_.weight_target, 9, block.valid, taps.data() + c * 9 * width, width);
    const T half = T(0.5);
    auto expand = [&](Vec<T> g0, Vec<T> g1, Vec<T> g2, Vec<T>* u) {
      const Vec<T> even = (g0 + g2) * half, odd = g1 * half;
      u[0] = g0;
      u[1] = even + odd;
      u[2] = even - odd;
      u[3] = g2;
    };
    for (Index c = 0; c < count; ++c)
      for (Index v = 0; v < width; v += L) {
        const T* g = taps.data() + c * 9 * width + v;
        auto tap = [&](int i) { return load(g + (op_.turned ? 8 - i : i) * width); };
        Vec<T> columns[3][4];
        for (int i = 0; i < 3; ++i) expand(tap(i), tap(3 + i), tap(6 + i), columns[i]);
        for (int i = 0; i < 4; ++i) {
          Vec<T> u[4];
          expand(columns[0][i], columns[1][i], columns[2][i], u);
          for (int j = 0; j < 4; ++j) store(to + (4 * i + j) * stride + (first + c) * width + v, u[j]);
        }
      }
  }

  void compute(const TileBlock& block, Index group, Index first_block, Index last_block, const T* weights) const {
    const Index tiles = block.tiles(), padded = round_up(tiles, kTileRows);
    Scratch<T> inputs(kProducts * product_);
    Scratch<T> box(std::max(grid_.most_box, 8 * tiles) * L);  // of one vector of inputs, then of a block of outputs
    const Index plane = op_.source.height * op_.source.width;
    const auto transform = [&](const auto* source) {
      transform_block(grid_, block, source + group * k_ * plane, source + op_.images * op_.source_channels * plane,
                      op_.source_channels * plane, op_.source.height, op_.source.width, op_.before_y, op_.before_x, k_,
                      box.data(), inputs.data(), product_, row_);
    };
    if (op_.x) transform(op_.x);
    else if constexpr (std::is_same_v<T, float>) transform(op_.narrow);
    for (int p = 0; p < kProducts; ++p)
      std::fill(inputs.data() + p * product_ + tiles * row_, inputs.data() + p * product_ + padded * row_, T(0));
    const Index sum_stride = kSumBlocks * padded * 2 * L + 16;
    Scratch<T> sums(kProducts * sum_stride);
    for (Index b0 = first_block; b0 < last_block; b0 += kSumBlocks) {
      const Index b1 = std::min(b0 + kSumBlocks, last_block);
      for (int p = 0; p < kProducts; ++p)
        for (Index k = 0; k < k_; k += kReduceChannels) {
          const Index count = std::min(kReduceChannels, k_ - k);
          for (Index b = b0; b < b1; ++b) {
            const Index width = blocks_[b].width;
            const T* w = weights + offset_[b] + p * weight_stride(blocks_[b]) + k * width;
            const T* x = inputs.data() + p * product_ + k;
            T* to = sums.data() + p * sum_stride + (b - b0) * padded * 2 * L;
            if (width == L) product_rows<T, 1, false>(x, row_, padded, w, count, op_.run, to, k > 0);
            else product_rows<T, 2, false>(x, row_, padded, w, count, op_.run, to, k > 0);
          }
        }
      for (Index b = b0; b < b1; ++b)
        store_block(block, group, blocks_[b], sums.data() + (b - b0) * padded * 2 * L, sum_stride, box.data());
    }
  }

  // A' m A of one block of output channels, from [p][tile][width] to planes.
  void store_block(const TileBlock& block, Index group, const ChannelBlock& channels, const T* sums, Index stride,
                   T* pixels) const {
    const Index width = channels.width, plane = op_.target.height * op_.target.width;
    const Index channel = group * (op_.target_channels / op_.groups) + channels.first;
    const Index cols = std::min(2 * block.cols, op_.target.width - 2 * block.col);
    grid_.for_each_image(block, [&](Index image, Index y, Index rows, Index tile) {
      const Index height = std::min(2 * rows, op_.target.height - 2 * y);
      for (Index r = 0; r < rows; ++r)
        for (Index c = 0; c < block.cols; ++c, ++tile)
          for (Index v = 0; v < width; v += L) {
            const T* m = sums + tile * width + v;
            Vec<T> top[4], bottom[4];
#pragma GCC unroll 4
            for (int j = 0; j < 4; ++j) {
              const Vec<T> m1 = load(m + (4 + j) * stride), m2 = load(m + (8 + j) * stride);
              top[j] = load(m + j * stride) + (m1 + m2);
              bottom[j] = (m1 - m2) - load(m + (12 + j) * stride);
            }
            T* to = pixels + (2 * r * cols + 2 * c) * width + v;
            const bool right = 2 * c + 1 < cols;
            store(to, top[0] + (top[1] + top[2]));
            if (right) store(to + width, (top[1] - top[2]) - top[3]);
            if (2 * r + 1 < height) {
              store(to + cols * width, bottom[0] + (bottom[1] + bottom[2]));
              if (right) store(to + (cols + 1) * width, (bottom[1] - bottom[2]) - bottom[3]);
            }
          }
      const Index at = (image * op_.target_channels + channel) * plane + 2 * y * op_.target.width + 2 * block.col;
      T* to = op_.y + at;
      const Tail<T> tail = op_.tail.at(channel, at);
      if (cols == op_.target.width)
        tile_unpack(pixels, width, height * cols, channels.valid, tail, to, plane);
      else
        for (Index r = 0; r < height; ++r)
          tile_unpack(pixels + r * cols * width, width, cols, channels.valid, tail.at(0, r * op_.target.width),
                      to + r * op_.target.width, plane);
    });
  }

  const WinogradOperands<T>& op_;
  TileGrid grid_;
  Index k_;
  std::vector<ChannelBlock> blocks_;
  std::vector<Index> offset_;
  Index group_size_ = 0, row_ = 0, product_ = 0;
};

}  // namespace

static bool computes(const ConvShape& s) {
  const Triple ones{1, 1, 1};
  if (s.kernel != Triple{1, 3, 3} || s.stride != ones || s.dilation != ones || s.in[0] != 1) return false;
  if (s.padding[0] != 0 || s.padding[1] > 2 || s.padding[2] > 2) return false;
  return s.in_per_group() >= 16 && s.out_per_group() >= 16;
}

// With fewer tiles than that the transform of the weights costs more than it saves (one image, 512 channels, 7x7, forward:
// 3.3 ms against 2.2 of the sum; the gradient to the input gained nothing that stood out of the noise).
bool winograd_fits(const ConvShape& s) {
  return computes(s) && s.batch * divide_up(s.out[1], 2) * divide_up(s.out[2], 2) >= kFewTiles;
}
bool winograd_fits_weight(const ConvShape& s) { return computes(s); }

bool winograd_stores_rows(const ConvShape& s) {
  const TileGrid grid(s.batch, s.out[1], s.out[2]);
  return 2 * grid.block(0).cols >= s.out[2];
}

template <class T>
void winograd_forward(const ConvShape& s, const WinogradSource<T>& x, const T* w, const Tail<T>& tail, T* y) {
  const WinogradOperands<T> op{s.batch, s.groups, s.in_channels, s.out_channels, {s.in[1], s.in[2]},
                               {s.out[1], s.out[2]}, s.padding[1], s.padding[2], x.values, x.narrow, w, tail, y,
                               s.out_per_group() * s.in_per_group() * 9, s.in_per_group() * 9, 9, false, kRun};
  Winograd<T>(op).run();
}

template <class T>
void winograd_input_grad(const ConvShape& s, const WinogradSource<T>& g, const T* w, T* gx) {
  const WinogradOperands<T> op{s.batch, s.groups, s.out_channels, s.in_channels, {s.out[1], s.out[2]},
                               {s.in[1], s.in[2]}, 2 - s.padding[1], 2 - s.padding[2], g.values, g.narrow, w, {}, gx,
                               s.out_per_group() * s.in_per_group() * 9, 9, s.in_per_group() * 9, true,
                               s.out_per_group() <= kFewChannels ? kRunFew : kRun};
  Winograd<T>(op).run();
}

#define TG_WINOGRAD(T)                                                                \
  template void winograd_forward(const ConvShape&, const WinogradSource<T>&, const T*, const Tail<T>&, T*); \
  template void winograd_input_grad(const ConvShape&, const WinogradSource<T>&, const T*, T*);
TG_WINOGRAD(float)
TG_WINOGRAD(double)
#undef TG_WINOGRAD

}  // namespace tg
