// One input channel per group: there is nothing to reuse between channels, so they lie along the vector and every tap is
// one multiply-add of a pixel. A task takes a vector of channels of one image, or a band of its rows that stays in L1
// and L2 with its zeros, turns it from planes to pixels, sums, and turns the sums back.
//
// Ladder (16 images, ms on two Zen 3 cores; rows of planes shifted by each tap -> this -> PyTorch beside this, on a machine
// with other work, where single numbers vary by a fifth and more):
//   192 channels 28x28: forward 5.67 -> 1.87 -> 2.18, gradient to the input 5.68 -> 1.96 -> 2.67, to the weight 6.94 -> 0.97 -> 2.26;
//   576 channels 14x14 /2: 11.76 -> 0.44 -> 0.74, 7.83 -> 0.79 -> 1.29, 3.19 -> 0.84 -> 1.23.
#include "conv_depthwise.h"

#include <algorithm>

#include "../core/allocator.h"
#include "conv_lanes.h"
#include "gemm_tasks.h"

namespace tg {
namespace {

constexpr Index kBandBytes = 64 * 1024;  // of the source of a band of rows: half of the smallest L2 with what else is held
constexpr Index kTaskWork = 1 << 14;     // multiply-adds of vectors that a task has at least, where there are as many
constexpr Index kWantedTasks = 16;
constexpr Index kShortSum = 64;          // pixels whose products are summed before they meet the sum of all

// Planes of `sources` and `targets` channels per group; one of the two is one.
struct Sides {
  Index sources, targets;
  Index weight_source, weight_target;  // strides of the weight inside a group
};

// Depths, rows and columns of positions as the source box of a band sees them.
struct Band {
  Index rows;           // positions of a band along the rows
  Index bands;
  Triple box{};         // of the source, for a band
  Index pixels() const { return volume(box); }

