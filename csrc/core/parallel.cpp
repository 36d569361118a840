// Workers spin for half a millisecond after a loop, then park on a condition variable. Of a loop's stretches every thread
// has a share of neighbours, the same in every loop: so it finds in its cache what it left there, where cores have caches
// of their own (two Zen 3 cores that share no L3 read what the other wrote at 16 GB/s, what they wrote themselves at 64;
// with one counter for all, products of 512 to 1,024 rows took 1.1 to 1.4 times as long, a step of gpt 1.1). Then it
// takes what is left of the others' shares.
//
// Nobody waits for a worker that the system is not running, with one exception. The gate is one word: a loop's ticket,
// whether it is open, and how many workers are inside. A worker enters only while the loop is open, so one that wakes
// late delays nothing. When no stretch is left the caller closes the gate and waits for those inside, of whom each holds
// its last stretch.
//
// Beside another busy process (mlp, gpt-micro: ms a step alone and with a spinning process on one of two cores)
//   workers spin 50 us, then park     4.8   5.0     44   55   slow alone: to wake a worker takes 60 us here
//   workers spin 500 us               3.1   6.9     43   79   slow beside: who spun has used up his turn when work comes
//   500 us, but 50 while crowded      see kCrowded
//   a caller that sleeps after 50 us  4.7   5.0     47   66   loses its own core to the other process
// So a worker asks now and then whether the system took the core away from it, and the caller waits on its feet.
#include "parallel.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__linux__) || defined(__APPLE__)
#include <pthread.h>
#include <signal.h>
#include <time.h>
#endif

#include "cpus.h"

