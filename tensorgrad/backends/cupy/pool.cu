// Pooling over planes of up to three dimensions: forward a thread makes one result, backward it sums one element's
// gradient over the windows that read it. x: (planes, size of each axis), y: (planes, outputs of each axis), dense.
// Half precision is computed in float and rounded once.
//
// The gradient of a maximum goes to the places that were found: an element looks for its own among those of the windows
// that may read it.

namespace tg {

typedef unsigned int u32;

// i / n, which is a third of the work where both fit in 32 bits.
TG_FN i64 quotient(i64 i, i64 n) { return (u64)(i | n) >> 32 ? i / n : (i64)((u32)i / (u32)n); }

// Windows along one axis. Those without a kernel cover the axis evenly: from floor(o n / outputs) to ceil((o + 1) n / outputs).
struct Axis {
  i64 size, outputs, kernel, stride, padding, dilation;

  TG_FN i64 first(i64 o) const { return kernel ? o * stride - padding : o * size / outputs; }
  // Of taps that lie within the axis: the first position, and one behind the last.
  TG_FN i64 begin(i64 o) const {
    const i64 at = first(o);
    return at >= 0 ? at : at + (dilation - 1 - at) / dilation * dilation;
  }
  TG_FN i64 end(i64 o) const {
    const i64 at = kernel ? first(o) + (kernel - 1) * dilation + 1 : ((o + 1) * size + outputs - 1) / outputs;
    return at < size ? at : size;
  }
  // How many elements the mean of a window is of, those of the padding among them or not.
  TG_FN i64 counted(i64 o, bool padded) const {
    if (!kernel || !padded) return end(o) - begin(o);
    const i64 stop = first(o) + kernel;
    return (stop < size + padding ? stop : size + padding) - first(o);
  }
  // The windows that read element i; of dilated ones, all that reach over it.
  TG_FN i64 lowest(i64 i) const {
    if (!kernel) return i * outputs / size;
    const i64 reach = (kernel - 1) * dilation + 1;
    return i + padding < reach ? 0 : (i + padding - reach) / stride + 1;
  }
  TG_FN i64 highest(i64 i) const {
    if (!kernel) return ((i + 1) * outputs - 1) / size;
    const i64 o = (i + padding) / stride;
    return o < outputs ? o : outputs - 1;
  }
};

struct Axes {
  Axis d, h, w;
  TG_FN i64 elements() const { return d.size * h.size * w.size; }
  TG_FN i64 results() const { return d.outputs * h.outputs * w.outputs; }
};

struct Spot {
  i64 plane, d, h, w;
};
TG_FN Spot spot(i64 i, i64 depth, i64 height, i64 width) {
  const i64 row = quotient(i, width), slab = quotient(row, height), plane = quotient(slab, depth);
  return {plane, slab - plane * depth, row - slab * height, i - row * width};
}

// The first of equal elements; the last NaN, or the first one of windows that cover the axes evenly. -1: none is within.
template <class T>
TG_FN void max_pool(i64 planes, Axes a, const T* x, T* y, i64* places) {
  typedef typename wide<T>::type W;
  const i64 total = planes * a.results();
  const bool first_nan = !a.w.kernel;
  for (i64 i = blockIdx.x * (i64)blockDim.x + threadIdx.x; i < total; i += (i64)gridDim.x * blockDim.x) {
    const Spot o = spot(i, a.d.outputs, a.h.outputs, a.w.outputs);
    const T* const plane = x + o.plane * a.elements();
    W best = -infinity(W());
    i64 found = -1;
    for (i64 d = a.d.begin(o.d); d < a.d.end(o.d); d += a.d.dilation)
      for (i64 h = a.h.begin(o.h); h < a.h.end(o.h); h += a.h.dilation)
        for (i64 w = a.w.begin(o.w); w < a.w.end(o.w); w += a.w.dilation) {
          const i64 at = (d * a.h.size + h) * a.w.size + w;
          const W v = widened(plane[at]);
          if (v > best || (v != v && !(first_nan && best != best)) || found < 0) best = v, found = at;
        }
    put(y + i, best);
    if (places) places[i] = found;
  }
}

// divisor: of every mean; 0: how many elements it is of
TG_FN i64 counted(const Axes& a, i64 d, i64 h, i64 w, bool padded, i64 divisor) {
  return divisor ? divisor : a.d.counted(d, padded) * a.h.counted(h, padded) * a.w.counted(w, padded);
}

template <class T>
TG_FN void avg_pool(i64 planes, Axes a, bool padded, i64 divisor, const T* x, T* y) {
  typedef typename wide<T>::type W;
  const i64 total = planes * a.results();
  for (i64 i = blockIdx.x * (i64)blockDim.x + threadIdx.x; i < total; i += (i64)gridDim.x * blockDim.x) {
    const Spot o = spot(i, a.d.outputs, a.h.outputs, a.w.outputs);
    const T* const plane = x + o.plane * a.elements();
    W sum = 0;
    for (i64 d = a.d.begin(o.d); d < a.d.end(o.d); ++d)
      for (i64 h = a.h.begin(o.h); h < a.h.end(o.h); ++h) {
        W row = 0;
        for (i64 w = a.w.begin(o.w); w < a.w.end(o.w); ++w) row += widened(plane[(d * a.h.size + h) * a.w.size + w]);
        sum += row;
      }
    put(y + i, sum / (W)counted(a, o.d, o.h, o.w, padded, divisor));
  }
}

template <class T>
TG_FN void avg_pool_backward(i64 planes, Axes a, bool padded, i64 divisor, const T* g, T* gx) {
  typedef typename wide<T>::type W;
  const i64 total = planes * a.elements();
  for (i64 i = blockIdx.x * (i64)blockDim.x + threadIdx.x; i < total; i += (i64)gridDim.x * blockDim.x) {
    const Spot at = spot(i, a.d.size, a.h.size, a.w.size);
    const T* const plane = g + at.plane * a.results();
    W sum = 0;
    for (i64 d = a.d.lowest(at.d); d <= a.d.highest(at.d); ++d)
      for (i64 h = a.h.lowest(at.h); h <= a.h.highest(at.h); ++h)
        for (i64 w = a.w.lowest(at.w); w <= a.w.highest(at.w); ++w)
          sum += widened(plane[(d * a.h.outputs + h) * a.w.outputs + w]) / (W)counted(a, d, h, w, padded, divisor);
    put(gx + i, sum);
  }
}

template <class T>
TG_FN void max_pool_backward(i64 planes, Axes a, const T* g, const i64* places, T* gx) {
  const i64 total = planes * a.elements();
  for (i64 i = blockIdx.x * (i64)blockDim.x + threadIdx.x; i < total; i += (i64)gridDim.x * blockDim.x) {
    const Spot at = spot(i, a.d.size, a.h.size, a.w.size);
    const i64 first = at.plane * a.results(), place = i - at.plane * a.elements();
    typename wide<T>::type sum = 0;
    for (i64 d = a.d.lowest(at.d); d <= a.d.highest(at.d); ++d)
      for (i64 h = a.h.lowest(at.h); h <= a.h.highest(at.h); ++h)
        for (i64 w = a.w.lowest(at.w); w <= a.w.highest(at.w); ++w) {
          const i64 o = first + (d * a.h.outputs + h) * a.w.outputs + w;
          if (places[o] == place) sum += widened(g[o]);
        }
    put(gx + i, sum);
  }
}

}  // namespace tg

