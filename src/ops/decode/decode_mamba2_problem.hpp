// What the kernels of decode_mamba2_kernel.hpp take.
#pragma once

#include "ops/decode/decode_problem.hpp"

namespace pararnn::ops {

/// silu(z), the convolution with bias and silu, dt. One group; the channels are z, then those of
/// the convolution, then the heads.
struct DecodeMamba2Input {
  DecodeTaps taps;
  const float *bias, *step_bias;  // (taps.width), (H)
  float *gate, *convolved, *steps;
  int gates, heads;  // E, H
};

/// A grid has `blocks` blocks for the channels of a row.
struct DecodeMamba2State {
  int blocks, channels, heads, groups, components;  // E, H, G, N
  const float *gate, *convolved, *steps;            // (B,E), (B,E+2GN), (B,H)
  const float *decay_log, *skip;                    // (H)
  const float* norm_weight;                         // (E)
  float* state;                                     // (B,E,N)
  void* next;                                       // bfloat16, (B,E)
  DecodeSquares squares;                            // (B,blocks)
};

}  // namespace pararnn::ops
