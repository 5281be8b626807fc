// What both directions' verification shares: comparing the numbers on the two sides of each
// boundary between chunks, by a cooperative grid; its barrier; and what is counted.
#pragma once

#include "pararnn/cuda/starts.hpp"
#include "pararnn/mismatch.hpp"

namespace pararnn::cuda {

/// Waits until every thread of a cooperative grid has come to barrier number `barrier`, which it
/// counts up. Returns whether any of them came with `mine` set.
__device__ inline bool grid_barrier(Counters* counters, int& barrier, bool mine = false) {
  constexpr unsigned kSet = 1u << 16;  // above the number of blocks
  unsigned arrived = 0;
  mine = __syncthreads_or(mine);
  if (threadIdx.x == 0) {
    __threadfence();
    atomicAdd(&counters->arrived[barrier], mine ? kSet + 1 : 1);
    while (true) {
      arrived = *const_cast<volatile unsigned*>(&counters->arrived[barrier]);
      if (arrived % kSet >= gridDim.x) break;
      let_others_run();
    }
    __threadfence();
  }
  ++barrier;
  return __syncthreads_or(arrived >= kSet);
}

/// Pairs of numbers that a thread loads before it compares the first.
inline constexpr int kPairsTogether = 4;

/// Verification number `round`, by a grid: compares the numbers i of one array (B,P,S,D) with the
/// numbers i + S D of another, which lie on the two sides of a boundary between chunks, and marks
/// the columns whose mismatch(i, before, behind) does not pass. Returns whether the thread found
/// one.
template <int S, class T, class MismatchAt>
__device__ bool mark_failing(const Chunking& size, const void* before, const void* behind,
                             unsigned char* failing, unsigned round, double tolerance,
                             const MismatchAt& mismatch) {
  const Int row = S * size.channels, count = size.batch * size.chunks * row - row;
  const Int threads = thread_count();
  bool found = false;
  for (Int first = thread_index(); first < count; first += kPairsTogether * threads) {
    T left[kPairsTogether], right[kPairsTogether];
#pragma unroll
    for (int k = 0; k < kPairsTogether; ++k) {
      const Int i = first + k * threads;
      left[k] = i < count ? static_cast<const T*>(before)[i] : T(0);
      right[k] = i < count ? static_cast<const T*>(behind)[i + row] : T(0);
    }
#pragma unroll
    for (int k = 0; k < kPairsTogether; ++k) {
      const Int i = first + k * threads;
      if (i >= count || mismatch(i, left[k], right[k]).passes(tolerance)) continue;
      const Int chunk = i / row;
      if (chunk % size.chunks == size.chunks - 1) continue;  // two rows of the batch
      failing[chunk / size.chunks * size.channels + i % size.channels] = round;
      found = true;
    }
  }
  return found;
}

/// Makes the counters and the marks of the lane's columns zero; by the first pass over the lanes.
template <int V, bool kStarts, class Problem>
PARARNN_FN void reset_verification(const Problem& problem, const Lane& lane) {
  if (problem.size.chunks == 1 || lane.chunk > 0) return;
  const Int column = column_index(problem.size, lane);
  for (int v = 0; v < V; ++v) problem.failing[column + v] = 0;
  if (column == 0) *problem.counters = Counters{};
  if (kStarts && column == 0 && problem.sequences.offsets) *problem.wrong_offsets = 0;
}

/// Whether the thread finds that the sequences' offsets are wrong, which it marks; by a grid.
template <class Problem>
__device__ bool verify_offsets(const Problem& problem) {
  const bool wrong =
      finds_wrong_offsets(problem.sequences, problem.size, thread_index(), thread_count());
  if (wrong) *problem.wrong_offsets = 1;
  return wrong;
}

template <class T>
PARARNN_FN bool is_finite(T x) {
  return x - x == T(0);
}

/// Keeps the largest mismatch; NaN counts as the largest of all.
__device__ inline void record_mismatch(Counters* counters, double value) {
  const float magnitude = static_cast<float>(value);
  const unsigned bits = magnitude == magnitude ? __float_as_uint(magnitude) : 0x7fffffffu;
  if (bits > *const_cast<volatile unsigned*>(&counters->largest_mismatch_bits)) {
    atomicMax(&counters->largest_mismatch_bits, bits);
  }
}

}  // namespace pararnn::cuda
