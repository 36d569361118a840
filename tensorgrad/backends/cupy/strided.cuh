// Arrays that are not dense, read and written where they lie: as (outer, rows, inner), each of a few axes with strides of
// their own. What is counted, elements or wider units, is the caller's choice.

namespace tg {

typedef unsigned int u32;

constexpr int kAxes = 4;

// i / n, which is a third of the work where both fit in 32 bits.
TG_FN i64 quotient(i64 i, i64 n) { return (u64)(i | n) >> 32 ? i / n : (i64)((u32)i / (u32)n); }

struct Axes {
  i64 axes, sizes[kAxes], strides[kAxes];
  TG_FN i64 at(i64 i) const {
    i64 found = 0;
#pragma unroll
    for (int a = kAxes - 1; a > 0; --a) {
      if (a >= axes) continue;
      const i64 next = quotient(i, sizes[a]);
      found += (i - next * sizes[a]) * strides[a];
      i = next;
    }
    return found + i * strides[0];
  }
};

struct Strided {
  Axes outer, rows, inner;
  TG_FN i64 at(i64 o, i64 row, i64 c) const { return outer.at(o) + rows.at(row) + inner.at(c); }
};

}  // namespace tg
