// Two arithmetic operations (a maximum and a minimum, a comparison and a choice) in one loop, (a op b) op c: a chain of
// them is bound by the loads and stores of its intermediate values, which this halves (tanh-GELU's gradient takes a fifth
// less time).
//
// Each result is rounded as if the operations stood alone, so fusing never changes a bit.
#if defined(__clang__)
#pragma clang fp contract(off)
#else
#pragma GCC optimize("fp-contract=off")
#endif
#include <cmath>

#define TG_BRIEF_LOOPS
#include "formula_kernels.h"

namespace tg {
namespace formula {
namespace {

struct Add {
  static constexpr const char* name = "add";
  template <class T> static T of(T a, T b) { return a + b; }
};
struct Sub {
  static constexpr const char* name = "sub";
  template <class T> static T of(T a, T b) { return a - b; }
};
struct Rsub {
  static constexpr const char* name = "rsub";
  template <class T> static T of(T a, T b) { return b - a; }
};
struct Mul {
  static constexpr const char* name = "mul";
  template <class T> static T of(T a, T b) { return a * b; }
};
struct Min {
  static constexpr const char* name = "min";
  template <class T> static T of(T a, T b) { return nan_if(a < b ? a : b, a); }
};
struct Max {
  static constexpr const char* name = "max";
  template <class T> static T of(T a, T b) { return nan_if(a > b ? a : b, a); }
};

template <class First, class Second>
struct Pair {
  template <class T> static T of(T a, T b, T c) { return Second::of(First::of(a, b), c); }
};
// where(a > b, a, c) and where(a > b, c, b), without a mask of bytes between: leaky ReLU, and the gradient of ReLU.
struct LargerOr {
  template <class T> static T of(T a, T b, T c) { return a > b ? a : c; }
};
struct IfLarger {
  template <class T> static T of(T a, T b, T c) { return a > b ? c : b; }
};
// where(|w| < 0.5, a, b) + where(|w| < 0.5, w, w - 1) * (b - a), for one weight that decides once.
struct Lerp {
  template <class T> static T of(T a, T b, T w) {
    const bool near = std::fabs(w) < T(0.5);
    return (near ? a : b) + (near ? w : w - T(1)) * (b - a);
  }
};

template <class T, class F>
void add_three(KernelTable& table, const std::string& name) {
  Kernel& k = table[kernel_key(name, TypeFor<T>::value)];
  k.operands = 3;
  k.by_mask[0] = loop3<0, F, T, T, T, T>;
  k.by_mask[2] = loop3<2, F, T, T, T, T>;
  k.by_mask[4] = loop3<4, F, T, T, T, T>;
  k.by_mask[6] = loop3<6, F, T, T, T, T>;
}

template <class T, class First, class Second>
void add_pair(KernelTable& table) {
  const std::string name = pair_name(First::name, Second::name);
  add_three<T, Pair<First, Second>>(table, name);
  table[kernel_key(name, TypeFor<T>::value)].swaps = std::is_same_v<First, Add> || std::is_same_v<First, Mul>;
}

template <class T, class First>
void add_with(KernelTable& table) {
  add_pair<T, First, Add>(table);
  add_pair<T, First, Sub>(table);
  add_pair<T, First, Rsub>(table);
  add_pair<T, First, Mul>(table);
}

template <class T>
void add_type(KernelTable& table) {
  add_with<T, Add>(table);
  add_with<T, Sub>(table);
  add_with<T, Rsub>(table);
  add_with<T, Mul>(table);
  add_pair<T, Max, Min>(table);  // clamp
  add_three<T, LargerOr>(table, "larger_or");
  add_three<T, IfLarger>(table, "if_larger");
  Kernel& lerp = table[kernel_key("lerp", TypeFor<T>::value)];
  lerp.operands = 3;
  lerp.by_mask[0] = loop3<0, Lerp, T, T, T, T>;
  lerp.by_mask[4] = loop3<4, Lerp, T, T, T, T>;
}

}  // namespace

void add_pairs(KernelTable& table) {
  add_type<float>(table);
  add_type<double>(table);
}

}  // namespace formula
}  // namespace tg
