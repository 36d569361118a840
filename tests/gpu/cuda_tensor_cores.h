// What tensor cores and the loads for them do (tensor_cores.cuh), lane by lane: what lies in which register is taken from the
// PTX ISA's figures, not from the kernels.
#pragma once
#define TG_TENSOR_CORES_SUPPLIED

namespace tensor_cores {

struct Given {
  float numbers[12];  // two of each register
  const unsigned short* row;
};
static Given given[2][32][fibers::kWarp];

// A thread's copies under way, and how often it has called end_of_copies.
constexpr int kMostCopies = 256;
struct Copy {
  void* to;
  const void* from;  // null for zeros
  unsigned long group;
};
struct Copies {
  Copy all[kMostCopies];
  int count;
  unsigned long group;
};
static Copies copies[fibers::kMost];

// What all lanes of the warp give. Two places take turns: who is at the next meeting has read what was given at the last.
inline const Given* meet(const Given& mine) {
  fibers::Warp& warp = fibers::my_warp();
  Given* here = given[warp.round % 2][threadIdx.x / fibers::kWarp];
  here[threadIdx.x % fibers::kWarp] = mine;
  fibers::wait_for(warp);
  return here;
}

inline float number(unsigned short bits, __half) {
  __half h;
  memcpy(&h, &bits, 2);
  return __half2float(h);
}
inline float number(unsigned short bits, __nv_bfloat16) { return __bfloat162float({bits}); }

// Element (row, k) of the left matrix: register and half by quadrant and column.
inline float left(const Given* lanes, int row, int k) {
  return lanes[row % 8 * 4 + k % 8 / 2].numbers[2 * (row / 8 + k / 8 * 2) + k % 2];
}
inline float right(const Given* lanes, int k, int column) {
  return lanes[column * 4 + k % 8 / 2].numbers[2 * (4 + k / 8) + k % 2];
}

}  // namespace tensor_cores

namespace tg {

template <class T>
void mma_16x8x16(float (&c)[4], const unsigned int (&a)[4], unsigned int b0, unsigned int b1, T type) {
  const unsigned int registers[6] = {a[0], a[1], a[2], a[3], b0, b1};
  tensor_cores::Given mine{};
  for (int i = 0; i < 12; ++i) mine.numbers[i] = tensor_cores::number(registers[i / 2] >> i % 2 * 16 & 0xffff, type);
  const tensor_cores::Given* lanes = tensor_cores::meet(mine);
  const int lane = threadIdx.x % fibers::kWarp;
  for (int i = 0; i < 4; ++i) {
    const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
    double sum = c[i];
    for (int k = 0; k < 16; ++k) {
      sum += (double)tensor_cores::left(lanes, row, k) * tensor_cores::right(lanes, k, column);
    }
    c[i] = (float)sum;
  }
}

inline void load_matrices(unsigned int (&m)[4], const void* row, bool transposed) {
  const unsigned short* mine = (const unsigned short*)row;
  if ((size_t)mine % 16) {
    fprintf(stderr, "ldmatrix: a row at %p, which is no multiple of 16 bytes\n", row);
    abort();
  }
  const tensor_cores::Given* lanes = tensor_cores::meet({{}, mine});
  const int lane = threadIdx.x % fibers::kWarp;
  for (int i = 0; i < 4; ++i) {
    unsigned int both[2];
    for (int e = 0; e < 2; ++e) {
      const int at = lane / 4, next = lane % 4 * 2 + e;
      both[e] = transposed ? lanes[8 * i + next].row[at] : lanes[8 * i + at].row[next];
    }
    m[i] = both[0] | both[1] << 16;
  }
}
// Copies to shared memory are made as late as they may be, when their thread waits for them; until then NaN is there.
inline void copy_16_bytes(void* to, const void* from, bool there) {
  tensor_cores::Copies& mine = tensor_cores::copies[threadIdx.x];
  if ((size_t)to % 16 || (size_t)from % 16 || mine.count == tensor_cores::kMostCopies) {
    fprintf(stderr, "cp.async: from %p to %p, which are to be multiples of 16 bytes, %d under way\n", from, to, mine.count);
    abort();
  }
  memset(to, 0xff, 16);
  mine.all[mine.count++] = {to, there ? from : nullptr, mine.group};
}
inline void end_of_copies() { ++tensor_cores::copies[threadIdx.x].group; }
template <int kBut>
void wait_for_copies() {
  tensor_cores::Copies& mine = tensor_cores::copies[threadIdx.x];
  int left = 0;
  for (int i = 0; i < mine.count; ++i) {
    const tensor_cores::Copy& one = mine.all[i];
    if (one.group + kBut >= mine.group) mine.all[left++] = one;
    else if (one.from) memcpy(one.to, one.from, 16);
    else memset(one.to, 0, 16);
  }
  mine.count = left;
}

inline void load_8x8_x4(unsigned int (&m)[4], const void* row) { load_matrices(m, row, false); }
inline void load_8x8_x4_transposed(unsigned int (&m)[4], const void* row) { load_matrices(m, row, true); }

}  // namespace tg
