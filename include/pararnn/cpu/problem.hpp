// What the CPU kernels are told: tensors as views with the caller's strides, and the arrays of the
// chunked Newton method. Shared by kernels of all instruction sets and by the drivers above them.
//
// A lane is one chunk of one column: lane (b, p, d) = (b P + p) D + d for batch row b, chunk p of P
// and channel d of D. A kernel advances a group of lanes together, whichever they are.
#pragma once

#include <cstdint>

#include "pararnn/sequences.hpp"

namespace pararnn::cpu {

/// Steps from one checkpoint of the state to the next.
inline constexpr std::int64_t kCheckpointInterval = 16;

/// From this size on, a tensor that is written outgrows the caches: storing past them spares the
/// read of each line before it is written.
inline constexpr std::int64_t kStreamedBytes = std::int64_t(8) << 20;

/// How numbers are kept in a caller's tensor.
enum class Storage : std::uint8_t { kFloat16, kBFloat16, kFloat32, kFloat64 };

/// A tensor of (batch, step, component, channel), strides in elements. Channels are neighbours
/// within a head; channel d is at (d / head_width) head_stride + d % head_width.
struct TensorView {
  void* data = nullptr;
  Storage storage = Storage::kFloat32;
  std::int64_t batch_stride = 0, step_stride = 0, component_stride = 0;
  std::int64_t head_stride = 0, head_width = 1;
  bool streamed = false;  // what is written goes past the caches

  std::int64_t offset(std::int64_t b, std::int64_t t, std::int64_t d) const {
    return b * batch_stride + t * step_stride + (d / head_width) * head_stride + d % head_width;
  }
};

/// Sizes, and the cutting of the sequence: chunk p is steps [p chunk, min((p+1) chunk, steps)).
/// chunk and burn_in are multiples of kCheckpointInterval unless there is one chunk.
struct Chunking {
  std::int64_t batch, steps, channels;
  std::int64_t chunk, chunks, burn_in;

  std::int64_t lane_count() const { return batch * chunks * channels; }
  std::int64_t lane(std::int64_t b, std::int64_t p, std::int64_t d) const {
    return (b * chunks + p) * channels + d;
  }
  std::int64_t checkpoint_count() const {
    return (steps + kCheckpointInterval - 1) / kCheckpointInterval;
  }
};

/// Boundary arrays are (B,P,S,D), Jacobians (B,P,S,S,D), checkpoints (B,ceil(T/16),S,D), block
/// starts (B,ceil(T/16)). Of N sequences in one row, h0, hT, dh0 and dhT are (N,S,D). What comes
/// from `starts` on belongs to the driver.
template <class T>
struct ForwardProblem {
  Chunking size;
  TensorView u, y;
  Sequences sequences;
  const T* w;        // (P,D)
  const T* h0;       // (B,S,D); null for zeros
  T* hT;             // (B,S,D)
  T* checkpoints;    // the state before each kCheckpointInterval-th step; null if nobody will go
                     // backward
  double tolerance;  // of a boundary's mismatch
  const BlockStarts* starts;  // null where no state starts anew
  T* start;                   // b_p: the state from which chunk p was run
  T* end;                     // F_p(b_p)
  T* jacobian;                // M_p = dF_p/db_p
};

/// How a pass runs its lanes.
enum class ForwardPass {
  kGiven,            // from `start`
  kGivenLinearized,  // and leave the Jacobians
  kBurnIn,           // find `start` by a burn-in (chunk 0: as given)
  kMap,              // find `start` by a burn-in; only end and Jacobian, no outputs
};

/// Adjoints: mu_t = dL/dh_t without the direct part from y_t. Chunk p maps mu at its last step's
/// end to mu before its first step. Arrays from `end` on belong to the driver.
template <class T>
struct BackwardProblem {
  Chunking size;
  TensorView u, dy, du;
  Sequences sequences;
  const T* w;
  const T* h0;  // needed where a state starts anew from it
  const T* checkpoints;
  const T* dhT;      // (B,S,D)
  T* dh0;            // (B,S,D)
  T* dw;             // (P_w,D): the sum of the parts over rows and chunks
  double tolerance;  // of a boundary's mismatch
  const BlockStarts* starts;
  T* end;    // (B,P,S,D): the adjoint from which chunk p was run
  T* start;  // (B,P,S,D): the adjoint at which it arrived
  T* peak;   // (B,P,D): largest |lambda| in the chunk, of the sequence that goes on at its end:
             // the scale of its tolerance
  T* map_matrix;  // (B,P,S,S,D): start = map_matrix end + map_offset
  T* map_offset;  // (B,P,S,D)
  T* dw_parts;    // (B,P,P_w,D): the chunk's part of the parameters' gradient
};

/// How a pass runs its lanes.
enum class BackwardPass {
  kGiven,   // from `end`
  kBurnIn,  // find `end` by a burn-in beyond the chunk (last chunk: dhT)
  kMap,     // only the affine map, no gradients
};

/// Groups of lanes that one call of a kernel takes at most.
inline constexpr int kGroupsPerTask = 16;

/// The kernels of one cell, for one arithmetic and one instruction set. `lanes` is what a group
/// holds; `ids` names up to kGroupsPerTask * lanes of them.
template <class T>
struct Kernels {
  int state, inputs, params;
  int lanes;
  void (*forward)(const ForwardProblem<T>&, ForwardPass, const std::int64_t* ids, int count);
  void (*backward)(const BackwardProblem<T>&, BackwardPass, const std::int64_t* ids, int count);
};

}  // namespace pararnn::cpu
