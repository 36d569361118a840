// Batch norm and group norm of x (batch, channels, plane), dense, and their gradients in x; batch norm followed by
// ReLU, whose gradient passes where (x - mean) scale + shift, found again as forward found it, is positive; batch norm
// by given statistics. Half precision is computed in float and rounded once.
//
// A statistic belongs to a channel of all samples, or (`per` > 0) to `per` neighbouring channels of one sample.
// Statistics are those of channels: for groups, the array is seen as (1, batch * groups, per * plane). They come in
// two stages, parts of a channel first, which the shape alone decides: the bits depend neither on the grid nor on
// who is first.

namespace tg {

struct Channels {
  i64 batch, channels, plane;
};

// visit(where, Count<N>()) for what this thread has of the elements `first` to `last` of a channel.
template <class T, class Visit>
TG_FN void over_channel(Team team, Channels s, i64 channel, i64 first, i64 last, Visit visit) {
  constexpr int n = 16 / (int)sizeof(T);
  const bool packed = in_packs<T>(s.plane);
  const i64 step = team.size() * (packed ? (i64)n : 1);
  const i64 samples = quotient(step, s.plane), rest = step - samples * s.plane;  // one division, then additions
  i64 i = first + team.rank() * (packed ? (i64)n : 1), sample = quotient(i, s.plane), at = i - sample * s.plane;
  for (; i < last; i += step) {
    const i64 where = (sample * s.channels + channel) * s.plane + at;
    if (packed) visit(where, Count<n>());
    else visit(where, Count<1>());
    sample += samples;
    at += rest;
    if (at >= s.plane) {
      at -= s.plane;
      ++sample;
    }
  }
}

// Mean, less the pivot (the channel's first element), and sum of squared deviations of each part of a channel. See
// norm_columns.cu for why.
template <class T>
TG_FN void channel_stats(Team team, Channels s, i64 parts, i64 per_part, const T* x, typename wide<T>::type* means,
                         typename wide<T>::type* squares) {
  typedef typename wide<T>::type W;
  for (i64 k = team.first(); k < s.channels * parts; k += team.step()) {
    const i64 channel = quotient(k, parts), part = k - channel * parts, first = part * per_part;
    const i64 last = first + per_part < s.batch * s.plane ? first + per_part : s.batch * s.plane;
    const W pivot = widened(x[channel * s.plane]), count = last - first;
    W mean = 0, drift = 0, square = 0;
    over_channel<T>(team, s, channel, first, last, [&](i64 i, auto n) {
      constexpr int N = decltype(n)::value;
      const Some<W, N> v = fetch<N>(x + i);
#pragma unroll
      for (int e = 0; e < N; ++e) mean += v.v[e] - pivot;
    });
    mean = team.sum(mean) / count;
    over_channel<T>(team, s, channel, first, last, [&](i64 i, auto n) {
      constexpr int N = decltype(n)::value;
      const Some<W, N> v = fetch<N>(x + i);
#pragma unroll
      for (int e = 0; e < N; ++e) {
        const W apart = v.v[e] - pivot - mean;
        drift += apart;
        square += apart * apart;
      }
    });
    drift = team.sum(drift);
    square = team.sum(square);
    if (team.rank() == 0) {
      means[part * s.channels + channel] = mean + drift / count;
      squares[part * s.channels + channel] = square - drift * drift / count;
    }
  }
}

template <class W> struct Moments {
  W count = 0, mean = 0, square = 0;
  // Chan, Golub, LeVeque 1979
  TG_FN void join(const Moments& other) {
    if (other.count == 0) return;
    const W total = count + other.count, apart = other.mean - mean, share = other.count / total;
    mean += apart * share;
    square += other.square + apart * apart * (count * share);
    count = total;
  }
};

// The parts of a channel together, a warp a channel. `variances` may be null; `shifts`, if not, get b or zeros.
template <class T>
TG_FN void statistics(i64 count, i64 channels, i64 plane, i64 parts, i64 per_part, typename wide<T>::type eps,
                      const T* x, const typename wide<T>::type* part_means, const typename wide<T>::type* squares,
                      typename wide<T>::type* means, typename wide<T>::type* rstds,
                      typename wide<T>::type* variances, bool wide_bias, const void* b,
                      typename wide<T>::type* shifts) {
  typedef typename wide<T>::type W;
  const Parameter<T> bias{b, wide_bias};
  const Team warp{false};
  for (i64 channel = warp.first(); channel < channels; channel += warp.step()) {
    Moments<W> mine;
    for (i64 part = warp.rank(); part < parts; part += warp.size()) {
      const i64 left = count - part * per_part;
      Moments<W> more;
      more.count = left < per_part ? left : per_part;
      more.mean = part_means[part * channels + channel];
      more.square = squares[part * channels + channel];
      mine.join(more);
    }
    for (int mask = kWarp / 2; mask; mask /= 2) {
      Moments<W> other;
      other.count = __shfl_xor_sync(0xffffffffu, mine.count, mask);
      other.mean = __shfl_xor_sync(0xffffffffu, mine.mean, mask);
      other.square = __shfl_xor_sync(0xffffffffu, mine.square, mask);
      mine.join(other);
    }
    if (warp.rank() == 0) {
      const W variance = mine.square < 0 ? 0 : mine.square / (W)count;
      means[channel] = widened(x[channel * plane]) + mine.mean;
      rstds[channel] = 1 / sqrt(variance + eps);
      if (variances) variances[channel] = variance;
      if (shifts) shifts[channel] = bias.template get<1>(channel, 0).v[0];
    }
  }
}

// y = f(inputs) of all elements, f being f(run) of the run of `plane` elements that an element is in.
template <class T, class F, class... X>
TG_FN void by_runs(i64 total, Channels s, T* y, F f, const X*... x) {
  typedef typename wide<T>::type W;
  constexpr int n = 16 / (int)sizeof(T);
  const bool packed = in_packs<T>(total);
  const auto some = [&](i64 i, auto count) {
    constexpr int N = decltype(count)::value;
    const Some<W, N> v[] = {fetch<N>(x + i)...};
    Some<W, N> made;
    i64 run = quotient(i, s.plane), at = i - run * s.plane, channel = run - quotient(run, s.channels) * s.channels;
    auto of_run = f(run, channel);
#pragma unroll
    for (int e = 0; e < N; ++e) {
      if (e && ++at == s.plane) {
        at = 0;
        ++run;
        if (++channel == s.channels) channel = 0;
        of_run = f(run, channel);
      }
      if constexpr (sizeof...(X) == 1) made.v[e] = of_run(v[0].v[e]);
      else made.v[e] = of_run(v[0].v[e], v[1].v[e]);
    }
    deposit<N>(y + i, made);
  };
  if (packed) {
    for (i64 i = first_thread() * n; i < total; i += thread_step() * n) some(i, Count<n>());
  } else {
    for (i64 i = first_thread(); i < total; i += thread_step()) some(i, Count<1>());
  }
}

template <class W> struct Scaled {
  W mean, scale, shift;
  TG_FN W operator()(W x) const { return (x - mean) * scale + shift; }
};
template <class W> struct Rectified {
  Scaled<W> before;
  TG_FN W operator()(W x) const {
    const W y = before(x);
    return y > 0 || y != y ? y : 0;
  }
};
template <bool Relu, class W> TG_FN auto rectified(Scaled<W> of_run) {
  if constexpr (Relu) return Rectified<W>{of_run};
  else return of_run;
}
template <bool Relu, class T>
TG_FN void channel_norm(Channels s, i64 per, bool wide_affine, const T* x, const typename wide<T>::type* means,
                        const typename wide<T>::type* rstds, const void* w, const void* b, T* y) {
  typedef typename wide<T>::type W;
  const Parameter<T> weight{w, wide_affine}, bias{b, wide_affine};
  by_runs(s.batch * s.channels * s.plane, s, y, [&](i64 run, i64 channel) {
    const i64 at = per ? quotient(run, per) : channel;
    return rectified<Relu>(Scaled<W>{means[at], rstds[at] * weight.template get<1>(channel, 1).v[0],
                                     bias.template get<1>(channel, 0).v[0]});
  }, x);
}

// Statistics that were given: mean and variance of each channel, stored as the data is, or wide.
template <class T> struct Given {
  typedef typename wide<T>::type W;
  Parameter<T> means, variances;
  W eps;
  TG_FN W mean(i64 channel) const { return means.template get<1>(channel, 0).v[0]; }
  TG_FN W rstd(i64 channel) const { return 1 / sqrt(variances.template get<1>(channel, 1).v[0] + eps); }
};
template <class T>
TG_FN void given_norm(Channels s, bool wide_affine, Given<T> given, const T* x, const void* w, const void* b, T* y) {
  typedef typename wide<T>::type W;
  const Parameter<T> weight{w, wide_affine}, bias{b, wide_affine};
  by_runs(s.batch * s.channels * s.plane, s, y, [&](i64, i64 channel) {
    return Scaled<W>{given.mean(channel), given.rstd(channel) * weight.template get<1>(channel, 1).v[0],
                     bias.template get<1>(channel, 0).v[0]};
  }, x);
}

template <class W> struct Times {
  W scale;
  TG_FN W operator()(W g) const { return g * scale; }
};
template <class T>
TG_FN void given_norm_backward(Channels s, bool wide_weight, Given<T> given, const T* g, const void* w, T* gx) {
  typedef typename wide<T>::type W;
  const Parameter<T> weight{w, wide_weight};
  by_runs(s.batch * s.channels * s.plane, s, gx, [&](i64, i64 channel) {
    return Times<W>{given.rstd(channel) * weight.template get<1>(channel, 1).v[0]};
  }, g);
}

template <class T>
TG_FN void given_stats(i64 channels, Given<T> given, typename wide<T>::type* means, typename wide<T>::type* rstds) {
  for (i64 channel = first_thread(); channel < channels; channel += thread_step()) {
    means[channel] = given.mean(channel);
    rstds[channel] = given.rstd(channel);
  }
}

// along[part, channel] = sum of g n, n = (x - mean) rstd; plain[part, channel] = sum of g. A statistic belongs to `per`
// neighbouring channels here. With a ReLU behind, g is zero where it did not pass.
template <bool Relu, class T>
TG_FN void channel_sums(Team team, Channels s, i64 parts, i64 per_part, i64 per, const T* g, const T* x,
                        const typename wide<T>::type* means, const typename wide<T>::type* rstds,
                        typename wide<T>::type* along, typename wide<T>::type* plain, bool wide_weight = false,
                        const void* w = nullptr, const typename wide<T>::type* shifts = nullptr) {
  typedef typename wide<T>::type W;
  const Parameter<T> weight{w, wide_weight};
  for (i64 k = team.first(); k < s.channels * parts; k += team.step()) {
    const i64 channel = quotient(k, parts), part = k - channel * parts, first = part * per_part;
    const i64 last = first + per_part < s.batch * s.plane ? first + per_part : s.batch * s.plane;
    const W mean = means[quotient(channel, per)], rstd = rstds[quotient(channel, per)];
    W products = 0, sum = 0;
    Scaled<W> forward{mean};
    if (Relu) forward.scale = rstd * weight.template get<1>(channel, 1).v[0], forward.shift = shifts[channel];
    over_channel<T>(team, s, channel, first, last, [&](i64 i, auto n) {
      constexpr int N = decltype(n)::value;
      const Some<W, N> a = fetch<N>(g + i), v = fetch<N>(x + i);
#pragma unroll
      for (int e = 0; e < N; ++e) {
        const W slope = !Relu || forward(v.v[e]) > 0 ? a.v[e] : 0;
        sum += slope;
        products += slope * ((v.v[e] - mean) * rstd);
      }
    });
    products = team.sum(products);
    sum = team.sum(sum);
    if (team.rank() == 0) {
      along[part * s.channels + channel] = products;
      plain[part * s.channels + channel] = sum;
    }
  }
}

// Sums over the `per` channels of each group of those sums times w, a warp a group.
template <class T>
TG_FN void group_sums(i64 groups, i64 per, i64 channels, bool wide_weight, const void* w,
                      const typename wide<T>::type* along, const typename wide<T>::type* plain,
                      typename wide<T>::type* group_along, typename wide<T>::type* group_plain) {
  typedef typename wide<T>::type W;
  const Team warp{false};
  const Parameter<T> weight{w, wide_weight};
  for (i64 group = warp.first(); group < groups; group += warp.step()) {
    const i64 first = group * per, channel = first - quotient(first, channels) * channels;
    W products = 0, sum = 0;
    for (i64 k = warp.rank(); k < per; k += warp.size()) {
      const W factor = weight.template get<1>(channel + k, 1).v[0];
      products += factor * along[first + k];
      sum += factor * plain[first + k];
    }
    products = warp.sum(products);
    sum = warp.sum(sum);
    if (warp.rank() == 0) {
      group_along[group] = products;
      group_plain[group] = sum;
    }
  }
}

template <class W> struct Through {
  W mean, rstd, in, middle, along, out;
  TG_FN W operator()(W g, W x) const { return (g * in - middle - (x - mean) * rstd * along) * out; }
};
template <class W> struct ThroughRelu {
  Through<W> behind;
  Scaled<W> forward;
  TG_FN W operator()(W g, W x) const { return behind(forward(x) > 0 ? g : 0, x); }
};
// gx = (h - mean of h - n * mean of h n) rstd, where h = g w. The sums of groups have w in them, those of channels not.
template <bool Relu, class T>
TG_FN void channel_norm_backward(Channels s, i64 per, bool wide_weight, const T* g, const T* x,
                                 const typename wide<T>::type* means, const typename wide<T>::type* rstds,
                                 const void* w, const typename wide<T>::type* along,
                                 const typename wide<T>::type* plain, T* gx,
                                 const typename wide<T>::type* shifts = nullptr) {
  typedef typename wide<T>::type W;
  const Parameter<T> weight{w, wide_weight};
  const W count = (per ? per : s.batch) * s.plane;
  by_runs(s.batch * s.channels * s.plane, s, gx, [&](i64 run, i64 channel) {
    const i64 at = per ? quotient(run, per) : channel;
    const W factor = weight.template get<1>(channel, 1).v[0], rstd = rstds[at];
    const Through<W> through{means[at], rstd, per ? factor : 1, plain[at] / count, along[at] / count,
                             per ? rstd : rstd * factor};
    if constexpr (Relu) return ThroughRelu<W>{through, {means[at], rstd * factor, shifts[channel]}};
    else return through;
  }, g, x);
}

}  // namespace tg