  explicit Band(const Walk& walk) {
    for (int a = 0; a < 3; ++a) box[a] = (walk.size[a] - 1) * walk.step[a] + walk.reach[a];
    const Index fit = kBandBytes / (box[0] * box[2] * lanes::kVectorBytes);
    rows = std::clamp<Index>((fit - walk.reach[1]) / walk.step[1] + 1, 1, walk.size[1]);
    bands = divide_up(walk.size[1], rows);
    box[1] = (rows - 1) * walk.step[1] + walk.reach[1];
  }
};

// The box of a band of one image: to[depth][row][column][lane].
template <class T>
void gather_band(const Walk& walk, const Band& band, Index first, Index rows, const T* image, const T* end, Index lane,
                 Index channels, T* to) {
  constexpr Index L = Lanes<T>::count;
  const Index height = (rows - 1) * walk.step[1] + walk.reach[1];
  for (Index d = 0; d < band.box[0]; ++d, to += band.box[1] * band.box[2] * L) {
    const Index depth = d - walk.before[0];
    if (depth < 0 || depth >= walk.source[0]) {
      std::fill_n(to, height * band.box[2] * L, T(0));
      continue;
    }
    const Plane<T> plane{image + depth * walk.source[1] * walk.source[2], end, walk.source[1], walk.source[2], lane};
    gather_box(plane, channels, first * walk.step[1] - walk.before[1], height, -walk.before[2], band.box[2], to);
  }
}

// Offsets in a band's box of the taps of a pass.
std::vector<Index> offsets(const Band& band, const Pass& pass, Index lanes) {
  std::vector<Index> at;
  for (const Triple& t : pass.taps) at.push_back(((t[0] * band.box[1] + t[1]) * band.box[2] + t[2]) * lanes);
  return at;
}

// to[i * to_step] = start + sum over taps of from[at[tap] + i * step] * w[tap], for B pixels.
template <class T, Index B>
void sum_taps(const T* from, Index step, const std::vector<Index>& at, const T* w, Vec<T> start, T* to, Index to_step) {
  constexpr Index L = Lanes<T>::count;
  Vec<T> sum[B];
  for (Index i = 0; i < B; ++i) sum[i] = start;
  for (std::size_t j = 0; j < at.size(); ++j) {
    const Vec<T> by = load(w + j * L);
    const T* x = from + at[j];
#pragma GCC unroll 8
    for (Index i = 0; i < B; ++i) sum[i] += load(x + i * step) * by;
  }
#pragma GCC unroll 8
  for (Index i = 0; i < B; ++i) store(to + i * to_step, sum[i]);
}

// Blocks of eight or four pixels, the last one overlapping the one before.
template <class T>
void sum_row(const T* from, Index step, const std::vector<Index>& at, const T* w, Vec<T> start, T* to, Index to_step,
             Index count) {
  auto run = [&](auto block) {
    constexpr Index B = decltype(block)::value;
    for (Index i = 0; i < count; i += B) {
      const Index place = std::min(i, count - B);
      sum_taps<T, B>(from + place * step, step, at, w, start, to + place * to_step, to_step);
    }
  };
  if (count >= 8) run(std::integral_constant<Index, 8>{});
  else if (count >= 4) run(std::integral_constant<Index, 4>{});
  else run(std::integral_constant<Index, 1>{});
}

template <class T>
void add_planes(const ConvShape& s, const Walk& walk, const Sides& p, const T* source, const SourceNeeded* needed,
                const T* w, const Tail<T>& tail, T* target) {
  constexpr Index L = Lanes<T>::count;
  const Index source_plane = volume(walk.source), target_plane = volume(walk.target), vectors = divide_up(s.groups, L);
  const Band band(walk);
  const Index box = band.pixels() * L;
  // weights and offsets as the inner loop reads them, per pass: [source][tap]
  std::vector<std::vector<Index>> at;
  std::vector<Index> place;
  Index taps = 0;
  for (const Pass& pass : walk.passes) {
    const std::vector<Index> one = offsets(band, pass, L);
    place.push_back(taps);
    at.emplace_back();
    for (Index c = 0; c < p.sources; ++c)
      for (Index offset : one) at.back().push_back(c * box + offset);
    taps += static_cast<Index>(at.back().size());
  }
  Scratch<T> weights(vectors * p.targets * taps * L);
  T* packed = weights.data();
  for (Index v = 0; v < vectors; ++v)
    for (Index t = 0; t < p.targets; ++t)
      for (const Pass& pass : walk.passes)
        for (Index c = 0; c < p.sources; ++c)
          for (Index id : pass.weight)
            for (Index l = 0; l < L; ++l, ++packed) {
              const Index group = v * L + l;
              const Index index = group * s.out_per_group() * s.taps() + c * p.weight_source + t * p.weight_target + id;
              *packed = group < s.groups ? w[index] : T(0);
              if (tail.scale && group < s.groups) *packed *= tail.scale[group * p.targets + t];
            }
  const Triple stride = walk.passes[0].stride;
  const Index band_target = walk.target[0] * std::min(band.rows * stride[1], walk.target[1]) * walk.target[2] * L;
  const SourceParts parts(needed, s.batch, s.groups * p.sources, L * p.sources, source_plane);
  const Index tasks = s.batch * vectors * band.bands;
  const Index work = band.rows * walk.size[0] * walk.size[2] * (p.targets * taps + 4);
  parallel_for(tasks, std::clamp<Index>(kTaskWork / work, 1, divide_up(tasks, kWantedTasks)), [&](Index first, Index last) {
    Scratch<T> pixels(p.sources * box), sums(band_target);
    for (Index task = first; task < last; ++task) {
      const Index b = task % band.bands, v = task / band.bands % vectors, n = task / band.bands / vectors;
      const Index row = b * band.rows, rows = std::min(band.rows, walk.size[1] - row);
      const Index channels = std::min(L, s.groups - v * L);
      parts.need(n, v);
      for (Index c = 0; c < p.sources; ++c)
        gather_band(walk, band, row, rows, source + ((n * s.groups + v * L) * p.sources + c) * source_plane,
                    source + s.batch * s.groups * p.sources * source_plane, p.sources * source_plane, channels,
                    pixels.data() + c * box);
      const Index top = row * stride[1], height = std::min((row + rows) * stride[1], walk.target[1]) - top;
      for (Index t = 0; t < p.targets; ++t) {
        Vec<T> start{};
        T biases[L] = {};
        if (tail.shift) {
          for (Index l = 0; l < channels; ++l) biases[l] = tail.shift[(v * L + l) * p.targets + t];
          start = load(biases);
        }
        for (std::size_t i = 0; i < walk.passes.size(); ++i) {
          const Pass& pass = walk.passes[i];
          const T* by = weights.data() + ((v * p.targets + t) * taps + place[i]) * L;
          for (Index d = 0; d < pass.size[0]; ++d)
            for (Index h = 0; h < std::min(rows, pass.size[1] - row); ++h) {
              const T* from = pixels.data() + (d * walk.step[0] * band.box[1] + h * walk.step[1]) * band.box[2] * L;
              T* to = sums.data() + (((pass.start[0] + d * stride[0]) * height + pass.start[1] + h * stride[1]) *
                                         walk.target[2] + pass.start[2]) * L;
              sum_row(from, walk.step[2] * L, at[i], by, start, to, stride[2] * L, pass.size[2]);
            }
        }
        const Index at_target = ((n * s.groups + v * L) * p.targets + t) * target_plane + top * walk.target[2];
        T* to = target + at_target;
        Tail<T> rest = tail;  // the others are in the sums
        rest.scale = rest.shift = nullptr;
        for (Index d = 0; d < walk.target[0]; ++d)
          tile_unpack<T>(sums.data() + d * height * walk.target[2] * L, L, height * walk.target[2], channels,
                         rest.at(0, at_target + d * walk.target[1] * walk.target[2]), to + d * walk.target[1] * walk.target[2],
                         p.targets * target_plane);
      }
    }
  });
}

// sums[n] += sum over rows and columns of g[row][i] * x[row * row_step + i * step + at[n]]
template <class T, int N>
void dot_taps(const T* g, const T* x, Index rows, Index count, Index row_step, Index step, const Index* at, T* sums) {
  constexpr Index L = Lanes<T>::count;
  Vec<T> sum[N] = {};
  for (Index r = 0; r < rows; ++r, x += row_step)
    for (Index i = 0; i < count; ++i, g += L) {
      const Vec<T> by = load(g);
#pragma GCC unroll 9
      for (int n = 0; n < N; ++n) sum[n] += by * load(x + i * step + at[n]);
    }
  for (int n = 0; n < N; ++n) store(sums + n * L, load(sums + n * L) + sum[n]);
}

}  // namespace

template <class T>
void depthwise_forward(const ConvShape& s, const T* x, const SourceNeeded* needed, const T* w, const Tail<T>& tail, T* y) {
  add_planes(s, forward_walk(s), {1, s.out_per_group(), 0, s.taps()}, x, needed, w, tail, y);
}

template <class T>
void depthwise_input_grad(const ConvShape& s, const T* g, const SourceNeeded* needed, const T* w, T* gx) {
  add_planes<T>(s, input_grad_walk(s), {s.out_per_group(), 1, s.taps(), 0}, g, needed, w, {}, gx);
}

// A task owns a vector of channels and a part of the batch; the parts are added in their order.
template <class T>
void depthwise_weight_grad(const ConvShape& s, const T* g, const T* x, T* gw) {
  constexpr Index L = Lanes<T>::count;
  const Walk walk = forward_walk(s);
  const Band band(walk);
  const std::vector<Index> at = offsets(band, walk.passes[0], L);
  const Index taps = s.taps(), targets = s.out_per_group(), vectors = divide_up(s.groups, L);
  const Index parts = std::clamp<Index>(kWantedTasks / vectors, 1, s.batch), size = targets * taps * L;
  const Index few = std::max<Index>(1, kShortSum / s.out[2]);  // rows
  Scratch<T> partial(parts * vectors * size);
  for_each_task(parts * vectors, [&](Index task) {
    const Index v = task % vectors, part = task / vectors, channels = std::min(L, s.groups - v * L);
    Scratch<T> pixels(band.pixels() * L), gradients(s.out[0] * band.rows * s.out[2] * L);
    T* sums = partial.data() + task * size;
    std::fill_n(sums, size, T(0));
    for (Index n = s.batch * part / parts; n < s.batch * (part + 1) / parts; ++n)
      for (Index row = 0; row < s.out[1]; row += band.rows) {
        const Index rows = std::min(band.rows, s.out[1] - row);
        gather_band(walk, band, row, rows, x + (n * s.groups + v * L) * s.in_plane(),
                    x + s.batch * s.groups * s.in_plane(), s.in_plane(), channels, pixels.data());
        for (Index t = 0; t < targets; ++t) {
          const T* plane = g + ((n * s.groups + v * L) * targets + t) * s.out_plane();
          for (Index d = 0; d < s.out[0]; ++d) {
            const Plane<T> planes{plane + d * s.out[1] * s.out[2], g + s.batch * s.out_channels * s.out_plane(), s.out[1],
                                  s.out[2], targets * s.out_plane()};
            gather_box(planes, channels, row, rows, 0, s.out[2], gradients.data());
            const T* source = pixels.data() + d * walk.step[0] * band.box[1] * band.box[2] * L;
            const Index row_step = walk.step[1] * band.box[2] * L, step = walk.step[2] * L;
            for (Index h = 0; h < rows; h += few) {
              const T *gh = gradients.data() + h * s.out[2] * L, *xh = source + h * row_step;
              const Index some = std::min(few, rows - h);
              Index j = 0;
              auto run = [&](auto block) {
                constexpr int N = decltype(block)::value;
                for (; j + N <= taps; j += N)
                  dot_taps<T, N>(gh, xh, some, s.out[2], row_step, step, at.data() + j, sums + (t * taps + j) * L);
              };
              run(std::integral_constant<int, 9>{});
              run(std::integral_constant<int, 4>{});
              run(std::integral_constant<int, 1>{});
            }
          }
        }
      }
  });
  for (Index part = 1; part < parts; ++part)
    for (Index i = 0; i < vectors * size; ++i) partial[i] += partial[part * vectors * size + i];
  for (Index group = 0; group < s.groups; ++group)
    for (Index i = 0; i < targets * taps; ++i)
      gw[group * targets * taps + i] = partial[group / L * size + i * L + group % L];
}

#define TG_DEPTHWISE(T)                                                                 \
  template void depthwise_forward(const ConvShape&, const T*, const SourceNeeded*, const T*, const Tail<T>&, T*); \
  template void depthwise_input_grad(const ConvShape&, const T*, const SourceNeeded*, const T*, T*);        \
  template void depthwise_weight_grad(const ConvShape&, const T*, const T*, T*);
TG_DEPTHWISE(float)
TG_DEPTHWISE(double)
#undef TG_DEPTHWISE

}  // namespace tg
