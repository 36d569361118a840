// Brings equal places together: a stable sort of row numbers, with where each was. It neither waits for the device nor
// calls a library, so a CUDA graph can hold it.
//
// Few keys are ranked by comparing all with all. Many are sorted by digits of 8 bits, the lowest first: counts of each
// digit in every block's chunk, where the digit's keys of each chunk begin, and the keys at their places. Within a chunk
// keys are placed in rounds of one block; lanes find those before them with the same digit by votes. So the order of
// equal keys stays whatever the grid.

namespace tg {

typedef unsigned int u32;
constexpr u32 kDigits = 256, kLanes = 32, kWarps = kDigits / kLanes;  // a block has a thread for each digit

// What is no row comes last.
TG_FN u32 key_of(i64 place, u32 rows) { return place < 0 || place >= rows ? rows : (u32)place; }

}  // namespace tg

extern "C" __global__ void rankedkeys(const tg::i64 count, const tg::i64 rows, const tg::i64* place,
                                      unsigned int* keys, unsigned int* order) {
  for (tg::i64 i = blockIdx.x * (tg::i64)blockDim.x + threadIdx.x; i < count; i += (tg::i64)gridDim.x * blockDim.x) {
    const unsigned int key = tg::key_of(place[i], (unsigned int)rows);
    unsigned int before = 0;
    for (int j = 0; j < count; ++j) {
      const unsigned int other = tg::key_of(place[j], (unsigned int)rows);
      before += other < key || (other == key && j < i);
    }
    keys[before] = key;
    order[before] = (unsigned int)i;
  }
}

extern "C" __global__ void rowkeys(const tg::i64 count, const tg::i64 rows, const tg::i64* place, unsigned int* keys,
                                   unsigned int* order) {
  for (tg::i64 i = blockIdx.x * (tg::i64)blockDim.x + threadIdx.x; i < count; i += (tg::i64)gridDim.x * blockDim.x) {
    keys[i] = tg::key_of(place[i], (unsigned int)rows);
    order[i] = (unsigned int)i;
  }
}

// counts: (digit, chunk)
extern "C" __global__ void digitcounts(const tg::i64 count, const tg::i64 chunk, const tg::i64 chunks,
                                       const tg::i64 shift, const unsigned int* keys, unsigned int* counts) {
  __shared__ unsigned int found[tg::kDigits];
  for (tg::i64 part = blockIdx.x; part < chunks; part += gridDim.x) {
    __syncthreads();
    found[threadIdx.x] = 0;
    __syncthreads();
    const tg::i64 end = (part + 1) * chunk < count ? (part + 1) * chunk : count;
    for (tg::i64 i = part * chunk + threadIdx.x; i < end; i += tg::kDigits)
      atomicAdd(&found[keys[i] >> shift & (tg::kDigits - 1)], 1u);
    __syncthreads();
    counts[threadIdx.x * chunks + part] = found[threadIdx.x];
  }
}

// Counts become the number of keys before, of a lower digit or in an earlier chunk. One block.
extern "C" __global__ void digitstarts(const tg::i64 chunks, unsigned int* counts) {
  if (blockIdx.x) return;
  __shared__ unsigned int totals[tg::kDigits];
  unsigned int* const mine = counts + threadIdx.x * chunks;
  unsigned int total = 0;
  for (tg::i64 part = 0; part < chunks; ++part) total += mine[part];
  totals[threadIdx.x] = total;
  for (unsigned int distance = 1; distance < tg::kDigits; distance *= 2) {
    __syncthreads();
    const unsigned int before = threadIdx.x >= distance ? totals[threadIdx.x - distance] : 0;
    __syncthreads();
    totals[threadIdx.x] += before;
  }
  unsigned int start = totals[threadIdx.x] - total;
  for (tg::i64 part = 0; part < chunks; ++part) {
    const unsigned int here = mine[part];
    mine[part] = start;
    start += here;
  }
}

extern "C" __global__ void digitplaces(const tg::i64 count, const tg::i64 chunk, const tg::i64 chunks,
                                       const tg::i64 shift, const unsigned int* starts, const unsigned int* keys,
                                       const unsigned int* order, unsigned int* sorted, unsigned int* sorted_order) {
  using namespace tg;
  __shared__ unsigned int next[kDigits];  // where the chunk's next key of a digit goes
  __shared__ unsigned int of_warps[kWarps][kDigits];
  const u32 lane = threadIdx.x % kLanes, warp = threadIdx.x / kLanes;
  for (i64 part = blockIdx.x; part < chunks; part += gridDim.x) {
    const i64 end = (part + 1) * chunk < count ? (part + 1) * chunk : count;
    next[threadIdx.x] = starts[threadIdx.x * chunks + part];
    for (i64 first = part * chunk; first < end; first += kDigits) {
      for (u32 w = 0; w < kWarps; ++w) of_warps[w][threadIdx.x] = 0;
      __syncthreads();
      const i64 i = first + threadIdx.x;
      const bool there = i < end;
      const u32 key = there ? keys[i] : 0, digit = key >> shift & (kDigits - 1);
      u32 alike = __ballot_sync(0xffffffffu, there);
      for (u32 bit = 1; bit < kDigits; bit *= 2) {
        const u32 set = __ballot_sync(0xffffffffu, digit & bit);
        alike &= digit & bit ? set : ~set;
      }
      const u32 before = __popc(alike & ((1u << lane) - 1));
      if (there && before == 0) of_warps[warp][digit] = __popc(alike);
      __syncthreads();
      u32 at = next[threadIdx.x];  // this thread looks after one digit
      for (u32 w = 0; w < kWarps; ++w) {
        const u32 many = of_warps[w][threadIdx.x];
        of_warps[w][threadIdx.x] = at;
        at += many;
      }
      next[threadIdx.x] = at;
      __syncthreads();
      if (there) {
        const u32 to = of_warps[warp][digit] + before;
        sorted[to] = key;
        sorted_order[to] = order[i];
      }
      __syncthreads();
    }
  }
}