#define CHANNELSTATS(name, T, W)                                                                                       \
  extern "C" __global__ void channelstats_##name(const tg::i64 block, const tg::i64 batch, const tg::i64 channels,     \
                                                 const tg::i64 plane, const tg::i64 parts, const tg::i64 per_part,     \
                                                 const T* x, W* means, W* squares) {                                   \
    tg::channel_stats<T>({block != 0}, {batch, channels, plane}, parts, per_part, x, means, squares);                  \
  }

#define STATISTICS(name, T, W)                                                                                         \
  extern "C" __global__ void statistics_##name(const tg::i64 count, const tg::i64 channels, const tg::i64 plane,       \
                                               const tg::i64 parts, const tg::i64 per_part, const W eps, const T* x,   \
                                               const W* part_means, const W* squares, W* means, W* rstds,              \
                                               W* variances, const tg::i64 wide_bias, const void* b, W* shifts) {      \
    tg::statistics<T>(count, channels, plane, parts, per_part, eps, x, part_means, squares, means, rstds, variances,   \
                      wide_bias, b, shifts);                                                                           \
  }

#define CHANNELNORM_OF(kind, relu, name, T, W)                                                                         \
  extern "C" __global__ void kind##_##name(const tg::i64 batch, const tg::i64 channels, const tg::i64 plane,           \
                                           const tg::i64 per, const tg::i64 wide_affine, const T* x, const W* means,   \
                                           const W* rstds, const void* w, const void* b, T* y) {                       \
    tg::channel_norm<relu, T>({batch, channels, plane}, per, wide_affine, x, means, rstds, w, b, y);                   \
  }
