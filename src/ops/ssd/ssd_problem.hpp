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

/// A block has kSsdMaskedThreads threads, or fewer where a whole matrix is less: rows of packs
/// of 8.
inline constexpr int kSsdMaskedThreads = 256;
constexpr int ssd_masked_threads(int chunk) {
  return chunk * chunk / 8 < kSsdMaskedThreads ? chunk * chunk / 8 : kSsdMaskedThreads;
}
/// Blocks for a matrix.
constexpr int ssd_masked_tiles(int chunk) { return chunk * chunk / 8 / ssd_masked_threads(chunk); }

struct SsdMaskedBackward {
  SsdExtent extent;
  SsdDecays decays;
  const void* scores;
  void *gradient, *dscores;
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
PARARNN_FN int ssd_output_slices(const SsdExtent& extent) {
  return (extent.heads_of_group() + kSsdOutputHeads - 1) / kSsdOutputHeads;
}
constexpr int ssd_output_threads(int chunk) { return 2 * chunk; }  // a warp for 16 rows
/// What a block shares: matrices of (Q,N), (Q,P) and (P,N) in bfloat16, and the decays of two
/// heads.
constexpr int ssd_output_bytes(int chunk, int channels, int state, bool backward) {
  const int of_head = chunk * channels + channels * state;
  return 2 * (chunk * state + (backward ? 2 : 1) * of_head) + 2 * 2 * 4 * chunk;
}
/// What the kernels that multiply have room for, powers of two from 32 on.
inline constexpr int kSsdMostChannels = 64, kSsdMostState = 128;

struct SsdOutput {
  SsdExtent extent;
  SsdDecays decays;
  const void *scores, *left, *states;  // left: c, or backward b
  SsdSteps x, y;                       // or dy and dx
  const float* d;
  // Backward alone.
  const void *c, *entering;
  SsdSteps inputs;
  float *of_across, *of_arriving;
};

/// Warps of a block, and blocks of a chunk's rows.
constexpr int ssd_scores_warps(int chunk) { return chunk < 64 ? chunk / 16 : 4; }
constexpr int ssd_scores_threads(int chunk) { return 32 * ssd_scores_warps(chunk); }
constexpr int ssd_scores_blocks(int chunk) { return chunk / 16 / ssd_scores_warps(chunk); }
/// What a block shares: x of two heads, and, of its rows, dy, scores and sums of columns.
constexpr int ssd_scores_bytes(int chunk, int channels) {
  const int rows = 16 * ssd_scores_warps(chunk);
  return 2 * (2 * chunk * channels + rows * channels + rows * chunk) +
         2 * 4 * chunk * (2 + ssd_scores_warps(chunk));
}

struct SsdScoresBackward {
  SsdExtent extent;
  SsdDecays decays;
  SsdSteps x, dy;
  const void* scores;
  void* dscores;
  float *rows, *columns, *own, *products;  // products: dy_i · x_i
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
