// The largest of numbers and the sum of their exponentials below it, in one go (Milakov and Gimelshein 2018, "Online
// normalizer calculation for softmax").

namespace tg {

// What idle threads have is (-inf, 0): its factor must not become exp(-inf + inf).
template <class W> TG_FN W shrunk(W sum, W from, W to) { return from == to ? sum : sum * exp(from - to); }

template <class W> struct Normalizer {
  W most = -infinity((W)0), sum = 0;  // sum of exp(x - most)

  TG_FN void add(W x) {
    if (x > most) {
      sum = shrunk(sum, most, x);
      most = x;
    }
    if (x != -infinity(x)) sum += exp(x - most);  // NaN for NaN and infinity
  }
  // What all threads of the row have added.
  template <class Threads> TG_FN Normalizer of_all(Threads threads) const {
    Normalizer found;
    found.most = threads.all(most, [](W a, W b) { return a > b ? a : b; });
    found.sum = threads.all(shrunk(sum, most, found.most), [](W a, W b) { return a + b; });
    return found;
  }
};

}  // namespace tg