#define CHANNELNORM(name, T, W) CHANNELNORM_OF(channelnorm, false, name, T, W)
#define CHANNELNORMRELU(name, T, W) CHANNELNORM_OF(channelnormrelu, true, name, T, W)

#define GIVENSTATS(name, T, W)                                                                                         \
  extern "C" __global__ void givenstats_##name(const tg::i64 channels, const tg::i64 wide_given, const W eps,          \
                                               const void* means, const void* variances, W* to_means, W* to_rstds) {   \
    tg::given_stats<T>(channels, {{means, wide_given != 0}, {variances, wide_given != 0}, eps}, to_means, to_rstds);   \
  }

#define GIVENNORM(name, T, W)                                                                                          \
  extern "C" __global__ void givennorm_##name(const tg::i64 batch, const tg::i64 channels, const tg::i64 plane,        \
                                              const tg::i64 wide_affine, const tg::i64 wide_given, const W eps,        \
                                              const T* x, const void* means, const void* variances, const void* w,     \
                                              const void* b, T* y) {                                                   \
    tg::given_norm<T>({batch, channels, plane}, wide_affine,                                                           \
                      {{means, wide_given != 0}, {variances, wide_given != 0}, eps}, x, w, b, y);                      \
  }

#define GIVENNORMGRAD(name, T, W)                                                                                      \
  extern "C" __global__ void givennormgrad_##name(const tg::i64 batch, const tg::i64 channels, const tg::i64 plane,    \
                                                  const tg::i64 wide_weight, const tg::i64 wide_given, const W eps,    \
                                                  const T* g, const void* variances, const void* w, T* gx) {           \
    tg::given_norm_backward<T>({batch, channels, plane}, wide_weight,                                                  \
                               {{nullptr, false}, {variances, wide_given != 0}, eps}, g, w, gx);                       \
  }

