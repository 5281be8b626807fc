// Before a pass over rows of which a part starts anew (sequences.hpp): the starts of every block of
// steps; the states of sequences without steps, which no pass comes to; and whether the offsets are
// right, which the host cannot know without waiting for the device.
#pragma once

#include "pararnn/cuda/lanes.hpp"
#include "pararnn/cuda/warp_scan.hpp"

namespace pararnn::cuda {

/// Offsets that a block keeps near to itself, evenly spread over all.
inline constexpr int kNearOffsets = 4096;

/// sequence_at by a search that begins in shared memory.
struct NearOffsets {
  const Sequences& sequences;
  const int* near;
  Int stride, count;  // near[i] is number i stride

  /// All threads of the block call it.
  __device__ explicit NearOffsets(const Sequences& the_sequences)
      : sequences(the_sequences), stride(sequences.count / kNearOffsets + 1) {
    using Near = int[kNearOffsets];
    PARARNN_SHARED(Near, numbers);
    near = numbers;
    count = sequences.offsets ? sequences.count / stride + 1 : 0;
    for (Int i = threadIdx.x; i < count; i += blockDim.x) {
      numbers[i] = sequences.offsets[i * stride];
    }
    __syncthreads();
  }

  __device__ int sequence_at(Int t) const {
    if (count == 0) return 0;
    const Int first = pararnn::sequence_at(near, count, t) * stride;
    const Int last = first + stride < sequences.count ? first + stride : sequences.count;
    if (last <= first) return static_cast<int>(sequences.count - 1);  // of wrong offsets
    return static_cast<int>(first) +
           pararnn::sequence_at(sequences.offsets + first, last - first, t);
  }
};

/// Whether the offsets are none; by a block.
__device__ inline bool are_wrong(const Sequences& sequences, Int steps) {
  bool wrong = sequences.offsets[0] != 0 || sequences.offsets[sequences.count] != steps;
#pragma unroll 8
  for (Int n = threadIdx.x; n < sequences.count; n += blockDim.x) {
    wrong = wrong | (sequences.offsets[n] > sequences.offsets[n + 1]);
  }
  return __syncthreads_or(wrong);
}

/// `from` and `to`: states (N,S,D), those of empty sequences are copied; zeros from null. If the
/// offsets are wrong, not all are come to: `to` is NaN.
template <int S, class T, class Problem>
__device__ void find_starts(const Problem& problem, const void* from, void* to) {
  const Sequences& sequences = problem.sequences;
  const Chunking& size = problem.size;
  const NearOffsets near(sequences);
  const Int entries = starts_of_row(size);
  for (Int i = thread_index(); i < size.batch * entries; i += thread_count()) {
    const Int t = i % entries * kCheckpointInterval;
    // The last entry is of the row's last step.
    const bool last = i % entries == entries - 1;
    const int sequence = near.sequence_at(last ? size.steps - 1 : t);
    problem.starts[i] = last ? BlockStarts{0, sequence}
                             : starts_of_block<kCheckpointInterval>(sequences, size.steps,
                                                                    i / entries, t, sequence);
  }
  if (!sequences.offsets) return;
  const Int width = S * size.channels;
  for (Int n = warp_index(); n < sequences.count; n += warp_count()) {
    if (sequences.offsets[n] != sequences.offsets[n + 1]) continue;
    for (Int i = threadIdx.x % kWarp; i < width; i += kWarp) {
      static_cast<T*>(to)[n * width + i] = from ? static_cast<const T*>(from)[n * width + i] : T(0);
    }
  }
  if (blockIdx.x > 0) return;
  const bool wrong = are_wrong(sequences, size.steps);
  if (threadIdx.x == 0) *problem.wrong_offsets = wrong;
  for (Int i = threadIdx.x; wrong && i < sequences.count * width; i += blockDim.x) {
    static_cast<T*>(to)[i] = not_a_number<T>();
  }
}

template <class C, class Storage>
__global__ void __launch_bounds__(kStartsThreads)
    forward_starts(const __grid_constant__ ForwardProblem problem) {
  find_starts<C::kState, Arithmetic<Storage>>(problem, problem.h0, problem.hT);
}

template <class C, class Storage>
__global__ void __launch_bounds__(kStartsThreads)
    backward_starts(const __grid_constant__ BackwardProblem problem) {
  find_starts<C::kState, Arithmetic<Storage>>(problem, problem.dhT, problem.dh0);
}

}  // namespace pararnn::cuda
