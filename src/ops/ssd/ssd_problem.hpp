// What the kernels of ssd_kernel.hpp take. Layouts and names are those of ssd_parts.hpp.
#pragma once

#include "pararnn/core/platform.hpp"

namespace pararnn::ops {

/// A factor of each step: of what it adds to the state by the chunk's end, dt_j times the decay
/// until there; or the decay from the chunk's start.
enum class SsdScale { kToEnd, kFromStart };

/// Threads of a block, for which nothing else is said.
inline constexpr int kSsdThreads = 128;
inline constexpr int kSsdWarps = kSsdThreads / 32;
/// Steps of a thread that has a pack of channels; they divide every chunk.
inline constexpr int kSsdSteps = 16;

struct SsdExtent {
  long long batch, steps, chunks;
  int heads, groups, chunk, channels, state;

  PARARNN_FN int heads_of_group() const { return heads / groups; }
  /// Matrices of one head in one chunk.
  PARARNN_FN long long matrices() const { return batch * chunks * heads; }
  /// Blocks whose threads have packs of (B,T,H,P).
  PARARNN_FN int blocks_of_channels(int pack) const {
    return (heads * (channels / pack) + kSsdThreads - 1) / kSsdThreads;
  }
  PARARNN_FN long long blocks_of_packs(int pack) const {
    return batch * chunks * (chunk / kSsdSteps) * blocks_of_channels(pack);
  }
  /// Warps for the state of one head, each lane with a pack.
  PARARNN_FN int warps_of_state(int pack) const { return (channels * state / pack + 31) / 32; }
};

struct SsdDecays {
  const float *step, *log;
  const int* segment;  // or null
};

/// A tensor (B,T,H,P) whose channels are next to each other.
struct SsdSteps {
  long long batch_stride, step_stride, head_stride;
  void* data;
};

struct SsdDecaysOf {
  SsdExtent extent;
  long long batch_stride, step_stride, head_stride;  // of dt
  const float *dt, *a;
  float *step, *log;
};

struct SsdMasked {
  SsdExtent extent;
  SsdDecays decays;
  const void* scores;
  void* masked;
};

struct SsdPack {
  SsdExtent extent;
  SsdDecays decays;
  SsdScale scale;
  SsdSteps x;
  void *by_head, *scaled;  // by_head may be null
};

struct SsdCarry {
  SsdExtent extent;
  SsdDecays decays;
  const float* h0;
  void* states;
  float* hT;
};

struct SsdJoin {
  SsdExtent extent;
  SsdDecays decays;
  const void *within, *across;
  SsdSteps x, y;
  const float* d;
};

/// A block has kSsdScoresThreads threads, or fewer where a whole matrix is less: rows of packs
/// of 8.
inline constexpr int kSsdScoresThreads = 256;
constexpr int ssd_scores_threads(int chunk) {
  return chunk * chunk / 8 < kSsdScoresThreads ? chunk * chunk / 8 : kSsdScoresThreads;
}
/// Blocks for a matrix.
constexpr int ssd_scores_tiles(int chunk) { return chunk * chunk / 8 / ssd_scores_threads(chunk); }

struct SsdMaskedBackward {
  SsdExtent extent;
  SsdDecays decays;
  const void* scores;
  void *gradient, *dscores;
  bool keeps_masked;  // whether the gradient becomes the masked scores
  float *rows, *columns, *own;
};

struct SsdCarryBackward {
  SsdExtent extent;
  SsdDecays decays;
  const float* dhT;
  const void* entering;
  void* gradient;
  float *dh0, *decay;
};

struct SsdJoinBackward {
  SsdExtent extent;
  SsdDecays decays;
  const void *within, *arriving, *across;
  SsdSteps x, dy, dx;
  const float* d;
  float *of_across, *of_arriving, *own;
};

/// Heads that a block has one after the other, which share scores, b and c.
inline constexpr int kSsdOutputHeads = 4;
constexpr int ssd_output_threads(int chunk) { return 2 * chunk; }  // a warp for 16 rows
/// What the kernel has room for.
inline constexpr int kSsdOutputChannels = 64, kSsdOutputState = 128;

struct SsdOutput {
  SsdExtent extent;
  SsdDecays decays;
  const void *scores, *left, *states;  // left: c, or backward b
  SsdSteps x, y;                       // or dy and dx
  const float* d;
  // Backward alone.
  const void *c, *entering;
  SsdSteps inputs;
  float *of_across, *of_arriving, *own;
};

struct SsdDecaysBackward {
  SsdExtent extent;
  SsdDecays decays;
  const float* a;
  const float *rows, *columns, *own;  // of the scores
  int column_parts, decay_parts;      // to be added up
  const float* decay;
  const float *of_across, *of_arriving, *of_own;  // of join
  float* ddt;                                     // (B,T,H), next to each other
  float* sums;                                    // (B L, 2, H): the gradients of a and of d
};

}  // namespace pararnn::ops