namespace tg {
namespace {

using Clock = std::chrono::steady_clock;

// Of a worker before it parks: 512 K elements doubled 100 us after the last loop took 61 us, with 50 us of spinning 123.
constexpr auto kSpin = std::chrono::microseconds(500);
// The same while the core is shared with others: who sleeps is run at once when woken.
constexpr auto kBriefSpin = std::chrono::microseconds(50);
constexpr auto kStolen = std::chrono::microseconds(500);  // without its core for as long, a worker holds it for shared
constexpr auto kCrowded = std::chrono::milliseconds(50);  // for as long
// Of a caller before it sleeps: longer than a time slice, after which a worker that was preempted runs again.
constexpr auto kPatience = std::chrono::milliseconds(5);

int from_environment(const char* name) {
  const char* text = std::getenv(name);
  if (!text || !*text) return 0;
  char* end = nullptr;
  const long value = std::strtol(text, &end, 10);
  return end != text && value > 0 && value < 4096 ? static_cast<int>(value) : 0;
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

template <class Done>
bool spin(Clock::time_point until, Done done) {
  do {
    for (int i = 0; i < 64; ++i) {
      if (done()) return true;
      relax();
    }
  } while (Clock::now() < until);
  return false;
}

// The time this thread did not run since it last slept of its own will or asked.
class Stolen {
 public:
  void restart() { wall_ = Clock::now(), cpu_ = cpu(); }

  Clock::duration ask() {
    const auto wall = wall_;
    const auto used = cpu_;
    restart();
    return (wall_ - wall) - (cpu_ - used);
  }

 private:
  static Clock::duration cpu() {
#if defined(__linux__) || defined(__APPLE__)
    timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return std::chrono::seconds(t.tv_sec) + std::chrono::nanoseconds(t.tv_nsec);
#else
    return Clock::now().time_since_epoch();  // unknown: never stolen
#endif
  }

  Clock::time_point wall_;
  Clock::duration cpu_;
};

// The stretches that one thread takes first.
struct alignas(64) Share {
  std::atomic<Index> next{0};
  Index end = 0;
};

struct Loop {
  detail::Body body;
  void* context;
  Index n, grain, stretches;
  int count = 0;  // of shares
  std::atomic<bool> failed{false};
  std::exception_ptr error;
  std::mutex error_guard;

  // The stretches of the own share, then what is left of the others'.
  void work(Share* shares, int own) {
    for (int i = 0; i < count; ++i) {
      Share& share = shares[(own + i) % count];
      while (share.next.load(std::memory_order_relaxed) < share.end) {
        const Index s = share.next.fetch_add(1, std::memory_order_relaxed);
        if (s < share.end) run(s);
      }
    }
  }

  void alone() {
    for (Index s = 0; s < stretches; ++s) run(s);
  }

 private:
  void run(Index s) {
    if (failed.load(std::memory_order_relaxed)) return;
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
};

thread_local bool inside_loop = false;
thread_local int own_index = 0;

class Pool {
 public:
  explicit Pool(int workers) : shares_(static_cast<std::size_t>(workers) + 1) {
#if defined(__linux__) || defined(__APPLE__)
    sigset_t all, before;  // signals are for the program's own threads
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
#endif
    try {
      for (int i = 0; i < workers; ++i) threads_.emplace_back([this, i] { serve(i + 1); });
    } catch (const std::system_error&) {
      // the system grants no more: fewer workers give the same results
    }
#if defined(__linux__) || defined(__APPLE__)
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
#endif
  }

  ~Pool() {
    stop_ = true;
    open_gate();
    wake(threads_.size());
    for (auto& thread : threads_) thread.join();
  }

  void run(Loop& loop) {
    loop_ = &loop;
    const int count = loop.count = static_cast<int>(std::min<Index>(loop.stretches, static_cast<Index>(shares_.size())));
    for (int i = 0; i < count; ++i) {
      shares_[i].next.store(loop.stretches * i / count, std::memory_order_relaxed);
      shares_[i].end = loop.stretches * (i + 1) / count;
    }
    open_gate();
    wake(static_cast<std::size_t>(loop.stretches - 1));
    inside_loop = true;
    loop.work(shares_.data(), 0);
    inside_loop = false;
    const auto empty = [&] { return (gate_.load() & kInside) == 0; };
    if ((gate_.fetch_and(~kOpen) & kInside) == 0 || spin(Clock::now() + kBriefSpin, empty)) return;
    for (const auto until = Clock::now() + kPatience; Clock::now() < until; std::this_thread::yield()) {
      if (empty()) return;
    }
    std::unique_lock<std::mutex> lock(guard_);
    caller_sleeps_ = true;
    left_.wait(lock, empty);
    caller_sleeps_ = false;
  }

 private:
  // inside: 16 bits, open: one, the rest is the ticket
  static constexpr std::uint64_t kOpen = 1 << 16, kInside = kOpen - 1, kTicket = kOpen << 1;

  // Only with the gate closed and nobody inside, so no worker changes it meanwhile.
  void open_gate() { gate_.store(((gate_.load() & ~kOpen) + kTicket) | kOpen); }

  void wake(std::size_t most) {
    if (parked_.load() == 0) return;  // who parks later sees the new ticket
    std::size_t count;
    {
      std::lock_guard<std::mutex> lock(guard_);  // orders the new ticket against a worker that is about to park
      count = static_cast<std::size_t>(parked_.load());
    }
    if (count <= most) wake_.notify_all();
    else for (; most > 0; --most) wake_.notify_one();
  }

  void serve(int own) {
    inside_loop = true;  // nested loops run on the worker itself
    own_index = own;
    std::uint64_t seen = 0;
    Stolen stolen;
    stolen.restart();
    for (;;) {
      std::uint64_t gate = wait(seen, stolen);
      if (stop_) return;
      seen = gate / kTicket;
      while ((gate & kOpen) && !stop_) {
        if (!gate_.compare_exchange_weak(gate, gate + 1)) continue;
        seen = gate / kTicket;
        loop_->work(shares_.data(), own);
        gate = gate_.fetch_sub(1);
        if (!(gate & kOpen) && (gate & kInside) == 1 && caller_sleeps_.load()) {
          std::lock_guard<std::mutex> lock(guard_);
          left_.notify_one();
        }
        break;
      }
    }
  }

  // The gate once its ticket is another than `seen`.
  std::uint64_t wait(std::uint64_t seen, Stolen& stolen) {
    std::uint64_t gate = 0;
    const auto changed = [&] { return (gate = gate_.load()) / kTicket != seen; };
    const auto start = Clock::now();
    if (spin(start + kBriefSpin, changed)) return gate;
    if (stolen.ask() > kStolen) crowded_until_ = (start + kCrowded).time_since_epoch().count();
    if (start.time_since_epoch().count() > crowded_until_ && spin(start + kSpin, changed)) return gate;
    std::unique_lock<std::mutex> lock(guard_);
    parked_.fetch_add(1);
    wake_.wait(lock, changed);
    parked_.fetch_sub(1);
    stolen.restart();
    return gate;
  }

  std::vector<std::thread> threads_;
  std::vector<Share> shares_;  // written before the gate opens
  std::mutex guard_;
  std::condition_variable wake_, left_;
  alignas(64) std::atomic<std::uint64_t> gate_{0};
  Loop* loop_ = nullptr;  // written before the gate opens, read after entering
  std::atomic<Clock::rep> crowded_until_{0};
  std::atomic<int> parked_{0};
  std::atomic<bool> stop_{false}, caller_sleeps_{false};
};

struct State {
  explicit State(int count) : threads(count) {}

  std::mutex owner;  // held by the user thread whose loop has the workers
  std::atomic<int> threads;
  Pool* pool = nullptr;  // never destroyed at exit: its workers may outlive the interpreter's end
};

State*& state_slot() {
  static State* state = [] {
#if defined(__linux__) || defined(__APPLE__)
    // the child has none of the parent's threads; their locks may be held for ever, so it starts afresh
    pthread_atfork(nullptr, nullptr, [] {
      state_slot() = new State(state_slot()->threads);
      inside_loop = false;
      own_index = 0;
    });
#endif
    return new State(initial_threads());
  }();
  return state;
}

}  // namespace

int num_threads() { return state_slot()->threads; }

int worker_index() { return own_index; }

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
  Loop loop;
  loop.body = body, loop.context = context, loop.n = n, loop.grain = grain, loop.stretches = (n + grain - 1) / grain;
  State& state = *state_slot();
  std::unique_lock<std::mutex> lock(state.owner, std::defer_lock);
  if (inside_loop || state.threads == 1 || !lock.try_lock()) {
    loop.alone();
  } else {
    if (!state.pool) state.pool = new Pool(state.threads - 1);
    state.pool->run(loop);
  }
  if (loop.error) std::rethrow_exception(loop.error);
}

}  // namespace detail
}  // namespace tg
