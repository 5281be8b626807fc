// The inputs of coming steps, on their way into shared memory while earlier ones are computed. A
// step's latency is hidden by steps of the same thread, not by more threads: a recurrence has few.
// Registers could hold eight steps, which is too few for the memory's latency; the ring holds up to
// four times as many and takes none.
//
// Each thread copies and reads its own words, so there is no barrier between threads, only
//
//   commit_copies()            what was sent since the last commit is one group
//   wait_for_copies<N>()       all but the N youngest groups have arrived
//
// (PTX cp.async, compute capability 8.0.)
#pragma once

#include "pararnn/cuda/problem.hpp"
#include "pararnn/cuda/storage.hpp"

namespace pararnn::cuda {

/// Bytes of the ring per thread: 24 KiB a block, so that eight blocks share a multiprocessor.
inline constexpr int kRingBytesPerThread = 384;

/// U packs a step for each thread of a block.
template <class Pack, int U>
struct InputRing {
  /// The hardware copies words of 4 bytes at least.
  static constexpr bool kPossible = sizeof(Pack) >= 4;
  static constexpr int kFitting = kRingBytesPerThread / static_cast<int>(U * sizeof(Pack));
  /// Steps in the ring, a multiple of kCheckpointInterval.
  static constexpr int kDepth = kFitting < kCheckpointInterval
                                    ? kCheckpointInterval
                                    : kFitting / kCheckpointInterval * kCheckpointInterval;
  using Word = typename WordOf<(kPossible ? sizeof(Pack) : 4)>::type;
  using Slot = Word[U][kThreadsPerBlock];

  /// The block's ring: the same memory for all of a kernel's passes over its inputs.
  __device__ static Slot* slots() {
    __shared__ Slot ring[kPossible ? kDepth : 1];
    return ring;
  }
};

template <class Word>
__device__ __forceinline__ void copy_async(Word* to, const void* from) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(
                   static_cast<unsigned>(__cvta_generic_to_shared(to))),
               "l"(from), "n"(sizeof(Word))
               : "memory");
}

__device__ __forceinline__ void commit_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int N>
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

}  // namespace pararnn::cuda
