// Before a pass over rows of which a part starts anew (sequences.hpp): the starts of every block of
// steps; the states of sequences without steps, which no pass comes to; and whether the offsets are
// right, which the host cannot know without waiting for the device.
#pragma once

#include "pararnn/cuda/lanes.hpp"
#include "pararnn/cuda/warp_scan.hpp"

namespace pararnn::cuda {

/// `from` and `to`: states (N,S,D), those of empty sequences are copied; zeros from null.
template <int S, class T, class Problem>
__device__ void find_starts(const Problem& problem, const void* from, void* to) {
  const Sequences& sequences = problem.sequences;
  const Chunking& size = problem.size;
  const Int blocks = (size.steps + kCheckpointInterval - 1) / kCheckpointInterval;
  for (Int i = thread_index(); i < size.batch * blocks; i += thread_count()) {
    problem.starts[i] = starts_of_block<kCheckpointInterval>(sequences, size.steps, i / blocks,
                                                             i % blocks * kCheckpointInterval);
  }
  if (!sequences.offsets) return;
  const Int width = S * size.channels;
  for (Int n = warp_index(); n < sequences.count; n += warp_count()) {
    const Int begin = sequences.offsets[n], end = sequences.offsets[n + 1];
    if (begin > end || (n == 0 && begin != 0) || (n == sequences.count - 1 && end != size.steps)) {
      *problem.wrong_offsets = 1;
    }
    if (begin != end) continue;
    for (Int i = threadIdx.x % kWarp; i < width; i += kWarp) {
      static_cast<T*>(to)[n * width + i] = from ? static_cast<const T*>(from)[n * width + i] : T(0);
    }
  }
}

template <class C, class Storage>
__global__ void __launch_bounds__(kThreadsPerBlock)
    forward_starts(const __grid_constant__ ForwardProblem problem) {
  find_starts<C::kState, Arithmetic<Storage>>(problem, problem.h0, problem.hT);
}

template <class C, class Storage>
__global__ void __launch_bounds__(kThreadsPerBlock)
    backward_starts(const __grid_constant__ BackwardProblem problem) {
  find_starts<C::kState, Arithmetic<Storage>>(problem, problem.dhT, problem.dh0);
}

}  // namespace pararnn::cuda
