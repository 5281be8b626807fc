// What the kernels of causal_convolution_kernel.hpp take.
#pragma once

#include "pararnn/core/platform.hpp"

namespace pararnn::ops {

/// A warp has 32 neighbouring packs of channels of a piece of a row's steps; the warps of a block
/// have pieces one after the other of the same channels.
inline constexpr int kConvolutionWarps = 4;
inline constexpr int kConvolutionThreads = kConvolutionWarps * 32;
/// What becomes of the sums s: s, or silu(bias + s).
enum class ConvolutionEnd { kSum, kSilu };

/// Blocks that a multiprocessor has room for at once, at least.
constexpr int forward_blocks(ConvolutionEnd end) { return end == ConvolutionEnd::kSum ? 5 : 4; }
constexpr int backward_blocks(ConvolutionEnd end) { return end == ConvolutionEnd::kSum ? 3 : 4; }
/// Weights that a thread holds, at most: the taps of each channel of its pack. Behind silu the
/// backward pass has as many gradients of theirs and two windows beside them.
inline constexpr int kForwardWeights = 32;
constexpr int backward_weights(ConvolutionEnd end) { return end == ConvolutionEnd::kSum ? 32 : 16; }

/// (B,T,d), its steps in pieces.
struct ConvolutionExtent {
  long long batch, steps;
  int width;
  long long piece_steps, pieces;

  PARARNN_FN long long blocks_of_pieces() const {
    return (batch * pieces + kConvolutionWarps - 1) / kConvolutionWarps;
  }
  /// For packs of so many channels.
  PARARNN_FN int groups_of_channels(int pack) const {
    return (width + 32 * pack - 1) / (32 * pack);
  }
};

/// x (B,T,d) with rows of channels `step_stride` apart; taps (K,d) of P; before (B,K-1,d); reset
/// (B,T) of bytes, or null.
struct ConvolutionForward {
  ConvolutionExtent extent;
  long long x_batch_stride, x_step_stride;
  const void *x, *taps, *before;
  const unsigned char* reset;
  void* y;                     // (B,T,d), next to each other
  const void* bias = nullptr;  // (d) of P
};
struct ConvolutionBackward {
  ConvolutionExtent extent;
  long long x_batch_stride, x_step_stride, dy_batch_stride, dy_step_stride;
  const void *x, *taps, *before, *dy;
  const unsigned char* reset;
  long long dx_batch_stride, dx_step_stride;
  void *dx, *dbefore;  // dbefore next to each other
  // (blocks of pieces, K, d): what the pieces of each give to dtaps; with a bias K+1, dbias behind.
  float* sums;
  const void* bias = nullptr;  // (d) of P
};

}  // namespace pararnn::ops
