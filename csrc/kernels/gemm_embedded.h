// The sums of a full tile where half of a's elements are operands in memory, which multiplications broadcast themselves.
//
// The 24 multiplications of a term take 35 or 36 instructions so, and 42 to 45 where all twelve elements are loaded before.
// An Intel core multiplies two vectors in a cycle, and alone that is what it waits for; but there are hours with three
// quarters of that speed, as if a thread of another machine had every other cycle, too few for so many instructions.
// Ladder, Emerald Rapids, GFLOP/s in L1, in quiet and in such hours: rows in place 163 and 121, this 165 and 130; packed 164
// and 126, this 166 and 140; more elements in memory gain nothing. Other processors keep what the compiler makes: they may
// wait for loads, and were not measured.
#pragma once

#include <utility>

#include "../core/dtype.h"
#include "../core/lanes.h"

namespace tg::tile::embedded {

#if defined(__AVX512F__)
inline const bool kPays = [] {
  __builtin_cpu_init();
  return bool(__builtin_cpu_is("intel"));
}();

constexpr Index kAhead = 12;  // terms, as of ByTerms
constexpr Index kTerms = 8;   // of rows at a time: each has a pointer, which is moved once for all of them
using Vector = lanes::Vec<float>;
template <int R>
using Sums = Vector[R][2];

// As instructions: the compiler would load once what two multiplications take, and move sums from register to register.
[[gnu::always_inline]] inline void add(Vector& sum, const Vector& b, const Vector& x) {
  asm("vfmadd231ps %2, %1, %0" : "+v"(sum) : "v"(b), "v"(x));
}
[[gnu::always_inline]] inline void add(Vector& sum, const Vector& b, const float& x) {
  asm("vfmadd231ps %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(b), "m"(x));
}

// f(0), f(1), ... of numbers that are types: sums are in registers before the compiler unrolls loops.
template <class F, int... I>
[[gnu::always_inline]] inline void each(std::integer_sequence<int, I...>, F f) {
  (f(std::integral_constant<int, I>{}), ...);
}
template <int Count, class F>
[[gnu::always_inline]] inline void each(F f) {
  each(std::make_integer_sequence<int, Count>{}, f);
}
#define TG_EACH __attribute__((always_inline))

// sum[r] += at(r) b
template <int R, class At>
[[gnu::always_inline]] inline void add_term(Sums<R>& sum, const float* b, At at) {
  const Vector b0 = lanes::load(b), b1 = lanes::load(b + sizeof(Vector) / sizeof(float));
  each<R>([&](auto r) TG_EACH {
    const float& element = at(r);
    if constexpr (r < R / 2) {
      const Vector x = element - Vector{};
      add(sum[r][0], b0, x), add(sum[r][1], b1, x);
    } else {
      add(sum[r][0], b0, element), add(sum[r][1], b1, element);
    }
  });
}

// k terms of rows of a, which begin where `row` points to.
template <int R>
[[gnu::always_inline]] inline void add_rows(Sums<R>& sum, Index k, const float* (&row)[R], const float* b, Index b_step) {
  const auto add_terms = [&](auto count) TG_EACH {
    each<count>([&](auto term) TG_EACH {
      add_term<R>(sum, b, [&](auto r) TG_EACH -> const float& { return row[r][term]; });
      b += b_step;
    });
    each<R>([&](auto r) TG_EACH {
      row[r] += count;
      asm("" : "+r"(row[r]));  // a register each, not reached from a few by sums, nor moved as vectors
    });
  };
  for (; k >= kTerms; k -= kTerms) add_terms(std::integral_constant<int, kTerms>{});
  for (; k > 0; --k) add_terms(std::integral_constant<int, 1>{});
}
// The same of rows that are `stride` apart.
template <int R>
[[gnu::always_inline]] inline void add_rows(Sums<R>& sum, Index k, const float* a, Index stride, const float* b, Index b_step) {
  const float* row[R];
  each<R>([&](auto r) TG_EACH { row[r] = a + r * stride; });
  add_rows<R>(sum, k, row, b, b_step);
}

// k terms of columns of a that are `stride` apart.
template <int R>
[[gnu::always_inline]] inline void add_columns(Sums<R>& sum, Index k, const float* a, Index stride, const float* b, Index b_step) {
#pragma GCC unroll 4
  for (; k > 0; --k, a += stride, b += b_step) {
    __builtin_prefetch(a + kAhead * stride, 0, 2);
    add_term<R>(sum, b, [&](auto r) TG_EACH -> const float& { return a[r]; });
  }
}
#undef TG_EACH
#else
constexpr bool kPays = false;
#endif

}  // namespace tg::tile::embedded
