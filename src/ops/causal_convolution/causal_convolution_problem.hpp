// What the kernels of causal_convolution_kernel.hpp take.
#pragma once

#include "pararnn/core/platform.hpp"

namespace pararnn::ops {

/// Steps that a thread has.
inline constexpr int kPieceSteps = 64;
PARARNN_FN long long pieces_of(long long steps) { return (steps + kPieceSteps - 1) / kPieceSteps; }

/// x (B,T,d) with rows of channels `step_stride` apart; taps (K,d) of P; before (B,K-1,d).
struct ConvolutionForward {
  long long batch, steps;
  int width;
  long long x_batch_stride, x_step_stride;
  const void *x, *taps, *before;
  void* y;  // (B,T,d), next to each other
};
struct ConvolutionBackward {
  long long batch, steps;
  int width;
  long long x_batch_stride, x_step_stride, dy_batch_stride, dy_step_stride;
  const void *x, *taps, *before, *dy;
  void *dx, *dbefore;  // next to each other
  float* dtaps;        // (B pieces, K, d): what each piece of steps gives
};

}  // namespace pararnn::ops
