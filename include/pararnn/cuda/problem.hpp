// What the GPU kernels are told: tensors as views with the caller's strides, and the arrays of the
// chunked Newton method. Plain data, passed to kernels by value; the same on host and device.
//
// A lane is one chunk of V neighbouring columns. Threads are numbered channels first, then chunks,
// then rows, so a warp reads neighbouring channels.
#pragma once

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

/// Of a cooperative grid on each multiprocessor: few, as they wait for each other.
inline constexpr int kCooperativeBlocks = 4;

/// Threads of a block that share a column's sum over the parts of the parameters' gradient: so that
/// each adds about eight.
constexpr int sum_rows(Int parts) {
  int rows = 1;
  while (rows < kThreadsPerBlock && 8 * rows < parts) rows *= 2;
  return rows;
}

/// Most Newton corrections before the columns that still fail are walked in order.
inline constexpr int kMaxNewtonIterations = 4;

/// A tensor of (batch, step, component, channel), strides in elements; channel d is at
/// (d / head_width) head_stride + d % head_width. One head is as wide as its stride.
struct View {
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
/// arithmetic's type.
struct ForwardProblem {
  Chunking size;
  View u, y;
  const void* w;           // (P,D)
  const void* h0;          // (B,S,D); null for zeros
  void* hT;                // (B,S,D)
  void* checkpoints;       // null if nobody will go backward
  void* start;             // b_p
  void* end;               // F_p(b_p)
  void* jacobian;          // M_p
  unsigned char* failing;  // (B,D): the last verification that the column failed
  Counters* counters;
  double tolerance;
  bool have_jacobians;  // of some earlier pass, when the correction begins
};

/// From given adjoints at the chunks' ends, from a burn-in beyond them, or only the affine maps.
enum class BackwardMode { kGiven, kBurnIn, kMap };

struct BackwardProblem {
  Chunking size;
  View u, dy, du;
  const void* w;
  const void* checkpoints;
  const void* dhT;   // (B,S,D)
  void* dh0;         // (B,S,D)
  void* end;         // the adjoint from which a chunk was run
  void* start;       // the adjoint at which it arrived
  void* peak;        // (B,P,D): largest |lambda| in the chunk
  void* map_matrix;  // (B,P,S,S,D): start = map_matrix end + map_offset
  void* map_offset;  // (B,P,S,D)
  void* dw_parts;    // (B,P,P_w,D)
  void* dw;          // (P_w,D): their sum
  unsigned char* failing;
  Counters* counters;
  double tolerance;
};

}  // namespace pararnn::cuda
