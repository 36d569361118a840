// What norms and losses need beyond rows.cuh: threads of a row that are chosen at launch, which element it is,
// vectors of parameters that are stored in another type than the data.

namespace tg {

template <int N> struct Count { static constexpr int value = N; };
template <class W, int N> struct Some { W v[N]; };
struct Sum {
  template <class W> TG_FN W operator()(W a, W b) const { return a + b; }
};

// The threads of a row: one warp, or all warps of the block.
struct Team {
  bool block;
  TG_FN int size() const { return block ? Group<true>::size() : Group<false>::size(); }
  TG_FN int rank() const { return block ? Group<true>::rank() : Group<false>::rank(); }
  TG_FN i64 first() const { return block ? Group<true>::first() : Group<false>::first(); }
  TG_FN i64 step() const { return block ? Group<true>::step() : Group<false>::step(); }
  template <class W, class Combine>
  TG_FN W all(W mine, Combine combine) const {
    return block ? Group<true>::all(mine, combine) : Group<false>::all(mine, combine);
  }
  template <class W> TG_FN W sum(W mine) const { return all(mine, Sum()); }
};

TG_FN i64 first_thread() { return blockIdx.x * (i64)blockDim.x + threadIdx.x; }
TG_FN i64 thread_step() { return gridDim.x * (i64)blockDim.x; }
template <class T> TG_FN bool in_packs(i64 length) { return length * sizeof(T) % 16 == 0; }
// Most divisions are of small numbers, which 32 bits divide several times faster.
TG_FN i64 quotient(i64 a, i64 b) {
  return ((u64)(a | b) >> 32) == 0 ? (i64)((unsigned int)a / (unsigned int)b) : a / b;
}

// ---- N neighbours: one, or as many as 16 bytes hold of T. Arrays begin on 16 bytes: who launches sees to that.

template <int N, class T>
TG_FN Some<typename wide<T>::type, N> fetch(const T* from) {
  constexpr int n = 16 / (int)sizeof(T);
  Some<typename wide<T>::type, N> made;
  if (N % n == 0) {
#pragma unroll
    for (int k = 0; k < N; k += n) {
      const auto some = load(from + k, true);
#pragma unroll
      for (int e = 0; e < n; ++e) made.v[(k + e) % N] = widened(some.v[e]);
    }
  } else {
#pragma unroll
    for (int e = 0; e < N; ++e) made.v[e] = widened(from[e]);
  }
  return made;
}
template <int N, class T>
TG_FN void deposit(T* to, const Some<typename wide<T>::type, N>& x) {
  constexpr int n = 16 / (int)sizeof(T);
  if (N % n == 0) {
#pragma unroll
    for (int k = 0; k < N; k += n) {
      typename of_16_bytes<T>::type some;
#pragma unroll
      for (int e = 0; e < n; ++e) put(&some.v[e], x.v[(k + e) % N]);
      store(to + k, some, true);
    }
  } else {
#pragma unroll
    for (int e = 0; e < N; ++e) put(to + e, x.v[e]);
  }
}

// visit(i, Count<N>()) for what this thread has of the elements from `first` on.
template <class T, class Visit>
TG_FN void strides(Team team, i64 first, i64 last, bool packed, Visit visit) {
  constexpr int n = 16 / (int)sizeof(T);
  if (packed) {
    for (i64 i = first + team.rank() * (i64)n; i < last; i += team.size() * (i64)n) visit(i, Count<n>());
  } else {
    for (i64 i = first + team.rank(); i < last; i += team.size()) visit(i, Count<1>());
  }
}

// A vector stored as the data is, or wide; or none, whose elements are `otherwise`.
template <class T>
struct Parameter {
  typedef typename wide<T>::type W;
  const void* at;
  bool is_wide;
  template <int N> TG_FN Some<W, N> get(i64 i, W otherwise) const {
    if (at && is_wide) return fetch<N>((const W*)at + i);
    if (at) return fetch<N>((const T*)at + i);
    Some<W, N> made;
#pragma unroll
    for (int e = 0; e < N; ++e) made.v[e] = otherwise;
    return made;
  }
};

}  // namespace tg