#define CHANNELSUMS(name, T, W)                                                                                        \
  extern "C" __global__ void channelsums_##name(const tg::i64 block, const tg::i64 batch, const tg::i64 channels,      \
                                                const tg::i64 plane, const tg::i64 parts, const tg::i64 per_part,      \
                                                const tg::i64 per, const T* g, const T* x, const W* means,             \
                                                const W* rstds, W* along, W* plain) {                                  \
    tg::channel_sums<false, T>({block != 0}, {batch, channels, plane}, parts, per_part, per, g, x, means, rstds,       \
                               along, plain);                                                                          \
  }

#define CHANNELSUMSRELU(name, T, W)                                                                                    \
  extern "C" __global__ void channelsumsrelu_##name(const tg::i64 block, const tg::i64 batch, const tg::i64 channels,  \
                                                    const tg::i64 plane, const tg::i64 parts, const tg::i64 per_part,  \
                                                    const tg::i64 per, const T* g, const T* x, const W* means,         \
                                                    const W* rstds, W* along, W* plain, const tg::i64 wide_weight,     \
                                                    const void* w, const W* shifts) {                                  \
    tg::channel_sums<true, T>({block != 0}, {batch, channels, plane}, parts, per_part, per, g, x, means, rstds,        \
                              along, plain, wide_weight, w, shifts);                                                   \
  }

