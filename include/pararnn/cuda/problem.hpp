// What the GPU kernels are told: tensors as views with the caller's strides, and the arrays of the
// chunked Newton method. Plain data, passed to kernels by value; the same on host and device.
//
// A lane is one chunk of V neighbouring columns. Threads are numbered channels first, then chunks,
// then rows, so a warp reads neighbouring channels.
#pragma once

#include "pararnn/method.hpp"
#include "pararnn/sequences.hpp"

namespace pararnn::cuda {

using Int = long long;

/// Steps from one checkpoint of the state to the next: as many Jacobians as the backward pass keeps
/// in registers.
inline constexpr int kCheckpointInterval = 8;

/// Of every kernel. Small, so that the blocks of a few columns spread evenly over the
/// multiprocessors.
inline constexpr int kThreadsPerBlock = 64;

/// Threads of a warp, which share a column's scan over chunks.
inline constexpr int kWarp = 32;

/// Warps on each multiprocessor for which the kernels whose warps share the steps of columns leave
/// registers: the Jacobians of more states take more of them.
constexpr int section_warps(int states) { return states == 1 ? 12 : 8; }

/// Of a cooperative grid on each multiprocessor: few, as they wait for each other.
inline constexpr int kCooperativeBlocks = 4;

/// Threads of a block that share a column's sum over the parts of the parameters' gradient: so that
/// each adds about eight.
constexpr int sum_rows(Int parts) {
  int rows = 1;
  while (rows < kThreadsPerBlock && 8 * rows < parts) rows *= 2;
  return rows;
}

/// A tensor of (batch, step, component, channel), strides in elements; channel d is at
/// (d / head_width) head_stride + d % head_width. One head is as wide as its stride.
struct TensorView {
  void* data;
  Int batch_stride, step_stride, component_stride, head_stride, head_width;
};

/// Sizes, and the cutting of the sequence: chunk p is steps [p chunk, min((p+1) chunk, steps)).
/// chunk and burn_in are multiples of kCheckpointInterval unless there is one chunk.
struct Chunking {
  Int batch, steps, channels;
  Int chunk, chunks, burn_in;
};

/// Most barriers that a cooperative grid comes to: three a correction, and one before.
inline constexpr int kMostBarriers = 3 * kMaxNewtonIterations + 1;

/// What a pass found, in device memory.
struct Counters {
  unsigned largest_mismatch_bits;  // of a float; those of positive floats order as the floats do
  unsigned newton_iterations;
  unsigned columns_corrected, columns_repaired;
  unsigned arrived[kMostBarriers];  // blocks at each barrier of the grid
};

/// Boundary arrays are (B,P,S,D), Jacobians (B,P,S,S,D), checkpoints (B,ceil(T/8),S,D), all in the
/// arithmetic's type. Of N sequences in one row, h0, hT, dh0 and dhT are (N,S,D). The workspace is
/// from `start` to `counters`; `have_jacobians` is the driver's.
struct ForwardProblem {
  Chunking size;
  TensorView u, y;
  Sequences sequences;
  const void* w;                     // (P,D)
  const void* h0;                    // (B,S,D); null for zeros
  void* hT;                          // (B,S,D)
  void* checkpoints;                 // null if nobody will go backward
  void* start = nullptr;             // b_p: the state from which chunk p was run
  void* end = nullptr;               // F_p(b_p)
  void* jacobian = nullptr;          // M_p = dF_p/db_p
  unsigned char* failing = nullptr;  // (B,D): the last verification that the column failed
  // Whether the sequences' offsets are, found by the correction; then all results are NaN.
  unsigned* wrong_offsets = nullptr;
  Counters* counters = nullptr;
  double tolerance;             // of a boundary's mismatch
  bool have_jacobians = false;  // of some earlier pass, when the correction begins
};

/// How a pass runs its lanes.
enum class ForwardPass {
  kGiven,   // from `start`
  kBurnIn,  // find `start` by a burn-in (chunk 0: as given)
  kMap,     // find `start` by a burn-in; only end and Jacobian, no outputs
};

/// The workspace is from `end` to `dw_parts`, and from `failing` to `counters`.
struct BackwardProblem {
  Chunking size;
  TensorView u, dy, du;
  Sequences sequences;
  const void* w;
  const void* h0 = nullptr;  // needed where a state starts anew from it
  const void* checkpoints;
  const void* dhT;        // (B,S,D)
  void* dh0;              // (B,S,D)
  void* end = nullptr;    // the adjoint from which a chunk was run
  void* start = nullptr;  // the adjoint at which it arrived
  void* peak = nullptr;   // (B,P,D): largest |lambda| in the chunk, of the sequence that goes on
                          // at its end: the scale of its tolerance
  void* map_matrix = nullptr;  // (B,P,S,S,D): start = map_matrix end + map_offset
  void* map_offset = nullptr;  // (B,P,S,D)
  void* dw_parts = nullptr;    // (B,P,P_w,D): the chunk's part of the parameters' gradient
  void* dw;                    // (P_w,D): their sum over rows and chunks
  unsigned char* failing = nullptr;
  unsigned* wrong_offsets = nullptr;
  Counters* counters = nullptr;
  double tolerance;
};

/// How a pass runs its lanes.
enum class BackwardPass {
  kGiven,   // from `end`
  kBurnIn,  // find `end` by a burn-in beyond the chunk (last chunk: dhT)
  kMap,     // only the affine map, no gradients
};

}  // namespace pararnn::cuda
