// Cross-entropy of class indices, from logits x (rows, classes), dense, and its gradient. Half precision is computed
// in float and rounded once. No probabilities are stored: what is kept is the logarithm of each row's sum of
// exponentials.
//
// target: (rows); a row whose target is `ignore`, or no class, counts for nothing and is not read. That there are
// none of the latter is found along with the sums, so that the caller learns it without another pass. w: (classes),
// or null for ones. The reduction goes in two stages, stretches of rows first, which the shape alone decides.

namespace tg {

constexpr int kLarge = 64;  // a logarithm that float rounds by 4e-6

TG_FN bool counts(i64 target, i64 classes, i64 ignore) { return target != ignore && target >= 0 && target < classes; }

// loss[row] = (lse - x[target]) w[target] (1 - smoothing) + smoothing / classes * sum of (lse - x) w. `rounded`, the
// loss as x is stored, may be null.
template <class T>
TG_FN void cross_entropy(Team team, i64 rows, i64 classes, i64 ignore, typename wide<T>::type smoothing, const T* x,
                         const i64* target, const T* w, T* rounded, typename wide<T>::type* loss,
                         typename wide<T>::type* lses) {
  typedef typename wide<T>::type W;
  const bool packed = in_packs<T>(classes);
  const Parameter<T> weight{w, false};
  for (i64 row = team.first(); row < rows; row += team.step()) {
    const T* const from = x + row * classes;
    Normalizer<W> mine;
    strides<T>(team, 0, classes, packed, [&](i64 i, auto count) {
      constexpr int N = decltype(count)::value;
      const Some<W, N> v = fetch<N>(from + i);
#pragma unroll
      for (int e = 0; e < N; ++e) mine.add(v.v[e]);
    });
    const Normalizer<W> n = mine.of_all(team);
    const W over = log(n.sum), lse = n.most + over;  // beside large logits their sum has no room for the logarithm
    const i64 t = target[row];
    const bool count = counts(t, classes, ignore);
    W spread = 0;
    if (smoothing != 0 && count) {
      strides<T>(team, 0, classes, packed, [&](i64 i, auto some) {
        constexpr int N = decltype(some)::value;
        const Some<W, N> v = fetch<N>(from + i), factor = weight.template get<N>(i, 1);
#pragma unroll
        for (int e = 0; e < N; ++e) spread += (n.most - v.v[e] + over) * factor.v[e];
      });
      spread = team.sum(spread);
    }
    if (team.rank() == 0) {
      W found = 0;
      if (count) {
        found = (n.most - widened(from[t]) + over) * weight.template get<1>(t, 1).v[0];
        if (smoothing != 0) found = found * (1 - smoothing) + spread * (smoothing / classes);
      }
      lses[row] = lse;
      loss[row] = found;
      if (rounded) put(rounded + row, found);
    }
  }
}

// Of each part of the rows, a warp a part: the sum of losses, the sum of weights, and how many targets are no class.
template <class T>
TG_FN void loss_parts(i64 rows, i64 classes, i64 ignore, i64 parts, i64 per_part, const i64* target, const T* w,
                      const typename wide<T>::type* loss, typename wide<T>::type* losses,
                      typename wide<T>::type* weights, i64* wrong) {
  typedef typename wide<T>::type W;
  const Team warp{false};
  for (i64 part = warp.first(); part < parts; part += warp.step()) {
    const i64 last = (part + 1) * per_part < rows ? (part + 1) * per_part : rows;
    W total = 0, divisor = 0;
    i64 bad = 0;
    for (i64 row = part * per_part + warp.rank(); row < last; row += warp.size()) {
      const i64 t = target[row];
      if (!counts(t, classes, ignore)) {
        bad += t != ignore;
        continue;
      }
      divisor += w ? widened(w[t]) : 1;
      if (loss) total += loss[row];
    }
    total = warp.sum(total);
    divisor = warp.sum(divisor);
    bad = warp.sum(bad);
    if (warp.rank() == 0) {
      losses[part] = total;
      weights[part] = divisor;
      wrong[part] = bad;
    }
  }
}

// The parts together, by one block: the loss (null where it is not needed), what a mean divides by (1 for a sum), and
// whether any target is no class.
template <class T>
TG_FN void loss_total(i64 parts, i64 mean, const typename wide<T>::type* losses, const typename wide<T>::type* weights,
                      const i64* wrong, T* loss, typename wide<T>::type* divisor, bool* any_wrong) {
  typedef typename wide<T>::type W;
  if (blockIdx.x) return;
  const Team block{true};
  W total = 0, sum = 0;
  i64 bad = 0;
  for (i64 part = block.rank(); part < parts; part += block.size()) {
    total += losses[part];
    sum += weights[part];
    bad += wrong[part];
  }
  total = block.sum(total);
  sum = block.sum(sum);
  bad = block.sum(bad);
  if (block.rank()) return;
  if (loss) put(loss, mean ? total / sum : total);
  *divisor = mean ? sum : 1;
  *any_wrong = bad != 0;
}

// gx = h (exp(x - lse) - [class is the target]) + s (exp(x - lse) sum of w - w), where s = g / divisor * smoothing /
// classes and h = g / divisor * (1 - smoothing) w[target]. g is one number, or one a row.
template <class T>
TG_FN void cross_entropy_backward(Team team, i64 rows, i64 classes, i64 ignore, typename wide<T>::type smoothing,
                                  bool by_row, const T* g, const T* x, const i64* target, const T* w,
                                  const typename wide<T>::type* lses, const typename wide<T>::type* divisor, T* gx) {
  typedef typename wide<T>::type W;
  const bool packed = in_packs<T>(classes);
  const Parameter<T> weight{w, false};
  W weights = classes;
  if (smoothing != 0 && w) {
    W sum = 0;
    for (i64 i = team.rank(); i < classes; i += team.size()) sum += widened(w[i]);
    weights = team.sum(sum);
  }
  for (i64 row = team.first(); row < rows; row += team.step()) {
    const T* const from = x + row * classes;
    T* const to = gx + row * classes;
    const i64 t = target[row];
    const bool count = counts(t, classes, ignore);
    const W lse = lses[row], scale = count ? widened(g[by_row ? row : 0]) / *divisor : 0;
    const W hard = count ? scale * (1 - smoothing) * weight.template get<1>(t, 1).v[0] : 0;
    const W soft = scale * (smoothing / classes);
    W all = hard + soft * weights;
    if (count && (lse > kLarge || lse < -kLarge)) {  // its rounding shifts all of the row: their own sum takes that out
      W sum = 0;
      strides<T>(team, 0, classes, packed, [&](i64 i, auto some) {
        constexpr int N = decltype(some)::value;
        const Some<W, N> v = fetch<N>(from + i);
#pragma unroll
        for (int e = 0; e < N; ++e) sum += exp(v.v[e] - lse);
      });
      all /= team.sum(sum);
    }
    strides<T>(team, 0, classes, packed, [&](i64 i, auto some) {
      constexpr int N = decltype(some)::value;
      Some<W, N> v = {};
      if (count) {
        v = fetch<N>(from + i);
        Some<W, N> factor = {};
        if (smoothing != 0) factor = weight.template get<N>(i, 1);
#pragma unroll
        for (int e = 0; e < N; ++e) v.v[e] = exp(v.v[e] - lse) * all - factor.v[e] * soft - (i + e == t ? hard : 0);
      }
      deposit<N>(to + i, v);
    });
  }
}

}  // namespace tg

