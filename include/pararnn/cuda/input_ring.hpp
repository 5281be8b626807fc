// The inputs of coming steps, on their way into shared memory while earlier ones are computed. A
// step's latency is hidden by steps of the same thread, not by more threads: a recurrence has few.
// Registers could hold eight steps, which is too few for the memory's latency; the ring holds up to
// four times as many and takes none.
//
// Each thread copies and reads its own words, so there is no barrier between threads.
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
  using Slots = Slot[kPossible ? kDepth : 1];

  /// The block's ring: the same memory for all of a kernel's passes over its inputs.
  __device__ static Slot* slots() {
    PARARNN_SHARED(Slots, ring);
    return ring;
  }
};

}  // namespace pararnn::cuda
