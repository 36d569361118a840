// Workers spin for some tens of microseconds after a loop, then park on a condition variable. A loop is a shared
// counter of stretches: the caller and every awake worker take the next one until none is left, so a worker that the
// system is not running delays nobody, except for the stretch it holds.
#include "parallel.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#endif

namespace tg {
namespace {

constexpr auto kSpin = std::chrono::microseconds(50);

int from_environment(const char* name) {
  const char* text = std::getenv(name);
  if (!text || !*text) return 0;
  char* end = nullptr;
  const long value = std::strtol(text, &end, 10);
  return end != text && value > 0 && value < 4096 ? static_cast<int>(value) : 0;
}

// CPUs this process may use: its affinity mask, and the CPU time its control group allows.
int usable_cpus() {
  int count = static_cast<int>(std::thread::hardware_concurrency());
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) count = CPU_COUNT(&set);
  if (FILE* file = std::fopen("/sys/fs/cgroup/cpu.max", "r")) {
    char quota[32];
    long period = 0;
    if (std::fscanf(file, "%31s %ld", quota, &period) == 2 && period > 0 && quota[0] != 'm') {
      const long allowed = (std::strtol(quota, nullptr, 10) + period - 1) / period;
      if (allowed >= 1 && allowed < count) count = static_cast<int>(allowed);
    }
    std::fclose(file);
  }
#endif
  return count < 1 ? 1 : count;
}

int initial_threads() {
  if (int count = from_environment("TENSORGRAD_NUM_THREADS")) return count;
  if (int count = from_environment("OMP_NUM_THREADS")) return count;
  return usable_cpus();
}

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

struct Loop {
  detail::Body body;
  void* context;
  Index n, grain, stretches;
  std::atomic<Index> next{0};
  std::atomic<bool> failed{false};
  std::exception_ptr error;
  std::mutex error_guard;

  void work() {
    for (Index s; (s = next.fetch_add(1, std::memory_order_relaxed)) < stretches;) {
      if (failed.load(std::memory_order_relaxed)) continue;
      const Index first = s * grain;
      const Index last = first + grain < n ? first + grain : n;
      try {
        body(context, first, last);
      } catch (...) {
        std::lock_guard<std::mutex> lock(error_guard);
        if (!error) error = std::current_exception();
        failed = true;
      }
    }
  }
};

thread_local bool inside_loop = false;

class Pool {
 public:
  explicit Pool(int workers) {
    for (int i = 0; i < workers; ++i) threads_.emplace_back([this] { serve(); });
  }

  ~Pool() {
    {
      std::lock_guard<std::mutex> lock(guard_);
      stop_ = true;
      ++ticket_;
    }
    wake_.notify_all();
    for (auto& thread : threads_) thread.join();
  }

  void run(Loop& loop) {
    loop_.store(&loop);
    {
      // the lock orders the new ticket against a worker that is about to park
      std::lock_guard<std::mutex> lock(guard_);
      ++ticket_;
    }
    if (parked_.load() > 0) wake_.notify_all();
    inside_loop = true;
    loop.work();
    inside_loop = false;
    loop_.store(nullptr);
    // workers that entered hold the loop's memory until they leave
    for (int spins = 0; busy_.load() > 0; ++spins) {
      if (spins < 4096) relax();
      else std::this_thread::yield();
    }
  }

 private:
  void serve() {
    inside_loop = true;  // nested loops run on the worker itself
    std::uint64_t seen = 0;
    for (;;) {
      wait(seen);
      if (stop_) return;
      seen = ticket_.load();
      busy_.fetch_add(1);
      if (Loop* loop = loop_.load()) loop->work();
      busy_.fetch_sub(1);
    }
  }

  void wait(std::uint64_t seen) {
    const auto until = std::chrono::steady_clock::now() + kSpin;
    do {
      for (int i = 0; i < 64; ++i) {
        if (ticket_.load() != seen) return;
        relax();
      }
    } while (std::chrono::steady_clock::now() < until);
    std::unique_lock<std::mutex> lock(guard_);
    parked_.fetch_add(1);
    wake_.wait(lock, [&] { return ticket_.load() != seen; });
    parked_.fetch_sub(1);
  }

  std::vector<std::thread> threads_;
  std::mutex guard_;
  std::condition_variable wake_;
  std::atomic<Loop*> loop_{nullptr};
  std::atomic<std::uint64_t> ticket_{0};
  std::atomic<int> parked_{0}, busy_{0};
  std::atomic<bool> stop_{false};
};

struct State {
  std::mutex owner;  // held by the user thread whose loop has the workers
  int threads = initial_threads();
  Pool* pool = nullptr;  // never destroyed at exit: its workers may outlive the interpreter's end
};

State*& state_slot() {
  static State* state = [] {
#if defined(__linux__) || defined(__APPLE__)
    // the child has none of the parent's threads; their locks may be held for ever, so it starts afresh
    pthread_atfork(nullptr, nullptr, [] {
      const int threads = state_slot()->threads;
      state_slot() = new State;
      state_slot()->threads = threads;
      inside_loop = false;
    });
#endif
    return new State;
  }();
  return state;
}

}  // namespace

int num_threads() { return state_slot()->threads; }

void set_num_threads(int count) {
  if (count < 1 || count > 1024) {
    throw std::invalid_argument("set_num_threads: expected 1 to 1024 threads, got " + std::to_string(count));
  }
  State& state = *state_slot();
  std::lock_guard<std::mutex> lock(state.owner);
  if (count == state.threads) return;
  delete state.pool;
  state.pool = nullptr;
  state.threads = count;
}

namespace detail {

void run_parallel(Index n, Index grain, Body body, void* context) {
  Loop loop{body, context, n, grain, (n + grain - 1) / grain};
  State& state = *state_slot();
  std::unique_lock<std::mutex> lock(state.owner, std::defer_lock);
  if (inside_loop || state.threads == 1 || !lock.try_lock()) {
    loop.work();
  } else {
    if (!state.pool) state.pool = new Pool(state.threads - 1);
    state.pool->run(loop);
  }
  if (loop.error) std::rethrow_exception(loop.error);
}

}  // namespace detail
}  // namespace tg