#define GROUPSUMS(name, T, W)                                                                                          \
  extern "C" __global__ void groupsums_##name(const tg::i64 groups, const tg::i64 per, const tg::i64 channels,         \
                                              const tg::i64 wide_weight, const void* w, const W* along,                \
                                              const W* plain, W* group_along, W* group_plain) {                        \
    tg::group_sums<T>(groups, per, channels, wide_weight, w, along, plain, group_along, group_plain);                  \
  }

#define CHANNELNORMGRAD(name, T, W)                                                                                    \
  extern "C" __global__ void channelnormgrad_##name(const tg::i64 batch, const tg::i64 channels, const tg::i64 plane,  \
                                                    const tg::i64 per, const tg::i64 wide_weight, const T* g,          \
                                                    const T* x, const W* means, const W* rstds, const void* w,         \
                                                    const W* along, const W* plain, T* gx) {                           \
    tg::channel_norm_backward<false, T>({batch, channels, plane}, per, wide_weight, g, x, means, rstds, w, along,      \
                                        plain, gx);                                                                    \
  }

#define CHANNELNORMGRADRELU(name, T, W)                                                                                \
  extern "C" __global__ void channelnormgradrelu_##name(const tg::i64 batch, const tg::i64 channels,                   \
                                                        const tg::i64 plane, const tg::i64 per,                        \
                                                        const tg::i64 wide_weight, const T* g, const T* x,             \
                                                        const W* means, const W* rstds, const void* w,                 \
                                                        const W* along, const W* plain, T* gx, const W* shifts) {      \
    tg::channel_norm_backward<true, T>({batch, channels, plane}, per, wide_weight, g, x, means, rstds, w, along,       \
                                       plain, gx, shifts);                                                             \
  }
