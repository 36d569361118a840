// What reductions do with elements: a reducer has a State, which elements are taken into and which two parts of a set are
// merged from, and says what is written for the whole set. `reduce.cu` decides who takes what.
//
// N elements are taken at once, from place `at` of their set by steps of `step`: what they come to is found by a tree.

namespace tg {

typedef unsigned int u32;

// A state in another lane of the warp, word by word.
template <class S>
TG_FN S from_lane(const S& mine, int mask) {
  static_assert(sizeof(S) % 4 == 0, "moved by 32 bits");
  S other;
  const int* from = (const int*)&mine;
  int* to = (int*)&other;
#pragma unroll
  for (int w = 0; w < (int)sizeof(S) / 4; ++w) to[w] = __shfl_xor_sync(0xffffffffu, from[w], mask);
  return other;
}

// ---- how elements are stored: where they lie side by side, kPack of them, 16 bytes, are moved at a time, or kFew

TG_FN c64 widened(c64 x) { return x; }
TG_FN c128 widened(c128 x) { return x; }
TG_FN void put(c64* at, c64 x) { *at = x; }
TG_FN void put(c128* at, c128 x) { *at = x; }
TG_FN void put(i64* at, i64 x) { *at = x; }

template <class T>
struct Stored {
  typedef typename wide<T>::type W;
  static constexpr int kPack = 16 / sizeof(T), kFew = kPack < 4 ? kPack : 4;
  const T* x;
  bool aligned;
  TG_FN Stored(const void* from, i64) : x((const T*)from), aligned((size_t)from % 16 == 0) {}
  TG_FN W one(i64 i) const { return widened(x[i]); }
  TG_FN void some(i64 i, W (&found)[kPack]) const {
    const auto pack = load(x + i, aligned);
#pragma unroll
    for (int e = 0; e < kPack; ++e) found[e] = widened(pack.v[e]);
  }
  TG_FN void few(i64 i, W (&found)[kFew]) const {
    typedef pack<T, kFew> P;
    P loaded;
    if (aligned) loaded = *(const P*)(x + i);
#pragma unroll
    for (int e = 0; e < kFew; ++e) found[e] = widened(aligned ? loaded.v[e] : x[i + e]);
  }
  TG_FN void write(void* to, i64 i, W value) const { put((T*)to + i, value); }
};

// Sizes of complex numbers.
template <class T>
struct Sizes {
  typedef decltype(T::re) W;
  static constexpr int kPack = Stored<T>::kPack, kFew = Stored<T>::kFew;
  Stored<T> x;
  TG_FN Sizes(const void* from, i64 mode) : x(from, mode) {}
  TG_FN W one(i64 i) const { return abs(x.one(i)); }
  TG_FN void some(i64 i, W (&found)[kPack]) const {
    T all[kPack];
    x.some(i, all);
#pragma unroll
    for (int e = 0; e < kPack; ++e) found[e] = abs(all[e]);
  }
  TG_FN void few(i64 i, W (&found)[kFew]) const {
    T all[kFew];
    x.few(i, all);
#pragma unroll
    for (int e = 0; e < kFew; ++e) found[e] = abs(all[e]);
  }
  TG_FN void write(void* to, i64 i, W value) const { put((W*)to + i, value); }
};

// Integers of any size and bool: `code` is the logarithm of the size in bytes, 4 more if there are no negative ones.
struct Integers {
  typedef i64 W;
  static constexpr int kPack = 1, kFew = 1;
  const void* x;
  int code;
  TG_FN Integers(const void* from, i64 mode) : x(from), code((int)(mode >> 4)) {}
  TG_FN i64 one(i64 i) const {
    switch (code) {
      case 0: return ((const signed char*)x)[i];
      case 1: return ((const short*)x)[i];
      case 2: return ((const int*)x)[i];
      case 3: return ((const i64*)x)[i];
      default: return ((const unsigned char*)x)[i];
    }
  }
  TG_FN void some(i64 i, i64 (&found)[1]) const { found[0] = one(i); }
  TG_FN void few(i64 i, i64 (&found)[1]) const { found[0] = one(i); }
  TG_FN void write(void* to, i64 i, i64 value) const {
    switch (code) {
      case 0: ((signed char*)to)[i] = (signed char)value; break;
      case 1: ((short*)to)[i] = (short)value; break;
      case 2: ((int*)to)[i] = (int)value; break;
      case 3: ((i64*)to)[i] = value; break;
      default: ((unsigned char*)to)[i] = (unsigned char)value;
    }
  }
};

// Whether elements of any dtype differ from zero, by their bits: so denormal numbers do, which arithmetic takes for zero.
// `code` is the logarithm of the size in bytes, 4 more where the highest bit is a sign that zero may have, 8 more where
// there are two parts.
struct Truths {
  typedef i64 W;
  static constexpr int kPack = 1, kFew = 1;
  const void* x;
  int code;
  TG_FN Truths(const void* from, i64 mode) : x(from), code((int)(mode >> 4)) {}
  TG_FN i64 one(i64 i) const {
    switch (code) {
      case 0: return ((const unsigned char*)x)[i] != 0;
      case 1: return ((const unsigned short*)x)[i] != 0;
      case 2: return ((const unsigned int*)x)[i] != 0;
      case 3: return ((const u64*)x)[i] != 0;
      case 5: return (((const unsigned short*)x)[i] & 0x7fffu) != 0;
      case 6: return (((const unsigned int*)x)[i] & 0x7fffffffu) != 0;
      case 14: return ((((const u64*)x)[i]) & 0x7fffffff7fffffffULL) != 0;
      case 15: return ((((const u64*)x)[2 * i] | ((const u64*)x)[2 * i + 1]) << 1) != 0;
      default: return (((const u64*)x)[i] << 1) != 0;
    }
  }
  TG_FN void some(i64 i, i64 (&found)[1]) const { found[0] = one(i); }
  TG_FN void few(i64 i, i64 (&found)[1]) const { found[0] = one(i); }
};

// ---- what goes with a call: switches, a number, an array of one number for each set

struct How {
  i64 mode;
  double number;
  const void* centers;
  TG_FN bool has(int bit) const { return mode & bit; }
};

template <int N, class T, class Join>
TG_FN T by_tree(T (&x)[N], Join join) {
#pragma unroll
  for (int distance = 1; distance < N; distance *= 2)
#pragma unroll
    for (int e = 0; e + distance < N; e += 2 * distance) x[e] = join(x[e], x[e + distance]);
  return x[0];
}

// ---- sums

TG_FN float zero_of(float) { return 0; }
TG_FN double zero_of(double) { return 0; }
TG_FN i64 zero_of(i64) { return 0; }
template <class R> TG_FN complex_of<R> zero_of(complex_of<R>) { return complex((R)0, (R)0); }
template <class W> TG_FN W one_of(W) { return 1; }
template <class R> TG_FN complex_of<R> one_of(complex_of<R>) { return complex((R)1, (R)0); }

// Float sums carry what rounding took from them (Knuth's two-sum), so that their error does not grow with their length.
template <class W> struct Total {
  W sum;
  TG_FN static Total none() { return {zero_of(W())}; }
  TG_FN void add(W x) { sum = tg::add(sum, x); }
  TG_FN void add(Total other) { add(other.sum); }
  TG_FN W value() const { return sum; }
};
template <> struct Total<float> {
  float sum, lost;
  TG_FN static Total none() { return {0, 0}; }
  TG_FN void add(float x) {
    const float before = sum, after = before + x, part = after - before;
    lost += (before - (after - part)) + (x - part);
    sum = after;
  }
  TG_FN void add(Total other) {
    const float both = lost + other.lost;
    lost = 0;
    add(other.sum);
    lost += both;
  }
  TG_FN float value() const { return lost - lost == 0 ? sum + lost : sum; }  // what infinity loses is no number
};

TG_FN i64 shared_by(i64 total, double) { return total; }  // the mean of integers is no integer
TG_FN float shared_by(float total, double count) { return total / (float)count; }
TG_FN double shared_by(double total, double count) { return total / count; }
TG_FN c64 shared_by(c64 z, double count) { return complex(z.re / (float)count, z.im / (float)count); }
TG_FN c128 shared_by(c128 z, double count) { return complex(z.re / count, z.im / count); }

// The sum over `number`; mode 1: written as it was computed, not as the elements are stored.
template <class E> struct Sum {
  typedef typename E::W W;
  typedef Total<W> State;
  How how;
  TG_FN Sum(How how, i64) : how(how) {}
  TG_FN static State none() { return State::none(); }
  template <int N> TG_FN void take(State& s, W (&x)[N], i64, i64) const {
    s.add(by_tree(x, [](W a, W b) { return tg::add(a, b); }));
  }
  TG_FN static void merge(State& s, State later) { s.add(later); }
  TG_FN void write(const E& x, State s, void* to, void*, i64 set) const {
    const W value = shared_by(s.value(), how.number);
    if (how.has(1)) put((W*)to + set, value);
    else x.write(to, set, value);
  }
};

template <class W> TG_FN W part_of(W);
template <class R> TG_FN R part_of(complex_of<R>);
template <class W> using Real = decltype(part_of(W()));  // what sizes are numbers of

TG_FN float square_of(float x) { return x * x; }
TG_FN double square_of(double x) { return x * x; }
template <class R> TG_FN R square_of(complex_of<R> z) { return z.re * z.re + z.im * z.im; }

// The sum of squared distances from the set's center (from 0 without centers) over `number`; mode 1: the root of that;
// mode 2: of sizes instead of squares; mode 4: written as it was computed.
template <class E> struct Squares {
  typedef typename E::W W;
  typedef Real<W> R;
  typedef Total<R> State;
  How how;
  W center;
  TG_FN Squares(How how, i64 set) : how(how), center(how.centers ? ((const W*)how.centers)[set] : zero_of(W())) {}
  TG_FN static State none() { return State::none(); }
  template <int N> TG_FN void take(State& s, W (&x)[N], i64, i64) const {
    R size[N];
#pragma unroll
    for (int e = 0; e < N; ++e) {
      const W away = sub(x[e], center);
      size[e] = how.has(2) ? abs(away) : square_of(away);
    }
    s.add(by_tree(size, [](R a, R b) { return a + b; }));
  }
  TG_FN static void merge(State& s, State later) { s.add(later); }
  TG_FN void write(const E& x, State s, void* to, void*, i64 set) const {
    const R share = s.value() / (R)how.number, value = how.has(1) ? sqrt(share) : share;
    if constexpr (sizeof(R) < sizeof(W)) put((R*)to + set, value);
    else if (how.has(4)) put((W*)to + set, value);
    else x.write(to, set, value);
  }
};

template <class E> struct Product {
  typedef typename E::W W;
  typedef W State;
  TG_FN Product(How, i64) {}
  TG_FN static W none() { return one_of(W()); }
  template <int N> TG_FN void take(W& s, W (&x)[N], i64, i64) const {
    s = mul(s, by_tree(x, [](W a, W b) { return mul(a, b); }));
  }
  TG_FN static void merge(W& s, W later) { s = mul(s, later); }
  TG_FN void write(const E&, W s, void* to, void*, i64 set) const { put((W*)to + set, s); }
};

// How many elements are not zero; mode 1: whether any is; mode 2: whether all `number` are.
template <class E> struct Count {
  typedef i64 W, State;
  How how;
  TG_FN Count(How how, i64) : how(how) {}
  TG_FN static i64 none() { return 0; }
  template <int N> TG_FN void take(i64& s, i64 (&x)[N], i64, i64) const {
    s += by_tree(x, [](i64 a, i64 b) { return a + b; });
  }
  TG_FN static void merge(i64& s, i64 later) { s += later; }
  TG_FN void write(const E&, i64 s, void* to, void*, i64 set) const {
    if (how.has(3)) ((unsigned char*)to)[set] = how.has(1) ? s != 0 : s == (i64)how.number;
    else ((i64*)to)[set] = s;
  }
};

// ---- extremes: the smallest is the largest of what is turned around. A NaN is larger than all.

TG_FN i64 turned(i64 x) { return ~x; }
template <class W> TG_FN W turned(W x) { return -x; }
TG_FN i64 least(i64) { return (i64)0x8000000000000000ULL; }
template <class W> TG_FN W least(W x) { return -infinity(x); }

// Mode 1: the smallest; mode 2: of the sizes.
template <class E> struct Extreme {
  typedef typename E::W W;
  typedef W State;
  How how;
  TG_FN Extreme(How how, i64) : how(how) {}
  TG_FN static W none() { return least(W()); }
  template <int N> TG_FN void take(W& s, W (&x)[N], i64, i64) const {
#pragma unroll
    for (int e = 0; e < N; ++e) {
      if (how.has(2)) x[e] = abs(x[e]);
      if (how.has(1)) x[e] = turned(x[e]);
    }
    s = max(s, by_tree(x, [](W a, W b) { return max(a, b); }));
  }
  TG_FN static void merge(W& s, W later) { s = max(s, later); }
  TG_FN void write(const E& x, W s, void* to, void*, i64 set) const { x.write(to, set, how.has(1) ? turned(s) : s); }
};

template <class W> struct Found {
  W value;
  i64 at;  // -1: nothing yet
};

// The largest element and its place, the first of equal ones and the first NaN; mode 1: the smallest.
template <class E> struct Place {
  typedef typename E::W W;
  typedef Found<W> State;
  How how;
  TG_FN Place(How how, i64) : how(how) {}
  TG_FN static State none() { return {W(), -1}; }
  template <int N> TG_FN void take(State& s, W (&x)[N], i64 at, i64 step) const {
#pragma unroll
    for (int e = 0; e < N; ++e) {
      const W value = how.has(1) ? turned(x[e]) : x[e];  // its place is behind that of all before
      if (s.at < 0 || value > s.value || (isnan(value) && !isnan(s.value))) s = {value, at + e * step};
    }
  }
  TG_FN static void merge(State& s, State other) {
    const bool first = other.at < s.at, unknown = isnan(s.value), other_unknown = isnan(other.value);
    const bool wins = unknown || other_unknown ? other_unknown && (first || !unknown)
                                               : other.value > s.value || (other.value == s.value && first);
    if (other.at >= 0 && (s.at < 0 || wins)) s = other;
  }
  TG_FN void write(const E& x, State s, void* to, void* places, i64 set) const {
    x.write(to, set, how.has(1) ? turned(s.value) : s.value);
    ((i64*)places)[set] = s.at;
  }
};

// ---- log(sum(exp(x)))

template <class W> struct Exponentials {
  W most, sum;  // sum of exp(x - shift(most))
};

template <class E> struct LogSumExp {
  typedef typename E::W W;
  typedef Exponentials<W> State;
  TG_FN LogSumExp(How, i64) {}
  TG_FN static W shift(W most) { return abs(most) < infinity(most) ? most : (W)0; }
  TG_FN static State none() { return {-infinity(W()), 0}; }
  // A sum without elements is 0, or NaN if they were: no factor may change that.
  TG_FN static void raise(State& s, W to) {
    if (s.most != to && s.most != -infinity(to)) s.sum *= exp(s.most - to);
    s.most = to;
  }
  template <int N> TG_FN void take(State& s, W (&x)[N], i64, i64) const {
    W most = s.most;
#pragma unroll
    for (int e = 0; e < N; ++e)
      if (x[e] > most) most = x[e];
    raise(s, most);
    const W from = shift(most);
#pragma unroll
    for (int e = 0; e < N; ++e) x[e] = exp(x[e] - from);
    s.sum += by_tree(x, [](W a, W b) { return a + b; });
  }
  TG_FN static void merge(State& s, State later) {
    const W most = later.most > s.most ? later.most : s.most;
    raise(s, most);
    raise(later, most);
    s.sum += later.sum;
  }
  TG_FN void write(const E& x, State s, void* to, void*, i64 set) const { x.write(to, set, log(s.sum) + shift(s.most)); }
};

}  // namespace tg
