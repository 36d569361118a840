// Softmax and log-softmax along rows, and their gradients. x, y, g: (rows, length), dense; half precision is
// computed in float and rounded once.
//
// Forward a row is read twice: for its largest element and the sum of exponentials at once (normalizer.cuh), and to
// write; the second time it comes from a cache.

namespace tg {

template <bool kBlock, bool kLog, class T>
TG_FN void softmax(i64 rows, i64 length, const T* x, T* y) {
  typedef typename wide<T>::type W;
  typedef Group<kBlock> G;
  const Way way = way_over<T>(length, x, y, y);
  for (i64 row = G::first(); row < rows; row += G::step()) {
    const T* from = x + row * length;
    Normalizer<W> mine;
    over<G>(from, length, way, [&](W v) { mine.add(v); });
    const Normalizer<W> n = mine.of_all(G());
    const W log_sum = kLog ? log(n.sum) : 0, scale = 1 / n.sum;
    map<G>(from, from, y + row * length, length, way,
           [=](W v, W) { return kLog ? v - n.most - log_sum : exp(v - n.most) * scale; });
  }
}

template <bool kBlock, bool kLog, class T>
TG_FN void softmax_backward(i64 rows, i64 length, const T* g, const T* y, T* gx) {
  typedef typename wide<T>::type W;
  typedef Group<kBlock> G;
  const Way way = way_over<T>(length, g, y, gx);
  for (i64 row = G::first(); row < rows; row += G::step()) {
    const T *slope = g + row * length, *result = y + row * length;
    W sum = 0;
    if (kLog) over<G>(slope, length, way, [&](W v) { sum += v; });
    else over<G>(slope, result, length, way, [&](W a, W b) { sum += a * b; });
    const W total = G::all(sum, [](W a, W b) { return a + b; });
    map<G>(slope, result, gx + row * length, length, way,
           [=](W a, W b) { return kLog ? a - exp(b) * total : b * (a - total); });
  }
}

}  // namespace tg

#define FORWARD(kind, log, group, block, name, T)                                                                      \
  extern "C" __global__ void kind##_##group##_##name(const tg::i64 rows, const tg::i64 length, const T* x, T* y) {      \
    tg::softmax<block, log>(rows, length, x, y);                                                                       \
  }
#define BACKWARD(kind, log, group, block, name, T)                                                                     \
  extern "C" __global__ void kind##_##group##_##name(const tg::i64 rows, const tg::i64 length, const T* g, const T* y, \
                                                     T* gx) {                                                          \
    tg::softmax_backward<block, log>(rows, length, g, y, gx);                                                          \
  }
#define EACH(name, T)                                                                                                  \
  FORWARD(softmax, false, warp, false, name, T) FORWARD(softmax, false, block, true, name, T)                          \
  FORWARD(logsoftmax, true, warp, false, name, T) FORWARD(logsoftmax, true, block, true, name, T)                      \
  BACKWARD(softmaxgrad, false, warp, false, name, T) BACKWARD(softmaxgrad, false, block, true, name, T)                \
  BACKWARD(logsoftmaxgrad, true, warp, false, name, T) BACKWARD(logsoftmaxgrad, true, block, true, name, T)

EACH(float32, float) EACH(float64, double) EACH(float16, __half) EACH(bfloat16, __nv_bfloat16)
