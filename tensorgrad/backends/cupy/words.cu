// Words of the host, handed over as an argument of the launch and written to device memory: nothing is copied from host
// memory, so nothing waits, and a graph that was captured keeps its own.

namespace tg {

constexpr int kWords = 480;  // 3840 bytes: before CUDA 12.1 all arguments together may have 4096

struct Words {
  u64 w[kWords];
};

}  // namespace tg

extern "C" __global__ void putwords(const tg::i64 count, tg::u64* to, const tg::Words from) {
  for (tg::i64 i = blockIdx.x * (tg::i64)blockDim.x + threadIdx.x; i < count; i += (tg::i64)gridDim.x * blockDim.x)
    to[i] = from.w[i];
}
