// What the kernels need of a GPU beyond C++ and CUDA's built-in names: conversions and copies,
// which are PTX, so that a kernel includes no header but the engine's. Another machine can stand in
// for it: PARARNN_CUDA_PRIMITIVES names a header with all of this, and the built-in names.
#pragma once

#include "pararnn/core/platform.hpp"

#if defined(PARARNN_CUDA_PRIMITIVES)
#include PARARNN_CUDA_PRIMITIVES
#else

/// A function that reads where its thread is.
#define PARARNN_DEVICE_FN __device__ __forceinline__
/// A variable that the threads of a block share.
#define PARARNN_SHARED(Type, name) __shared__ Type name
/// One for which the launch gives room: more than 48 KB.
#define PARARNN_DYNAMIC_SHARED(Type, name)          \
  extern __shared__ uint4 pararnn_dynamic_shared[]; \
  Type& name = *reinterpret_cast<Type*>(pararnn_dynamic_shared)

namespace pararnn::cuda {

// Halves and bfloat16 as their bits; rounding to nearest, ties to even.

PARARNN_FN float float_of_half(unsigned short bits) {
  float result = 0;
  asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(bits));
  return result;
}

PARARNN_FN unsigned short half_of_float(float x) {
  unsigned short result = 0;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result) : "f"(x));
  return result;
}

PARARNN_FN unsigned short bfloat16_of_float(float x) {
  unsigned short result = 0;
  asm("{.reg .b32 pair; .reg .b16 high; cvt.rn.bf16x2.f32 pair, 0f00000000, %1; mov.b32 {%0, "
      "high}, pair;}"
      : "=h"(result)
      : "f"(x));
  return result;
}

/// Two of them in a word.
PARARNN_FN unsigned bfloat16_pair(float low, float high) {
  unsigned result = 0;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
  return result;
}

/// Sends a word to shared memory (compute capability 8.0), one of 16 bytes past the first cache.
template <class Word>
PARARNN_DEVICE_FN void copy_async(Word* to, const void* from) {
  const auto address = static_cast<unsigned>(__cvta_generic_to_shared(to));
  if constexpr (sizeof(Word) == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(from) : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(address), "l"(from),
                 "n"(sizeof(Word))
                 : "memory");
  }
}

/// What was sent since the last commit is one group.
PARARNN_DEVICE_FN void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

/// Waits until all but the N youngest groups have arrived.
template <int N>
PARARNN_DEVICE_FN void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

/// Between two looks at what another thread is to write.
PARARNN_DEVICE_FN void let_others_run() {}

/// A warp's product of bfloat16 matrices, sums += a bᵀ, for a of 16 rows and b of 8, of 16 numbers
/// each. Of rows `lane / 4` and, of a, 8 behind it, a lane has numbers 2 n, 2 n + 1 and 8 behind
/// them, n = lane % 4; of the sums those of columns 2 n and 2 n + 1 (compute capability 8.0).
PARARNN_DEVICE_FN void multiply_in_warp(const unsigned (&a)[4], const unsigned (&b)[2],
                                        float (&sums)[4]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/// Four matrices of 8 rows of 16 bytes in shared memory, transposed: `row` of lane 8 m + r is row r
/// of matrix m, of which a lane gets numbers lane / 4 of rows 2 n and 2 n + 1, n = lane % 4, as
/// word m (compute capability 7.5).
PARARNN_DEVICE_FN uint4 load_transposed(const uint4* row) {
  uint4 words{};
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(words.x), "=r"(words.y), "=r"(words.z), "=r"(words.w)
               : "r"(static_cast<unsigned>(__cvta_generic_to_shared(row)))
               : "memory");
  return words;
}

/// A kernel that was launched to overlap with the one before: lets the one after it start, and
/// waits for all that the one before has written (compute capability 9.0; before it kernels do not
/// overlap).
PARARNN_DEVICE_FN void let_next_kernel_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
PARARNN_DEVICE_FN void wait_for_previous_kernel() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Clusters of kBlocks neighbouring blocks along x (compute capability 9.0); a block alone is one
// too. Their threads meet in two steps, each of which all threads take in turn.

template <int kBlocks>
PARARNN_DEVICE_FN void come_to_cluster() {
#if __CUDA_ARCH__ >= 900
  if constexpr (kBlocks > 1) asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
#endif
}
/// What the others wrote before they came is seen, in shared memory too.
template <int kBlocks>
PARARNN_DEVICE_FN void wait_for_cluster() {
  if constexpr (kBlocks == 1) {
    __syncthreads();
  } else {
#if __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
  }
}
/// Stores two numbers where block `rank` of the cluster has what is `mine` here, in shared memory.
template <int kBlocks>
PARARNN_DEVICE_FN void store_in_cluster(float* mine, int rank, float first, float second) {
  if constexpr (kBlocks == 1) {
    mine[0] = first;
    mine[1] = second;
  } else {
#if __CUDA_ARCH__ >= 900
    const auto address = static_cast<unsigned>(__cvta_generic_to_shared(mine));
    asm volatile(
        "{.reg .b32 there; mapa.shared::cluster.u32 there, %0, %1; st.shared::cluster.v2.f32 "
        "[there], {%2, %3};}" ::"r"(address),
        "r"(rank), "f"(first), "f"(second)
        : "memory");
#endif
  }
}

}  // namespace pararnn::cuda

#endif
