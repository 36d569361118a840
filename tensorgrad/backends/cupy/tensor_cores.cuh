// Products of small matrices by a warp on tensor cores, and the loads that bring operands to where these want them.
//
// What lane l holds, with g = l / 4 and t = l % 4 (PTX ISA, "Matrix fragments for mma.m16n8k16"), two halves a register:
//   a[0..3], of 16 x 16: rows g, g + 8, g, g + 8 at columns 2t, 2t + 1, the last two at columns 8 further on
//   b[0..1], of 16 x 8: rows 2t, 2t + 1 of column g, and those 8 further down
//   c[0..3], of 16 x 8: row g at columns 2t, 2t + 1, and row g + 8 there
//
// Devices older than sm_80 do the same by shuffles. The tests supply functions of these names for the CPU.
#pragma once

namespace tg {

TG_FN unsigned int packed(float low, float high, __half) {
  const __half2 both = __floats2half2_rn(low, high);
  return *(const unsigned int*)&both;
}
TG_FN unsigned int packed(float low, float high, __nv_bfloat16) {
  const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
  return *(const unsigned int*)&both;
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800

// c += a b
TG_FN void mma_16x8x16(float (&c)[4], const unsigned int (&a)[4], unsigned int b0, unsigned int b1, __half) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
TG_FN void mma_16x8x16(float (&c)[4], const unsigned int (&a)[4], unsigned int b0, unsigned int b1, __nv_bfloat16) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four 8 x 8 matrices from shared memory: lane l gives the place of row l % 8 of matrix l / 8, and gets of each matrix the
// elements (g, 2t) and (g, 2t + 1); transposed, (2t, g) and (2t + 1, g).
TG_FN void load_8x8_x4(unsigned int (&m)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"((unsigned int)__cvta_generic_to_shared(row))
               : "memory");
}
TG_FN void load_8x8_x4_transposed(unsigned int (&m)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"((unsigned int)__cvta_generic_to_shared(row))
               : "memory");
}

// 16 bytes from global to shared memory while the thread goes on; zeros where there is nothing to copy.
TG_FN void copy_16_bytes(void* to, const void* from, bool there) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"((unsigned int)__cvta_generic_to_shared(to)),
               "l"(from), "r"(there ? 16 : 0)
               : "memory");
}
TG_FN void end_of_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits for the copies of this thread but those before the last `kBut` ends.
template <int kBut> TG_FN void wait_for_copies() { asm volatile("cp.async.wait_group %0;" ::"n"(kBut) : "memory"); }

#elif !defined(TG_TENSOR_CORES_SUPPLIED)

TG_FN void copy_16_bytes(void* to, const void* from, bool there) {
  typedef pack<unsigned int, 4> P;
  *(P*)to = there ? *(const P*)from : P{{0, 0, 0, 0}};
}
TG_FN void end_of_copies() {}
template <int kBut> TG_FN void wait_for_copies() {}

template <class T> TG_FN float half_of(unsigned int both, bool high) {
  const unsigned short bits = (unsigned short)(high ? both >> 16 : both);
  return widened(*(const T*)&bits);
}

template <class T>
TG_FN void mma_16x8x16(float (&c)[4], const unsigned int (&a)[4], unsigned int b0, unsigned int b1, T) {
  const int lane = threadIdx.x % 32, row = lane / 4 * 4, column = lane % 4 * 8;
  for (int half = 0; half < 2; ++half) {
    for (int pair = 0; pair < 4; ++pair) {
      const unsigned int upper = __shfl_sync(0xffffffffu, half ? a[2] : a[0], row + pair);
      const unsigned int lower = __shfl_sync(0xffffffffu, half ? a[3] : a[1], row + pair);
      const unsigned int first = __shfl_sync(0xffffffffu, half ? b1 : b0, column + pair);
      const unsigned int second = __shfl_sync(0xffffffffu, half ? b1 : b0, column + 4 + pair);
      for (int high = 0; high < 2; ++high) {
        c[0] += half_of<T>(upper, high) * half_of<T>(first, high);
        c[1] += half_of<T>(upper, high) * half_of<T>(second, high);
        c[2] += half_of<T>(lower, high) * half_of<T>(first, high);
        c[3] += half_of<T>(lower, high) * half_of<T>(second, high);
      }
    }
  }
}

TG_FN void load_8x8_x4(unsigned int (&m)[4], const void* row) {
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  for (int i = 0; i < 4; ++i) {
    m[i] = ((const unsigned int*)__shfl_sync(0xffffffffu, (unsigned long long)row, 8 * i + g))[t];
  }
}
TG_FN void load_8x8_x4_transposed(unsigned int (&m)[4], const void* row) {
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  for (int i = 0; i < 4; ++i) {
    const unsigned long long upper = __shfl_sync(0xffffffffu, (unsigned long long)row, 8 * i + 2 * t);
    const unsigned long long lower = __shfl_sync(0xffffffffu, (unsigned long long)row, 8 * i + 2 * t + 1);
    m[i] = ((const unsigned short*)upper)[g] | (unsigned int)((const unsigned short*)lower)[g] << 16;
  }
}

#endif

}  // namespace tg