#define CROSSENTROPY(name, T, W)                                                                                       \
  extern "C" __global__ void crossentropy_##name(                                                                      \
      const tg::i64 block, const tg::i64 rows, const tg::i64 classes, const tg::i64 ignore, const W smoothing,         \
      const T* x, const tg::i64* target, const T* w, T* rounded, W* loss, W* lses) {                                   \
    tg::cross_entropy<T>({block != 0}, rows, classes, ignore, smoothing, x, target, w, rounded, loss, lses);           \
  }

#define LOSSPARTS(name, T, W)                                                                                          \
  extern "C" __global__ void lossparts_##name(const tg::i64 rows, const tg::i64 classes, const tg::i64 ignore,         \
                                              const tg::i64 parts, const tg::i64 per_part, const tg::i64* target,      \
                                              const T* w, const W* loss, W* losses, W* weights, tg::i64* wrong) {      \
    tg::loss_parts<T>(rows, classes, ignore, parts, per_part, target, w, loss, losses, weights, wrong);                \
  }

#define LOSSTOTAL(name, T, W)                                                                                          \
  extern "C" __global__ void losstotal_##name(const tg::i64 parts, const tg::i64 mean, const W* losses,                \
                                              const W* weights, const tg::i64* wrong, T* loss, W* divisor,             \
                                              bool* any_wrong) {                                                       \
    tg::loss_total<T>(parts, mean, losses, weights, wrong, loss, divisor, any_wrong);                                  \
  }

#define CROSSENTROPYGRAD(name, T, W)                                                                                   \
  extern "C" __global__ void crossentropygrad_##name(                                                                  \
      const tg::i64 block, const tg::i64 rows, const tg::i64 classes, const tg::i64 ignore, const W smoothing,         \
      const tg::i64 by_row, const T* g, const T* x, const tg::i64* target, const T* w, const W* lses,                  \
      const W* divisor, T* gx) {                                                                                       \
    tg::cross_entropy_backward<T>({block != 0}, rows, classes, ignore, smoothing, by_row, g, x, target, w, lses,       \
                                  divisor, gx);                                                                        \
  }
