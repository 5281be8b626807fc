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

/// Sends a word to shared memory (compute capability 8.0).
template <class Word>
PARARNN_DEVICE_FN void copy_async(Word* to, const void* from) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(
                   static_cast<unsigned>(__cvta_generic_to_shared(to))),
               "l"(from), "n"(sizeof(Word))
               : "memory");
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

}  // namespace pararnn::cuda

#endif