#define AXIS(x) tg::i64 x##_size, tg::i64 x##_outputs, tg::i64 x##_kernel, tg::i64 x##_stride, tg::i64 x##_padding, tg::i64 x##_dilation
#define AXIS_OF(x) {x##_size, x##_outputs, x##_kernel, x##_stride, x##_padding, x##_dilation}
#define POOL(name, T)                                                                                                  \
  extern "C" __global__ void maxpool_##name(tg::i64 planes, AXIS(d), AXIS(h), AXIS(w), const T* x, T* y,               \
                                            tg::i64* places) {                                                         \
    tg::max_pool(planes, {AXIS_OF(d), AXIS_OF(h), AXIS_OF(w)}, x, y, places);                                          \
  }                                                                                                                    \
  extern "C" __global__ void avgpool_##name(tg::i64 planes, AXIS(d), AXIS(h), AXIS(w), tg::i64 padded,                 \
                                            tg::i64 divisor, const T* x, T* y) {                                       \
    tg::avg_pool(planes, {AXIS_OF(d), AXIS_OF(h), AXIS_OF(w)}, padded, divisor, x, y);                                 \
  }                                                                                                                    \
  extern "C" __global__ void avgpoolback_##name(tg::i64 planes, AXIS(d), AXIS(h), AXIS(w), tg::i64 padded,             \
                                                tg::i64 divisor, const T* g, T* gx) {                                  \
    tg::avg_pool_backward(planes, {AXIS_OF(d), AXIS_OF(h), AXIS_OF(w)}, padded, divisor, g, gx);                       \
  }                                                                                                                    \
  extern "C" __global__ void maxpoolback_##name(tg::i64 planes, AXIS(d), AXIS(h), AXIS(w), const T* g,                 \
                                                const tg::i64* places, T* gx) {                                        \
    tg::max_pool_backward(planes, {AXIS_OF(d), AXIS_OF(h), AXIS_OF(w)}, g, places, gx);                                \
  }
