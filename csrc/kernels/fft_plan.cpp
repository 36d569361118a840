// Roots are found in double precision, by the octant they lie in.
#include "fft_plan.h"

#include <algorithm>
#include <cmath>
#include <list>
#include <mutex>
#include <utility>

namespace tg {
namespace {

constexpr Index kAlone = 512;       // values of a line from which it may go alone
constexpr std::size_t kPlans = 32;  // kept, of each type

// exp(-2 pi i k / n), k in [0, n): exact where it can be.
c128 root_of_unity(Index k, Index n) {
  constexpr double eighth = 0.78539816339744830962;
  Index t = 8 * k;
  const bool below = t > 4 * n;
  if (below) t = 8 * n - t;
  const bool left = t > 2 * n;
  if (left) t = 4 * n - t;
  const bool steep = t > n;
  if (steep) t = 2 * n - t;
  double c = std::cos(eighth * double(t) / double(n)), s = std::sin(eighth * double(t) / double(n));
  if (steep) std::swap(c, s);
  return {left ? -c : c, below ? s : -s};
}

template <class T>
void put(std::vector<T>& to, Index k, c128 value) {
  to[std::size_t(2 * k)] = T(value.real());
  to[std::size_t(2 * k + 1)] = T(value.imag());
}

// In place, by halves; n is a power of two.
void transform(Index n, c128* x) {
  for (Index half = n / 2; half > 0; half /= 2)
    for (Index j = 0; j < half; ++j) {
      const c128 w = root_of_unity(j, 2 * half);
      for (Index k = j; k < n; k += 2 * half) {
        const c128 a = x[k], b = x[k + half], d = a - b;
        x[k] = a + b;
        x[k + half] = {d.real() * w.real() - d.imag() * w.imag(), d.real() * w.imag() + d.imag() * w.real()};
      }
    }
  for (Index k = 1, reversed = 0; k < n; ++k) {
    Index bit = n / 2;
    for (; reversed & bit; bit /= 2) reversed ^= bit;
    reversed ^= bit;
    if (k < reversed) std::swap(x[k], x[reversed]);
  }
}

// exp(-pi i k^2 / n), and the transform of its conjugate, laid out as a circle of inner->n values and divided by as many.
template <class T>
void add_chirp(FftPlan<T>& plan, Index lanes) {
  const Index n = plan.n;
  Index size = 1;
  while (size < 2 * n - 1) size *= 2;
  plan.inner = find_fft_plan<T>(size, 1, lanes);
  plan.chirp.resize(std::size_t(2 * n));
  plan.spectrum.resize(std::size_t(2 * size));
  std::vector<c128> circle(static_cast<std::size_t>(size));
  Index square = 0;  // of k, modulo 2 n
  for (Index k = 0; k < n; ++k) {
    const c128 w = root_of_unity(square, 2 * n);
    put(plan.chirp, k, w);
    circle[std::size_t(k)] = circle[std::size_t(k ? size - k : 0)] = std::conj(w) / double(size);
    square = (square + 2 * k + 1) % (2 * n);
  }
  transform(size, circle.data());
  for (Index k = 0; k < size; ++k) put(plan.spectrum, k, circle[std::size_t(k)]);
}

// n as a product of two numbers near its root.
template <class T>
void add_rows(FftPlan<T>& plan, Index lanes) {
  const Index n = plan.n, step = plan.step;
  Index rows = 1;
  std::vector<int> chosen, others;
  for (auto r = plan.factors.rbegin(); r != plan.factors.rend(); ++r) {
    const bool fits = rows * *r * rows * *r <= 2 * n;
    (fits ? chosen : others).insert((fits ? chosen : others).begin(), *r);
    if (fits) rows *= *r;
  }
  const Index columns = n / rows, stretches = (columns + lanes - 1) / lanes;
  if (std::min(rows, columns) < lanes) return;
  plan.rows = rows;
  plan.split = others.size();
  plan.factors = others;
  plan.factors.insert(plan.factors.end(), chosen.begin(), chosen.end());
  plan.across.resize(std::size_t(2 * lanes * rows * stretches));
  T* to = plan.across.data();
  for (Index q = 0; q < stretches; ++q)
    for (Index l = 0; l < rows; ++l, to += 2 * lanes)
      for (Index j = 0; j < lanes; ++j) {
        const T* root = plan.roots.data() + 2 * step * (l * (q * lanes + j) % n);
        to[j] = root[0];
        to[lanes + j] = root[1];
      }
}

template <class T>
std::shared_ptr<const FftPlan<T>> make_plan(Index n, Index step, Index lanes) {
  const auto plan = std::make_shared<FftPlan<T>>();
  plan->n = n;
  plan->step = step;
  plan->roots.resize(std::size_t(2 * n * step));
  for (Index k = 0; k < n * step; ++k) put(plan->roots, k, root_of_unity(k, n * step));
  Index left = n;
  const auto divide = [&](int r) {
    for (; left % r == 0; left /= r) plan->factors.push_back(r);
  };
  divide(4);
  for (int r = 2; r <= kFftPrime; ++r) divide(r);
  if (left > 1) {
    plan->factors.clear();
    add_chirp(*plan, lanes);
  } else if (n >= kAlone) {
    add_rows(*plan, lanes);
  }
  return plan;
}

}  // namespace

template <class T>
std::shared_ptr<const FftPlan<T>> find_fft_plan(Index n, Index step, Index lanes) {
  static std::mutex guard;
  static std::list<std::shared_ptr<const FftPlan<T>>> kept;  // the one used last is first
  {
    const std::lock_guard<std::mutex> lock(guard);
    const auto found =
        std::find_if(kept.begin(), kept.end(), [&](const auto& plan) { return plan->n == n && plan->step == step; });
    if (found != kept.end()) {
      kept.splice(kept.begin(), kept, found);
      return kept.front();
    }
  }
  auto made = make_plan<T>(n, step, lanes);  // without the lock: a chirp needs another plan
  const std::lock_guard<std::mutex> lock(guard);
  kept.push_front(made);
  if (kept.size() > kPlans) kept.pop_back();
  return made;
}

template std::shared_ptr<const FftPlan<float>> find_fft_plan(Index, Index, Index);
template std::shared_ptr<const FftPlan<double>> find_fft_plan(Index, Index, Index);

}  // namespace tg
